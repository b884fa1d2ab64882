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
        return [self._nearest(code, depth) for code in self._asked(queries)] if queries else []

    def score(self, query: Query, rows: Array) -> Array:
        return -differing(self._codes[rows], self._asked([query])[0]).astype(np.float32)

    def _asked(self, queries: Sequence[Query]) -> Array:
        """[n, words] uint64."""
        return as_words(self._index.codes(queries))

    def _nearest(self, code: Array, depth: int) -> Ranking:
        rows = self._index.selected
        distances = differing(self._codes if rows is None else self._codes[rows], code)
        # A distance is a small whole number: counting finds how far the nearest reach.
        within = np.cumsum(np.bincount(distances, minlength=1))
        farthest = int(np.searchsorted(within, min(depth, len(distances))))
        if self._radius is not None:
            farthest = min(farthest, self._radius)
        found = np.flatnonzero(distances <= farthest)
        return Ranking.of(found if rows is None else rows[found], -distances[found].astype(np.float32), depth)

    @cached_property
    def _codes(self) -> Array:
        """[N, words] uint64."""
        path = self._index.cached("hamming", self._build) / _FILE
        width = -(-self._index.coder.bits // 64)
        if path.stat().st_size != 8 * width * len(self._index):
            raise FolderError(f"{path}: shorter or longer than its {len(self._index):,} codes; remove {path.parent}")
        if not len(self._index):
            return np.zeros((0, width), np.uint64)
        return np.memmap(path, np.uint64, "r", shape=(len(self._index), width)).view(np.ndarray)

    def _build(self, folder: Path) -> None:
        with (folder / _FILE).open("wb") as file:
            for batch in self._index.batches(["code"]):
                column = batch.column("code")
                size = column.type.byte_width
                packed = np.frombuffer(column.buffers()[1], np.uint8, len(column) * size, column.offset * size)
                file.write(as_words(packed.reshape(len(column), size)).data)
