"""Memory that is free in this process, given back to the machine."""

from __future__ import annotations

import ctypes


def release_memory() -> None:
    """Have the C library return what it keeps of freed memory; does nothing where it cannot (only glibc can).

    Arrays of changing sizes, freed by several threads, leave holes that nothing fits: over a hundred thousand documents
    a process that needs 600 MB came to hold 1,300.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
