"""Sums of logistic losses over a few rows of a large matrix: what negative sampling and a hierarchical softmax learn by.

    loss_i = sum over p of weights[p] x softplus(-labels[p] (hidden_i . out[rows[p]] + bias[rows[p]])),   p from ends[i] to ends[i + 1]

Gathering the rows first would copy them once forward and twice backward. Here each is read where it lies, and the gradient of a row
is added up by one thread and in one order, so that the result is the same to the bit for any number of threads.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import torch
import torch.nn.functional as F
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from hourglass.nn.parallel import over_rows

_ROWS_AT_ONCE, _AHEAD, _LINE = 16, 8, 16
_FAST = {"reassoc", "contract", "nsz"}
_LOG2_E, _LOG_2 = np.float32(1 / math.log(2)), np.float32(math.log(2))
_E = tuple(np.float32(1 / math.factorial(k)) for k in range(8))
_A = tuple(np.float32(1 / k) for k in range(1, 12, 2))


def logistic_sums(
    hidden: Tensor, out: Tensor, bias: Tensor, rows: Tensor, labels: Tensor, weights: Tensor, ends: Tensor
) -> Tensor:
    """[n] float32 losses.

    hidden  [n, d] float32; out [V, d], bias [V]
    rows    [m] int64 of `out`, labels [m] 1 or -1, weights [m] float32: those of hidden i are ends[i] to ends[i + 1]
    ends    [n + 1] int64, from 0 to m
    """
    if hidden.device.type != "cpu":
        return _gathered(hidden, out, bias, rows, labels, weights, ends)
    made: Tensor = _LogisticSums.apply(hidden, out, bias, rows, labels, weights, ends)
    return made


def _gathered(
    hidden: Tensor, out: Tensor, bias: Tensor, rows: Tensor, labels: Tensor, weights: Tensor, ends: Tensor
) -> Tensor:
    owners = torch.repeat_interleave(torch.arange(len(hidden), device=rows.device), ends.diff())
    logits = (hidden[owners] * out[rows]).sum(1) + bias[rows]
    return hidden.new_zeros(len(hidden)).index_add(0, owners, weights * F.softplus(-labels * logits))


class _LogisticSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, out: Tensor, bias: Tensor, *read: Tensor) -> Tensor:
        rows, labels, weights, ends = (part.numpy() for part in read)
        arrays = hidden.contiguous().numpy(), out.contiguous().numpy(), bias.numpy()
        slopes, losses, of_hidden = (np.empty(shape, np.float32) for shape in (len(rows), len(hidden), hidden.shape))
        over_rows(_forward, len(hidden), *arrays, rows, labels, weights, ends, slopes, losses, of_hidden)
        ctx.save_for_backward(hidden, out, read[0], read[3])
        ctx.slopes, ctx.of_hidden = slopes, of_hidden
        return torch.from_numpy(losses)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        hidden, out, rows, ends = (part.detach().contiguous().numpy() for part in ctx.saved_tensors)
        of_hidden = gradients[0][:, None] * torch.from_numpy(ctx.of_hidden)
        of_out = of_bias = None
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            owners = np.repeat(np.arange(len(hidden)), np.diff(ends))
            shares = gradients[0].contiguous().numpy()
            begins, order = _by_row(rows, len(out))
            made, sums = np.empty_like(out), np.empty(len(out), np.float32)
            over_rows(_to_out, len(out), hidden, owners, shares, ctx.slopes, begins, order, made, sums)
            of_out, of_bias = torch.from_numpy(made), torch.from_numpy(sums)
        return of_hidden, of_out, of_bias, None, None, None, None


# Rows by unsigned numbers: where one might count from the end, each access would ask whether it does.


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _forward(
    hidden: Any, out: Any, bias: Any, rows: Any, labels: Any, weights: Any, ends: Any,
    slopes: Any, losses: Any, of_hidden: Any, start: int, stop: int,
) -> None:  # fmt: skip
    """Losses, slopes, and the gradient of `hidden` while its rows of `out` are in the cache."""
    each = np.zeros(1, np.float32)
    for begin in range(start, stop, _ROWS_AT_ONCE):  # a few together, so that exponentials are taken many at a time
        end = min(stop, begin + _ROWS_AT_ONCE)
        first, last = ends[begin], ends[end]
        if len(each) < last - first:
            each = np.zeros(2 * (last - first), np.float32)
        for i in range(np.uint64(begin), np.uint64(end)):
            for p in range(np.uint64(ends[i]), np.uint64(ends[i + 1])):
                row, product = np.uint64(rows[p]), np.float32(0)
                for j in range(hidden.shape[1]):
                    product += hidden[i, j] * out[row, j]
                slopes[p] = product + bias[row]
        _losses(labels[first:last], weights[first:last], slopes[first:last], each)
        for i in range(np.uint64(begin), np.uint64(end)):
            total = np.float32(0)
            of_hidden[i] = 0
            for p in range(np.uint64(ends[i]), np.uint64(ends[i + 1])):
                row, slope = np.uint64(rows[p]), slopes[p]
                total += each[p - np.uint64(first)]
                for j in range(hidden.shape[1]):
                    of_hidden[i, j] += slope * out[row, j]
            losses[i] = total


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _losses(labels: Any, weights: Any, logits: Any, made: Any) -> None:
    """log(1 + e^-x) by weight; slopes take the place of the logits."""
    one = np.float32(1)
    for p in range(len(logits)):
        signed = labels[p] * logits[p]
        small = _exp(-abs(signed))
        made[p] = weights[p] * (max(-signed, np.float32(0)) + _log1p(small))
        logits[p] = -labels[p] * weights[p] * (small if signed > 0 else one) / (one + small)


# A call of the exponential of the C library would keep the loop around it from going many at a time.


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _exp(x: Any) -> Any:
    """float32 e^x for x up to 0, to 4e-6 of it and 2e-35: 2^whole by its exponent, the rest by Taylor's series."""
    y = max(x, np.float32(-80)) * _LOG2_E
    whole = np.floor(y)
    z = (y - whole) * _LOG_2
    series = _E[0] + z * (_E[1] + z * (_E[2] + z * (_E[3] + z * (_E[4] + z * (_E[5] + z * (_E[6] + z * _E[7]))))))
    return series * np.int32((np.int32(whole) + 127) << 23).view(np.float32)


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _log1p(x: Any) -> Any:
    """float32 log(1 + x) for x from 0 to 1, to 4e-7: 2 artanh(x / (2 + x)) by its series."""
    s = x / (np.float32(2) + x)
    q = s * s
    return np.float32(2) * s * (_A[0] + q * (_A[1] + q * (_A[2] + q * (_A[3] + q * (_A[4] + q * _A[5])))))


def _fetch_row(context: Any, matrix: Any, row: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        of = context.make_array(signature.args[0])(context, builder, arguments[0])
        width = builder.extract_value(of.shape, 1)
        begin = builder.gep(of.data, [builder.mul(arguments[1], width)])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        with cgutils.for_range_slice(builder, width.type(0), width, width.type(_LINE)) as (at, _):
            # To be read, and to stay in every cache.
            place = builder.bitcast(builder.gep(begin, [at]), byte)
            builder.call(fetch, [place, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(matrix, row), generate


fetch_row: Any = intrinsic(_fetch_row)
"""Tells the processor that row `row` of a matrix [n, d] of float32 will be read."""


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _to_out(
    hidden: Any, owners: Any, shares: Any, slopes: Any, begins: Any, order: Any, made: Any, sums: Any,
    start: int, stop: int,
) -> None:  # fmt: skip
    for v in range(np.uint64(start), np.uint64(stop)):
        total = np.float32(0)
        made[v] = 0
        for place in range(np.uint64(begins[v]), np.uint64(begins[v + 1])):
            ahead = place + np.uint64(_AHEAD)
            if ahead < len(order):
                fetch_row(hidden, owners[order[ahead]])
            p = np.uint64(order[place])
            own = np.uint64(owners[p])
            slope = slopes[p] * shares[own]
            for j in range(made.shape[1]):
                made[v, j] += slope * hidden[own, j]
            total += slope
        sums[v] = total


@numba.njit(cache=True, nogil=True)
def _by_row(rows: Any, number: int) -> Any:
    """(begins [number + 1], order [m]): the places in `rows` of each value, in order."""
    begins = np.zeros(number + 1, np.int64)
    for row in rows:
        begins[row + 1] += 1
    for v in range(number):
        begins[v + 1] += begins[v]
    at, order = begins[:-1].copy(), np.empty(len(rows), np.int64)
    for p in range(len(rows)):
        order[at[rows[p]]] = p
        at[rows[p]] += 1
    return begins, order
