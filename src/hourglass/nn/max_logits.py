"""The largest logit of each token of a vocabulary over a text: what a text says as a bag of words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_ROWS = 96
"""Rows whose logits are in memory at once: those of several short texts, or of one text that is longer."""


def max_logits(rows: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """[n, V]: the maximum over the rows that `mask` keeps of rows @ weight.T + bias; -inf for a text without any.

    rows [n, L, d]; mask [n, L] bool; weight [V, d]; bias [V] or None

    Where autocast is on the products are made in its number format. Only one row of each token's passes a gradient on. Of up
    to 96 rows that is two products of matrices; of a longer text each token's row is picked, at V x d and not L x V x d.
    """
    largest: Tensor = _MaxLogits.apply(rows, mask, weight)
    return largest if bias is None else largest + bias


class _MaxLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
        kind = rows.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else rows.dtype
        exact = torch.promote_types(rows.dtype, torch.float32)
        made = torch.full((len(rows), len(weight)), -torch.inf, dtype=exact, device=rows.device)
        where = torch.zeros(made.shape, dtype=torch.int64, device=rows.device)  # among the rows of a text that are kept
        with torch.autocast(kind, enabled=False):
            matrix = weight.to(dtype)
            for texts, lengths in _groups(mask):
                logits = rows[texts][mask[texts]].to(dtype) @ matrix.T
                for text, part in enumerate(logits.split(lengths), texts.start):
                    if len(part):
                        largest, where[text] = part.max(0)
                        made[text] = largest.to(exact)
        ctx.save_for_backward(rows, mask, weight, where)
        ctx.dtype = dtype
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = gradients
        rows, mask, weight, where = ctx.saved_tensors
        of_rows, of_weight = torch.zeros_like(rows), torch.zeros_like(weight)
        matrix = weight.to(ctx.dtype)
        for texts, lengths in _groups(mask):
            kept, number = rows[texts][mask[texts]].to(ctx.dtype), sum(lengths)
            if number <= _ROWS:
                spread = kept.new_zeros(number, len(weight))
                for text, part in enumerate(spread.split(lengths), texts.start):
                    if len(part):
                        part.scatter_(0, where[text][None], slopes[text][None].to(ctx.dtype))
                of_kept = spread @ matrix
                of_weight += spread.T @ kept
            else:
                slope = slopes[texts.start, :, None].to(ctx.dtype)
                of_kept = torch.zeros_like(kept).index_add_(0, where[texts.start], slope * matrix)
                of_weight.addcmul_(slope.to(weight.dtype), kept[where[texts.start]].to(weight.dtype))
            of_rows[texts] = of_rows[texts].masked_scatter(mask[texts][..., None], of_kept.to(rows.dtype))
        return of_rows, None, of_weight


def _groups(mask: Tensor) -> Iterator[tuple[slice, list[int]]]:
    """Texts one after another with at most `_ROWS` rows together, or one alone, and the number of rows of each."""
    lengths = mask.sum(1).tolist()
    start = 0
    for text in range(1, len(lengths) + 1):
        if text == len(lengths) or sum(lengths[start : text + 1]) > _ROWS:
            yield slice(start, text), lengths[start:text]
            start = text
