"""Which documents have some of the features and words, read without the rest of what is stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, hstack, vstack

from hourglass.uses.explore.pooling import having

if TYPE_CHECKING:
    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]

_STORED = ("indptr", "indices", "maximum", "word_indptr", "word_indices")


def present_by_shard(workspace: Workspace, rows: Array, level: float, min_tokens: int) -> Iterator[csr_matrix]:
    """Of the documents at `rows`, in rising order, a shard's at a time: [documents, features, then words] 1 where a document has one;
    `level` and `min_tokens` as in `present_in`."""
    floor = level * workspace.features["p90"].to_numpy(np.float32)
    for has, words in _having(workspace, rows, floor, min_tokens):
        yield hstack([has, words], format="csr")


def present_in(
    workspace: Workspace, columns: Array, level: float, min_tokens: int, rows: Array | None = None
) -> csr_matrix:
    """[documents, len(columns)] 1 where a document has the feature or word.

    columns  each a feature, or the width plus the number of a word
    level, min_tokens  presence: share of the feature's 90th percentile that the maximum must pass, tokens that must fire
    rows     positions of the documents, in rising order; all of them without
    """
    width = workspace.manifest["width"]
    slots = np.full(width + len(workspace.words), -1, np.int32)
    slots[columns] = np.arange(len(columns))
    of_feature, of_word = slots[:width], slots[width:]
    floor = np.where(of_feature >= 0, level * workspace.features["p90"].to_numpy(np.float32), np.float32(np.inf))
    parts = []
    for has, words in _having(workspace, np.arange(len(workspace)) if rows is None else rows, floor, min_tokens):
        parts.append(
            picked(has.indptr, has.indices, None, of_feature, len(columns))
            + picked(words.indptr, words.indices, None, of_word, len(columns))
        )
    return vstack(parts, format="csr")


def _having(
    workspace: Workspace, rows: Array, floor: Array, min_tokens: int
) -> Iterator[tuple[csr_matrix, csr_matrix]]:
    """Of the documents at `rows`, a shard's at a time: [documents, features] and [documents, words] 1 where a document has one."""
    counted = ("count",) if min_tokens > 1 else ()
    for a, inside in workspace.shards_of(rows, *_STORED, *counted):
        has = having(
            inside, a["indptr"], a["indices"], a["maximum"], a.get("count"), floor=floor, min_tokens=min_tokens
        )
        said = np.ones(len(a["word_indices"]), np.float32), a["word_indices"], a["word_indptr"]
        yield has, csr_matrix(said, shape=(len(a["word_indptr"]) - 1, len(workspace.words)))[inside]


def any_of(present: csr_matrix, of: Array, number: int) -> csr_matrix:
    """[number, columns] 1 where any of the documents with the same number in `of` (-1: none) has the column."""
    rows = np.flatnonzero(of >= 0)
    membership = csr_matrix((np.ones(len(rows), np.float32), (of[rows], rows)), shape=(number, len(of)))
    union = (membership @ present).tocsr()
    union.data[:] = 1
    return union


def items_of(workspace: Workspace, columns: Array) -> pd.DataFrame:
    """What each column is, a row each: kind ("feature" or "word"), feature (NA for a word), label (of a feature its name).

    columns  each a feature, or the width plus the number of a word
    """
    width = workspace.manifest["width"]
    labels, words = workspace.features["label"].to_numpy(object), np.array([*workspace.words, ""], object)
    is_feature = columns < width
    label = np.where(is_feature, labels[np.minimum(columns, width - 1)], words[np.maximum(columns - width, -1)])
    feature = pd.Series(columns, dtype="Int64").where(is_feature)
    kind = np.where(is_feature, "feature", "word")
    return pd.DataFrame({"kind": kind, "feature": feature, "label": pd.Series(label, dtype=object)})


def names_of(items: pd.DataFrame) -> list[int | str]:
    """The items of such a table, a feature by its number, a word as it is."""
    return [label if kind == "word" else int(feature) for kind, feature, label in items.to_numpy(object)]


def picked(indptr: Array, indices: Array, values: Array | None, slots: Array, number: int) -> csr_matrix:
    """The columns of a CSR matrix that have a place in `slots` (-1: none), in these places; ones without `values`."""
    place = slots[indices]
    hit = np.flatnonzero(place >= 0)
    data = np.ones(len(hit), np.float32) if values is None else values[hit].astype(np.float32)
    return csr_matrix((data, place[hit], np.searchsorted(hit, indptr)), shape=(len(indptr) - 1, number))
