"""Every kind of sparse autoencoder against autograd of its plain dense formula, in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hourglass.bottlenecks.sparse import SparseAutoencoder, SparseCodes, reconstruction, stages

ROWS, D, WIDTH = 70, 12, 40
BANDWIDTH = 0.6

KINDS: dict[str, dict[str, Any]] = {
    "topk": {"k": 5},
    "batchtopk": {"k": 5},
    "abstopk": {"k": 5},
    "matryoshka": {"k": 5, "prefixes": [0.1, 0.5, 1]},
    "relu": {"sparsity": 0.7},
    "jumprelu": {"sparsity": 0.7, "bandwidth": BANDWIDTH},
    "jumprelu tanh": {"sparsity": 0.7, "bandwidth": BANDWIDTH, "penalty": "tanh", "steepness": 1.5},
    "gated": {"sparsity": 0.7},
}


class Step(torch.autograd.Function):
    """H(z - theta), whose derivative by theta is that of a rectangle around it."""

    @staticmethod
    def forward(ctx, z, theta):
        ctx.save_for_backward(z, theta)
        return (z > theta).to(z.dtype)

    @staticmethod
    def backward(ctx, upstream):
        z, theta = ctx.saved_tensors
        window = (((z - theta) / BANDWIDTH).abs() < 0.5) / BANDWIDTH
        return None, (-window * upstream).sum(0)


class Jump(torch.autograd.Function):
    """z H(z - theta), with the paper's derivatives."""

    @staticmethod
    def forward(ctx, z, theta):
        ctx.save_for_backward(z, theta)
        return z * (z > theta)

    @staticmethod
    def backward(ctx, upstream):
        z, theta = ctx.saved_tensors
        window = (((z - theta) / BANDWIDTH).abs() < 0.5) / BANDWIDTH
        return upstream * (z > theta), (-theta * window * upstream).sum(0)


def mean_square(codes: Tensor, decoder: Tensor, bias: Tensor, target: Tensor) -> Tensor:
    return (codes @ decoder + bias - target).square().mean()


def dense_loss(
    kind: str, x: Tensor, p: dict[str, Tensor], centre: Tensor | float, target: Tensor
) -> tuple[Tensor, Tensor]:
    """The formula of the kind's paper on dense tensors: (loss, codes) of x less `centre` towards `target`."""
    bias, decoder = p["b_dec"], p["W_dec"]
    z = (x - centre) @ p["encoder.weight"].T + p["encoder.bias"]
    price = 0.7 / target.shape[1]
    if kind == "topk":
        f = torch.zeros_like(z).scatter(1, z.topk(5).indices, z.topk(5).values.relu())
    elif kind == "abstopk":
        chosen = z.abs().topk(5).indices
        f = torch.zeros_like(z).scatter(1, chosen, z.gather(1, chosen))
    elif kind in ("batchtopk", "matryoshka"):
        f = torch.where(z >= z.flatten().topk(5 * len(z)).values.min(), z, 0).relu()
        if kind == "matryoshka":
            nested = [mean_square(f[:, :m], decoder[:m], bias, target) for m in (4, 20, 40)]
            return torch.stack(nested).mean(), f
    elif kind == "relu":
        f = z.relu()
        return mean_square(f, decoder, bias, target) + price * f.sum(1).mean(), f
    elif kind.startswith("jumprelu"):
        theta = p["activation.log_threshold"].exp()
        f = Jump.apply(z, theta)
        cost = torch.tanh(1.5 * f) if "tanh" in kind else Step.apply(z, theta)
        return mean_square(f, decoder, bias, target) + price * cost.sum(1).mean(), f
    elif kind == "gated":
        magnitude = (z - p["encoder.bias"]) * p["activation.r_mag"].exp() + p["activation.b_mag"]
        f = (z > 0) * magnitude.relu()
        through_gate = mean_square(z.relu(), decoder.detach(), bias.detach(), target.detach())
        return mean_square(f, decoder, bias, target) + price * z.relu().sum(1).mean() + through_gate, f
    return mean_square(f, decoder, bias, target), f


def model_of(kind: str, centre: bool = True, seed: int = 0, **changes: Any) -> SparseAutoencoder:
    torch.manual_seed(seed)
    return randomised(SparseAutoencoder, kind, apply_b_dec_to_input=centre, **changes)


def randomised(cls: Any, kind: str, **changes: Any) -> Any:
    """A model in float64 whose parameters are random, but for decoder rows of their norm."""
    config = {"d_in": D, "width": WIDTH, "activation": kind.split()[0], "aux_k": 0}
    if "sparsity" in KINDS[kind]:
        config["sparsity_warmup"] = 0
    model = cls(cls.Config.from_dict(config | KINDS[kind] | changes)).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "W_dec":
                parameter.normal_()
        if kind == "gated":  # gates that are open where the magnitude is not, and the reverse
            model.activation.r_mag.mul_(0.3)
    return model.train()


@pytest.fixture(params=["pairs", "products"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both implementations on this machine: the compiled loops, and the products of other devices."""
    if request.param == "products":
        monkeypatch.setattr(reconstruction, "_errors_by_pairs", reconstruction._errors_by_products)
        monkeypatch.setattr(reconstruction, "_gradients_by_pairs", reconstruction._gradients_by_products)
        monkeypatch.setattr(stages, "_dots_by_pairs", stages._dots_by_products)
        monkeypatch.setattr(stages, "sums_by_pairs", stages._sums_by_products)
    return request.param


def compare(kind: str, centre: bool, seed: int) -> None:
    model = model_of(kind, centre, seed)
    x = torch.randn(ROWS, D, dtype=torch.float64)
    ours = sum(model.loss({"x": x}).values())
    ours.backward()

    p = {name: parameter.detach().clone().requires_grad_() for name, parameter in model.named_parameters()}
    theirs, codes = dense_loss(kind, x, p, p["b_dec"] if centre else 0, x)
    theirs.backward()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-9)
    unit = p["W_dec"].detach()
    p["W_dec"].grad -= (p["W_dec"].grad * unit).sum(1, keepdim=True) * unit
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, p[name].grad, rtol=1e-6, atol=1e-12, msg=name)
        assert bool((parameter.grad != 0).any()), name
    if kind not in ("batchtopk", "matryoshka"):  # for use they have a threshold instead of the batch
        torch.testing.assert_close(model.codes(x).to_dense(), codes.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("centre", [True, False], ids=["centred", "as it is"])
def test_gradients_and_codes_equal_the_dense_formula(way: str, kind: str, centre: bool) -> None:
    compare(kind, centre, 0)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.booleans(), st.integers(1, 10_000))
def test_gradients_equal_the_dense_formula_whatever_the_weights(kind: str, centre: bool, seed: int) -> None:
    compare(kind, centre, seed)


@pytest.mark.parametrize("tangent", [True, False])
def test_the_two_stages_are_the_fused_pass(way: str, tangent: bool) -> None:
    g = torch.Generator().manual_seed(0)
    shapes = {"x": (ROWS, D), "centre": (D,), "encoder": (WIDTH, D), "encoder_bias": (WIDTH,), "decoder": (WIDTH, D)}
    shapes |= {"bias": (D,), "target": (ROWS, D)}
    values = {name: torch.randn(shape, generator=g, dtype=torch.float64) for name, shape in shapes.items()}
    values["decoder"] /= values["decoder"].norm(dim=1, keepdim=True)
    a, b = ({name: t.clone().requires_grad_() for name, t in values.items()} for _ in range(2))
    pre = (values["x"] - values["centre"]) @ values["encoder"].T + values["encoder_bias"]
    codes = SparseCodes.from_dense(torch.where(pre > 2, pre, 0))

    z = stages.pre_activations(a["x"], a["centre"], a["encoder"], a["encoder_bias"], codes)
    loss, error = stages.reconstruction(z, a["decoder"], a["bias"], a["target"], codes, tangent=tangent)
    fused, expected = reconstruction.squared_error(
        b["x"],
        b["centre"],
        b["target"],
        codes,
        b["encoder"],
        b["encoder_bias"],
        b["decoder"],
        b["bias"],
        tangent=tangent,
    )
    torch.testing.assert_close((loss, error), (fused, expected), rtol=1e-12, atol=1e-12)
    (3 * loss).backward()
    (3 * fused).backward()
    for name in shapes:
        torch.testing.assert_close(a[name].grad, b[name].grad, rtol=1e-9, atol=1e-14, msg=name)


def test_a_matryoshka_of_one_prefix_is_batchtopk() -> None:
    x = torch.randn(ROWS, D, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    doll, plain = model_of("matryoshka", prefixes=[1.0]), model_of("batchtopk")
    for model in (doll, plain):
        sum(model.loss({"x": x}).values()).backward()
        model.after_step(1)
    for (name, ours), theirs in zip(doll.named_parameters(), plain.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-14, msg=name)
    assert doll.activation.threshold == plain.activation.threshold
    assert torch.equal(doll.codes(x).to_dense(), plain.codes(x).to_dense())


@pytest.mark.parametrize("kind", ["abstopk", "relu", "jumprelu", "gated", "matryoshka"])
def test_dead_latents_reconstruct_what_is_left(kind: str) -> None:
    model = model_of(kind, aux_k=4, dead_after=100)
    model.since_fired[:12] = 1000
    x = torch.randn(ROWS, D, dtype=torch.float64)
    losses = model.loss({"x": x})
    p = {name: parameter.detach() for name, parameter in model.named_parameters()}
    _, codes = dense_loss(kind, x, p, p["b_dec"], x)
    left = x - codes @ p["W_dec"] - p["b_dec"]
    z = (x - p["b_dec"]) @ p["encoder.weight"][:12].T + p["encoder.bias"][:12]
    chosen = (z.abs() if kind == "abstopk" else z).topk(4).indices
    values = z.gather(1, chosen) if kind == "abstopk" else z.gather(1, chosen).relu()
    decoded = torch.zeros_like(z).scatter(1, chosen, values) @ p["W_dec"][:12]
    assert losses["aux"].item() == pytest.approx(model.config.aux_weight * (decoded - left).square().mean().item())


@pytest.mark.parametrize("kind", ["relu", "jumprelu"])
def test_all_thresholds_are_led_to_the_target_after_the_warm_up(kind: str) -> None:
    model = model_of(kind, sparsity_warmup=1, target_l0=2)
    moves = model.b_enc if kind == "relu" else model.activation.log_threshold
    x = torch.randn(ROWS, D, dtype=torch.float64)
    codes = model.codes(x).to_dense()
    share = 0.1 * min(1.0, math.log(codes.count_nonzero() / ROWS / 2))
    before = moves.detach().clone()
    model.loss({"x": x})
    model.after_step(1)
    assert torch.equal(moves, before)
    model.loss({"x": x})
    model.after_step(2)
    by = -share * model.scale * codes.sum() / codes.count_nonzero() if kind == "relu" else torch.tensor(share)
    torch.testing.assert_close(moves.detach() - before, by.double().expand_as(moves), rtol=1e-5, atol=0)


def test_the_price_rises_and_is_led_to_the_target() -> None:
    model = model_of("gated", sparsity=0.7, sparsity_warmup=3, target_l0=2)
    x = torch.randn(ROWS, D, dtype=torch.float64)
    prices = []
    for step in range(1, 7):
        prices.append(model.loss({"x": x})["sparsity"].item())
        model.after_step(step)
    ratio = min(1.0, math.log(model.codes(x).to_dense().count_nonzero() / ROWS / 2))
    led = [math.exp(0.02 * ratio * steps + ratio * (1 - 0.9**steps)) for steps in (1, 2)]
    assert [price / prices[3] for price in prices] == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1, *led], rel=1e-6)


@pytest.mark.parametrize("kind", ["matryoshka", "relu", "jumprelu", "gated"])
def test_the_same_input_gives_the_same_bits_on_several_threads(kind: str) -> None:
    model = model_of(kind).float()
    x = torch.randn(4000, D, generator=torch.Generator().manual_seed(0))

    def run() -> list[Tensor]:
        model.zero_grad()
        sum(model.loss({"x": x}).values()).backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        expected = run()
        for _ in range(5):
            assert all(torch.equal(a, b) for a, b in zip(run(), expected))
    finally:
        torch.set_num_threads(before)
