"""Runs a compiled loop over rows on as many threads as torch uses.

Plain threads rather than numba's own parallel loops: those abort when called from two Python threads at once or
after a fork, and set the number of torch's threads, on which the last digits of much else hang. Every row is written
by exactly one thread and in one order, so the result does not depend on how many threads there are.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch

_ROWS_PER_THREAD = 64


def over_rows(kernel: Callable[..., None], rows: int, *arguments: Any) -> None:
    """Call `kernel(*arguments, start, stop)` for runs of rows that together cover range(rows)."""
    threads = max(1, min(torch.get_num_threads(), rows // _ROWS_PER_THREAD))
    if threads == 1:
        kernel(*arguments, 0, rows)
        return
    bounds = [rows * t // threads for t in range(threads + 1)]
    pending = [pool(threads).submit(kernel, *arguments, *bounds[t : t + 2]) for t in range(1, threads)]
    kernel(*arguments, 0, bounds[1])
    for run in pending:
        run.result()


def pool(threads: int) -> ThreadPoolExecutor:
    """Threads that are kept: to start one takes five times as long as to hand it work. What runs in them may not ask for the same ones."""
    return _pool(os.getpid(), threads)


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """One pool per process: a forked child has none of its parent's threads."""
    return ThreadPoolExecutor(threads, thread_name_prefix="hourglass-rows")
