"""The point with the least sum of distances to a sample: a centre that outliers cannot drag away."""

from __future__ import annotations

import torch
from torch import Tensor


def geometric_median(x: Tensor, *, iterations: int = 50, tolerance: float = 1e-5) -> Tensor:
    """Weiszfeld's fixed point for the rows of x [n, d]: the mean weighted by inverse distance, [d].

    Stops when the centre moves by less than `tolerance` of the mean distance, or after `iterations` rounds.
    """
    centre = x.mean(0)
    for _ in range(iterations):
        distances = torch.linalg.vector_norm(x - centre, dim=1)
        spread = distances.mean()
        if spread == 0:  # all rows are one
            return centre
        # A row that sits on the centre would get an infinite weight.
        weights = 1 / distances.clamp_min(spread * 1e-6 + torch.finfo(x.dtype).tiny)
        moved = (weights @ x) / weights.sum()
        if torch.linalg.vector_norm(moved - centre) <= tolerance * spread:
            return moved
        centre = moved
    return centre
