"""Documents that have both of two items, over all pairs of some items with all.

Time grows with the sum over documents of the product of the items present.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from scipy.sparse import csc_matrix, csr_matrix

from hourglass.nn.parallel import over_rows

Array = np.ndarray[Any, Any]

CELLS = 2**21
"""Pairs whose counts are in memory at once."""


def at_once(width: int) -> int:
    """So many items are counted at a time, each with `width` others."""
    return max(1, CELLS // max(1, width))


def shared(items: Array, columns: csc_matrix, rows: csr_matrix, above: bool) -> Array:
    """[items, width] documents that have both; with `above` only with items of a larger number, 0 of the others.

    columns  [documents, items] 1 where a document has one of those that `items` numbers
    rows     [documents, width] the same of the others, in rising order within each document
    """
    counts = np.zeros((len(items), rows.shape[1]), np.int32)
    places = columns.indptr, columns.indices, rows.indptr, rows.indices
    over_rows(_shared, len(items), items, *places, above, counts)
    return counts


@numba.njit(cache=True, nogil=True)
def _shared(
    items: Any,
    starts: Any,
    documents: Any,
    offsets: Any,
    present: Any,
    above: bool,
    counts: Any,
    start: int,
    stop: int,
) -> None:
    for row in range(start, stop):
        item = items[row]
        own = counts[row]
        for at in range(starts[item], starts[item + 1]):
            document = documents[at]
            for k in range(offsets[document + 1] - 1, offsets[document] - 1, -1):
                if above and present[k] <= item:
                    break
                own[present[k]] += 1
