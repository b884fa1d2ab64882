"""Codes within a small radius, without looking at all: multi-index hashing (Norouzi, Punjani and Fleet 2012).

A code is cut into pieces of 16 bits. Of two that differ in fewer bits than there are pieces, one piece at least is the same: what
has a piece of the query's in its place is compared, and nothing else.

order.npy  [pieces, codes] int32, by the number that the piece is
ends.npy   [pieces, 65537] int64: where those of each number begin
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self, final

import numba
import numpy as np

from hourglass.errors import FolderError
from hourglass.uses.search.scanning import ones
from hourglass.uses.search.stages import Array

BITS = 16
"""Of a piece."""


@final
class Buckets:
    """Where the codes of each piece are; `order` and `ends` as above."""

    def __init__(self, order: Array, ends: Array) -> None:
        self._order, self._ends = order, ends

    @classmethod
    def open(cls, folder: Path, codes: int, pieces: int) -> Self:
        """What `save` wrote; FolderError for what cannot be read, or is of other codes."""
        try:
            order, ends = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("order", "ends"))
            if order.shape != (pieces, codes) or ends.shape != (pieces, 2**BITS + 1):
                raise ValueError("of other codes")
        except (OSError, ValueError, EOFError) as error:
            raise FolderError(f"{folder}: cannot be read ({error}); remove it, and it is made again") from None
        return cls(order.view(np.ndarray), ends.view(np.ndarray))

    @staticmethod
    def save(words: Array, pieces: int, folder: Path) -> None:
        """Of codes, words [words, N] uint64, that are `pieces` long."""
        order = np.lib.format.open_memmap(folder / "order.npy", "w+", np.int32, (pieces, words.shape[1]))
        ends = np.empty((pieces, 2**BITS + 1), np.int64)
        for piece in range(pieces):
            numbers = (words[piece // 4] >> np.uint64(BITS * (piece % 4))).astype(np.uint16)
            order[piece] = np.argsort(numbers, kind="stable")
            ends[piece] = np.append(0, np.cumsum(np.bincount(numbers, minlength=2**BITS)))
        order.flush()
        np.save(folder / "ends.npy", ends)

    def compared(self, query: Array) -> int:
        """How many codes, some of them several times, are looked at for a query [words]."""
        starts = _starts(query, len(self._ends))
        pieces = np.arange(len(starts))
        return int((self._ends[pieces, starts + 1] - self._ends[pieces, starts]).sum())

    def within(self, words: Array, query: Array, radius: int) -> tuple[Array, Array]:
        """(rows [n] int64, bits [n] int64 in which they differ) of all codes within a radius below the number of pieces."""
        rows, differing = np.empty((2, self.compared(query)), np.int64)
        number = _look(words, query, _starts(query, len(self._ends)), self._order, self._ends, radius, rows, differing)
        return rows[:number], differing[:number]


def _starts(query: Array, pieces: int) -> Array:
    """[pieces] the number that each piece of a code is."""
    at = np.arange(pieces)
    return (query[at // 4] >> (BITS * (at % 4)).astype(np.uint64)).astype(np.uint16).astype(np.int64)


@numba.njit(cache=True, nogil=True)
def _look(words: Any, query: Any, numbers: Any, order: Any, ends: Any, radius: int, rows: Any, differing: Any) -> int:
    found = 0
    for piece in range(len(numbers)):
        for place in range(ends[piece, numbers[piece]], ends[piece, numbers[piece] + 1]):
            row = order[piece, place]
            distance, before = np.int64(0), False
            for w in range(len(query)):
                apart = words[w, row] ^ query[w]
                distance += int(ones(apart))
                for p in range(4):
                    # A piece before this is the same, too: it has been looked at.
                    same = (apart >> np.uint64(BITS * p)) & np.uint64(0xFFFF) == 0
                    before = before or (same and 4 * w + p < piece)
            if distance <= radius and not before:
                rows[found], differing[found] = row, distance
                found += 1
    return found
