"""What features and words tell of two groups only together, each of them by too little to be told from chance.

A ridge regression of the group on what each document has, and as much on its mean state in the middle
of the model, is a direction through all features and words that were tested, and through what of a text none of these tells.
Every document is scored by the direction that all others give (leave-one-out, in closed form: Allen 1974), and is more like `a`
where its score lies above the middle of the two groups' means. The distance of these means is tested: shuffling the groups over
the documents says how far apart so many features and words put what does not differ (a two-sample test by a classifier: Lopez-Paz and Oquab
2017). Of pairs the direction goes through their differences, and shuffling swaps the two of a pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from scipy.stats import norm

from hourglass.uses.explore.presence import any_of
from hourglass.uses.explore.ridge import Direction, Ridge, Weights

Array = np.ndarray[Any, Any]

LARGEST = 1000
"""Documents or pairs, drawn at random, that a direction is learned from at most: the cost grows with their third power."""
TYPICAL, NAMED = 5, 6
"""Documents of each side that are named, names in a sentence."""


@dataclass(frozen=True)
class Together:
    """How well all features and words that were tested, and the mean state, tell a from b.

    frequency_a, frequency_b  share of a's and of b's documents that are more like a, each judged without itself; of pairs, the
                       share in which a's document is more like a than b's, and the rest
    difference, low, high  of the two, with the spread that shuffled groups have; whether the groups differ at all is for p to say
    p, q               of the distance of the groups' mean scores by shuffling; q among all rows that were tested
    direction          what is weighed; above 0 it speaks for a
    typical_a, typical_b  positions of the documents furthest to either side, of those it was learned from
    """

    frequency_a: float
    frequency_b: float
    difference: float
    low: float
    high: float
    p: float
    q: float
    direction: Direction
    typical_a: list[int]
    typical_b: list[int]

    def sentences(self, a: str, b: str) -> list[str]:
        """What it says of groups of these names, to a person."""
        shares = (
            f"in {100 * self.frequency_a:.0f} % of the pairs the document of {a} is more like {a} than that of {b} is, each pair judged without itself"
            if np.isnan(self.direction.bar)
            else f"{100 * self.frequency_a:.0f} % of the documents of {a} and {100 * self.frequency_b:.0f} % of those of {b} are more like {a}, each judged without itself"
        )
        points = f"{100 * self.difference:+.0f} points, {100 * self.low:+.0f} … {100 * self.high:+.0f}"
        for_a, for_b = ("; ".join(self.direction.names(sign)[:NAMED]) or "nothing that has a name" for sign in (1, -1))
        surer = "; that they differ is surer than by how much" if self.low <= 0 else ""
        return [
            f"All that was tested taken together: {shares} ({points}; q {self.q:.2g}{surer}).",
            f"Most speaks for {a}: {for_a}. For {b}: {for_b}.",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the heaviest items of each side."""
        numbers = ("frequency_a", "frequency_b", "difference", "low", "high", "p", "q")
        return {
            **{name: getattr(self, name) for name in numbers},
            "items_a": self.direction.heaviest(1),
            "items_b": self.direction.heaviest(-1),
            "typical_a": self.typical_a,
            "typical_b": self.typical_b,
        }


def told_together(
    present: csr_matrix,
    middle: Array,
    side: Array,
    pair: Array | None,
    items: pd.DataFrame,
    documents: Array,
    draws: int,
    random: np.random.Generator,
) -> Together | None:
    """What all columns together tell; None where all documents, or the two of each pair, have the same. Its q is its p.

    present    [documents, columns] 1 where a document has the column's item
    middle     [documents, d] their mean states in the middle of the model
    side       [documents] 0 in a, 1 in b; both are there
    pair       [documents] number of its pair; None when not paired
    items      a row a column: kind, feature, label, position
    documents  position of each document
    """
    if pair is None:
        having = np.asarray(present.sum(0)).ravel()
        if not ((having > 0) & (having < len(side))).any():
            return None
        found = told(present, middle, side == 0, draws, random)
    else:
        number = np.unique(pair, return_inverse=True)[1]
        of_sides, pairs = [np.where(side == s, number, -1) for s in (0, 1)], int(number.max()) + 1
        a, b = (any_of(present, of, pairs) for of in of_sides)
        if not (a - b).count_nonzero():
            return None
        of_a, of_b = (_mean_of(middle, of, pairs) for of in of_sides)
        found = told_of_pairs(a - b, of_a - of_b, draws, random)
    difference, half = found.share_a - found.share_b, float(norm.ppf(0.975)) * found.spread
    scores = found.weights.sums(present, middle)
    in_a, in_b = np.flatnonzero(side == 0), np.flatnonzero(side == 1)
    return Together(
        frequency_a=found.share_a,
        frequency_b=found.share_b,
        difference=difference,
        low=max(-1.0, difference - half),
        high=min(1.0, difference + half),
        p=found.p,
        q=found.p,
        direction=Direction.of(items, found.weights, found.bar),
        typical_a=documents[in_a[np.argsort(-scores[in_a], kind="stable")][:TYPICAL]].tolist(),
        typical_b=documents[in_b[np.argsort(scores[in_b], kind="stable")][:TYPICAL]].tolist(),
    )


@dataclass(frozen=True)
class _Told:
    """What a direction through all columns and vectors tells.

    share_a, share_b  of a's and of b's rows that are more like a, each judged without itself
    spread            standard deviation of their difference where the groups are shuffled
    p                 of the distance of the groups' mean scores
    weights           of columns and mean states
    bar               a row whose weights sum to more is more like a; NaN of pairs
    """

    share_a: float
    share_b: float
    spread: float
    p: float
    weights: Weights
    bar: float


def told(x: csr_matrix, middle: Array, in_a: Array, draws: int, random: np.random.Generator) -> _Told:
    """Between the documents `in_a` (a mask) and the others: x [documents, columns], not all the same, middle [documents, d]."""
    ridge = Ridge(x, middle)
    groups = np.stack([in_a, *(random.permutation(in_a) for _ in range(draws))], axis=1)
    scores = ridge.alone @ groups.astype(float)
    mean_a, mean_b = scores.mean(0, where=groups), scores.mean(0, where=~groups)
    between = (mean_a + mean_b) / 2
    share_a, share_b = ((scores > between).mean(0, where=of) for of in (groups, ~groups))
    weights = ridge.weights(in_a)
    bar = ridge.sum_at(between[0], in_a, weights)
    spread = (share_a - share_b)[1:].std()
    return _Told(float(share_a[0]), float(share_b[0]), float(spread), _p_of_first(mean_a - mean_b), weights, bar)


def told_of_pairs(x: csr_matrix, middle: Array, draws: int, random: np.random.Generator) -> _Told:
    """What a's document of each pair has and b's has not, less the reverse: x [pairs, columns], not all 0, middle [pairs, d]."""
    ridge, ones = Ridge(x, middle, intercept=False), np.ones(x.shape[0])
    swapped = np.where(random.random((x.shape[0], draws)) < 0.5, -1.0, 1.0)
    signs = np.concatenate([ones[:, None], swapped], axis=1)
    leaning = (ridge.alone @ signs) * signs
    right = (leaning > 0).mean(0)
    spread = (2 * right - 1)[1:].std()
    return _Told(
        float(right[0]), float(1 - right[0]), float(spread), _p_of_first(leaning.mean(0)), ridge.weights(ones), np.nan
    )


def _p_of_first(statistic: Array) -> float:
    """The share of all that are no smaller than the first, itself included."""
    return float((statistic >= statistic[0] - 1e-12).mean())


def _mean_of(vectors: Array, of: Array, number: int) -> Array:
    """[number, d] mean of the rows of each number in `of` [rows], -1 for none; every number has one."""
    rows = np.flatnonzero(of >= 0)
    member = csr_matrix((np.ones(len(rows)), (of[rows], rows)), (number, len(of)))
    return np.asarray(member @ vectors / member.sum(1))
