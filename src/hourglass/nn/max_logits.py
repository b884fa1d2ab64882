"""The largest logit of each token of a vocabulary over a text: what a text says as a bag of words."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def max_logits(rows: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """[n, V]: the maximum over the rows that `mask` keeps of rows @ weight.T + bias; -inf for a text without any.

    rows [n, L, d]; mask [n, L] bool; weight [V, d]; bias [V] or None

    The logits of one text at a time are in memory. Only one row of each token's passes a gradient on, so going back costs
    V x d for a text and not L x V x d.
    """
    largest: Tensor = _MaxLogits.apply(rows, mask, weight)
    return largest if bias is None else largest + bias


class _MaxLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
        kind = rows.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else rows.dtype
        matrix = weight.to(dtype)
        made = torch.full(
            (len(rows), len(weight)),
            -torch.inf,
            dtype=torch.promote_types(rows.dtype, torch.float32),
            device=rows.device,
        )
        where = torch.zeros(made.shape, dtype=torch.int64, device=rows.device)
        with torch.autocast(kind, enabled=False):
            for i, keep in enumerate(mask):
                places = keep.nonzero()[:, 0]
                if len(places):
                    largest, place = (rows[i, places].to(dtype) @ matrix.T).max(0)
                    made[i], where[i] = largest.to(made.dtype), places[place]
        ctx.save_for_backward(rows, weight, where, mask.any(1))
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = gradients
        rows, weight, where, some = ctx.saved_tensors
        of_rows, of_weight = torch.zeros_like(rows), torch.zeros_like(weight)
        for i in some.nonzero()[:, 0].tolist():
            slope = slopes[i, :, None].to(rows.dtype)
            of_weight.addcmul_(slope.to(weight.dtype), rows[i, where[i]].to(weight.dtype))
            of_rows[i].index_add_(0, where[i], (slope * weight.to(rows.dtype)))
        return of_rows, None, of_weight
