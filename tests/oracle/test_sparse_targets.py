"""Transcoder and crosscoder against autograd of their plain dense formulas, in float64, for every kind of activation."""

from __future__ import annotations

import pytest
import torch
from test_sparse_variants import KINDS, ROWS, WIDTH, D, dense_loss, randomised, way  # noqa: F401  (a fixture)
from torch import Tensor

from hourglass.bottlenecks.sparse import SparseCodes, reconstruction
from hourglass.bottlenecks.sparse.crosscoder import Crosscoder
from hourglass.bottlenecks.sparse.transcoder import Transcoder

PARTS = (5, 4, 3)


def parameters(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}


def same(model: torch.nn.Module, p: dict[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, p[name].grad, rtol=1e-6, atol=1e-12, msg=name)
        assert bool((parameter.grad != 0).any()), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d_out", [D, 9])
@pytest.mark.parametrize("skip", [True, False])
def test_a_transcoder_equals_the_dense_formula(way: str, kind: str, d_out: int, skip: bool) -> None:  # noqa: F811
    torch.manual_seed(0)
    model = randomised(Transcoder, kind, d_out=d_out, skip=skip)
    model.centre.normal_()
    model.scale.fill_(1.3)
    model.target_scale.fill_(0.7)
    x, y = torch.randn(ROWS, D, dtype=torch.float64), torch.randn(ROWS, d_out, dtype=torch.float64)
    ours = sum(model.loss({"x": x, "target": y}).values())
    ours.backward()

    p = parameters(model)
    around = (1.3 * x - model.centre) @ p["W_skip"].T if skip else 0
    theirs, codes = dense_loss(kind, 1.3 * x, p, model.centre, 0.7 * y - around)
    theirs.backward()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-9)
    unit = p["W_dec"].detach()
    p["W_dec"].grad -= (p["W_dec"].grad * unit).sum(1, keepdim=True) * unit
    same(model, p)
    if kind not in ("batchtopk", "matryoshka"):  # for use they have a threshold instead of the batch
        found = model.codes(x)
        torch.testing.assert_close(found.to_dense() * 0.7, codes.detach(), rtol=1e-9, atol=1e-12)
        expected = (codes @ p["W_dec"] + p["b_dec"] + around).detach() / 0.7
        torch.testing.assert_close(model.decode(found) + model.skipped(x), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_crosscoder_equals_the_dense_formula(way: str, kind: str) -> None:  # noqa: F811
    torch.manual_seed(0)
    model = randomised(Crosscoder, kind, parts=PARTS)
    with torch.no_grad():
        model.scale.copy_(torch.cat([torch.full((part,), 0.5 + i) for i, part in enumerate(PARTS)]))
        model.W_dec.mul_(1.7)  # away from the sum of norms that a step leaves
    x = torch.randn(ROWS, D, dtype=torch.float64)
    ours = sum(model.loss({"x": x}).values())
    ours.backward()

    p = parameters(model)
    sums = sum(part.norm(dim=1, keepdim=True) for part in p["W_dec"].split(PARTS, 1))
    decoder = 3**0.5 * p["W_dec"] / sums
    theirs, codes = dense_loss(kind, x * model.scale, p | {"W_dec": decoder}, p["b_dec"], x * model.scale)
    theirs.backward()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-9)
    same(model, p)
    with torch.no_grad():
        model.after_step(1)
    torch.testing.assert_close(model.W_dec.detach(), decoder.detach())
    assert torch.allclose(model.relative_norms.sum(1), torch.ones((), dtype=torch.float64))
    if kind not in ("batchtopk", "matryoshka"):
        found = model.codes(x)
        torch.testing.assert_close(found.to_dense(), codes.detach(), rtol=1e-9, atol=1e-12)
        expected = (codes @ decoder + p["b_dec"]).detach() / model.scale
        torch.testing.assert_close(model.decode(found), expected, rtol=1e-9, atol=1e-12)


def test_the_size_of_a_latent_does_not_matter_to_price_and_choice() -> None:
    """f_j sum_l |W_dec_j^l| of Lindsey et al. and Minder et al. for free norms is sqrt(P) f_j for ours."""
    torch.manual_seed(0)
    model = randomised(Crosscoder, "relu", parts=PARTS)
    with torch.no_grad():
        model.after_step(1)
    x = torch.randn(ROWS, D, dtype=torch.float64)
    f = model.codes(x).to_dense()
    size = torch.rand(WIDTH, dtype=torch.float64) + 0.5  # theirs has any
    free, norms = f * size, torch.stack([w.norm(dim=1) for w in (model.W_dec / size[:, None]).split(PARTS, 1)], 1)
    torch.testing.assert_close(free * norms.sum(1), 3**0.5 * f)


@pytest.mark.parametrize("kind", ["topk", "gated"])
@pytest.mark.parametrize("skip", [True, False])
def test_dead_latents_of_a_transcoder_reconstruct_what_is_left_of_the_target(kind: str, skip: bool) -> None:
    torch.manual_seed(0)
    model = randomised(Transcoder, kind, d_out=9, skip=skip, aux_k=4, dead_after=100)
    model.since_fired[:12] = 1000
    x, y = torch.randn(ROWS, D, dtype=torch.float64), torch.randn(ROWS, 9, dtype=torch.float64)
    losses = model.loss({"x": x, "target": y})
    p = {name: parameter.detach() for name, parameter in model.named_parameters()}
    around = x @ p["W_skip"].T if skip else 0
    _, codes = dense_loss(kind, x, p, 0, y - around)
    left = y - around - codes @ p["W_dec"] - p["b_dec"]
    z = x @ p["encoder.weight"][:12].T + p["encoder.bias"][:12]
    chosen = z.topk(4)
    decoded = torch.zeros_like(z).scatter(1, chosen.indices, chosen.values.relu()) @ p["W_dec"][:12]
    assert losses["aux"].item() == pytest.approx(model.config.aux_weight * (decoded - left).square().mean().item())


@pytest.mark.parametrize("tangent", [True, False])
def test_the_fused_pass_with_a_target_of_another_width(way: str, tangent: bool) -> None:  # noqa: F811
    g = torch.Generator().manual_seed(0)
    shapes = {"x": (ROWS, D), "centre": (D,), "target": (ROWS, 7), "encoder": (WIDTH, D), "encoder_bias": (WIDTH,)}
    shapes |= {"decoder": (WIDTH, 7), "bias": (7,)}
    values = {name: torch.randn(shape, generator=g, dtype=torch.float64) for name, shape in shapes.items()}
    values["decoder"] /= values["decoder"].norm(dim=1, keepdim=True)
    a, b = ({name: t.clone().requires_grad_() for name, t in values.items()} for _ in range(2))
    pre = (b["x"] - b["centre"]) @ b["encoder"].T + b["encoder_bias"]
    codes = SparseCodes.from_dense(torch.where(pre > 2, pre, 0).detach())
    order = [a[name] for name in ("encoder", "encoder_bias", "decoder", "bias")]
    loss, _ = reconstruction.squared_error(a["x"], a["centre"], a["target"], codes, *order, tangent=tangent)
    expected = (torch.where(pre > 2, pre, 0) @ b["decoder"] + b["bias"] - b["target"]).square().mean()
    (3 * loss).backward()
    (3 * expected).backward()
    if tangent:
        unit = b["decoder"].detach()
        b["decoder"].grad -= (b["decoder"].grad * unit).sum(1, keepdim=True) * unit
    for name in shapes:
        torch.testing.assert_close(a[name].grad, b[name].grad, rtol=1e-6, atol=1e-12, msg=name)
