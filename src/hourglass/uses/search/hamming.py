"""Exact search by binary codes: the bits in which a document's differs from the query's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import final

import numpy as np

from hourglass.errors import ConfigError, FolderError
from hourglass.metrics.codes import as_words, differing
from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.scanning import bits, rankings
from hourglass.uses.search.stages import Array, Query, Ranking, Scorer

_FILE = "codes"


@final
class Hamming(Scorer):
    """Documents by how many bits of their code are the query's; of equal ones the smaller row. The score is minus the distance.

    radius  only documents whose codes differ in so many bits at most

    ConfigError for an index without codes.
    """

    def __init__(self, index: SearchIndex, radius: int | None = None) -> None:
        if radius is not None and radius < 0:
            raise ConfigError(f"radius {radius}: expected 0 bits or more")
        self.name, self._index, self._radius = "hamming", index, radius
        index.require_codes()

    def retrieve(self, queries: Sequence[Query], depth: int) -> list[Ranking]:
        if not queries:
            return []
        within = self._index.coder.bits if self._radius is None else self._radius
        found = bits(self._codes, self._asked(queries), depth, within, self._index.selected)
        return rankings(found, depth)

    def score(self, query: Query, rows: Array) -> Array:
        return -differing(self._codes[:, rows].T, self._asked([query])[0]).astype(np.float32)

    def _asked(self, queries: Sequence[Query]) -> Array:
        """[n, words] uint64."""
        return as_words(self._index.codes(queries))

    @cached_property
    def _codes(self) -> Array:
        """[words, N] uint64: the same word of all codes lies together, as processors compare them."""
        path = self._index.cached("codes", self._build) / _FILE
        width = -(-self._index.coder.bits // 64)
        if path.stat().st_size != 8 * width * len(self._index):
            raise FolderError(f"{path}: shorter or longer than its {len(self._index):,} codes; remove {path.parent}")
        if not len(self._index):
            return np.zeros((width, 0), np.uint64)
        return np.memmap(path, np.uint64, "r", shape=(width, len(self._index))).view(np.ndarray)

    def _build(self, folder: Path) -> None:
        width, number = -(-self._index.coder.bits // 64), len(self._index)
        with (folder / _FILE).open("wb") as file:
            file.truncate(8 * width * number)
        if not number:
            return
        kept = np.memmap(folder / _FILE, np.uint64, "r+", shape=(width, number))
        start = 0
        for batch in self._index.batches(["code"]):
            column = batch.column("code")
            size = column.type.byte_width
            packed = np.frombuffer(column.buffers()[1], np.uint8, len(column) * size, column.offset * size)
            kept[:, start : start + len(column)] = as_words(packed.reshape(len(column), size)).T
            start += len(column)
        kept.flush()
