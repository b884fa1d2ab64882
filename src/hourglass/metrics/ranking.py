"""Rankings: how well scores put the relevant first, and how several rankings become one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

Array = np.ndarray[Any, Any]

_NUMBERS_AT_ONCE = 2**22


def auroc(scores: Array, positive: Array) -> Array:
    """Area under the ROC curve of each column of `scores` [n] or [n, m] against the mask `positive` [n].

    Ties count one half. NaN where `positive` is all or nothing.
    """
    positive = np.asarray(positive, bool)
    n, p = len(positive), int(positive.sum())
    if p in (0, n):
        return np.full(np.shape(scores)[1:], np.nan)
    ranks = rankdata(scores, axis=0)
    return np.asarray((ranks[positive].sum(0) - p * (p + 1) / 2) / (p * (n - p)))


def average_precision(scores: Array, relevant: Array) -> float:
    """AP over the whole ranking, best score first; ties are broken by position."""
    hits = np.asarray(relevant, bool)[np.argsort(-np.asarray(scores), kind="stable")]
    if not hits.any():
        return float("nan")
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean())


def precision_at(scores: Array, relevant: Array, k: int) -> float:
    """Share of the first `k` that are relevant."""
    order = np.argsort(-np.asarray(scores), kind="stable")[:k]
    return float(np.asarray(relevant, bool)[order].mean())


def reciprocal_rank_fusion(rankings: Sequence[Array], constant: float = 60.0) -> Array:
    """Cormack et al. 2009: sum over rankings of 1 / (constant + rank), rank 1 = best score.

    Each ranking is an array of scores over the same documents.
    """
    total = np.zeros(len(rankings[0]))
    for scores in rankings:
        total += 1 / (constant + rankdata(-np.asarray(scores), method="min"))
    return total


def bootstrap_interval(values: Array, level: float = 0.95, draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """Percentile interval of the mean of `values`, resampled with replacement."""
    values, random = np.asarray(values, float), np.random.default_rng(seed)
    at_once = max(1, _NUMBERS_AT_ONCE // len(values))  # all draws of many values would fill the memory
    parts = [min(at_once, draws - start) for start in range(0, draws, at_once)]
    means = [values[random.integers(0, len(values), (part, len(values)))].mean(1) for part in parts]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
