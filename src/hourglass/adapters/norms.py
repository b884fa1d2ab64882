"""Tokens by the length of their state: attention sinks, hundreds of times longer than the rest, would be all that counts."""

from __future__ import annotations

import torch
from torch import Tensor


def within_norm(states: Tensor, factor: float, median: float | None = None) -> Tensor:
    """[T] bool: whether the norm of each of `states` [T, d] is at most `factor` times the median norm.

    The median is that of these states (of an even number, the lower of the middle two) unless a corpus's is given.
    """
    norms = torch.linalg.vector_norm(states, dim=-1, dtype=torch.float32)
    if median is None:
        if not len(norms):
            return norms.bool()
        median = float(norms.median())
    return norms <= factor * median
