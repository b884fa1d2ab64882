"""Token states of a whole corpus on disk: read once, learned from as often as wanted.

    reader = HuggingFaceReader("gpt2", layer=8, site="mlp")
    rows = cache_states(reader, "corpus.parquet", Path("gpt2-8-mlp"))     # a RowFile: rows, documents, spans
    rows.rows[[5, 3]]                                                     # float16, only these are read from disk
    cache_sites(reader, "corpus.parquet", {(4, "residual"): Path("4"), (8, "mlp"): Path("8")})  # several, from one pass

The folders are those of `hourglass.data.keeping`. Each token has its row, its document (`_row` of the source: 1 is the
first text of a list) and its place (characters).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from hourglass.adapters.huggingface import pieces
from hourglass.data.keeping import Kept, Unit, finished, keep_rows
from hourglass.data.mixing import MixingBuffer
from hourglass.data.sources import TextSource, open_texts
from hourglass.errors import StatesError
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


class SitesReader(DescribedReader, Protocol):
    """A reader that gives states of several places from one pass."""

    def width_at(self, layer: int | None, site: str) -> int: ...

    def read_sites(
        self, texts: Sequence[str], places: Sequence[Site], *, aligned: bool = False
    ) -> Mapping[Site, TokenStates]: ...


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
    whole = Kept(Path(folder), reader.width, reader.describe())
    return _cache(lambda texts: [reader.read(texts)], source, [whole], advance)[0]


def cache_sites(
    reader: SitesReader,
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
        kept.append(Kept(Path(folder), reader.width_at(layer, site), made_with))

    def read(texts: Sequence[str]) -> list[TokenStates]:
        return list(reader.read_sites(texts, list(folders), aligned=aligned).values())

    return dict(zip(folders, _cache(read, source, kept, advance)))


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
        reader: SitesReader,
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
        finished(folder, {**reader.describe(), "places": [list(place) for place in places], **made_of})

    def __iter__(self) -> Iterator[Tensor]:
        buffer = MixingBuffer(self._capacity, sum(self.widths), seed=self._seed)
        for batch in buffer.batches(self._blocks(), min(1024, self._capacity // 2)):
            yield from batch

    def _blocks(self) -> Iterator[Tensor]:
        for documents, _, parts in self._windows():
            with naming(documents):
                read = self._reader.read_sites(parts, self._places, aligned=True)
            yield torch.cat([tokens.states.to(torch.float16) for tokens in read.values()], 1)
            release_memory()

    def _windows(self) -> Iterator[Window]:
        return _windows(self._texts, at_once(sum(self.widths)))


def _cache(
    read: Callable[[Sequence[str]], list[TokenStates]],
    source: Any,
    kept: Sequence[Kept],
    advance: Callable[[int], None] | None,
) -> list[RowFile]:
    """Keep what `read` gives, a TokenStates for each of `kept`; these are told of which source."""
    texts = source if isinstance(source, TextSource) else open_texts(source)
    windows = _windows(texts, at_once(sum(states.width for states in kept)))
    first = next(windows)
    made_of = {"source": texts.name, "beginning": _beginning(first)}

    def unit(window: Window) -> Unit:
        documents, starts, parts = window

        def append(writers: Mapping[int, RowWriter], done: int) -> None:
            with naming(documents):
                states = read(parts)
            for number, rows in writers.items():
                append_states(rows, states[number], documents, starts, done=done)

        return Unit(len(parts), append)

    whole = [replace(states, made_from={**states.made_from, **made_of}) for states in kept]
    return keep_rows(map(unit, chain([first], windows)), whole, advance)


def at_once(width: int) -> int:
    """Characters of documents to read at once where a token has so many numbers."""
    return min(WINDOW_CHARACTERS, _NUMBERS // width)


@contextmanager
def naming(documents: Array) -> Iterator[None]:
    """An error about one of the texts that are read names it by `documents` [n]."""
    try:
        yield
    except StatesError as error:
        raise StatesError(error.where, int(documents[error.text])) from None


def append_states(
    rows: RowWriter, read: TokenStates, documents: Array, starts: Array | None = None, *, done: int
) -> None:
    """Append the states of texts that begin at characters `starts` (0) of `documents` [n] (rising): so many units are done."""
    lengths = read.lengths.numpy()
    spans = read.spans.numpy()
    if starts is not None:
        spans = spans + np.repeat(starts, lengths)[:, None]
    rows.append(read.states, np.repeat(documents, lengths), spans, done)


def _beginning(first: Window) -> str:
    """By which a source is known again."""
    return hashlib.sha256("\0".join(first[2]).encode("utf-8", "surrogatepass")).hexdigest()[:16]


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
