"""Compiled loops over the active latents of a batch (CPU, any float type).

Each has a comment with what it computes; `reconstruction.py` says why. Sums run in a fixed order, so the same
input gives the same bits. `fastmath` allows the sums over d to be vectorised.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_FAST = {"reassoc", "contract", "nsz", "arcp"}
# Untyped, because compiled functions take arrays of any float type, which no annotation says well.


@njit(nogil=True, cache=True, fastmath=_FAST)
def pre_activations(indices, offsets, x, encoder, bias, values, start, stop):  # type: ignore[no-untyped-def]  # pragma: no cover
    """values[p] = x[i] . encoder[j] + bias[j] for every stored pair (i, j)."""
    width = x.shape[1]
    for i in range(start, stop):
        row = x[i]
        for p in range(offsets[i], offsets[i + 1]):
            direction = encoder[indices[p]]
            total = x.dtype.type(0)
            for c in range(width):
                total += row[c] * direction[c]
            values[p] = total + bias[indices[p]]


@njit(nogil=True, cache=True, fastmath=_FAST)
def decode(indices, values, offsets, decoder, bias, out, start, stop):  # type: ignore[no-untyped-def]  # pragma: no cover
    """out[i] = bias + sum of values[p] decoder[j] over the pairs of row i."""
    width = out.shape[1]
    for i in range(start, stop):
        row = out[i]
        row[:] = bias
        for p in range(offsets[i], offsets[i + 1]):
            value = values[p]
            direction = decoder[indices[p]]
            for c in range(width):
                row[c] += value * direction[c]


@njit(nogil=True, cache=True, fastmath=_FAST)
def errors(indices, values, offsets, decoder, bias, target, error, slopes, squares, start, stop):  # type: ignore[no-untyped-def]  # pragma: no cover
    """error[i] = decoded - target; slopes[p] = error[i] . decoder[j]; squares[i] = |error[i]|^2.

    One pass: the decoder rows of a pair are still in the cache when they are needed the second time.
    """
    width = target.shape[1]
    for i in range(start, stop):
        row = error[i]
        for c in range(width):
            row[c] = bias[c] - target[i, c]
        for p in range(offsets[i], offsets[i + 1]):
            value = values[p]
            direction = decoder[indices[p]]
            for c in range(width):
                row[c] += value * direction[c]
        square = error.dtype.type(0)
        for c in range(width):
            square += row[c] * row[c]
        squares[i] = square
        for p in range(offsets[i], offsets[i + 1]):
            direction = decoder[indices[p]]
            total = error.dtype.type(0)
            for c in range(width):
                total += row[c] * direction[c]
            slopes[p] = total


@njit(nogil=True, cache=True)
def by_latent(indices, offsets, starts, rows, pairs):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Counting sort of the pairs: latent j owns entries starts[j] : starts[j + 1] of `rows` and `pairs`, rows ascending."""
    starts[:] = 0
    for p in range(len(indices)):
        starts[indices[p] + 1] += 1
    for j in range(len(starts) - 1):
        starts[j + 1] += starts[j]
    free = starts[:-1].copy()
    for i in range(len(offsets) - 1):
        for p in range(offsets[i], offsets[i + 1]):
            place = free[indices[p]]
            free[indices[p]] = place + 1
            rows[place] = i
            pairs[place] = p


@njit(nogil=True, cache=True, fastmath=_FAST)
def weight_gradients(  # type: ignore[no-untyped-def]  # pragma: no cover
    starts, rows, pairs, values, slopes, x, error, decoder, scale, tangent, d_encoder, d_bias, d_decoder, start, stop
):
    """d_encoder[j] = scale sum slopes[p] x[i]; d_decoder[j] = scale sum values[p] error[i]; d_bias[j] = scale sum slopes[p].

    `tangent` = 1 takes the part of d_decoder[j] along decoder[j] (a unit row) out; it needs no new product,
    since d_decoder[j] . decoder[j] = scale sum values[p] slopes[p].
    """
    width = x.shape[1]
    for j in range(start, stop):
        to_encoder = d_encoder[j]
        to_decoder = d_decoder[j]
        bias = x.dtype.type(0)
        along = x.dtype.type(0)
        for q in range(starts[j], starts[j + 1]):
            bias += slopes[pairs[q]]
            along += slopes[pairs[q]] * values[pairs[q]]
        d_bias[j] = bias * scale
        along *= scale * tangent
        for c in range(width):
            to_encoder[c] = 0
            to_decoder[c] = -along * decoder[j, c]
        for q in range(starts[j], starts[j + 1]):
            slope = slopes[pairs[q]] * scale
            value = values[pairs[q]] * scale
            row = x[rows[q]]
            residual = error[rows[q]]
            for c in range(width):
                to_encoder[c] += slope * row[c]
                to_decoder[c] += value * residual[c]


@njit(nogil=True, cache=True, fastmath=_FAST)
def weighted_rows(starts, rows, pairs, weights, x, sums, totals, start, stop):  # type: ignore[no-untyped-def]  # pragma: no cover
    """sums[j] = sum weights[p] x[i]; totals[j] = sum weights[p]."""
    width = x.shape[1]
    for j in range(start, stop):
        out = sums[j]
        out[:] = 0
        total = x.dtype.type(0)
        for q in range(starts[j], starts[j + 1]):
            weight = weights[pairs[q]]
            row = x[rows[q]]
            total += weight
            for c in range(width):
                out[c] += weight * row[c]
        totals[j] = total


@njit(nogil=True, cache=True, fastmath=_FAST)
def unit_rows(weight, start, stop):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Scale each row of `weight` to norm 1, in place; a zero row stays zero."""
    width = weight.shape[1]
    for j in range(start, stop):
        row = weight[j]
        square = weight.dtype.type(0)
        for c in range(width):
            square += row[c] * row[c]
        if square > 0:
            factor = weight.dtype.type(1) / np.sqrt(square)
            for c in range(width):
                row[c] *= factor
