"""Token states of a whole corpus on disk: read once, learned from as often as wanted.

    reader = HuggingFaceReader("gpt2", layer=8, site="mlp")
    rows = cache_states(reader, "corpus.parquet", Path("gpt2-8-mlp"))     # a RowFile: rows, documents, spans
    rows.rows[[5, 3]]                                                     # float16, only these are read from disk
    cache_sites(reader, "corpus.parquet", {(4, "residual"): Path("4"), (8, "mlp"): Path("8")})  # several, from one pass

The folder holds the files of `hourglass.storage.rows` and states.json: what they were made with and of, and whether all of
it is there. Each token has its row, its document (`_row` of the source: 1 is the first text of a list) and its place
(characters).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from hourglass.adapters.huggingface import HuggingFaceReader, pieces, read_sites
from hourglass.data.mixing import MixingBuffer
from hourglass.data.sources import TextSource, open_texts
from hourglass.errors import FolderError, StatesError
from hourglass.storage.atomic import clear_leftovers, read_json, write_json
from hourglass.storage.memory import release_memory
from hourglass.storage.rows import RowFile, RowWriter
from hourglass.waist import TextReader, TokenStates

Array = np.ndarray[Any, Any]

WINDOW_CHARACTERS = 400_000
"""Characters of documents that are read at once."""

_NUMBERS = 400_000 * 384  # characters times width, above which less is read at once: wide states are heavy
_DOCUMENTS = 4096

Window = tuple[Array, Array, list[str]]
"""Texts that are read at once: the document of each, the character of it at which it begins, the text."""


class DescribedReader(TextReader, Protocol):
    """A reader that can say what it takes to have the same states again, in JSON."""

    def describe(self) -> dict[str, Any]: ...


Site = tuple[int | None, str]
"""A place in a model: layer and site, as `HuggingFaceReader` has them."""


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
    whole = _Kept(Path(folder), reader.width, reader.describe())
    return _cache(lambda texts: [reader.read(texts)], [whole], source, advance)[0]


def cache_sites(
    reader: HuggingFaceReader,
    source: Any,
    folders: Mapping[Site, Path],
    advance: Callable[[int], None] | None = None,
    *,
    aligned: bool = False,
) -> dict[Site, RowFile]:
    """As `cache_states`, for several (layer, site) from one pass over the texts, each in a folder of its own.

    Open the reader at the highest layer. `aligned`: row i of all is of the same token, also where `max_norm` leaves some
    out. A folder whose states a kill has cut off earlier than the others' is brought level with them.
    """
    kept = []
    for (layer, site), folder in folders.items():
        made_with = {**reader.describe(), "layer": layer, "site": site}
        if aligned:
            made_with["aligned"] = [list(place) for place in folders]
        kept.append(_Kept(Path(folder), reader.width_at(layer, site), made_with))

    def read(texts: Sequence[str]) -> list[TokenStates]:
        return list(read_sites(reader, texts, list(folders), aligned=aligned).values())

    return dict(zip(folders, _cache(read, kept, source, advance)))


class StateStream:
    """States of all tokens of a source in mixed order that never touch the disk: rows [sum of widths], one by one.

    Every iteration begins anew and gives the same rows in the same order, so that a run goes on exactly where it stopped
    by reading up to there again. States of several places of a token are side by side.

    places    of the reader, opened at the highest layer
    folder    what is read, and with which reader, is noted there, and held against when it is read again
    capacity  rows from which the next are drawn (see `MixingBuffer`): 2 x capacity x width bytes of memory
    """

    def __init__(
        self,
        reader: HuggingFaceReader,
        source: Any,
        places: Sequence[Site],
        folder: Path,
        *,
        capacity: int,
        seed: int = 0,
    ) -> None:
        self.widths = [reader.width_at(layer, site) for layer, site in places]
        self._reader, self._places, self._capacity, self._seed = reader, list(places), capacity, seed
        self._texts = source if isinstance(source, TextSource) else open_texts(source)
        made_of = {"source": self._texts.name, "beginning": _beginning(next(self._windows()))}
        folder.mkdir(parents=True, exist_ok=True)
        _finished(folder, {**reader.describe(), "places": [list(place) for place in places], **made_of})

    def __iter__(self) -> Iterator[Tensor]:
        buffer = MixingBuffer(self._capacity, sum(self.widths), seed=self._seed)
        for batch in buffer.batches(self._blocks(), min(1024, self._capacity // 2)):
            yield from batch

    def _blocks(self) -> Iterator[Tensor]:
        for documents, _, parts in self._windows():
            with _naming(documents):
                read = read_sites(self._reader, parts, self._places, aligned=True)
            yield torch.cat([tokens.states.to(torch.float16) for tokens in read.values()], 1)
            release_memory()

    def _windows(self) -> Iterator[Window]:
        return _windows(self._texts, _characters(self.widths))


@dataclass(frozen=True)
class _Kept:
    """States that are kept: where, how wide, and what they are made with."""

    folder: Path
    width: int
    made_with: dict[str, Any]


def _cache(
    read: Callable[[Sequence[str]], list[TokenStates]],
    kept: Sequence[_Kept],
    source: Any,
    advance: Callable[[int], None] | None,
) -> list[RowFile]:
    """Keep what `read` gives, a TokenStates for each of `kept`."""
    texts = source if isinstance(source, TextSource) else open_texts(source)
    windows = _windows(texts, _characters([states.width for states in kept]))
    first = next(windows)
    made_of = {"source": texts.name, "beginning": _beginning(first)}
    with ExitStack() as locks:
        unfinished = []
        for number, states in enumerate(kept):
            states.folder.mkdir(parents=True, exist_ok=True)
            try:
                locks.enter_context(FileLock(states.folder / ".lock", blocking=False))
            except Timeout:
                raise FolderError(f"{states.folder}: another process is writing to it; wait for it to end") from None
            clear_leftovers(states.folder)
            if not _finished(states.folder, {**states.made_with, **made_of}):
                unfinished.append(number)
        if unfinished:
            _write(read, {number: kept[number] for number in unfinished}, chain([first], windows), advance)
        for number in unfinished:
            write_json(kept[number].folder / "states.json", {**kept[number].made_with, **made_of, "finished": True})
    return [RowFile(states.folder) for states in kept]


def read_into(
    rows: RowWriter,
    reader: TextReader,
    documents: Array,
    texts: Sequence[str],
    starts: Array | None = None,
    done: int | None = None,
) -> None:
    """Append the states of `texts` [n], which begin at characters `starts` (0) of `documents` [n] (rising)."""
    with _naming(documents):
        read = reader.read(texts)
    _append(rows, read, documents, starts, done)


@contextmanager
def _naming(documents: Array) -> Iterator[None]:
    """An error about one of the texts that are read names its document."""
    try:
        yield
    except StatesError as error:
        raise StatesError(error.where, int(documents[error.text])) from None


def _append(
    rows: RowWriter, read: TokenStates, documents: Array, starts: Array | None = None, done: int | None = None
) -> None:
    lengths = read.lengths.numpy()
    spans = read.spans.numpy()
    if starts is not None:
        spans = spans + np.repeat(starts, lengths)[:, None]
    rows.append(read.states, np.repeat(documents, lengths), spans, done)


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


def _write(
    read: Callable[[Sequence[str]], list[TokenStates]],
    kept: Mapping[int, _Kept],
    windows: Iterable[Window],
    advance: Callable[[int], None] | None,
) -> None:
    """Append what lacks in `kept`, by its number in what `read` gives."""
    with ExitStack() as files:
        rows = {n: files.enter_context(RowWriter(states.folder, states.width)) for n, states in kept.items()}
        # What is read together depends on the source alone, and so do the bits of the states: a batch has its own rounding.
        for number, (documents, starts, parts) in enumerate(windows):
            lacking = [n for n, writer in rows.items() if number >= writer.done]
            if lacking:
                with _naming(documents):
                    states = read(parts)
                for n in lacking:
                    _append(rows[n], states[n], documents, starts, done=number + 1)
                del states
                release_memory()
            if advance is not None:
                advance(len(documents))


def _beginning(first: Window) -> str:
    """By which a source is known again."""
    return hashlib.sha256("\0".join(first[2]).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _characters(widths: Sequence[int]) -> int:
    """How much is read at once for states of these widths."""
    return min(WINDOW_CHARACTERS, _NUMBERS // sum(widths))


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
