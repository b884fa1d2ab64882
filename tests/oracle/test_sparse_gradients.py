"""The closed-form gradients of the sparse autoencoder against autograd of the plain dense formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hourglass.bottlenecks.sparse import SparseAutoencoder, SparseAutoencoderConfig, SparseCodes
from hourglass.bottlenecks.sparse import reconstruction as pairs_or_products
from hourglass.bottlenecks.sparse.reconstruction import squared_error
from hourglass.bottlenecks.sparse.selection import largest_of_batch, largest_per_row

ROWS, D, WIDTH, K = 70, 12, 40, 5
NAMES = ("x", "centre", "target", "encoder", "encoder_bias", "decoder", "bias")


def problem(dtype: torch.dtype = torch.float64, seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    shapes = [(ROWS, D), (D,), (ROWS, D), (WIDTH, D), (WIDTH,), (WIDTH, D), (D,)]
    tensors = {n: torch.randn(s, generator=g, dtype=torch.float64).to(dtype) for n, s in zip(NAMES, shapes)}
    tensors["decoder"] /= tensors["decoder"].norm(dim=1, keepdim=True)
    return {name: tensor.requires_grad_() for name, tensor in tensors.items()}


def dense_loss(p: dict[str, Tensor], mask: Tensor, with_bias: bool = True) -> Tensor:
    pre = (p["x"] - p["centre"]) @ p["encoder"].T + p["encoder_bias"]
    decoded = torch.where(mask, pre, 0) @ p["decoder"] + (p["bias"] if with_bias else 0)
    return (decoded - p["target"]).square().mean()


def select(p: dict[str, Tensor], kind: str) -> SparseCodes:
    pre = ((p["x"] - p["centre"]) @ p["encoder"].T + p["encoder_bias"]).detach()
    return largest_per_row(pre, K) if kind == "topk" else largest_of_batch(pre, K * ROWS)


def own_loss(p: dict[str, Tensor], codes: SparseCodes, with_bias: bool = True, tangent: bool = False) -> Tensor:
    loss, _ = squared_error(
        p["x"], p["centre"], p["target"], codes, p["encoder"], p["encoder_bias"], p["decoder"],
        p["bias"] if with_bias else None, tangent=tangent,
    )  # fmt: skip
    return loss


@pytest.fixture(params=["pairs", "products"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both implementations on this machine: the compiled loops, and the products of other devices."""
    if request.param == "products":
        monkeypatch.setattr(pairs_or_products, "_errors_by_pairs", pairs_or_products._errors_by_products)
        monkeypatch.setattr(pairs_or_products, "_gradients_by_pairs", pairs_or_products._gradients_by_products)
    return request.param


@pytest.mark.parametrize("kind", ["topk", "batchtopk"])
@pytest.mark.parametrize("with_bias", [True, False])
def test_gradients_equal_autograd_of_the_dense_formula(way: str, kind: str, with_bias: bool) -> None:
    ours, theirs = problem(), problem()
    codes = select(ours, kind)
    loss = own_loss(ours, codes, with_bias)
    expected = dense_loss(theirs, codes.to_dense() > 0, with_bias)
    (3 * loss).backward()
    (3 * expected).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for name in NAMES:
        if name == "bias" and not with_bias:
            continue
        torch.testing.assert_close(ours[name].grad, theirs[name].grad, rtol=1e-6, atol=1e-12, msg=name)


def test_tangent_gradient_is_the_gradient_without_its_radial_part(way: str) -> None:
    ours, theirs = problem(), problem()
    codes = select(ours, "topk")
    own_loss(ours, codes, tangent=True).backward()
    own_loss(theirs, codes).backward()
    decoder, radial = theirs["decoder"].detach(), theirs["decoder"].grad
    expected = radial - (radial * decoder).sum(1, keepdim=True) * decoder
    torch.testing.assert_close(ours["decoder"].grad, expected, rtol=1e-9, atol=1e-14)


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    p = problem()
    for name in ("encoder", "encoder_bias", "decoder", "bias", "centre"):
        p[name].requires_grad_(False)
    own_loss(p, select(p, "topk")).backward()
    assert p["x"].grad is not None and p["encoder"].grad is None


@pytest.mark.parametrize("kind", ["topk", "batchtopk"])
@pytest.mark.parametrize("dead", [0, 12])
def test_the_whole_model_with_dead_latents(kind: str, dead: int) -> None:
    torch.manual_seed(1)
    config = SparseAutoencoderConfig(d_in=D, width=WIDTH, k=K, activation=kind, aux_k=4, dead_after=100)  # type: ignore[arg-type]
    model = SparseAutoencoder(config).double()
    with torch.no_grad():
        model.b_dec.normal_()
        model.encoder.bias.normal_()
    model.since_fired[:dead] = 1000
    x = torch.randn(ROWS, D, dtype=torch.float64)
    sum(model.loss({"x": x}).values()).backward()

    encoder, bias, decoder, centre = (
        t.detach().clone().requires_grad_() for t in (model.encoder.weight, model.b_enc, model.W_dec, model.b_dec)
    )
    pre = (x - centre) @ encoder.T + bias
    chosen = (largest_per_row if kind == "topk" else largest_of_batch)(
        pre.detach(), K * (1 if kind == "topk" else ROWS)
    )
    decoded = torch.where(chosen.to_dense() > 0, pre, 0) @ decoder + centre
    loss = (decoded - x).square().mean()
    if dead:
        values, indices = pre[:, :dead].relu().topk(4, dim=1)
        left = (x - decoded).detach()
        loss = (
            loss
            + config.aux_weight * (torch.einsum("nk,nkd->nd", values, decoder[:dead][indices]) - left).square().mean()
        )
    loss.backward()
    flat = decoder.grad - (decoder.grad * decoder.detach()).sum(1, keepdim=True) * decoder.detach()
    for ours, expected in [
        (model.encoder.weight.grad, encoder.grad),
        (model.b_enc.grad, bias.grad),
        (model.W_dec.grad, flat),
        (model.b_dec.grad, centre.grad),
    ]:
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-10)


def test_bfloat16_products_stay_close_to_float32() -> None:
    torch.manual_seed(0)
    x = torch.randn(256, 64)
    gradients = {}
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(1)
        model = SparseAutoencoder(SparseAutoencoderConfig(d_in=64, width=512, k=8, precision=precision))  # type: ignore[arg-type]
        losses = model.loss({"x": x})
        losses["reconstruction"].backward()
        gradients[precision] = losses["reconstruction"].item(), model.W_dec.grad.flatten()
    assert gradients["bfloat16"][0] == pytest.approx(gradients["float32"][0], rel=5e-3)
    assert torch.cosine_similarity(gradients["bfloat16"][1], gradients["float32"][1], dim=0) > 0.98


@pytest.mark.parametrize("threads", [1, 3])
def test_the_same_input_gives_the_same_bits_on_any_number_of_threads(threads: int) -> None:
    # The codes are chosen beforehand: a matrix product of torch rounds differently on another number of threads.
    codes = select(problem(torch.float32), "topk")

    def run() -> list[Tensor]:
        p = problem(torch.float32)
        own_loss(p, codes).backward()
        return [p[name].grad for name in NAMES]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = run()
        torch.set_num_threads(threads)
        for _ in range(3):
            assert all(torch.equal(a, b) for a, b in zip(run(), expected))
    finally:
        torch.set_num_threads(before)
