"""Rows that are about the same documents are one thing seen several times: a word, the phrase around it, their features.

One row of such stands for all when they are shown. What was tested, and its q, is not touched.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from hourglass.uses.explore.labels import clarity
from hourglass.uses.explore.shared import at_once, shared

if TYPE_CHECKING:
    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]

SAME = 0.8
"""Rows whose documents overlap so far (Jaccard) are one: of the documents that have either, one in five lacks the other.
Where more lack it, as half of those with "service" lack "customer service", the two say different things."""


def first_alike(present: csr_matrix) -> Array:
    """[columns] the first column with about the same documents, for each; its own number where there is none before it.

    present [documents, columns] 1 where a document has it, the columns in the order in which they may stand for others
    """
    columns = present.tocsc()
    rows, size, number = columns.tocsr(), np.diff(columns.indptr), present.shape[1]
    of, near = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start in range(0, number, at_once(number)):
        items = np.arange(start, min(start + at_once(number), number))
        both = shared(items, columns, rows, above=True)
        row, other = np.nonzero(both)
        alike = both[row, other] >= SAME * (size[items[row]] + size[other] - both[row, other])
        of.append(items[row[alike]])
        near.append(other[alike])
    return first_near(np.concatenate(of), np.concatenate(near), number)


def first_near(of: Array, near: Array, number: int) -> Array:
    """[number] the first that each is near to, of those that are near to none before them; its own number where there is none.

    of, near  the pairs that are near to one another, in any order; of a pair the former stands for the latter
    """
    before = of < near
    of, near = of[before], near[before]
    first = np.arange(number)
    order = np.lexsort((of, near))
    for i, j in zip(of[order], near[order]):
        if first[j] == j and first[i] == i:
            first[j] = i
    return first


def same_as(first: Array, terms: Sequence[Sequence[str]], keys: Sequence[Hashable] = ()) -> Any:
    """[rows] the row that stands for each, a nullable integer: NA for one that stands for itself.

    first  what `first_alike` says of the rows
    terms  of each row, of which it takes the clearest, the first of several; none for a row without a name
    keys   of each row; rows with one key are one thing too
    """
    first, at = first.copy(), dict[Hashable, int]()
    for row, key in enumerate(keys):
        first[row] = at.setdefault(key, int(first[first[row]]))
    clear = np.array([clarity(own) for own in terms], np.int64)
    order = np.lexsort((np.arange(len(first)), -clear, first))
    groups, start = np.unique(first[order], return_index=True)
    stands = order[start][np.searchsorted(groups, first)]
    return pd.Series(stands, dtype="Int64").mask(stands == np.arange(len(first))).array


def terms_of(workspace: Workspace, table: pd.DataFrame) -> list[list[str]]:
    """The terms of each row's name; a row is a feature or a word."""
    of_feature = workspace.features["terms"]
    return [
        []
        if not isinstance(row.label, str)
        else [row.label]
        if row.kind == "word"
        else list(of_feature.iloc[int(row.feature)])
        for row in table.itertuples()
    ]
