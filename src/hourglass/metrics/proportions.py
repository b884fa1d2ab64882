"""Counts and shares: intervals and tests, vectorised over thousands of features at once.

Sources: Wilson 1927; Newcombe 1998 (method 10) for a difference of independent proportions; Agresti and
Min 2005 for a difference of paired proportions; Fisher's exact test as a doubled one-sided tail; Benjamini and Yekutieli 2005
for intervals of what was selected; Genovese, Roeder and Wasserman 2006 for tests of unequal weight.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import binom, hypergeom, norm
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

Array = np.ndarray[Any, Any]


def wilson(count: Array, total: Array | int, level: float = 0.95) -> tuple[Array, Array]:
    """Interval of a share, for arrays of counts out of `total` (at least 1)."""
    low, high = proportion_confint(count, total, alpha=1 - level, method="wilson")
    return np.asarray(low), np.asarray(high)


def difference_interval(
    count_a: Array, total_a: Array | int, count_b: Array, total_b: Array | int, level: float = 0.95
) -> tuple[Array, Array]:
    """Newcombe's interval of share a minus share b, independent groups."""
    a, b = count_a / total_a, count_b / total_b
    low_a, high_a = wilson(count_a, total_a, level)
    low_b, high_b = wilson(count_b, total_b, level)
    difference = a - b
    return (
        difference - np.sqrt((a - low_a) ** 2 + (high_b - b) ** 2),
        difference + np.sqrt((high_a - a) ** 2 + (b - low_b) ** 2),
    )


def fisher(count_a: Array, total_a: int, count_b: Array, total_b: int) -> Array:
    """Two-sided p that both groups have one share: twice the smaller tail, at most 1."""
    # Thousands of words share a few hundred pairs of counts, and a tail is slow to sum.
    pairs, where = np.unique(np.stack([count_a, count_b]), axis=1, return_inverse=True)
    total = total_a + total_b
    fewer = pairs[0] * total <= pairs.sum(0) * total_a  # than expected in a: the smaller tail is that below

    def tail(below: Array, at: Array) -> Array:
        count, both = pairs[0][at], pairs.sum(0)[at]
        p = np.empty(len(count))
        p[below] = hypergeom.cdf(count[below], total, both[below], total_a)
        p[~below] = hypergeom.sf(count[~below] - 1, total, both[~below], total_a)
        return p

    smaller = tail(fewer, np.arange(len(fewer)))
    # The two sum to 1 and a term: of one below 0.45 the other is larger, else it is looked at.
    unsure = np.flatnonzero(smaller > 0.45)
    smaller[unsure] = np.minimum(smaller[unsure], tail(~fewer[unsure], unsure))
    return np.asarray(np.minimum(1.0, 2 * smaller))[where.ravel()]


def paired_interval(only_a: Array, only_b: Array, pairs: int, level: float = 0.95) -> tuple[Array, Array]:
    """Agresti and Min's interval of share a minus share b over `pairs` matched pairs.

    `only_a` counts the pairs where a has the feature and b has not; `only_b` the reverse.
    """
    z = norm.ppf(1 - (1 - level) / 2)
    n = pairs + 2
    p, q = (only_a + 0.5) / n, (only_b + 0.5) / n
    half = z * np.sqrt(np.maximum((p + q - (p - q) ** 2) / n, 0))
    return np.maximum(p - q - half, -1), np.minimum(p - q + half, 1)


def mcnemar(only_a: Array, only_b: Array) -> Array:
    """Exact two-sided p that discordant pairs fall either way equally often."""
    only_a, only_b = np.asarray(only_a), np.asarray(only_b)
    smaller, both = np.minimum(only_a, only_b), only_a + only_b
    return np.asarray(np.minimum(1.0, 2 * binom.cdf(smaller, both, 0.5)))


def level_of_selected(shown: int, tested: int, level: float = 0.95) -> float:
    """The level at which intervals of `shown` selected out of `tested` hold together: a share of `level` of those shown."""
    return 1 - (1 - level) * shown / max(tested, shown, 1)


def benjamini_hochberg(p: Array, of: int | None = None) -> Array:
    """q values: the false discovery rate at which each p would just be called.

    `of` is the number of tests where only some of their p are given; the others count as 1.
    """
    if not len(p):
        return np.asarray(p, float)
    q = multipletests(p, method="fdr_bh")[1]
    return np.asarray(q if of is None else np.minimum(1.0, q * (of / len(p))))


def weighted_benjamini_hochberg(p: Array, weights: Array) -> Array:
    """q values of tests that matter more or less: `weights` above 0, of mean 1, say how readily each is called."""
    return benjamini_hochberg(np.minimum(1.0, p / weights))
