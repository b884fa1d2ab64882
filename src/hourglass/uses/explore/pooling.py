"""From token codes to document codes.

Token codes say how strongly each feature fires on each token; a document's code sums them up per feature.
Three numbers are kept, from which every pooling of the paper follows: the maximum, the sum and the number
of tokens on which the feature fires.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numba
import numpy as np
from scipy.sparse import csr_matrix

from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.errors import ConfigError, nearest

Array = np.ndarray[Any, Any]
Pooling = Literal["max", "sum", "mean", "binarize", "count"]

_SINGLE = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
"""What each half-precision number is, by its bits."""


@dataclass(frozen=True)
class PooledCodes:
    """Codes of n documents in CSR form.

    indptr   [n + 1] int64
    indices  [nnz] int32, features in rising order within a document
    maximum  [nnz] float16, largest activation over the document's tokens
    total    [nnz] float32, sum over its tokens
    count    [nnz] int32, tokens on which the activation passes the threshold
    tokens   [n] int32, tokens of each document, firing or not
    """

    indptr: Array
    indices: Array
    maximum: Array
    total: Array
    count: Array
    tokens: Array
    width: int

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def concatenate(cls, parts: Sequence[PooledCodes]) -> PooledCodes:
        """The documents of all parts, one after another."""
        sizes = np.cumsum([0, *(part.indptr[-1] for part in parts)])
        indptr = np.concatenate([[0], *(part.indptr[1:] + size for part, size in zip(parts, sizes))])
        columns = ("indices", "maximum", "total", "count", "tokens")
        together = {c: np.concatenate([getattr(part, c) for part in parts]) for c in columns}
        return cls(indptr=indptr, **together, width=parts[0].width)

    @classmethod
    def of_one_document(cls, parts: Sequence[PooledCodes]) -> PooledCodes:
        """The codes of one document that was read in `parts`, each pooled as a document of its own."""
        features, where = np.unique(np.concatenate([part.indices for part in parts]), return_inverse=True)
        maximum = np.zeros(len(features), np.float16)
        total, count = np.zeros(len(features), np.float32), np.zeros(len(features), np.int32)
        np.maximum.at(maximum, where, np.concatenate([part.maximum for part in parts]))
        np.add.at(total, where, np.concatenate([part.total for part in parts]))
        np.add.at(count, where, np.concatenate([part.count for part in parts]))
        tokens = np.array([sum(int(part.tokens.sum()) for part in parts)], np.int32)
        indptr = np.array([0, len(features)], np.int64)
        return cls(indptr, features.astype(np.int32), maximum, total, count, tokens, parts[0].width)

    def matrix(self, pooling: Pooling = "max") -> csr_matrix:
        """Documents x features, pooled as asked; binarize is 1 where the feature passes the threshold."""
        if pooling not in get_args(Pooling):
            raise ConfigError(f"no pooling {pooling!r}{nearest(pooling, get_args(Pooling))}")
        if pooling == "max":
            values = self.maximum.astype(np.float32)
        elif pooling == "sum":
            values = self.total
        elif pooling == "mean":
            values = self.total / np.repeat(self.tokens, np.diff(self.indptr))
        elif pooling == "count":
            values = self.count.astype(np.float32)
        else:
            values = np.ones(len(self.indices), np.float32)
        return self._csr(values)

    def present(self, level: Array | float = 0.0, min_tokens: int = 1) -> csr_matrix:
        """Documents x features, 1 where a document has the feature.

        It has when the maximum is above `level` (one number, or one for each feature) and at least `min_tokens`
        tokens fire.
        """
        floor = np.broadcast_to(np.asarray(level, np.float32), (self.width,))
        return having(
            np.arange(len(self)),
            self.indptr,
            self.indices,
            self.maximum,
            self.count,
            floor=floor,
            min_tokens=min_tokens,
        )

    def _csr(self, values: Array) -> csr_matrix:
        return csr_matrix((values, self.indices, self.indptr), shape=(len(self), self.width))


def having(
    rows: Array, indptr: Array, indices: Array, maximum: Array, count: Array | None, *, floor: Array, min_tokens: int
) -> csr_matrix:
    """Of the documents at `rows` of codes as in `PooledCodes`: [rows, features] 1 where the maximum is above the feature's `floor`
    [width] and at least `min_tokens` tokens fire; without `count` where one is enough, as one fires of all that is stored."""
    bits, fired = maximum.view(np.uint16), np.zeros(0, np.int32) if count is None else count
    bounds, kept = _having(rows, indptr, indices, bits, fired, np.ascontiguousarray(floor), min_tokens, _SINGLE)
    return csr_matrix((np.ones(len(kept), np.float32), kept, bounds), shape=(len(rows), len(floor)))


def pool(codes: SparseCodes, offsets: Array, threshold: float = 0.0) -> PooledCodes:
    """Pool token codes into document codes.

    codes      of all tokens of the documents, one document after another
    offsets    [n + 1], document i owns token rows offsets[i] : offsets[i + 1]
    threshold  an activation counts only above this value
    """
    starts = codes.offsets.numpy()
    offsets = np.asarray(offsets, np.int64)
    indptr, indices, maximum, total, count = _pool(
        codes.indices.numpy().astype(np.int32, copy=False),
        codes.values.float().numpy(),
        starts[offsets],
        float(threshold),
        codes.width,
    )
    # Above half precision's range a value would become infinite; no feature is told apart up there.
    maximum = np.minimum(maximum, np.finfo(np.float16).max).astype(np.float16)
    return PooledCodes(indptr, indices, maximum, total, count, np.diff(offsets).astype(np.int32), codes.width)


@numba.njit(cache=True)
def _having(
    rows: Array,
    indptr: Array,
    indices: Array,
    maximum: Array,
    count: Array,
    floor: Array,
    min_tokens: int,
    single: Array,
) -> tuple[Array, Array]:
    """Bounds and features; `maximum` by the bits of half precision, which numba does not know."""
    bounds = np.zeros(len(rows) + 1, np.int64)
    kept = np.empty((indptr[rows + 1] - indptr[rows]).sum() + 1, np.int32)
    number = 0
    for place, document in enumerate(rows):
        for at in range(indptr[document], indptr[document + 1]):
            feature = indices[at]
            # What does not count is written over by what comes next: a branch would be guessed wrong as often as not.
            kept[number] = feature
            number += (single[maximum[at]] > floor[feature]) & (min_tokens <= 1 or count[at] >= min_tokens)
        bounds[place + 1] = number
    return bounds, kept[:number].copy()


@numba.njit(cache=True)
def _pool(
    features: Array, values: Array, bounds: Array, threshold: float, width: int
) -> tuple[Array, Array, Array, Array, Array]:
    n = len(bounds) - 1
    best = np.zeros(width, np.float32)
    added = np.zeros(width, np.float32)
    fired = np.zeros(width, np.int32)
    touched = np.empty(width, np.int32)
    indptr = np.zeros(n + 1, np.int64)
    capacity = min(len(features), max(1024, len(features) // 4))
    indices = np.empty(capacity, np.int32)
    maximum = np.empty(capacity, np.float32)
    total = np.empty(capacity, np.float32)
    count = np.empty(capacity, np.int32)
    used = 0
    for document in range(n):
        number = 0
        for position in range(bounds[document], bounds[document + 1]):
            value = values[position]
            if value <= threshold:
                continue
            feature = features[position]
            if fired[feature] == 0:
                touched[number] = feature
                number += 1
            best[feature] = max(best[feature], value)
            added[feature] += value
            fired[feature] += 1
        if used + number > capacity:
            capacity = min(len(features), max(2 * capacity, used + number))
            indices = np.concatenate((indices[:used], np.empty(capacity - used, np.int32)))
            maximum = np.concatenate((maximum[:used], np.empty(capacity - used, np.float32)))
            total = np.concatenate((total[:used], np.empty(capacity - used, np.float32)))
            count = np.concatenate((count[:used], np.empty(capacity - used, np.int32)))
        for feature in np.sort(touched[:number]):
            indices[used] = feature
            maximum[used] = best[feature]
            total[used] = added[feature]
            count[used] = fired[feature]
            best[feature] = 0
            added[feature] = 0
            fired[feature] = 0
            used += 1
        indptr[document + 1] = used
    return indptr, indices[:used].copy(), maximum[:used].copy(), total[:used].copy(), count[:used].copy()
