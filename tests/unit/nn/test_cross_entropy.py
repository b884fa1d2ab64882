"""Loss and gradients against torch's own, in chunks and whole."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from hourglass.nn import cross_entropy
from hourglass.nn.cross_entropy import focal, linear_cross_entropy


def made(bias=True):
    torch.manual_seed(0)
    rows, weight = torch.randn(37, 8, dtype=torch.float64), torch.randn(50, 8, dtype=torch.float64)
    offset = torch.randn(50, dtype=torch.float64) if bias else None
    return [x.requires_grad_() if x is not None else None for x in (rows, weight, offset)], torch.randint(50, (37,))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("at_once", [1, 300, 2**23])
def test_as_autograd(monkeypatch, bias, at_once):
    monkeypatch.setattr(cross_entropy, "_LOGITS_AT_ONCE", at_once)
    given, targets = made(bias)
    given = [x for x in given if x is not None]
    ours = linear_cross_entropy(given[0], given[1], given[2] if bias else None, targets)
    expected = F.cross_entropy(F.linear(*given), targets, reduction="sum")
    assert torch.allclose(ours, expected, rtol=1e-10)
    for a, b in zip(torch.autograd.grad(3 * ours, given), torch.autograd.grad(3 * expected, given)):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-10)


def test_spread_targets():
    given, _ = made()
    targets, shares = torch.randint(50, (37, 4)), torch.rand(37, 4, dtype=torch.float64)
    shares[:, 3] = 0
    ours = linear_cross_entropy(*given, targets, shares)
    spread = torch.zeros(37, 50, dtype=torch.float64).scatter_add_(1, targets, shares)
    expected = -(spread * F.linear(*given).log_softmax(1)).sum()
    assert torch.allclose(ours, expected, rtol=1e-10)
    for a, b in zip(torch.autograd.grad(ours, given), torch.autograd.grad(expected, given)):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("gamma", [1.0, 2.0, 2.5])
def test_focal_as_autograd(gamma):
    given, targets = made()
    shares = torch.rand(37, 1, dtype=torch.float64)
    ours = linear_cross_entropy(*given, targets[:, None], shares, gamma)
    p = F.linear(*given).softmax(1)[torch.arange(37), targets]
    expected = (shares[:, 0] * -((1 - p) ** gamma) * torch.log(p + 1e-6)).sum()
    assert torch.allclose(ours, expected, rtol=1e-10)
    assert torch.allclose(focal(p.log(), gamma), -((1 - p) ** gamma) * torch.log(p + 1e-6))
    for a, b in zip(torch.autograd.grad(3 * ours, given), torch.autograd.grad(3 * expected, given)):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-10)


def test_in_bfloat16_under_autocast():
    given, targets = made()
    given = [x.detach().float().requires_grad_() for x in given]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = linear_cross_entropy(*given, targets)
    expected = F.cross_entropy(F.linear(*given), targets, reduction="sum")
    assert ours.dtype == torch.float32
    assert abs(float((ours / expected).detach()) - 1) < 1e-2
    slopes = torch.autograd.grad(ours, given)
    assert all(slope.dtype == torch.float32 for slope in slopes)


def test_no_gradients_where_none_are_asked_for():
    given, targets = made()
    with torch.no_grad():
        assert linear_cross_entropy(*given, targets) > 0


def test_no_rows():
    given, _ = made()
    ours = linear_cross_entropy(given[0][:0], given[1], given[2], torch.empty(0, dtype=torch.int64))
    ours.backward()
    assert float(ours.detach()) == 0
    assert float(given[1].grad.abs().sum()) == 0
