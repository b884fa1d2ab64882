"""Weights of terms in documents, by term: what a search by words or by learned weights reads of a query's terms, and no more.

postings = Postings.open(folder)
postings.best([{"sparse": 1.0, "autoencod": 1.0}], 10)    # a ranking of the best documents for each query
postings.scores({"sparse": 1.0}, rows)                    # [rows]

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
from hourglass.uses.search.scanning import Kept, in_parts, joined, offer, rankings, room
from hourglass.uses.search.stages import Array, Ranking

_BLOCK, _LOOK = 1 << 15, 64
"""Documents whose scores are added up at a time, in the cache of the processor, and that are looked at at a time."""


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

    def scores(self, query: Mapping[str, float], rows: Array) -> Array:
        """[n] float32 of documents `rows` [n]: sum over the query's terms of its weight times the document's; unknown terms count nothing."""
        made = np.zeros(len(rows), np.float32)
        for term, weight in zip(*self._known(query)):
            part = slice(self._ends[term], self._ends[term + 1])
            having, weights = self._rows[part], self._weights[part]
            if not len(having):
                continue
            places = np.minimum(np.searchsorted(having, rows), len(having) - 1)
            made += weight * np.where(having[places] == rows, weights[places], np.float32(0))
        return made

    def weights(self, terms: Iterable[str], row: int) -> dict[str, float]:
        """Of those `terms` that document `row` has."""
        made = {}
        for term in terms:
            if (number := self.terms.get(term)) is None:
                continue
            start, stop = self._ends[number : number + 2].tolist()
            at = start + int(np.searchsorted(self._rows[start:stop], row))
            if at < stop and self._rows[at] == row:
                made[term] = float(self._weights[at])
        return made

    def having(self, term: str) -> int:
        """Documents that have a known `term`."""
        number = self.terms[term]
        return int(self._ends[number + 1] - self._ends[number])

    def best(self, queries: Sequence[Mapping[str, float]], depth: int, among: Array | None = None) -> list[Ranking]:
        """Of each query the `depth` documents of the highest scores above 0; of equal scores the smaller row.

        among  rows that count, all by default
        """
        depth = min(depth, self.documents if among is None else len(among))
        if not depth:
            return rankings(room(len(queries), 0), 0)
        counted = np.zeros(0, np.bool_)
        if among is not None:
            counted = np.zeros(self.documents, np.bool_)
            counted[among] = True
        known = [self._known(query) for query in queries]
        postings = sum(int((self._ends[terms + 1] - self._ends[terms]).sum()) for terms, _ in known)

        def part(start: int, stop: int) -> Kept:
            kept = room(len(queries), depth, above=0)
            sums = np.empty(_BLOCK, np.float32)
            for (terms, by), rows, scores in zip(known, *kept):
                _best(terms, by, self._ends, self._rows, self._weights, start, stop, counted, sums, scores, rows)
            return kept

        cost = len(queries) + 8 * postings / max(1, self.documents)
        return rankings(joined(in_parts(self.documents, cost, part)), depth)

    def _known(self, query: Mapping[str, float]) -> tuple[Array, Array]:
        """(numbers of the query's terms that are known, rising; their weights)."""
        known = sorted((self.terms[term], weight) for term, weight in query.items() if term in self.terms)
        terms = np.array([term for term, _ in known], np.int64)
        return terms, np.array([weight for _, weight in known], np.float32)


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


@numba.njit(cache=True, nogil=True)
def _best(
    terms: Any, by: Any, ends: Any, rows: Any, weights: Any, start: int, stop: int, counted: Any, sums: Any, scores: Any, found: Any
) -> None:  # fmt: skip
    at = np.empty(len(terms), np.int64)
    for t in range(len(terms)):
        first, last = ends[terms[t]], ends[terms[t] + 1]
        at[t] = first + np.searchsorted(rows[first:last], start)
    limit = scores[0]
    for first in range(start, stop, len(sums)):
        number = min(len(sums), stop - first)
        sums[:number] = 0
        for t in range(len(terms)):
            here, weight = at[t], by[t]
            at[t] = here + np.searchsorted(rows[here : ends[terms[t] + 1]], first + number)
            for i in range(here, at[t]):
                sums[np.uintp(rows[i] - first)] += weight * weights[i]
        for look in range(0, number, _LOOK):
            part = sums[look : min(look + _LOOK, number)]
            if _highest(part) <= limit:
                continue
            for i in range(len(part)):
                row = first + look + i
                if part[i] > limit and (not len(counted) or counted[row]):
                    offer(scores, found, part[i], row)
                    limit = scores[0]


@numba.njit(cache=True, nogil=True, fastmath={"nnan", "nsz", "reassoc"})
def _highest(numbers: Any) -> Any:
    found = numbers[0]
    for i in range(len(numbers)):
        found = max(found, numbers[i])
    return found
