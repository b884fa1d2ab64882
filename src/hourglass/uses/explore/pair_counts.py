"""Documents that have both of a pair, over all pairs of two sets of items, and how many would by chance.

Time grows with the sum over documents of the product of the items present, memory with their sum and, for a block of items
at a time, with the number of items. No matrix of documents is ever dense.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from hourglass.metrics.association import joint_tail, npmi
from hourglass.uses.explore.looked_at import Field
from hourglass.uses.explore.shared import at_once, shared

Array = np.ndarray[Any, Any]


class PairCounts:
    """Counts over some of the documents, for pairs (i, j) of an item on the left and one on the right."""

    def __init__(self, left: Field, right: Field, inside: Array, strata: Array) -> None:
        self.left, self.right, self.symmetric = left, right, left is right
        _, stratum, sizes = np.unique(strata[inside], return_inverse=True, return_counts=True)
        member = csr_matrix(
            (np.ones(len(stratum), np.float32), (stratum.ravel(), np.arange(len(stratum)))), (len(sizes), len(stratum))
        )
        self.total = len(stratum)
        self._sizes = sizes
        self._rows = right.present[inside]
        self._columns = left.present[inside].tocsc()
        self._columns.sort_indices()
        self._left = (member @ left.present[inside]).toarray().T.astype(np.float64)  # [items, strata]
        self._right = self._left if self.symmetric else (member @ self._rows).toarray().T.astype(np.float64)
        self.count_left, self.count_right = self._left.sum(1), self._right.sum(1)

    @property
    def pairs(self) -> int:
        """Number of pairs there are."""
        m, n = len(self.count_left), len(self.count_right)
        return m * (m - 1) // 2 if self.symmetric else m * n

    def blocks(self) -> Iterator[tuple[Array, Array, Array]]:
        """Some items i on the left, and [i, right] documents that each shares with those on the right, and by chance.

        Within one text only pairs with i < j are counted.
        """
        number = at_once(len(self.count_right))
        for start in range(0, len(self.count_left), number):
            i = np.arange(start, min(start + number, len(self.count_left)))
            yield i, self._joint(i, self.symmetric), (self._left[i] / self._sizes) @ self._right.T

    def joint_of(self, i: Array, j: Array) -> Array:
        """Documents that have both, for pairs."""
        joint = np.zeros(len(i), np.int64)
        number = at_once(len(self.count_right))
        needed, where = np.unique(i, return_inverse=True)
        for start in range(0, len(needed), number):
            counts = self._joint(needed[start : start + number], False)
            here = (where >= start) & (where < start + number)
            joint[here] = counts[where[here] - start, j[here]]
        return joint

    def present(self, i: Array, j: Array) -> tuple[csr_matrix, csr_matrix]:
        """Each [documents, pairs], 1 where the document has the pair's item on the left, and on the right."""
        return self._columns[:, i].tocsr(), self._rows[:, j]

    def expected(self, i: Array, j: Array) -> Array:
        """Documents that would have both by chance, for pairs, were j's shuffled in each stratum."""
        return self._over_strata(i, j, lambda a, b, size: a * b / size)

    def most(self, i: Array, j: Array) -> Array:
        """The most documents that could have both, for pairs."""
        return self._over_strata(i, j, lambda a, b, size: np.minimum(a, b))

    def _over_strata(self, i: Array, j: Array, term: Any) -> Array:
        total = np.zeros(len(i))
        for s, size in enumerate(self._sizes):
            total += term(self._left[i, s], self._right[j, s], size)
        return total

    def _joint(self, i: Array, above: bool) -> Array:
        return shared(i, self._columns, self._rows, above)


def measured(pairs: pd.DataFrame, counts: PairCounts) -> pd.DataFrame:
    """Pairs with columns i, j and joint, with what is expected of them: expected, npmi_matched, p."""
    i, j, joint = (pairs[c].to_numpy() for c in ("i", "j", "joint"))
    expected = counts.expected(i, j)
    strength = npmi(joint, expected, counts.total)
    return pairs.assign(expected=expected, npmi_matched=strength, p=joint_tail(joint, expected, counts.most(i, j)))
