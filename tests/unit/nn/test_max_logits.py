"""Values and gradients against torch's maximum over all logits."""

from __future__ import annotations

import pytest
import torch

from hourglass.nn import max_logits as module
from hourglass.nn.max_logits import max_logits


@pytest.mark.parametrize("at_once", [1, 4, 5, 128])
def test_as_autograd(monkeypatch, at_once):
    monkeypatch.setattr(module, "_ROWS", at_once)
    torch.manual_seed(0)
    rows = torch.randn(3, 5, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(20, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(20, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 1, 0, 0]], dtype=torch.bool)
    ours = max_logits(rows, mask, weight, bias)
    expected = (rows @ weight.T + bias).masked_fill(~mask[..., None], -torch.inf).amax(1)
    assert torch.allclose(ours, expected)
    slopes = torch.randn(3, 20, dtype=torch.float64)
    for a, b in zip(*(torch.autograd.grad(x, (rows, weight, bias), slopes) for x in (ours, expected))):
        assert torch.allclose(a, b)


def test_a_text_without_tokens():
    rows, weight = torch.randn(1, 3, 4, requires_grad=True), torch.randn(6, 4)
    ours = max_logits(rows, torch.zeros(1, 3, dtype=torch.bool), weight, None)
    assert bool((ours == -torch.inf).all())
    ours.sum().backward()
    assert not rows.grad.any()
