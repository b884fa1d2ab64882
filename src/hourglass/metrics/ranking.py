"""Rankings: how well scores put the relevant first, and how several rankings become one."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
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


def mean_average_precision(scores: Array, relevant: Array) -> float:
    """MAP: the mean AP of the rows of `scores` [queries, n]; a query without anything relevant is left out."""
    each = [average_precision(row, mask) for row, mask in zip(scores, relevant, strict=True) if np.any(mask)]
    return float(np.mean(each)) if each else float("nan")


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


def rank_biased_overlap(a: Sequence[Hashable], b: Sequence[Hashable], p: float = 0.98) -> float:
    """How alike two rankings are, from 0 (nothing shared) to 1 (equal); what comes first counts most.

    Webber, Moffat and Zobel 2010, extrapolated (their equation 32): the agreement at depth d, the share of the first d
    that both have, weighs p ** (d - 1). Neither ranking may name anything twice; they may be of unequal length.
    """
    if not len(a) or not len(b):
        return float("nan")
    short, long = sorted((a, b), key=len)
    where = {item: depth for depth, item in enumerate(short)}
    both_at = [max(where[item], depth) for depth, item in enumerate(long) if item in where]
    overlap = np.cumsum(np.bincount(np.array(both_at, np.int64), minlength=len(long)))[: len(long)]
    depth = np.arange(1, len(long) + 1)
    s, at_s = len(short), overlap[len(short) - 1]
    # Below its end the shorter one is taken to go on agreeing as it did.
    agreement = (overlap + np.where(depth > s, at_s * (depth - s) / s, 0)) / depth
    seen = (1 - p) / p * np.sum(agreement * p**depth)
    return float(seen + agreement[-1] * p ** len(long))


def bootstrap_interval(values: Array, level: float = 0.95, draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """Percentile interval of the mean of `values`, resampled with replacement."""
    values, random = np.asarray(values, float), np.random.default_rng(seed)
    at_once = max(1, _NUMBERS_AT_ONCE // len(values))  # all draws of many values would fill the memory
    parts = [min(at_once, draws - start) for start in range(0, draws, at_once)]
    means = [values[random.integers(0, len(values), (part, len(values)))].mean(1) for part in parts]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
