"""The hot loops of exact search: everything is read once for many queries, and of what has been seen the best are kept.

Each thread reads a part of the documents of its own, in rising order, and keeps the best of it in a heap for each query; a loop
holds no lock of Python. As many threads as torch has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import wait
from typing import Any, TypeVar

import numba
import numpy as np
import torch
from numba import types
from numba.extending import intrinsic, overload

from hourglass.nn.parallel import pool
from hourglass.uses.search.stages import Array, Ranking

T = TypeVar("T")

_LEAST = 1 << 20
"""Bytes or so that are worth a thread."""
_QUERIES_AT_ONCE = 64
# float32 products may be added up in any order; NaN and infinity stay what they are.
_SUMS = {"reassoc", "contract", "nsz"}
_TILE, _ROWS, _CODES, _LOOK = 4, 16, 1024, 64

Kept = tuple[Array, Array]
"""rows [queries, n] int64, -1 for none, and their scores [queries, n] float32, in no order."""


def in_parts(number: int, cost: float, work: Callable[[int, int], T]) -> list[T]:
    """What `work(start, stop)` makes of each part of `number` things of `cost` bytes each, threads side by side."""
    threads = int(max(1, min(torch.get_num_threads(), number * cost // _LEAST)))
    ends = [number * i // threads for i in range(threads + 1)]
    pending = [pool(threads).submit(work, *ends[i : i + 2]) for i in range(1, threads)]
    try:
        first = work(*ends[:2])
    finally:
        wait(pending)
    return [first, *(part.result() for part in pending)]


def joined(parts: Sequence[Kept]) -> Kept:
    """What has been kept of all parts."""
    rows, scores = zip(*parts)
    return np.concatenate(rows, 1), np.concatenate(scores, 1)


def room(queries: int, depth: int, above: float = -np.inf) -> Kept:
    """Heaps in which nothing is kept yet; only scores above `above` will be."""
    return np.full((queries, depth), -1, np.int64), np.full((queries, depth), above, np.float32)


def rankings(kept: Kept, depth: int) -> list[Ranking]:
    """The first `depth` for each query; as `Ranking.of`, for all at once."""
    rows, scores = kept
    made = room(len(rows), min(depth, rows.shape[1]))
    if made[0].size:
        _order(rows, scores, *made)
    return in_order(made)


def in_order(kept: Kept) -> list[Ranking]:
    """Of what is in order already, for each query."""
    rows, scores = kept
    width = rows.shape[1]
    found = (rows >= 0).sum(1).tolist()
    return [Ranking(r, s) if n == width else Ranking(r[:n], s[:n]) for r, s, n in zip(rows, scores, found)]


def products(vectors: Array, queries: Array, depth: int, selected: Array | None = None) -> Kept:
    """Documents with the `depth` highest inner products of their vector [N, d] float16 or float32 and each query's [n, d] float32.

    Those of `selected` rows alone where it is given. Of equal products the smaller rows. The last digits of a product are not
    those of `products_of`.
    """
    number = len(vectors) if selected is None else len(selected)
    numbers, chosen = _numbers(vectors), np.zeros(0, np.int64) if selected is None else selected
    depth = min(depth, number)
    made = [room(0, depth)]
    for first in range(0, len(queries), _QUERIES_AT_ONCE):
        some = np.ascontiguousarray(queries[first : first + _QUERIES_AT_ONCE], np.float32)
        wanted = len(some)
        if wanted > 1:  # tiles take whole groups
            some = np.concatenate([some, np.zeros((-wanted % _TILE, some.shape[1]), np.float32)])

        def part(start: int, stop: int, some: Array = some, wanted: int = wanted) -> Kept:
            rows, scores = room(wanted, depth)
            scan = _scan_for_one if wanted == 1 else _scan_for_many
            scan(numbers, some, start, stop, chosen, scores, rows)
            return rows, scores

        if depth:
            made.append(joined(in_parts(number, vectors.shape[1] * vectors.itemsize * (1 + wanted / 4), part)))
        else:
            made.append(room(wanted, 0))
    return _stacked(made)


def products_of(vectors: Array, queries: Array, rows: Array) -> Array:
    """[n, m] float32 inner products of the vectors of `rows` [n, m] (-1 for none) and each query's [n, d].

    Always added up in the same way: a product does not hang on which others are asked for.
    """
    made = np.full(rows.shape, -np.inf, np.float32)
    numbers, asked = _numbers(vectors), np.ascontiguousarray(queries, np.float32)

    def part(start: int, stop: int) -> None:
        _products_of(numbers, asked[start:stop], rows[start:stop], made[start:stop])

    in_parts(len(rows), 8 * rows.shape[1] * vectors.shape[1], part)
    return made


def best_of(vectors: Array, queries: Array, rows: Array, depth: int) -> Kept:
    """The `depth` highest of `products_of` the same, in order; by the calling thread alone."""
    made = room(len(rows), min(depth, rows.shape[1]))
    if made[0].size:
        scores = np.full(rows.shape, -np.inf, np.float32)
        _products_of(_numbers(vectors), np.ascontiguousarray(queries, np.float32), rows, scores)
        _order(rows, scores, *made)
    return made


def bits(words: Array, queries: Array, depth: int, within: int, selected: Array | None = None) -> Kept:
    """Documents whose codes, words [words, N] uint64, differ from each query's [n, words] in the fewest bits; the scores are minus those.

    within  only those that differ in so many bits at most

    `selected` and equal ones as in `products`.
    """
    some = words if selected is None else np.ascontiguousarray(words[:, selected])
    number, longest = some.shape[1], 64 * len(words)
    depth = min(depth, number)
    made = [room(0, depth)]
    for first in range(0, len(queries), _QUERIES_AT_ONCE):
        asked = np.ascontiguousarray(queries[first : first + _QUERIES_AT_ONCE])

        def part(start: int, stop: int, asked: Array = asked) -> Kept:
            rows, scores = room(len(asked), 2 * depth)
            _count_bits(some, asked, start, stop, depth, min(within, longest), rows, scores)
            return rows, scores

        found = in_parts(number, 8 * len(words) * (1 + len(asked) / 4), part) if depth else [room(len(asked), 0)]
        made.append(joined(found))
    rows, scores = _stacked(made)
    if selected is not None and depth:
        rows = np.where(rows < 0, rows, selected[rows])
    return rows, scores


def _stacked(made: Sequence[Kept]) -> Kept:
    """Of queries one after another; parts may have found differing numbers."""
    width = max(rows.shape[1] for rows, _ in made)
    rows, scores = room(sum(len(rows) for rows, _ in made), width)
    at = 0
    for r, s in made:
        rows[at : at + len(r), : r.shape[1]], scores[at : at + len(r), : r.shape[1]] = r, s
        at += len(r)
    return rows, scores


def _numbers(vectors: Array) -> Array:
    """Half precision as its bits: numba knows no such numbers."""
    return vectors.view(np.uint16) if vectors.dtype == np.float16 else vectors


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


@numba.njit(cache=True, nogil=True)
def _order(rows: Any, scores: Any, to_rows: Any, to_scores: Any) -> None:
    """The best of rows [queries, n] that are not -1 to the heaps `to_rows`, `to_scores` [queries, depth], which come to stand in order."""
    for q in range(len(rows)):
        kept, heap = to_rows[q], to_scores[q]
        for i in range(rows.shape[1]):
            row, score = rows[q, i], scores[q, i]
            if row >= 0 and (score > heap[0] or (score == heap[0] and row < kept[0])):
                offer(heap, kept, score, row)
        for last in range(
            len(heap) - 1, 0, -1
        ):  # the least goes to the end, and the one that stood there finds its place
            score, row, least, of = heap[last], kept[last], heap[0], kept[0]
            offer(heap[:last], kept[:last], score, row)
            heap[last], kept[last] = least, of


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
def _products_of(vectors: Any, queries: Any, rows: Any, made: Any) -> None:
    # Rows lie far apart: four are fetched at a time, the last of a query again where fewer are left.
    last = rows.shape[1] - 1 if len(vectors) else -1
    for q in range(len(queries)):
        query = queries[q]
        for i in range(0, last + 1, _TILE):
            j, k, m = min(i + 1, last), min(i + 2, last), min(i + 3, last)
            a, b = vectors[max(rows[q, i], 0)], vectors[max(rows[q, j], 0)]
            c, d = vectors[max(rows[q, k], 0)], vectors[max(rows[q, m], 0)]
            of_a = of_b = of_c = of_d = np.float32(0)
            for at in range(len(query)):
                own = query[at]
                of_a, of_b = of_a + _wide(a[at]) * own, of_b + _wide(b[at]) * own
                of_c, of_d = of_c + _wide(c[at]) * own, of_d + _wide(d[at]) * own
            for place, product in ((i, of_a), (j, of_b), (k, of_c), (m, of_d)):
                if rows[q, place] >= 0:
                    made[q, place] = product


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


def _ones(context: Any, number: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


ones: Any = intrinsic(_ones)
"""Bits of a uint64 that are 1: an instruction, several numbers at a time where the processor can."""


@numba.njit(cache=True, nogil=True)
def _first_word(words: Any, query: Any, distances: Any) -> None:
    for i in range(len(distances)):
        distances[i] = np.uint16(ones(words[i] ^ query))


@numba.njit(cache=True, nogil=True)
def _next_word(words: Any, query: Any, distances: Any) -> None:
    for i in range(len(distances)):
        distances[i] += np.uint16(ones(words[i] ^ query))


@numba.njit(cache=True, nogil=True)
def _count_bits(
    words: Any, queries: Any, start: int, stop: int, depth: int, within: int, rows: Any, scores: Any
) -> None:
    """Into rows and scores [queries, 2 depth].

    A distance is a small whole number: counting finds how far the nearest reach.
    """
    block = np.zeros(_CODES, np.uint16)
    held, nearer = np.zeros(len(queries), np.int64), np.zeros(len(queries), np.int64)
    limits = np.full(len(queries), within + 1, np.int64)  # what is not below it is out
    counts = np.zeros((len(queries), within + 1), np.int64)
    for first in range(start, stop, _CODES):
        number = min(_CODES, stop - first)
        made = block[:number]
        for q in range(len(queries)):
            _first_word(words[0, first : first + number], queries[q, 0], made)
            for w in range(1, len(words)):
                _next_word(words[w, first : first + number], queries[q, w], made)
            limit = limits[q]
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
                        held[q] = _keep(rows[q], scores[q], held[q], limit)
                    rows[q, held[q]], scores[q, held[q]] = first + look + i, -distance
                    held[q] += 1
                    counts[q, distance] += 1
                    nearer[q] += 1
                    while nearer[q] >= depth:  # as many as are wanted are below: the farthest of them is the limit
                        limit -= 1
                        nearer[q] -= counts[q, limit]
            limits[q] = limit
    for q in range(len(queries)):
        _keep(rows[q], scores[q], held[q], limits[q])


@numba.njit(cache=True, nogil=True)
def _keep(rows: Any, scores: Any, held: int, limit: int) -> int:
    """Of the first `held` those at most `limit` away to the front, in order, and nothing behind them; how many."""
    kept = 0
    for i in range(held):
        if -scores[i] <= limit:
            rows[kept], scores[kept] = rows[i], scores[i]
            kept += 1
    rows[kept:] = -1
    return kept
