"""Which latents are active: the largest pre-activations of a row or of a batch.

On the CPU the search runs on the bit patterns: positive floats of one format order as integers do, so one
integer kernel serves bfloat16, float32 and float64. A row is cut into strided blocks; the k-th largest of the
block maxima is a lower bound of the k-th largest value, so only blocks that reach it are read again. That needs
one vectorised pass over the row where a general top-k needs several.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.nn.parallel import over_rows

_KEYS = {
    torch.bfloat16: torch.int16,
    torch.float16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}


def largest_per_row(pre: Tensor, k: int) -> SparseCodes:
    """The k largest positive entries of each row of `pre` [n, width]; of equal ones the lower block wins."""
    width = pre.shape[1]
    if pre.device.type != "cpu":
        values, indices = torch.topk(pre, k, dim=1)
        indices, order = indices.sort(dim=1)
        return SparseCodes.from_topk(indices, values.gather(1, order), width)
    indices = torch.empty(len(pre), k, dtype=torch.int32)
    values = torch.empty(len(pre), k, dtype=pre.dtype)
    over_rows(_top_rows, len(pre), _keys(pre), k, _blocks(width, k), indices.numpy(), _keys(values))
    return SparseCodes.from_topk(indices, values, width)


def largest_by_size(pre: Tensor, k: int) -> SparseCodes:
    """The k entries of each row of `pre` [n, width] that are farthest from 0, with their sign."""
    sizes = largest_per_row(pre.abs(), k)
    return sizes.with_values(pre[sizes.rows, sizes.indices.long()])


def largest_of_batch(pre: Tensor, count: int) -> SparseCodes:
    """The `count` largest positive entries of the whole of `pre` [n, width]; of equal ones the first rows win."""
    rows, width = pre.shape
    count = min(count, pre.numel())
    # The count-th largest of the block maxima is a lower bound here too; a block is a run of 8 rows of one column.
    runs = rows // 8
    bound = pre.new_tensor(0.0)
    if runs * width >= count:
        maxima = pre[: runs * 8].view(runs, 8, width).amax(1)
        bound = _kth_largest(maxima.reshape(-1), count)
    found = at_least(pre, torch.clamp(bound, min=torch.finfo(pre.dtype).tiny))
    if len(found.values) <= count:
        return found
    cut = _kth_largest(found.values, count)
    keep = found.values > cut
    ties = found.values == cut
    keep |= ties & (ties.cumsum(0) <= count - keep.sum())
    return found.where(keep)


def at_least(pre: Tensor, threshold: Tensor) -> SparseCodes:
    """The entries of `pre` [n, width] that reach the scalar `threshold` > 0."""
    if pre.device.type != "cpu":
        return SparseCodes.from_dense(torch.where(pre >= threshold, pre, 0))
    lengths = np.zeros(len(pre) + 1, dtype=np.int64)
    keys, bound = _keys(pre), _keys(threshold.to(pre.dtype).reshape(1))[0]
    over_rows(_count_rows, len(pre), keys, bound, lengths[1:])
    offsets = np.cumsum(lengths)
    indices = torch.empty(int(offsets[-1]), dtype=torch.int32)
    values = torch.empty(int(offsets[-1]), dtype=pre.dtype)
    over_rows(_fill_rows, len(pre), keys, bound, offsets, indices.numpy(), _keys(values))
    return SparseCodes(indices, values, torch.from_numpy(offsets), pre.shape[1])


def positive(pre: Tensor) -> SparseCodes:
    """The entries of `pre` [n, width] above 0."""
    return at_least(pre, pre.new_tensor(torch.finfo(pre.dtype).tiny))


def above(pre: Tensor, bound: Tensor) -> SparseCodes:
    """The entries of `pre` [n, width] above `bound` [width], which may be negative. Values are what they exceed it by."""
    return positive(pre - bound.to(pre.dtype))


def _kth_largest(values: Tensor, k: int) -> Tensor:
    return torch.topk(values, k, sorted=False).values.min()


def _keys(tensor: Tensor) -> Any:
    """The bit patterns of floats as integers, as a numpy array on the same memory."""
    return tensor.detach().contiguous().view(_KEYS[tensor.dtype]).numpy()


def _blocks(width: int, k: int) -> int:
    """How many blocks a row is cut into: enough that the k-th largest maximum is a tight bound."""
    return min(width, max(256, 4 * k))


@njit(nogil=True, cache=True)
def _top_rows(keys, k, blocks, indices, out, start, stop):  # type: ignore[no-untyped-def]  # pragma: no cover
    width = keys.shape[1]
    runs = width // blocks
    key = keys.dtype.type
    maxima = np.empty(blocks, keys.dtype)
    found = np.empty(width, np.int32)
    found_key = np.empty(width, keys.dtype)
    for i in range(start, stop):
        row = keys[i]
        maxima[:] = key(0)
        for r in range(runs):
            for b in range(blocks):
                maxima[b] = max(maxima[b], row[r * blocks + b])
        bound = _kth_by_bisection(maxima, blocks, k)
        n = 0
        for b in range(blocks):
            if maxima[b] >= bound:
                for r in range(runs):
                    if row[r * blocks + b] >= bound:
                        found[n] = r * blocks + b
                        found_key[n] = row[r * blocks + b]
                        n += 1
        for j in range(runs * blocks, width):
            if row[j] >= bound:
                found[n] = j
                found_key[n] = row[j]
                n += 1
        cut = _kth_by_bisection(found_key, n, k)
        ties = k
        for q in range(n):
            ties -= found_key[q] > cut
        kept = 0
        for q in range(n):
            if found_key[q] > cut or (found_key[q] == cut and ties > 0):
                ties -= found_key[q] == cut
                p = kept
                while p > 0 and indices[i, p - 1] > found[q]:
                    indices[i, p] = indices[i, p - 1]
                    out[i, p] = out[i, p - 1]
                    p -= 1
                indices[i, p] = found[q]
                out[i, p] = found_key[q]
                kept += 1
        indices[i, kept:] = 0
        out[i, kept:] = key(0)


@njit(nogil=True, cache=True)
def _kth_by_bisection(keys, n, k):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The largest t >= 1 with at least k of keys[:n] >= t; 1 (the least positive float) when there is none."""
    key = keys.dtype.type
    low = np.int64(1)
    high = np.int64(1)
    for q in range(n):
        high = max(high, np.int64(keys[q]))
    while low < high:
        middle = low + (high - low + 1) // 2
        t = key(middle)
        reached = 0
        for q in range(n):
            reached += keys[q] >= t
        if reached >= k:
            low = middle
        else:
            high = middle - 1
    return key(low)


@njit(nogil=True, cache=True)
def _count_rows(keys, bound, lengths, start, stop):  # type: ignore[no-untyped-def]  # pragma: no cover
    for i in range(start, stop):
        n = 0
        for j in range(keys.shape[1]):
            n += keys[i, j] >= bound
        lengths[i] = n


@njit(nogil=True, cache=True)
def _fill_rows(keys, bound, offsets, indices, out, start, stop):  # type: ignore[no-untyped-def]  # pragma: no cover
    for i in range(start, stop):
        p = offsets[i]
        for j in range(keys.shape[1]):
            if keys[i, j] >= bound:
                indices[p] = j
                out[p] = keys[i, j]
                p += 1
