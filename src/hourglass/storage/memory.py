"""Memory of this process: what is free is given back to the machine, what is jumped about in lies in large pages."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np

_PAGE = 2 << 20
_HUGEPAGE, _COLLAPSE = 14, 25
"""Of madvise: such pages from now on (Linux 2.6.38), and at once (6.1)."""


def release_memory() -> None:
    """Have the C library return what it keeps of freed memory; does nothing where it cannot (only glibc can).

    Arrays of changing sizes, freed by several threads, leave holes that nothing fits: over a hundred thousand documents
    a process that needs 600 MB came to hold 1,300.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def in_large_pages(array: np.ndarray[Any, Any]) -> None:
    """Ask the system to keep what an array holds in pages of 2 MiB instead of 4 KiB; does nothing where it cannot (only Linux can).

    What reads here and there in hundreds of megabytes spends much of its time on finding out where small pages lie. The contents
    stay, and so does their address.
    """
    if sys.platform != "linux":
        return
    start = -(-array.ctypes.data // _PAGE) * _PAGE
    size = (array.ctypes.data + array.nbytes) // _PAGE * _PAGE - start
    if size > 0:
        for advice in (_HUGEPAGE, _COLLAPSE):
            ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), advice)
