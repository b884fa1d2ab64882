"""Exact search by vectors: products with all of a file that is mapped into memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import final

import numpy as np

from hourglass.errors import ConfigError, FolderError
from hourglass.uses.search.encoding import compared
from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.layout import rows_of_lists
from hourglass.uses.search.scanning import products, products_of, rankings
from hourglass.uses.search.stages import Array, Query, Ranking, Scorer

_FILE = "vectors"
_MORE = 16
"""Documents beyond those that are wanted that are scored again one by one: products of another order differ in the last digits."""


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
        asked = self.asked(queries)
        rows = products(self.vectors, asked, depth + _MORE, self._index.selected)[0]
        return rankings((rows, products_of(self.vectors, asked, rows)), depth)

    def score(self, query: Query, rows: Array) -> Array:
        return np.asarray(products_of(self.vectors, self.asked([query]), np.asarray(rows, np.int64)[None])[0])

    def asked(self, queries: Sequence[Query]) -> Array:
        """[n, d] float32 vectors of queries; ConfigError for one that is not of finite numbers."""
        vectors = self._index.encode(queries)
        if not np.isfinite(vectors).all():
            raise ConfigError("the vector of a query holds what is no finite number")
        return vectors

    @cached_property
    def vectors(self) -> Array:
        """[N, d] of the type in which the index keeps them."""
        kind, width = np.dtype(self._index.manifest["vectors"]["dtype"]), self._index.width
        path = self._index.cached("dense", self._build) / _FILE
        expected = len(self._index) * width * kind.itemsize
        if path.stat().st_size != expected:
            raise FolderError(f"{path}: {path.stat().st_size:,} bytes, expected {expected:,}; remove {path.parent}")
        if not expected:
            return np.zeros((0, width), kind)
        return np.memmap(path, kind, "r", shape=(len(self._index), width)).view(np.ndarray)

    def _build(self, folder: Path) -> None:
        kind = self._index.manifest["vectors"]["dtype"]
        with (folder / _FILE).open("wb") as file:
            for batch in self._index.batches(["vector"]):
                vectors = compared(rows_of_lists(batch.column("vector")), self._index.similarity)
                file.write(np.ascontiguousarray(vectors.astype(kind)).data)
