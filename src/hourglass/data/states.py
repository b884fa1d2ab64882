"""Token states of a whole corpus on disk: read once, learned from as often as wanted.

    reader = HuggingFaceReader("gpt2", layer=8, site="mlp")
    rows = cache_states(reader, "corpus.parquet", Path("gpt2-8-mlp"))     # a RowFile: rows, documents, spans
    rows.rows[[5, 3]]                                                     # float16, only these are read from disk

The folder holds the files of `hourglass.storage.rows` and states.json: what they were made with and of, and whether all of
it is there. Each token has its row, its document (`_row` of the source: 1 is the first text of a list) and its place
(characters).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from filelock import FileLock, Timeout

from hourglass.adapters.huggingface import pieces
from hourglass.data.sources import TextSource, open_texts
from hourglass.errors import FolderError, StatesError
from hourglass.storage.atomic import clear_leftovers, read_json, write_json
from hourglass.storage.memory import release_memory
from hourglass.storage.rows import RowFile, RowWriter
from hourglass.waist import TextReader

Array = np.ndarray[Any, Any]

WINDOW_CHARACTERS = 400_000
"""Characters of documents that are read at once."""

_NUMBERS = 400_000 * 384  # characters times width, above which less is read at once: wide states are heavy
_DOCUMENTS = 4096

Window = tuple[Array, Array, list[str]]
"""Texts that are read at once: the document of each, the character of it at which it begins, the text."""


@dataclass(frozen=True)
class Unit:
    """What is read at once: of how many documents or parts, and what appends its rows, which makes so many units done."""

    documents: int
    append: Callable[[RowWriter, int], None]


class DescribedReader(TextReader, Protocol):
    """A reader that can say what it takes to have the same states again, in JSON."""

    def describe(self) -> dict[str, Any]: ...


def cache_states(
    reader: DescribedReader, source: Any, folder: Path, advance: Callable[[int], None] | None = None
) -> RowFile:
    """Keep the states of all tokens of a source of texts (whatever `open_texts` opens, or a TextSource) in `folder`.

    After a kill at any moment, the same call goes on where the files stop, and they come to hold the same bytes as if
    nothing had happened (on the same machine, with as many threads). A cache that is finished is returned as it is, even
    if the source has grown. Memory is that of WINDOW_CHARACTERS of text, fewer where states are wide, and of their
    states. A longer document is read in parts. `advance` is told how many texts, or parts, have been read each time.

    Raises FolderError for a folder with states of another reader or source, or that another process writes to;
    StatesError, with the number of the document, for one whose states are not finite.
    """
    texts = source if isinstance(source, TextSource) else open_texts(source)
    windows = _windows(texts, at_once(reader.width))
    first = next(windows)
    beginning = hashlib.sha256("\0".join(first[2]).encode("utf-8", "surrogatepass")).hexdigest()
    made_from = {**reader.describe(), "source": texts.name, "beginning": beginning[:16]}

    def unit(window: Window) -> Unit:
        documents, starts, parts = window
        return Unit(len(parts), lambda rows, done: read_into(rows, reader, documents, parts, starts, done))

    return keep_rows(map(unit, chain([first], windows)), reader.width, made_from, folder, advance)


def keep_rows(
    units: Iterable[Unit],
    width: int,
    made_from: dict[str, Any],
    folder: Path,
    advance: Callable[[int], None] | None = None,
) -> RowFile:
    """Keep the rows [n, width] of all `units` in `folder`, made anew or taken up where it stops.

    made_from  what they are made with and of, in JSON: a folder with something else is refused. The units, in number, order
               and content, must depend on it alone, for those that are there already are passed over.

    Raises as `cache_states`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", blocking=False):
            clear_leftovers(folder)
            if not _finished(folder, made_from):
                _write(units, width, folder, advance)
                write_json(folder / "states.json", {**made_from, "finished": True})
    except Timeout:
        raise FolderError(f"{folder}: another process is writing to it; wait for it to end") from None
    return RowFile(folder)


def read_into(
    rows: RowWriter,
    reader: TextReader,
    documents: Array,
    texts: Sequence[str],
    starts: Array | None = None,
    done: int | None = None,
) -> None:
    """Append the states of `texts` [n], which begin at characters `starts` (0) of `documents` [n] (rising)."""
    try:
        read = reader.read(texts)
    except StatesError as error:
        raise StatesError(error.where, int(documents[error.text])) from None
    lengths = read.lengths.numpy()
    spans = read.spans.numpy()
    if starts is not None:
        spans = spans + np.repeat(starts, lengths)[:, None]
    rows.append(read.states, np.repeat(documents, lengths), spans, done)


def at_once(width: int) -> int:
    """Characters of documents to read at once where a state has so many numbers."""
    return min(WINDOW_CHARACTERS, _NUMBERS // width)


def _finished(folder: Path, made_from: dict[str, Any]) -> bool:
    """Whether all states are there; begins a folder that is new."""
    manifest = folder / "states.json"
    if not manifest.exists():
        if RowFile.exists(folder):
            raise FolderError(f"{folder}: holds rows of something else; choose another folder")
        write_json(manifest, {**made_from, "finished": False})
    state = read_json(manifest)
    for key, value in made_from.items():
        if state.get(key) != value:
            raise FolderError(
                f"{folder}: holds states with {key} {state.get(key)!r}, now {value!r}; choose another folder"
            )
    return bool(state.get("finished"))


def _write(units: Iterable[Unit], width: int, folder: Path, advance: Callable[[int], None] | None) -> None:
    with RowWriter(folder, width) as rows:
        # What is read together depends on the source alone, and so do the bits of the states: a batch has its own rounding.
        for number, unit in enumerate(units):
            if number >= rows.done:
                unit.append(rows, number + 1)
                release_memory()
            if advance is not None:
                advance(unit.documents)


def _windows(texts: TextSource, characters: int) -> Iterator[Window]:
    """All of the source, at most so many characters at once."""
    window: list[tuple[int, int, str]] = []
    size = 0
    for batch in texts.batches(_DOCUMENTS):
        for row, text in zip(batch.column("_row").to_pylist(), batch.column(texts.text_column).to_pylist()):
            for start, piece in pieces(text, characters):
                if window and size + len(piece) > characters:
                    yield _columns(window)
                    window, size = [], 0
                window.append((row, start, piece))
                size += len(piece)
    if window:
        yield _columns(window)


def _columns(window: list[tuple[int, int, str]]) -> Window:
    documents, starts, parts = zip(*window)
    return np.array(documents, np.int64), np.array(starts, np.int32), list(parts)
