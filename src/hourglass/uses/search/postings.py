"""Weights of terms in documents, by term: what a search by words or by learned weights reads of a query's terms, and no more.

postings = Postings.open(folder)
scores = postings.scores({"sparse": 1.0, "autoencod": 1.0})    # [documents]
best_rows(scores, 10)

terms.json     the vocabulary, in order
ends.npy       [terms + 1] where the documents of each begin, int64
documents.npy  [weights] int32, rising within a term
weights.npy    [weights] float32
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, final

import numba
import numpy as np
from scipy.sparse import csc_matrix

from hourglass.errors import FolderError
from hourglass.storage.atomic import read_json
from hourglass.uses.search.stages import Array, Ranking

_BLOCK = 256


@final
class Postings:
    """Of `documents` documents; `terms` gives the number of each term."""

    def __init__(self, documents: int, terms: Mapping[str, int], ends: Array, rows: Array, weights: Array) -> None:
        self.documents, self.terms = documents, terms
        self._ends, self._rows, self._weights = ends, rows, weights

    @classmethod
    def of(cls, matrix: csc_matrix, terms: Sequence[str]) -> Self:
        """Of weights [documents, terms]."""
        matrix.sort_indices()
        return cls(
            matrix.shape[0],
            {term: number for number, term in enumerate(terms)},
            matrix.indptr.astype(np.int64),
            matrix.indices.astype(np.int32),
            matrix.data.astype(np.float32),
        )

    @classmethod
    def open(cls, folder: Path) -> Self:
        """What `save` wrote; the arrays stay on disk until they are read. FolderError for what cannot be read."""
        kept = read_json(folder / "terms.json")
        try:
            arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("ends", "documents", "weights")]
        except (OSError, ValueError, EOFError) as error:
            raise FolderError(f"{folder}: cannot be read ({error}); remove it, and it is made again") from None
        return cls(
            kept["documents"],
            {term: number for number, term in enumerate(kept["terms"])},
            *(array.view(np.ndarray) for array in arrays),
        )

    def save(self, folder: Path) -> None:
        write_postings(folder, self.documents, list(self.terms), self._ends, [(self._rows, self._weights)])

    def scores(self, query: Mapping[str, float]) -> Array:
        """[documents] float32: sum over the query's terms of its weight times the document's; unknown terms count nothing."""
        known = sorted((self.terms[term], weight) for term, weight in query.items() if term in self.terms)
        made = np.zeros(self.documents, np.float32)
        for term, weight in known:
            part = slice(self._ends[term], self._ends[term + 1])
            _add(self._rows[part], self._weights[part], np.float32(weight), made)
        return made


def write_postings(
    folder: Path, documents: int, terms: Sequence[str], ends: Array, parts: Iterable[tuple[Array, Array]]
) -> None:
    """Write the files of `Postings`: of documents and weights part by part, [n] int32 and [n] float32 each."""
    kept = {"documents": documents, "terms": list(terms)}
    (folder / "terms.json").write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
    np.save(folder / "ends.npy", np.asarray(ends, np.int64))
    with (folder / "documents.npy").open("wb") as rows_file, (folder / "weights.npy").open("wb") as weights_file:
        for file, kind in ((rows_file, np.int32), (weights_file, np.float32)):
            header = {"descr": np.dtype(kind).str, "fortran_order": False, "shape": (int(ends[-1]),)}
            np.lib.format.write_array_header_1_0(file, header)
        for rows, weights in parts:
            rows_file.write(np.ascontiguousarray(rows, np.int32).data)
            weights_file.write(np.ascontiguousarray(weights, np.float32).data)


@numba.njit(cache=True)
def _add(rows: Any, weights: Any, weight: Any, to: Any) -> None:
    for i in range(len(rows)):
        to[rows[i]] += weight * weights[i]


def best_rows(scores: Array, depth: int, *, among: Array | None = None, above: float = -np.inf) -> Ranking:
    """The `depth` highest of `scores` [n] that are higher than `above`; of equal ones the smaller row.

    among  rows that count, all by default
    """
    if among is not None:
        scores = scores[among]
    floor = above
    if len(scores) > _BLOCK * depth:
        # As many blocks as are wanted have something that is no less than the least of their highest: what is lower is out.
        whole = len(scores) // _BLOCK * _BLOCK
        highest = scores[:whole].reshape(-1, _BLOCK).max(1)
        least = np.partition(highest, -depth)[-depth]
        kept = np.flatnonzero(scores >= least) if least > floor else np.flatnonzero(scores > floor)
    else:
        kept = np.flatnonzero(scores > floor) if floor > -np.inf else np.arange(len(scores))
    found = scores[kept]
    if len(kept) > 4 * depth:
        enough = found >= np.partition(found, -depth)[-depth]
        kept, found = kept[enough], found[enough]
    return Ranking.of(kept if among is None else among[kept], found, depth)
