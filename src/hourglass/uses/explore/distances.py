"""How far apart what one text says of documents puts those with an item and those without, and how often shuffling puts them as far.

What all documents with an item say of each other is a sum over their pairs. Shuffled among documents of like length it has a mean and
a variance that are known without drawing: parted into what hangs on lengths, on each document by itself and on pairs by themselves
(Hoeffding 1948), of which the last two do not go together. Its skewness and kurtosis are drawn, not of each item, but of some: over
items they hang on little but how many documents there are and how much of the variance documents have by themselves. So none is told
because its own draws came out small, and thousands cost no more than hundreds.

Not in the paper.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from scipy.sparse import csc_matrix

from hourglass.metrics.tails import heavy_tail
from hourglass.nn.parallel import over_rows
from hourglass.uses.explore.ridge import Ridge

Array = np.ndarray[Any, Any]

MOST_SAID = 0.999
"""What a document says of another counts up to this share of all that is said: one pair of copies weighs as much as fifty others,
and hardly a draw has it, so that no draws tell the tail."""
SOME, DRAWS = 500, 200_000
"""Items of which draws are made, and all draws together,"""
MOST_DRAWS = 4999
"""but of an item so many at most."""
_LEAST_SKEWNESS, _LEAST_RATIO = 1e-3, 1.7
"""The tail leans to the right, and its kurtosis above 3 is more than 5/3 of the square of its skewness."""
_FIXED = 1e-9
"""A distance of which shuffling moves a smaller part of a step is the same in all shuffles."""


class Said(NamedTuple):
    """What documents say of each other, but for the very largest.

    both   [rows, rows] the sum over either order of two, which is all that a sum over pairs needs, in steps of this size: draws take
           the time to read it, of bytes half as much; what is rounded adds less than a thousandth to the variance (docs/LOG.md)
    total  [rows] what all say of each
    """

    both: Array
    step: float
    total: Array

    @classmethod
    def by(cls, ridge: Ridge) -> Said:
        scores = np.minimum(ridge.alone, np.quantile(ridge.alone, MOST_SAID))
        total = scores.sum(0)
        scores += scores.T
        step = float(np.abs(scores).max()) / np.iinfo(np.int8).max or 1.0
        scores /= step
        return cls(np.rint(scores, out=scores).astype(np.int8), step, total)


class Distances:
    """How far apart the mean scores are of the rows with an item and of those without, each row judged without itself, and copies as
    what is very much alike.

    items   [rows, items] 1 where a row has the item: some do, some do not
    strata  [rows] numbers from 0, each of four rows or more; by chance an item has other rows, as many of each stratum
    found   [items] the distances
    """

    def __init__(self, said: Said, items: csc_matrix, strata: Array) -> None:
        self._said, self._items, self._strata = said, items, strata
        self.found: Array = self.drawn(np.arange(items.shape[1]), 1, None)[0]

    def p_values(self, random: np.random.Generator) -> Array:
        """[items] the chance of at least what was found."""
        mean, of_rows, of_pairs = self.moments()
        moves = np.flatnonzero(of_rows + of_pairs > (_FIXED * self._said.step) ** 2)
        p = np.ones(len(mean))
        if not len(moves):
            return p
        mean, variance = mean[moves], (of_rows + of_pairs)[moves]
        some = random.permutation(len(moves))[:SOME]
        drawn = self.drawn(moves[some], min(DRAWS // len(some), MOST_DRAWS), random)
        z = (drawn - mean[some]) / np.sqrt(variance[some])
        shape = np.column_stack([(z**3).mean(0), (z**4).mean(0) - 3])
        hangs_on = np.column_stack(
            [np.ones(len(moves)), 1 / np.diff(self._items.indptr)[moves], of_rows[moves] / variance]
        )
        skewness, excess = (hangs_on @ np.linalg.lstsq(hangs_on[some], shape, rcond=None)[0]).T
        skewness = np.maximum(skewness, _LEAST_SKEWNESS)
        excess = np.maximum(excess, _LEAST_RATIO * skewness**2)
        p[moves] = heavy_tail((self.found[moves] - mean) / np.sqrt(variance), skewness, excess)
        return p

    def moments(self) -> tuple[Array, Array, Array]:
        """[items] mean under shuffling, and the variance that rows have by themselves and pairs by themselves."""
        parted, total, step = _Parted.of(self._said.both, self._strata), self._said.total, self._said.step
        rows, sizes = len(total), parted.sizes
        counts = np.asarray(self._items.T @ parted.member, float)  # [items, strata]
        number = counts.sum(1)
        inside, outside = 1 / number, 1 / (rows - number)
        # What a step of the sum over pairs weighs; what a row's total does is -outside.
        within = step * (inside + outside)
        drawn = counts * (sizes - counts) / (sizes * (sizes - 1))  # the part of a stratum that is drawn at random

        mean_total = parted.member.T @ total / sizes
        pairs_of_one = (counts - 1) * counts / 2
        between = ((counts @ parted.mean) * counts).sum(1) / 2 + pairs_of_one @ parted.mean_of_one
        expected = within * between - outside * (counts @ mean_total)

        # A row goes with all others that are drawn, of its own stratum one fewer.
        own = parted.alone[np.arange(rows), self._strata]
        parts = np.column_stack([parted.alone, own, total - mean_total[self._strata]])
        weights = np.column_stack([within[:, None] * counts, -within, -outside])
        of_rows = np.zeros(len(counts))
        for stratum in range(len(sizes)):
            of_rows += drawn[:, stratum] * ((weights @ parts[self._strata == stratum].T) ** 2).sum(1)

        two, three, four = (_orders(counts, k) / _orders(sizes, k) for k in (2, 3, 4))
        of_two = ((drawn @ parted.left) * drawn).sum(1) / 2
        of_pairs = within**2 * (of_two + (two - 2 * three + four) @ parted.left_of_one)
        return expected, of_rows, of_pairs

    def drawn(self, which: Array, draws: int, random: np.random.Generator | None) -> Array:
        """[draws, which] distances of other rows; without `random` of the item's own."""
        made = np.empty((draws, len(which)))
        seeds = np.full(len(which), -1) if random is None else random.integers(2**32, size=len(which))
        places = self._items.indptr, self._items.indices
        members, bounds = np.argsort(self._strata, kind="stable"), np.cumsum([0, *np.bincount(self._strata)])
        over_rows(_distances, len(which), *self._said, *places, self._strata, members, bounds, which, seeds, made)
        return made


class _Parted(NamedTuple):
    """What two rows say of each other, in steps: the mean of their strata, each row's part of it, and what is left.

    member       [rows, strata] 1 where a row is of a stratum
    sizes        [strata] rows of each
    mean         [strata, strata] of rows of different strata, 0 on the diagonal; mean_of_one: [strata] of two rows of the same
    alone        [rows, strata] how much more a row says with those of a stratum on average
    left         [strata, strata] sum of squares of what is left; left_of_one: [strata] of all pairs of the same
    """

    member: Array
    sizes: Array
    mean: Array
    mean_of_one: Array
    alone: Array
    left: Array
    left_of_one: Array

    @classmethod
    def of(cls, both: Array, strata: Array) -> _Parted:
        rows, sizes = len(strata), np.bincount(strata).astype(float)
        member = np.zeros((rows, len(sizes)), np.float32)
        own, same = (np.arange(rows), strata), np.diag_indices(len(sizes))
        member[own] = 1
        said = both.astype(np.float32)
        sums = (said @ member).astype(float)
        mean = member.T @ sums / np.outer(sizes, sizes)
        mean[same] *= sizes / (sizes - 1)  # a row is not paired with itself
        alone = sums / sizes - mean[strata]
        alone[own] = (sums[own] - ((sizes - 1) * mean[same])[strata]) / (sizes - 2)[strata]
        squares = member.T @ (np.square(said, out=said) @ member).astype(float)
        of_alone = member.T @ alone**2
        left = squares - np.outer(sizes, sizes) * mean**2 - sizes * of_alone - sizes[:, None] * of_alone.T
        pairs = sizes * (sizes - 1) / 2
        left_of_one = squares[same] / 2 - pairs * mean[same] ** 2 - (sizes - 2) * of_alone[same]
        mean_of_one = mean[same]
        mean[same] = left[same] = 0
        return cls(member, sizes, mean, mean_of_one, alone, left, left_of_one)


def _orders(size: Array, k: int) -> Array:
    """In how many ways k, one after the other, are taken of so many."""
    return np.asarray(np.prod([size - i for i in range(k)], axis=0))


@numba.njit(cache=True, nogil=True)
def _distances(
    both: Any,
    step: float,
    total: Any,
    starts: Any,
    rows: Any,
    strata: Any,
    members: Any,
    bounds: Any,
    items: Any,
    seeds: Any,
    made: Any,
    start: int,
    stop: int,
) -> None:
    """made [draws, items]: mean score of the rows with an item less that of those without, the item in rows drawn from its strata.

    members, bounds  the rows of stratum after stratum, and where each begins
    seeds            [items] those of what is drawn, so that threads draw the same; below 0: the item stays in its rows
    """
    taken = np.empty(len(bounds) - 1, np.int64)
    for k in range(start, stop):
        own = rows[starts[items[k]] : starts[items[k] + 1]]
        drawn, left, number = own.copy(), members.copy(), len(own)
        if seeds[k] >= 0:
            np.random.seed(seeds[k])
        for draw in range(len(made)):
            if seeds[k] >= 0:
                taken[:] = bounds[:-1]
                for i in range(number):
                    stratum = strata[own[i]]
                    first = taken[stratum]
                    other = np.random.randint(first, bounds[stratum + 1])
                    left[first], left[other] = left[other], left[first]
                    drawn[i] = left[first]
                    taken[stratum] += 1
            steps, overall = np.int64(0), 0.0
            for i in range(number):
                scores, of_row = both[drawn[i]], np.int32(0)
                for j in range(i):
                    of_row += scores[drawn[j]]
                steps += of_row
                overall += total[drawn[i]]
            within = steps * step
            made[draw, k] = within / number - (overall - within) / (len(total) - number)
