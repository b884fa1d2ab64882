"""Rows of numbers on disk, in half precision: what a model learns from, when it does not fit into memory.

    rows.f16       [N, width] float16
    documents.i64  [N] the document each row is of
    spans.i32      [N, 2] where in the document
    rows.json      width, the number of rows that count and, where the writer counts its work, how much of it they are

Appending writes and syncs the three files, then replaces rows.json: after a kill the file is as it was at the last
append that returned. float16 keeps 11 bits of each number up to 65,504.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from hourglass.errors import FolderError
from hourglass.storage.atomic import disk_errors, read_json, write_json

Array = np.ndarray[Any, Any]


class RowFile:
    """Rows that can be read by any index without reading the rest.

    rows       [N, width] float16, read from disk by each index
    documents  [N] int64 memory map, in rising order
    spans      [N, 2] int32 memory map

    Raises FolderError when a file holds less than was written to it.
    """

    def __init__(self, folder: Path) -> None:
        state = read_json(folder / "rows.json")
        number, width = int(state["rows"]), int(state["width"])
        self.rows = DiskArray(folder / "rows.f16", np.float16, (number, width))
        self.documents = _map(folder / "documents.i64", np.int64, (number,))
        self.spans = _map(folder / "spans.i32", np.int32, (number, 2))

    def __len__(self) -> int:
        return len(self.rows)

    @staticmethod
    def exists(folder: Path) -> bool:
        return (folder / "rows.json").is_file()


class DiskArray:
    """Rows of numbers in a file, of which every access reads what it asks for and keeps nothing.

    A memory map would come to hold every page that was ever touched: after a pass in random order, the whole file.
    Indexed by a slice or by a list or array of row numbers; IndexError for one that does not exist.
    """

    def __init__(self, path: Path, kind: type, shape: tuple[int, int]) -> None:
        self.shape, self._path, self._kind = shape, path, kind
        self._stride = shape[1] * np.dtype(kind).itemsize
        _map(path, kind, shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice | list[int] | Array) -> Array:
        rows = np.arange(*index.indices(len(self))) if isinstance(index, slice) else np.asarray(index, np.int64)
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")
        out: Array = np.empty((len(rows), self.shape[1]), self._kind)
        if not out.size:
            return out
        # A run of neighbours is one read.
        cuts = np.concatenate([[0], np.flatnonzero(np.diff(rows) != 1) + 1, [len(rows)]])
        starts, ends = (rows[cuts[:-1]] * self._stride).tolist(), (cuts * self._stride).tolist()
        filled = out.data.cast("B")
        with self._path.open("rb", buffering=0) as file:
            for start, (first, last) in zip(starts, pairwise(ends)):
                self._fill(file.fileno(), filled[first:last], start)
        return out

    def _fill(self, file: int, part: memoryview, start: int) -> None:
        """Read `part` from byte `start` on; one call gives 2 GiB at most."""
        while len(part):
            read = os.preadv(file, [part], start)
            if not read:
                raise FolderError(f"{self._path}: became shorter while it was read; remove its folder and read again")
            part, start = part[read:], start + read

    def __getitems__(self, rows: list[int]) -> Array:
        """Many rows in one access."""
        return self[rows]


class SideBySide:
    """Rows of several arrays as one: row i is that of each, one after another. Read as `DiskArray` is."""

    def __init__(self, parts: Sequence[DiskArray]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return len(self._parts[0])

    def __getitem__(self, index: slice | list[int] | Array) -> Array:
        return np.concatenate([part[index] for part in self._parts], axis=1)

    def __getitems__(self, rows: list[int]) -> Array:
        """Many rows in one access."""
        return self[rows]


class RowWriter:
    """Appends to the rows in `folder`, which it makes when there is none.

    done  units of work whose rows are all here, as the last append counted them

    Raises FolderError for rows of another width, for numbers that float16 cannot hold, and for a full disk.
    """

    def __init__(self, folder: Path, width: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._width, self._number, self.done = folder, width, 0, 0
        if RowFile.exists(folder):
            state = read_json(folder / "rows.json")
            if state["width"] != width:
                raise FolderError(f"{folder}: rows of width {state['width']}, now {width}; choose another folder")
            self._number, self.done = len(RowFile(folder)), state.get("done", 0)
        else:
            write_json(folder / "rows.json", {"width": width, "rows": 0})
        self._files = [(folder / name).open("ab") for name in ("rows.f16", "documents.i64", "spans.i32")]
        for file, size in zip(self._files, (2 * width, 8, 8)):
            file.truncate(self._number * size)  # what a killed append had already written

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()

    def append(self, rows: Tensor, documents: Array, spans: Array, done: int | None = None) -> None:
        """Add rows [n, width] of `documents` [n] (rising) at `spans` [n, 2], with which `done` units of work are here."""
        if not len(rows):
            return
        half = rows.to(torch.float16).numpy()
        if not np.isfinite(half).all():
            raise FolderError(f"{self._folder}: states too large for half precision; read an earlier layer")
        with disk_errors(self._folder):
            for file, array in zip(self._files, (half, documents.astype(np.int64), spans.astype(np.int32))):
                file.write(np.ascontiguousarray(array).data)
                file.flush()
                os.fsync(file.fileno())
            self._number += len(half)
            self.done = self.done if done is None else done
            counted = {"done": self.done} if self.done else {}
            write_json(self._folder / "rows.json", {"width": self._width, "rows": self._number, **counted})


def _map(path: Path, kind: type, shape: tuple[int, ...]) -> Any:
    """A read-only memory map; an empty file cannot be mapped."""
    if not shape[0]:
        return np.zeros(shape, kind)
    try:
        return np.memmap(path, kind, "r", shape=shape)
    except (FileNotFoundError, ValueError):
        raise FolderError(
            f"{path}: missing or shorter than the {shape[0]:,} rows that rows.json counts; remove {path.parent} and read again"
        ) from None
