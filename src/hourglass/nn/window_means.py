"""Means of a few rows of a large matrix: what a word's neighbours say.

Gathering the rows first would copy each of them, and torch's own backward adds them up by one thread. Here they are read where they lie;
backward each thread has columns of its own, and goes through the windows in order, so that neighbours' rows are still in the cache and
the result is the same to the bit for any number of threads.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hourglass.nn.parallel import over_rows

_FAST = {"reassoc", "contract", "nsz"}


def window_means(table: Tensor, windows: Tensor) -> Tensor:
    """[n, d] the mean of the rows of `table` [V, d] float32 that `windows` [n, m] int64 name, -1 for none; of no row zeros."""
    if table.device.type != "cpu":
        return _gathered(table, windows)
    made: Tensor = _WindowMeans.apply(table, windows)
    return made


def _gathered(table: Tensor, windows: Tensor) -> Tensor:
    there = windows >= 0
    begins = F.pad(there.sum(1).cumsum(0), (1, 0))[:-1]
    return F.embedding_bag(windows[there], table, begins, mode="mean")


class _WindowMeans(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, windows: Tensor) -> Tensor:
        made = np.empty((len(windows), table.shape[1]), np.float32)
        over_rows(_means, len(made), table.detach().contiguous().numpy(), windows.numpy(), made)
        ctx.save_for_backward(windows)
        ctx.shape = table.shape
        return torch.from_numpy(made)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        made = np.zeros(ctx.shape, np.float32)
        over_rows(_spread, ctx.shape[1], gradients[0].contiguous().numpy(), ctx.saved_tensors[0].numpy(), made)
        return torch.from_numpy(made), None


# Rows by unsigned numbers: where one might count from the end, each access would ask whether it does.


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _means(table: Any, windows: Any, made: Any, start: int, stop: int) -> None:
    width = table.shape[1]
    for i in range(np.uint64(start), np.uint64(stop)):
        count = 0
        made[i] = 0
        for k in range(windows.shape[1]):
            if windows[i, k] >= 0:
                count += 1
                row = np.uint64(windows[i, k])
                for j in range(width):
                    made[i, j] += table[row, j]
        if count > 1:
            share = np.float32(1 / count)
            for j in range(width):
                made[i, j] *= share


@numba.njit(cache=True, nogil=True, fastmath=_FAST)
def _spread(gradients: Any, windows: Any, made: Any, start: int, stop: int) -> None:
    first, width = np.uint64(start), np.uint64(stop - start)
    part = np.zeros(stop - start, np.float32)
    for i in range(np.uint64(len(windows))):
        count = 0
        for k in range(windows.shape[1]):
            count += windows[i, k] >= 0
        if count == 0:
            continue
        share = np.float32(1 / count)
        for j in range(width):
            part[j] = share * gradients[i, first + j]
        for k in range(windows.shape[1]):
            if windows[i, k] >= 0:
                row = np.uint64(windows[i, k])
                for j in range(width):
                    made[row, first + j] += part[j]
