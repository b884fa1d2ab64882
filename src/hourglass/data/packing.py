"""Texts one after another in rows of one length, on disk: no token of a row is padding but at the end of the last.

    rows = keep_packed(texts, tokenizer, 2048, Path("run/rows"))
    rows[0].ids, rows[0].begins          # [2048] tokens, and where among them a text begins

A text has the special tokens around it that the tokenizer puts there; where it puts none, the token that ends a text comes
after it. A text that a row has no room for goes on in the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hourglass.adapters.huggingface_loading import backend, encode, frame
from hourglass.errors import ConfigError, FolderError, SourceError
from hourglass.storage.atomic import atomic_folder, read_json, write_json
from hourglass.storage.rows import DiskArray

Array = np.ndarray[Any, Any]

_AT_ONCE = 1000
"""Texts in memory while they are packed."""
_SPECIAL, _BEGINS, _REAL = 1, 2, 4


@dataclass(frozen=True)
class PackedRow:
    """[L] each: token ids, and of each token whether it is special, whether a text begins with it, whether it is no padding."""

    ids: Array
    special: Array
    begins: Array
    real: Array


class PackedRows(Sequence[PackedRow]):
    """Rows in a folder: ids.i32 and marks.u8 [N, L], rows.json with what they were made of."""

    def __init__(self, folder: Path) -> None:
        about = read_json(folder / "rows.json")
        shape = about["rows"], about["made_from"]["length"]
        self._ids = DiskArray(folder / "ids.i32", np.int32, shape)
        self._marks = DiskArray(folder / "marks.u8", np.uint8, shape)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: Any) -> Any:
        rows = list(range(*index.indices(len(self)))) if isinstance(index, slice) else [int(index)]
        found = self.__getitems__(rows)
        return found if isinstance(index, slice) else found[0]

    def __getitems__(self, rows: list[int]) -> list[PackedRow]:
        """Many rows with one access to each file."""
        return [
            PackedRow(ids.astype(np.int64), *((marks & bit) > 0 for bit in (_SPECIAL, _BEGINS, _REAL)))
            for ids, marks in zip(self._ids[rows], self._marks[rows])
        ]


def keep_packed(texts: Sequence[str], tokenizer: Any, length: int, folder: Path) -> PackedRows:
    """Pack texts in their order into rows of `length` tokens in `folder`, which appears whole; one that is there is taken as it is.

    Raises FolderError for a folder of rows of another length, tokenizer or number of texts, ConfigError for a tokenizer
    without a token between texts, SourceError where there is no text.
    """
    tokens = backend(tokenizer)
    before, after = frame(tokenizer, "none")
    if not before and not after:
        if tokenizer.eos_token_id is None:
            raise ConfigError(f"{type(tokenizer).__name__}: has no token that ends a text, so texts cannot be packed")
        after = [tokenizer.eos_token_id]
    made_from = {
        "length": length,
        "texts": len(texts),
        "tokenizer": hashlib.sha256(tokens.to_str().encode()).hexdigest()[:16],
    }
    if folder.exists():
        there = read_json(folder / "rows.json")["made_from"]
        if there != made_from:
            raise FolderError(f"{folder}: holds rows made with {there}, now {made_from}; choose another folder")
        return PackedRows(folder)
    if not len(texts):
        raise SourceError("no text to pack: expected at least one")
    rows = 0
    waiting = np.empty((2, 0), np.int32)  # ids and marks
    with atomic_folder(folder) as new:
        with (new / "ids.i32").open("wb") as of_ids, (new / "marks.u8").open("wb") as of_marks:

            def write(part: Array) -> None:
                of_ids.write(part[0].tobytes())
                of_marks.write(part[1].astype(np.uint8).tobytes())

            for start in range(0, len(texts), _AT_ONCE):
                parts = [waiting]
                for made in encode(tokens, list(texts[start : start + _AT_ONCE])):
                    part = np.full((2, len(before) + len(made.ids) + len(after)), _REAL | _SPECIAL, np.int32)
                    part[0] = [*before, *made.ids, *after]
                    part[1, len(before) : len(before) + len(made.ids)] = _REAL
                    part[1, 0] |= _BEGINS
                    parts.append(part)
                waiting = np.concatenate(parts, 1)
                ready = waiting.shape[1] // length
                write(waiting[:, : ready * length])
                waiting = waiting[:, ready * length :]
                rows += ready
            if left := waiting.shape[1]:
                padding = np.zeros((2, length - left), np.int32)
                padding[0] = tokenizer.pad_token_id or 0
                write(np.concatenate([waiting, padding], 1))
                rows += 1
        write_json(new / "rows.json", {"rows": rows, "made_from": made_from})
    return PackedRows(folder)
