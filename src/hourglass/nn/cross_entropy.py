"""Cross-entropy of rows against a large vocabulary without ever holding all their logits.

Logits of 4,096 rows over 30,522 tokens are 500 MB in float32, and their gradient as much again. Here a few hundred rows at a
time go forward and back at once: the gradients of the rows and of the output matrix are there when the loss is, so that
nothing is computed twice, and memory follows the chunk.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_LOGITS_AT_ONCE = 2**23
_FLOOR = 1e-6


def focal(said: Tensor, gamma: float) -> Tensor:
    """-(1 - p)^gamma log(p + 1e-6) from `said`, log p: what is sure already counts less. gamma 0: -log p."""
    if gamma == 0:
        return -said
    return -((-torch.expm1(said)).clamp(min=0) ** gamma) * torch.logaddexp(said, said.new_tensor(math.log(_FLOOR)))


def _focal_slope(said: Tensor, gamma: float) -> Tensor:
    """Minus the derivative of `focal` by `said`."""
    p, left = said.exp(), (-torch.expm1(said)).clamp(min=0)
    shifted = torch.logaddexp(said, said.new_tensor(math.log(_FLOOR)))
    return left**gamma * p / (p + _FLOOR) - gamma * left ** (gamma - 1) * p * shifted


def linear_cross_entropy(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    shares: Tensor | None = None,
    gamma: float = 0.0,
) -> Tensor:
    """Sum over the rows of -log softmax(rows @ weight.T + bias) at their targets, in nats; a scalar in float32.

    rows     [n, d]; weight [V, d]; bias [V] or None
    targets  [n] token ids; or [n, k] with `shares` [n, k]: the sum over k of shares * -log p, for targets that are spread over
             several tokens (a share of 0 is padding)
    gamma    `focal` of log p in place of -log p; 0, or 1 or more

    Where autocast is on the products are made in its number format, sums in float32.
    """
    if targets.ndim == 1:
        targets = targets[:, None]
    total: Tensor = _LinearCrossEntropy.apply(rows, weight, bias, targets, shares, gamma)
    return total


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        shares: Tensor | None,
        gamma: float,
    ) -> Tensor:
        weighted = shares is not None or gamma > 0
        if shares is None:
            shares = torch.ones(targets.shape, device=rows.device)
        kind = rows.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else rows.dtype
        matrix = weight.to(dtype)
        learns = any(ctx.needs_input_grad[:3])
        total = torch.zeros((), dtype=torch.promote_types(rows.dtype, torch.float32), device=rows.device)
        exact = total.dtype
        of_rows = torch.empty_like(rows) if learns else None
        of_weight = torch.zeros(weight.shape, dtype=exact, device=weight.device) if learns else None
        of_bias = torch.zeros(len(weight), dtype=exact, device=weight.device) if learns and bias is not None else None
        with torch.autocast(kind, enabled=False):
            at_once = max(1, _LOGITS_AT_ONCE // len(weight))
            for start in range(0, len(rows), at_once):
                here = slice(start, start + at_once)
                given = rows[here].to(dtype)
                # Few passes over the logits: they are the larger part of the memory that is moved.
                logits = given @ matrix.T if bias is None else torch.addmm(bias.to(dtype), given, matrix.T)
                said = logits.log_softmax(1, dtype=exact)
                share, target = shares[here].to(exact), targets[here]
                of_targets = said.gather(1, target)
                total += (share * focal(of_targets, gamma)).sum()
                if of_rows is None or of_weight is None:
                    continue
                if gamma > 0:
                    share = share * _focal_slope(of_targets, gamma)
                # d loss / d logits: what the row gives to each token, less what it should.
                slope = said.exp_()
                if weighted:
                    slope *= share.sum(1, keepdim=True)
                slope = slope.scatter_add_(1, target, -share).to(dtype)
                if of_bias is not None:
                    of_bias += slope.sum(0, dtype=exact)
                of_rows[here] = (slope @ matrix).to(rows.dtype)
                of_weight += slope.T @ given
        ctx.gradients = of_rows, of_weight, of_bias
        ctx.kinds = weight.dtype, None if bias is None else bias.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = gradients
        of_rows, of_weight, of_bias = ctx.gradients
        for_weight, for_bias = ctx.kinds
        return (
            of_rows * slope.to(of_rows.dtype),
            (of_weight * slope).to(for_weight),
            None if of_bias is None else (of_bias * slope).to(for_bias),
            None,
            None,
            None,
        )
