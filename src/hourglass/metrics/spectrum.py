"""How vectors fill their space: whether they have collapsed, and along which direction two encoders differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def mean_cosine(vectors: Array) -> float:
    """Mean cosine of two different rows of [n, d]: near 1 where all point one way. NaN of fewer than two."""
    rows = np.asarray(vectors, float)
    n = len(rows)
    if n < 2:
        return np.nan
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.where(norms > 0, norms, 1)
    return float(((unit.sum(0) ** 2).sum() - (unit**2).sum()) / (n * (n - 1)))


def effective_rank(vectors: Array) -> float:
    """exp of the entropy of the singular values of [n, d] over their sum (Roy and Vetterli 2007): from 1 to min(n, d); 0 of zeros."""
    values = np.linalg.svd(np.asarray(vectors, float), compute_uv=False)
    if not values.sum() > 0:
        return 0.0
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


@dataclass(frozen=True)
class Variation:
    """How one encoder's vectors differ from another's, in the directions of the latter.

    components  [r, d] right singular vectors of the vectors that were changed, the largest first, r = min(n, d)
    shares      [r] their shares of the sum of squares
    variation   [r] mean change along each
    """

    components: Array
    shares: Array
    variation: Array


def variation(before: Array, after: Array) -> Variation:
    """Of the vectors of the same texts [n, d], before and after."""
    rows = np.asarray(before, float)
    _, values, components = np.linalg.svd(rows, full_matrices=False)
    change = (np.asarray(after, float) - rows).mean(0)
    return Variation(components, values**2 / max(float((values**2).sum()), 1e-300), components @ change)
