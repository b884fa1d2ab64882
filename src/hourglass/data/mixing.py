"""Random batches from a stream of rows that does not fit into memory.

Rows that come from one text are alike, so a model must not meet them together. A buffer is filled from the stream; half
of it is served in random order and filled again; and so on, until the stream ends and the rest is served.

    blocks = (reader.read(texts).states for texts in parts)     # tensors or arrays [n, 384], of any n
    buffer = MixingBuffer(2**19, width=384)
    for batch in buffer.batches(blocks, size=2048):             # tensors [2048, 384]
        ...
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hourglass.errors import ConfigError, SourceError

Array = np.ndarray[Any, Any]

_BLOCK = 4096


class MixingBuffer:
    """Room for `capacity` rows, taken once; rows stay where they were put, and only their order is shuffled.

    capacity  rows; 2 x capacity x width bytes of memory in float16
    dtype     in which rows are kept and served: float16 or float32
    seed      with the stream, fixes every batch; into what blocks the stream is cut does not matter

    Raises ConfigError for a setting that does not fit.
    """

    def __init__(self, capacity: int, width: int, *, dtype: torch.dtype = torch.float16, seed: int = 0) -> None:
        if dtype not in (torch.float16, torch.float32):
            raise ConfigError(f"dtype {dtype}: expected torch.float16 or torch.float32")
        if capacity < 2 or width < 1:
            raise ConfigError(f"capacity {capacity}, width {width}: expected 2 rows or more of 1 number or more")
        self.capacity, self.seed = capacity, seed
        self._rows = torch.empty(capacity, width, dtype=dtype)
        self._passes = 0

    def batches(self, blocks: Iterable[Tensor | Array], size: int, epoch: int = 0) -> Iterator[Tensor]:
        """[size, width] batches in which every row of `blocks` comes once; the last batch may be smaller.

        `epoch` gives another order of the same stream. One pass at a time: to begin another ends this one. Raises
        SourceError for rows of another width or too large for the buffer's number format.
        """
        if not 1 <= size <= self.capacity // 2:
            raise ConfigError(f"size {size}: expected 1 to {self.capacity // 2}, half of the buffer")
        self._passes += 1
        return self._serve(_Stream(blocks), size, np.random.default_rng((self.seed, epoch)), self._passes)

    def _serve(self, stream: _Stream, size: int, random: np.random.Generator, number: int) -> Iterator[Tensor]:
        # The first `full` places of `order` hold rows that were not served yet, the others are free.
        order, full = torch.arange(self.capacity), 0
        half = self.capacity // 2 // size * size
        ended = False
        while not ended:
            full, ended = self._fill(stream, order, full)
            random.shuffle(order[:full].numpy())  # in place: the tensor shares its memory
            stop = 0 if ended else full - half
            while full > stop:
                if number != self._passes:
                    raise RuntimeError("another pass over the same buffer has begun: take a buffer for each")
                first = max(stop, full - size)
                yield self._rows[order[first:full]]
                full = first

    def _fill(self, stream: _Stream, order: Tensor, full: int) -> tuple[int, bool]:
        """Put rows of the stream into the free places: how many are taken now, and whether the stream has ended."""
        while full < self.capacity:
            block = stream.take(self.capacity - full)
            if block is None:
                return full, True
            if block.shape[1:] != self._rows.shape[1:]:
                raise SourceError(
                    f"rows of shape {tuple(block.shape[1:])}: the buffer's are {self._rows.shape[1]} wide"
                )
            block = block.to(self._rows.dtype)
            if not torch.isfinite(block).all():
                raise SourceError(f"rows with numbers that are not finite in {self._rows.dtype}; try torch.float32")
            self._rows[order[full : full + len(block)]] = block
            full += len(block)
        return full, False


class MixedRows:
    """Rows that are kept somewhere, in the order in which a MixingBuffer serves them; can be read again, the same way.

    rows      [n, width], of which a slice is read at a time
    capacity, seed    of the buffer
    """

    def __init__(self, rows: Any, capacity: int, *, seed: int = 0) -> None:
        self._rows, self._capacity, self._seed = rows, capacity, seed

    def __iter__(self) -> Iterator[Tensor]:
        """Rows [width], one at a time."""
        buffer = MixingBuffer(self._capacity, self._rows.shape[1], seed=self._seed)
        blocks = (self._rows[start : start + _BLOCK] for start in range(0, len(self._rows), _BLOCK))
        for batch in buffer.batches(blocks, min(_BLOCK, self._capacity // 2)):
            yield from batch


class _Stream:
    """Rows of blocks, as many at a time as there is room for; what is left of a block waits without being copied."""

    def __init__(self, blocks: Iterable[Tensor | Array]) -> None:
        self._blocks = iter(blocks)
        self._rest: Tensor | None = None

    def take(self, most: int) -> Tensor | None:
        """1 to `most` rows; None at the end."""
        while self._rest is None or not len(self._rest):
            block = next(self._blocks, None)
            if block is None:
                return None
            self._rest = torch.as_tensor(block)
        taken, self._rest = self._rest[:most], self._rest[most:]
        return taken
