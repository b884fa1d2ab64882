"""Does a share rise or fall along ordered bins? From counts in cells, vectorised over thousands of features at once.

Sources: Mantel 1963 (the Cochran-Armitage test within strata); Mielke and Berry 2007 (a permutation test's tail from its
first three moments, by Pearson's type III curve); MacKinnon and White 1985 (intervals that hold under unequal variance).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import gamma, norm

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Trends:
    """slope: share gained from one bin to the next, with its interval (low, high); p: two-sided; each [features]."""

    slope: Array
    low: Array
    high: Array
    p: Array


def trends(count: Array, total: Array, level: float = 0.95) -> Trends:
    """The linear trend of shares over equally spaced bins, among documents of the same stratum.

    count  [strata, bins, features] documents that have the feature
    total  [strata, bins] all documents; every stratum has at least one

    p is that of the trend were each feature's documents shuffled within their strata. Where no stratum has documents
    in two bins the slope is NaN and p is 1.
    """
    size = total.sum(1)
    bins = np.arange(total.shape[1])
    score = bins - ((total @ bins) / size)[:, None]  # [strata, bins], mean 0 in each stratum
    spread = (total * score**2).sum(1)
    number = count.sum(1)  # [strata, features]
    gained = np.einsum("sb,sbf->f", score, count)
    whole = spread.sum()
    slope = gained / whole if whole > 0 else np.full(count.shape[2], np.nan)

    variance = np.zeros(count.shape[2])
    for s in range(len(size)):
        fitted = number[s] / size[s] + score[s][:, None] * slope
        squares = count[s] * (1 - fitted) ** 2 + (total[s][:, None] - count[s]) * fitted**2
        variance += (score[s][:, None] ** 2 * squares).sum(0)
    half = norm.ppf(0.5 + level / 2) * np.sqrt(variance) / whole if whole > 0 else np.nan

    second, third = _moments(number, size[:, None], spread[:, None], (total * score**3).sum(1)[:, None])
    return Trends(slope, slope - half, slope + half, _two_sided(gained, second, third))


def _moments(number: Array, size: Array, square: Array, cube: Array) -> tuple[Array, Array]:
    """Variance and third central moment of the sum of the scores of `number` documents drawn without replacement."""
    rest = size - number
    second = number * rest * square / (size * np.maximum(size - 1, 1))
    third = number * rest * (rest - number) * cube / (size * np.maximum((size - 1) * (size - 2), 1))
    return second.sum(0), third.sum(0)


def _two_sided(value: Array, variance: Array, third: Array) -> Array:
    """Twice the smaller tail of Pearson's type III curve with mean 0 and these moments."""
    moves = variance > 0
    z = np.where(moves, value, 0) / np.sqrt(np.where(moves, variance, 1))
    skewness = np.where(moves, third, 0) / np.where(moves, variance, 1) ** 1.5
    above = np.where(z >= 0, _upper(z, skewness), _upper(-z, -skewness))
    return np.where(moves, np.minimum(1.0, 2 * above), 1.0)


def _upper(z: Array, skewness: Array) -> Array:
    """P(Z >= z) of the standardised curve. On its thin side, where the curve ends, the normal's, which is larger."""
    thick = skewness > 1e-3
    shape = 4 / np.where(thick, skewness, 1) ** 2
    return np.where(thick, gamma.sf(shape + z * np.sqrt(shape), shape), norm.sf(z))
