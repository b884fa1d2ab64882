"""Which documents are alike in one text and in the other, too, though perhaps no feature or word on either side is in all of them.

A pair needs an item of either text that tells by itself, a prediction one of a single text. A group of documents that has neither is
still there: the neighbours of a document by the one text are its neighbours by the other. Neighbours by a text are the documents
most alike to it ([neighbours.py](neighbours.py)): by all features and words that each has and, in equal parts, by their mean states
in the middle of the model, which know how a text is written, too.

How many of the neighbours by both texts are the same is tested exactly, without drawing: were one text shuffled over documents of
like length, their number would be a sum of hypergeometric ones, one for each stratum, given whose text a document gets.

A document that is sure has with those it shares a group; groups that the texts tell in about the same way, by scores that go
together, are one. What sets a group apart is a ridge regression of it, by either text.

Cost: the square of the documents that are learned from, and for each that shares some the documents of its stratum.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import pandas as pd
from scipy.special import gammaln

from hourglass.metrics.proportions import benjamini_hochberg
from hourglass.nn.parallel import over_rows
from hourglass.uses.explore.alike import first_near
from hourglass.uses.explore.neighbours import NEIGHBOURS
from hourglass.uses.explore.predicted import LOOKED_AT, Learned, told_alike
from hourglass.uses.explore.ridge import Direction

if TYPE_CHECKING:
    from hourglass.uses.explore.correlate import CorrelateOptions

Array = np.ndarray[Any, Any]

FEWEST = 2
"""Neighbours that a document shares at least; with fewer its p is taken as 1."""

_COLUMNS = ["documents", "shared", "expected", "p", "q", "positions"]


@dataclass(frozen=True)
class AlikeInBoth:
    """Groups of documents that are alike in both texts.

    table       a row a group, the surest first: documents (how many), shared (neighbours by both texts, of the document that shares
                most surely), expected (that it would share by chance), p, q, positions (of the documents, the surest first)
    directions  of each group, what sets it apart in the first text and in the second
    neighbours  that are compared
    documents   number of documents that were tested
    sure        number of these that share more neighbours than chance explains
    """

    table: pd.DataFrame
    directions: list[tuple[Direction, Direction]]
    neighbours: int
    documents: int
    sure: int

    def has(self, row: int, side: int) -> list[str]:
        """Names of what a group has in its first text (side 0) or second (1), the heaviest first."""
        return self.directions[row][side].names()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, each row with what its texts have."""
        rows = json.loads(self.table.to_json(orient="records"))
        for row, sides in zip(rows, self.directions):
            row["items_a"], row["items_b"] = (direction.heaviest(1) for direction in sides)
        return {"documents": self.documents, "neighbours": self.neighbours, "sure": self.sure, "rows": rows}


def alike_in_both(learned: Learned, options: CorrelateOptions, part: float) -> AlikeInBoth:
    """Groups of the documents that were learned from; `part` of what may be discovered falsely is theirs."""
    total = len(learned.rows)
    inside = np.zeros((2, total, total), bool)
    for own, neighbours in zip(inside, learned.alike.values()):
        np.put_along_axis(own, neighbours[:, :NEIGHBOURS], True, axis=1)
    number = min(NEIGHBOURS, learned.alike["a"].shape[1])
    both = inside[0] & inside[1]
    shared = both.sum(1)
    p, expected = shared_p(shared, inside[0], inside[1], learned.strata)
    q: Array = np.minimum(benjamini_hochberg(p) / part, 1)
    order = np.lexsort((-shared, p))
    sure = order[q[order] <= options.false_discovery]
    centres, groups = _groups(sure, both, LOOKED_AT * options.top)
    centres, groups = _merged(centres, groups, learned)
    lines = []
    for centre, has in list(zip(centres, groups))[: options.top]:
        members = np.flatnonzero(has)
        members = members[np.argsort(p[members], kind="stable")]
        positions = learned.rows[members].tolist()
        lines.append((len(members), shared[centre], expected[centre], p[centre], q[centre], positions))
    table = pd.DataFrame(lines, columns=_COLUMNS)
    shown = np.array(groups[: options.top], bool).reshape(len(table), total).T
    directions = list(zip(*(learned.directions(text, shown) for text in learned.fields)))
    return AlikeInBoth(table, directions, number, total, len(sure))


def shared_p(shared: Array, left: Array, right: Array, strata: Array) -> tuple[Array, Array]:
    """[rows] the chance to share as many neighbours, and how many to expect, were one text shuffled within strata.

    shared       [rows] how many there are
    left, right  [rows, rows] bool, the neighbours of each by either text, as many for each, none its own
    strata       [rows] numbers from 0
    """
    sizes = np.bincount(strata)
    of_stratum = np.zeros((len(strata), len(sizes)))
    of_stratum[np.arange(len(strata)), strata] = 1
    counts = [(own @ of_stratum).astype(np.int64) for own in (left, right)]
    members, bounds = np.argsort(strata, kind="stable"), np.cumsum([0, *sizes])
    p, expected = np.ones(len(shared)), np.zeros(len(shared))
    logs = gammaln(np.arange(len(strata) + 1) + 1.0)
    over_rows(_shared_p, len(shared), shared, *counts, strata, sizes, members, bounds, logs, p, expected)
    return p, expected


@numba.njit(cache=True, nogil=True)
def _shared_p(
    shared: Any,
    left: Any,
    right: Any,
    strata: Any,
    sizes: Any,
    members: Any,
    bounds: Any,
    logs: Any,
    p: Any,
    expected: Any,
    start: int,
    stop: int,
) -> None:
    """left, right: [rows, strata] neighbours of each row in each stratum; logs: of factorials."""
    for i in range(start, stop):
        own = strata[i]
        if shared[i] < FEWEST:
            continue
        tail, mean = 0.0, 0.0
        chances = np.empty(shared[i] + 1)  # of so many in the strata so far, the last of so many or more
        added = np.empty(shared[i] + 1)
        for m in range(bounds[own], bounds[own + 1]):
            other = members[m]  # whose text the document gets
            chances[:] = 0.0
            chances[0] = 1.0
            for stratum in range(len(sizes)):
                size = sizes[stratum] - (stratum == own)  # without the document itself
                a, b = left[i, stratum], right[other, stratum]
                if a == 0 or b == 0:
                    continue
                mean += a * b / size
                added[:] = 0.0
                least = max(0, a + b - size)
                for x in range(least, min(a, b) + 1):
                    chance = np.exp(
                        logs[a]
                        - logs[x]
                        - logs[a - x]
                        + logs[size - a]
                        - logs[b - x]
                        - logs[size - a - b + x]
                        - logs[size]
                        + logs[b]
                        + logs[size - b]
                    )
                    for y in range(shared[i] + 1):
                        added[min(x + y, shared[i])] += chance * chances[y]
                chances[:] = added
            tail += chances[shared[i]]
        number = bounds[own + 1] - bounds[own]
        p[i], expected[i] = tail / number, mean / number


def _groups(sure: Array, both: Array, most: int) -> tuple[list[int], list[Array]]:
    """Centres and, of each, which documents are its group: a sure document that is in no group so far, with those it shares."""
    centres: list[int] = []
    groups: list[Array] = []
    taken = np.zeros(len(both), bool)
    for centre in sure:
        if taken[centre] or len(centres) == most:
            continue
        has = both[centre].copy()
        has[centre] = True
        taken |= has
        centres.append(int(centre))
        groups.append(has)
    return centres, groups


def _merged(centres: list[int], groups: list[Array], learned: Learned) -> tuple[list[int], list[Array]]:
    """Groups that either text tells in about the same way are one, with the centre of the first."""
    if not centres:
        return centres, groups
    has = np.stack(groups, axis=1)
    by_a, by_b = (told_alike(ridge, has) for ridge in learned.ridges.values())
    of, near = np.nonzero(by_a & by_b)
    first = first_near(of, near, len(groups))
    heads = np.flatnonzero(first == np.arange(len(first)))
    return [centres[head] for head in heads], [np.any(has[:, first == head], axis=1) for head in heads]
