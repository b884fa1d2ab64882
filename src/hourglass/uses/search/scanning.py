"""The hot loops of exact search: everything is read once for many queries, and of what has been seen the best are kept.

Each thread reads a part of the documents of its own, in rising order, and keeps the best of it in a heap for each query; a loop
holds no lock of Python. As many threads as torch has.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
import torch
from numba import types
from numba.extending import intrinsic, overload

from hourglass.uses.search.stages import Array

_LEAST = 1 << 20
"""Bytes or so that are worth a thread."""
_QUERIES_AT_ONCE = 64
# float32 products may be added up in any order; NaN and infinity stay what they are.
_SUMS = {"reassoc", "contract", "nsz"}
_TILE, _ROWS, _CODES, _LOOK = 4, 16, 2048, 64

Best = tuple[Array, Array]
"""rows [n] int64 and scores [n] float32, in no order."""


def in_parts(number: int, cost: float, work: Callable[[int, int], Sequence[Best]]) -> list[Best]:
    """What `work(start, stop)` finds for each query among `number` documents of `cost` bytes each, threads side by side."""
    threads = int(max(1, min(torch.get_num_threads(), number * cost // _LEAST)))
    ends = [number * i // threads for i in range(threads + 1)]
    found: list[Sequence[Best]] = [()] * threads
    failed: list[BaseException] = []

    def part(i: int) -> None:
        try:
            found[i] = work(ends[i], ends[i + 1])
        except BaseException as error:
            failed.append(error)

    others = [threading.Thread(target=part, args=(i,)) for i in range(1, threads)]
    for thread in others:
        thread.start()
    part(0)
    for thread in others:
        thread.join()
    if failed:
        raise failed[0]
    if threads == 1:
        return list(found[0])
    return [(np.concatenate([rows for rows, _ in each]), np.concatenate([s for _, s in each])) for each in zip(*found)]


class Heaps:
    """The best of what has been offered for each of some queries.

    scores [queries, depth] float32, the least first (`above` where there is none yet); rows [queries, depth] int64, -1 for none
    """

    def __init__(self, queries: int, depth: int, above: float = -np.inf) -> None:
        self.scores = np.full((queries, depth), above, np.float32)
        self.rows = np.full((queries, depth), -1, np.int64)

    def best(self) -> list[Best]:
        return [(rows[rows >= 0], scores[rows >= 0]) for rows, scores in zip(self.rows, self.scores)]


def products(vectors: Array, queries: Array, depth: int, selected: Array | None = None) -> list[Best]:
    """Documents with the `depth` highest inner products of their vector [N, d] float16 or float32 and each query's [n, d] float32.

    Those of `selected` rows alone where it is given. Of equal products the smaller rows. The last digits of a product are not
    those of another way to add it up.
    """
    number = len(vectors) if selected is None else len(selected)
    kept = vectors.view(np.uint16) if vectors.dtype == np.float16 else vectors
    chosen = np.zeros(0, np.int64) if selected is None else selected
    depth = min(depth, number)
    found: list[Best] = []
    for first in range(0, len(queries), _QUERIES_AT_ONCE):
        some = np.ascontiguousarray(queries[first : first + _QUERIES_AT_ONCE], np.float32)
        asked = some
        if len(some) > 1:  # tiles take whole groups
            asked = np.concatenate([some, np.zeros((-len(some) % _TILE, some.shape[1]), np.float32)])

        def part(start: int, stop: int, asked: Array = asked, wanted: int = len(some)) -> list[Best]:
            heaps = Heaps(wanted, depth)
            scan = _scan_for_one if wanted == 1 else _scan_for_many
            scan(kept, asked, start, stop, chosen, heaps.scores, heaps.rows)
            return heaps.best()

        found += in_parts(number, vectors.shape[1] * vectors.itemsize * (1 + len(some) / 4), part) if depth else _none(some)
    return found


def bits(words: Array, queries: Array, depth: int, within: int, selected: Array | None = None) -> list[Best]:
    """Documents whose codes, words [words, N] uint64, differ from each query's [n, words] in the fewest bits; the scores are minus those.

    within  only those that differ in so many bits at most

    `selected` and equal ones as in `products`.
    """
    some = words if selected is None else np.ascontiguousarray(words[:, selected])
    number = some.shape[1]
    depth = min(depth, number)
    found: list[Best] = []
    for first in range(0, len(queries), _QUERIES_AT_ONCE):
        asked = np.ascontiguousarray(queries[first : first + _QUERIES_AT_ONCE])

        def part(start: int, stop: int, asked: Array = asked) -> list[Best]:
            rows, distances = np.empty((2, len(asked), 2 * depth), np.int32)
            limits = np.full(len(asked), min(within, 64 * len(words)) + 1, np.int64)
            counts = np.zeros((len(asked), 64 * len(words) + 2), np.int64)
            held = _count_bits(some, asked, start, stop, depth, limits, counts, rows, distances)
            return [(r[:n].astype(np.int64), -d[:n].astype(np.float32)) for r, d, n in zip(rows, distances, held)]

        found += in_parts(number, 8 * len(words) * (1 + len(asked) / 4), part) if depth else _none(asked)
    return found if selected is None else [(selected[rows], scores) for rows, scores in found]


def _none(queries: Array) -> list[Best]:
    return [(np.zeros(0, np.int64), np.zeros(0, np.float32)) for _ in queries]


# Inside numba ------------------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def offer(scores: Any, rows: Any, score: Any, row: Any) -> None:
    """Put a row in the place of the least of a heap; of equal scores the greater row is less. All [depth]."""
    depth = len(scores)
    at = 0
    while True:
        child = 2 * at + 1
        if child >= depth:
            break
        other = child + 1
        if other < depth and (
            scores[other] < scores[child] or (scores[other] == scores[child] and rows[other] > rows[child])
        ):
            child = other
        if scores[child] > score or (scores[child] == score and rows[child] < row):
            break
        scores[at], rows[at] = scores[child], rows[child]
        at = child
    scores[at], rows[at] = score, row


def _wide(number: Any) -> Any:
    """float32 of a number of float32, or of the bits of one of float16."""
    raise NotImplementedError


@overload(_wide)
def _wide_of(number: Any) -> Any:
    def as_it_is(number: Any) -> Any:
        return number

    def of_half(number: Any) -> Any:
        # The exponent at its place, and then what its zero is apart; right below the normal numbers, too.
        wide = np.uint32(number)
        sign = (wide & np.uint32(0x8000)) << np.uint32(16)
        moved = np.uint32(sign | ((wide & np.uint32(0x7FFF)) << np.uint32(13)))
        return moved.view(np.float32) * np.float32(2.0**112)

    return of_half if number == types.uint16 else as_it_is


@numba.njit(cache=True, nogil=True, fastmath=_SUMS)
def _scan_for_one(vectors: Any, queries: Any, start: int, stop: int, chosen: Any, scores: Any, found: Any) -> None:
    query = queries[0]
    limit = scores[0, 0]
    for place in range(start, stop):
        row = chosen[place] if len(chosen) else place
        vector = vectors[row]
        total = np.float32(0)
        for j in range(len(query)):
            total += _wide(vector[j]) * query[j]
        if total > limit:
            offer(scores[0], found[0], total, row)
            limit = scores[0, 0]


@numba.njit(cache=True, nogil=True, fastmath=_SUMS)
def _scan_for_many(vectors: Any, queries: Any, start: int, stop: int, chosen: Any, scores: Any, found: Any) -> None:
    # A few rows and a few queries lie in the nearest cache at a time.
    block = np.zeros((_ROWS, vectors.shape[1]), np.float32)
    rows = np.zeros(_ROWS, np.int64)
    made = np.zeros((_TILE, _ROWS), np.float32)
    for first in range(start, stop, _ROWS):
        number = min(_ROWS, stop - first)
        for r in range(number):
            rows[r] = chosen[first + r] if len(chosen) else first + r
            vector, wide = vectors[rows[r]], block[r]
            for j in range(len(wide)):
                wide[j] = _wide(vector[j])
        for group in range(0, len(queries), _TILE):
            for r in range(0, _ROWS, _TILE):
                _tile(block[r : r + _TILE], queries[group : group + _TILE], made[:, r : r + _TILE])
            for q in range(min(_TILE, len(scores) - group)):
                limit = scores[group + q, 0]
                for r in range(number):
                    if made[q, r] > limit:
                        offer(scores[group + q], found[group + q], made[q, r], rows[r])
                        limit = scores[group + q, 0]


@numba.njit(cache=True, nogil=True, fastmath=_SUMS)
def _tile(rows: Any, queries: Any, to: Any) -> None:
    """Products of four rows and four queries [4, d] to [queries, rows]: sixteen sums stay in registers."""
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = np.float32(0)
    for j in range(rows.shape[1]):
        w, x, y, z = rows[0, j], rows[1, j], rows[2, j], rows[3, j]
        a, b, c, d = queries[0, j], queries[1, j], queries[2, j], queries[3, j]
        a0, a1, a2, a3 = a0 + a * w, a1 + a * x, a2 + a * y, a3 + a * z
        b0, b1, b2, b3 = b0 + b * w, b1 + b * x, b2 + b * y, b3 + b * z
        c0, c1, c2, c3 = c0 + c * w, c1 + c * x, c2 + c * y, c3 + c * z
        d0, d1, d2, d3 = d0 + d * w, d1 + d * x, d2 + d * y, d3 + d * z
    to[0, 0], to[0, 1], to[0, 2], to[0, 3] = a0, a1, a2, a3
    to[1, 0], to[1, 1], to[1, 2], to[1, 3] = b0, b1, b2, b3
    to[2, 0], to[2, 1], to[2, 2], to[2, 3] = c0, c1, c2, c3
    to[3, 0], to[3, 1], to[3, 2], to[3, 3] = d0, d1, d2, d3


@intrinsic
def _ones(context: Any, number: Any) -> Any:
    """Bits of a uint64 that are 1: an instruction, several numbers at a time where the processor can."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@numba.njit(cache=True, nogil=True)
def _first_word(words: Any, query: Any, distances: Any) -> None:
    for i in range(len(distances)):
        distances[i] = np.uint16(_ones(words[i] ^ query))


@numba.njit(cache=True, nogil=True)
def _next_word(words: Any, query: Any, distances: Any) -> None:
    for i in range(len(distances)):
        distances[i] += np.uint16(_ones(words[i] ^ query))


@numba.njit(cache=True, nogil=True)
def _count_bits(
    words: Any, queries: Any, start: int, stop: int, depth: int, limits: Any, counts: Any, rows: Any, distances: Any
) -> Any:
    """[queries] how many of the first of `rows` and `distances` [queries, 2 depth] are found.

    A distance is a small whole number: counting finds how far the nearest reach. `limits` [queries]: what is below it is kept.
    """
    block = np.zeros(_CODES, np.uint16)
    held, nearer = np.zeros(len(queries), np.int64), np.zeros(len(queries), np.int64)
    for first in range(start, stop, _CODES):
        number = min(_CODES, stop - first)
        made = block[:number]
        for q in range(len(queries)):
            _first_word(words[0, first : first + number], queries[q, 0], made)
            for w in range(1, len(words)):
                _next_word(words[w, first : first + number], queries[q, w], made)
            limit, count = limits[q], counts[q]
            for look in range(0, number, _LOOK):
                part = made[look : look + _LOOK]
                least = part[0]
                for i in range(len(part)):
                    least = min(least, part[i])
                if least >= limit:
                    continue
                for i in range(len(part)):
                    distance = np.int64(part[i])
                    if distance >= limit:
                        continue
                    if held[q] == rows.shape[1]:
                        held[q] = _keep(rows[q], distances[q], limit)
                    rows[q, held[q]], distances[q, held[q]] = first + look + i, distance
                    held[q] += 1
                    count[distance] += 1
                    nearer[q] += 1
                    while nearer[q] >= depth:  # as many as are wanted are below: what is not below the farthest is out
                        limit -= 1
                        nearer[q] -= count[limit]
            limits[q] = limit
    for q in range(len(queries)):
        held[q] = _keep(rows[q, : held[q]], distances[q, : held[q]], limits[q])
    return held


@numba.njit(cache=True, nogil=True)
def _keep(rows: Any, distances: Any, limit: int) -> int:
    """Those at most `limit` away to the front, in order; how many."""
    kept = 0
    for i in range(len(rows)):
        if distances[i] <= limit:
            rows[kept], distances[kept] = rows[i], distances[i]
            kept += 1
    return kept
