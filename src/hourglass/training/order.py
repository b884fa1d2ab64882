"""In which order a run meets its examples: a pure function of the step, so that a resumed run goes on exactly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hourglass.errors import SourceError
from hourglass.training.randomness import SHUFFLE

_NAMED_EXAMPLES = 8


class Order(ABC):
    """Batches of raw examples by step."""

    size: int | None
    """Number of examples; None for a stream."""

    @abstractmethod
    def batch(self, step: int) -> Any:
        """The `batch_size` examples of step 1, 2, ..."""

    @abstractmethod
    def first(self) -> Iterator[Any]:
        """The batches from step 1 on, at most one pass over the data; does not disturb `batch`."""

    @abstractmethod
    def describe(self, step: int) -> str:
        """Which examples step `step` saw, for people."""


def open_order(data: Any, batch_size: int, seed: int) -> Order:
    """The order of `data`: a permutation for each pass of a sequence, the given order of a stream."""
    _check(data)
    return _Shuffled(data, batch_size, seed) if _has_rows(data) else _Streamed(data, batch_size)


def in_order(data: Any, batch_size: int) -> Iterator[Any]:
    """All examples once, in the given order; the last batch may be smaller."""
    _check(data)
    if _has_rows(data):
        for start in range(0, len(data), batch_size):
            yield _fetch(data, np.arange(start, min(start + batch_size, len(data))))
        return
    examples = iter(data)
    while batch := list(islice(examples, batch_size)):
        yield batch


class _Shuffled(Order):
    """A sequence: one permutation per epoch; a batch that the epoch cannot fill goes on in the next."""

    def __init__(self, data: Any, batch_size: int, seed: int) -> None:
        self.size = len(data)
        self._data, self._batch_size, self._seed = data, batch_size, seed
        self._epoch, self._permutation = -1, np.empty(0, np.int64)

    def batch(self, step: int) -> Any:
        return _fetch(self._data, self._rows(step))

    def first(self) -> Iterator[Any]:
        for step in range(1, -(-len(self._data) // self._batch_size) + 1):
            yield self.batch(step)

    def describe(self, step: int) -> str:
        rows = self._rows(step)
        shown = ", ".join(map(str, rows[:_NAMED_EXAMPLES].tolist()))
        more = ", ..." if len(rows) > _NAMED_EXAMPLES else ""
        return f"epoch {(step - 1) * self._batch_size // len(self._data)}, examples {shown}{more}"

    def _rows(self, step: int) -> np.ndarray:
        start, stop = (step - 1) * self._batch_size, step * self._batch_size
        size = len(self._data)
        parts = []
        while start < stop:
            epoch, offset = divmod(start, size)
            part = self._of_epoch(epoch)[offset : offset + stop - start]
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _of_epoch(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            generator = np.random.default_rng((self._seed, SHUFFLE, epoch))
            self._epoch, self._permutation = epoch, generator.permutation(len(self._data))
        return self._permutation


class _Streamed(Order):
    """An iterable, read in its own order and begun again when it ends. Going on from a checkpoint reads up to there."""

    size = None

    def __init__(self, data: Iterable[Any], batch_size: int) -> None:
        self._data, self._batch_size = data, batch_size
        self._examples: Iterator[Any] = iter(())
        self._position = 0

    def batch(self, step: int) -> list[Any]:
        start = (step - 1) * self._batch_size
        if self._position > start:
            self._examples, self._position = iter(()), 0
        while self._position < start:
            self._take(min(start - self._position, self._batch_size))
        return self._take(self._batch_size)

    def first(self) -> Iterator[list[Any]]:
        examples = iter(self._data)  # once: to begin a stream can cost much
        batch = list(islice(examples, self._batch_size))
        if len(batch) < self._batch_size:
            yield _Streamed(self._data, self._batch_size).batch(1)
            return
        while len(batch) == self._batch_size:
            yield batch
            batch = list(islice(examples, self._batch_size))

    def describe(self, step: int) -> str:
        return f"examples {(step - 1) * self._batch_size:,} to {step * self._batch_size - 1:,} of the stream"

    def _take(self, count: int) -> list[Any]:
        taken = list(islice(self._examples, count))
        while len(taken) < count:
            self._examples = iter(self._data)
            more = list(islice(self._examples, count - len(taken)))
            if not more:
                raise SourceError("the data is empty: expected at least one example")
            taken += more
        self._position += count
        return taken


def _has_rows(data: Any) -> bool:
    return hasattr(data, "__len__") and hasattr(data, "__getitem__")


def _check(data: Any) -> None:
    if isinstance(data, (str, bytes, Mapping)) or not (_has_rows(data) or isinstance(data, Iterable)):
        raise SourceError(
            f"data is a {type(data).__name__}: expected a sequence of examples (list, array, Dataset) or an iterable"
        )
    if isinstance(data, Iterator):
        raise SourceError(
            f"data is a {type(data).__name__}, which can be read only once; give a list, an array or an iterable "
            "that starts anew each time"
        )
    if _has_rows(data) and len(data) == 0:
        raise SourceError("the data is empty: expected at least one example")


def _fetch(data: Any, rows: np.ndarray) -> Any:
    """The examples at `rows`, in one access where the data can."""
    if isinstance(data, Tensor):
        return data[torch.from_numpy(rows)]
    if isinstance(data, np.ndarray):
        return data[rows]
    if hasattr(data, "__getitems__"):
        return data.__getitems__(rows.tolist())
    return [data[row] for row in rows.tolist()]
