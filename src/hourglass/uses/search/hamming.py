"""Exact search by binary codes: the bits in which a document's differs from the query's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import final

import numpy as np

from hourglass.errors import ConfigError, FolderError
from hourglass.metrics.codes import as_words, differing
from hourglass.uses.search.buckets import BITS, Buckets
from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.scanning import bits, rankings
from hourglass.uses.search.stages import Array, Query, Ranking, Scorer

_FILE = "codes"
_SHARE = 16
"""Of all codes, one in so many that may be compared one by one: more are sooner read in a row."""


@final
class Hamming(Scorer):
    """Documents by how many bits of their code are the query's; of equal ones the smaller row. The score is minus the distance.

    radius  only documents whose codes differ in so many bits at most; of a radius below a sixteenth of the bits not all are looked at

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
        asked = self._asked(queries)
        if self._radius is not None and self._radius < self._pieces:
            return [self._within(self._radius, code, depth) for code in asked]
        within = self._index.coder.bits if self._radius is None else self._radius
        return rankings(bits(self._codes, asked, depth, within, self._index.selected), depth)

    def score(self, query: Query, rows: Array) -> Array:
        return -differing(self._codes[:, rows].T, self._asked([query])[0]).astype(np.float32)

    def _asked(self, queries: Sequence[Query]) -> Array:
        """[n, words] uint64."""
        return as_words(self._index.codes(queries))

    def _within(self, radius: int, code: Array, depth: int) -> Ranking:
        """Of one query, looking only where the near ones are; at all where that is much."""
        selected = self._index.selected
        if self._buckets.compared(code) * _SHARE > len(self._index):
            return rankings(bits(self._codes, code[None], depth, radius, selected), depth)[0]
        rows, distances = self._buckets.within(self._codes, code, radius)
        if selected is not None:
            kept = np.isin(rows, selected)
            rows, distances = rows[kept], distances[kept]
        return Ranking.of(rows, -distances, depth)

    @property
    def _pieces(self) -> int:
        return -(-self._index.coder.bits // BITS)

    @cached_property
    def _buckets(self) -> Buckets:
        folder = self._index.cached("buckets", lambda new: Buckets.save(self._codes, self._pieces, new))
        return Buckets.open(folder, len(self._index), self._pieces)

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
