"""Exact search by vectors: blocks of matrix products over a file that is mapped into memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import final

import numpy as np
import torch

from hourglass.errors import FolderError
from hourglass.uses.search.encoding import compared
from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.layout import rows_of_lists
from hourglass.uses.search.postings import best_rows
from hourglass.uses.search.stages import Array, Query, Ranking, Scorer

_FILE = "vectors"
_ROWS_AT_ONCE, _ROWS_OF_BLOCK = 1 << 16, 2048
_QUERIES_AT_ONCE = 64
_MORE = 16
"""Documents beyond those that are wanted that are scored again one by one: products of blocks differ in the last digits."""


@final
class Dense(Scorer):
    """Documents by the inner product of their vector and the query's (the cosine, where the index compares by it).

    ConfigError for an index without vectors.
    """

    def __init__(self, index: SearchIndex) -> None:
        self.name, self._index = "dense", index
        index.require_vectors()

    def retrieve(self, queries: Sequence[Query], depth: int) -> list[Ranking]:
        if not queries:
            return []
        asked = self._index.encode(queries)
        made = []
        for start in range(0, len(asked), _QUERIES_AT_ONCE):
            some = asked[start : start + _QUERIES_AT_ONCE]
            for vector, rows in zip(some, self._nearest(some, depth + _MORE)):
                made.append(Ranking.of(rows, self._products(vector, rows), depth))
        return made

    def score(self, query: Query, rows: Array) -> Array:
        return self._products(self._index.encode([query])[0], rows)

    def _products(self, vector: Array, rows: Array) -> Array:
        # A row at a time in effect: the sum of one does not hang on which others are asked for.
        return np.asarray((self._vectors[rows].astype(np.float32) * vector).sum(1))

    def _nearest(self, queries: Array, depth: int) -> list[Array]:
        """Rows of the `depth` nearest of each query, in no order."""
        selected, vectors = self._index.selected, self._vectors
        number = len(vectors) if selected is None else len(selected)
        asked = torch.from_numpy(queries)
        # Numbers become float32 a block at a time, in one place that stays in the cache of the processor.
        block = torch.empty(_ROWS_OF_BLOCK, vectors.shape[1])
        scores = torch.empty(len(queries), min(number, _ROWS_AT_ONCE))
        kept: list[list[tuple[Array, Array]]] = [[] for _ in queries]
        for start in range(0, number, _ROWS_AT_ONCE):
            stop = min(start + _ROWS_AT_ONCE, number)
            for first in range(start, stop, _ROWS_OF_BLOCK):
                last = min(first + _ROWS_OF_BLOCK, stop)
                some = vectors[first:last] if selected is None else vectors[selected[first:last]]
                rows = block[: last - first].copy_(torch.from_numpy(some))
                torch.mm(asked, rows.T, out=scores[:, first - start : last - start])
            for found, row in zip(kept, scores[:, : stop - start].numpy()):
                best = best_rows(row, depth)
                found.append((best.rows + start, best.scores))
        nearest = []
        for found in kept:
            if not found:
                nearest.append(np.zeros(0, np.int64))
                continue
            places, values = (np.concatenate(part) for part in zip(*found))
            found_rows = Ranking.of(places, values, depth).rows
            nearest.append(found_rows if selected is None else selected[found_rows])
        return nearest

    @cached_property
    def _vectors(self) -> Array:
        """[N, d] of the type in which the index keeps them."""
        kind, width = np.dtype(self._index.manifest["vectors"]["dtype"]), self._index.width
        path = self._index.cached("dense", self._build) / _FILE
        expected = len(self._index) * width * kind.itemsize
        if path.stat().st_size != expected:
            raise FolderError(f"{path}: {path.stat().st_size:,} bytes, expected {expected:,}; remove {path.parent}")
        if not expected:
            return np.zeros((0, width), kind)
        # "c": torch wants memory that may be written to; what is written would stay in this process.
        return np.memmap(path, kind, "c", shape=(len(self._index), width)).view(np.ndarray)

    def _build(self, folder: Path) -> None:
        kind = self._index.manifest["vectors"]["dtype"]
        with (folder / _FILE).open("wb") as file:
            for batch in self._index.batches(["vector"]):
                vectors = compared(rows_of_lists(batch.column("vector")), self._index.similarity)
                file.write(np.ascontiguousarray(vectors.astype(kind)).data)
