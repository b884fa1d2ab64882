"""In which context the tokens of a corpus are read: the three data flows of FAST (Li et al., 2025) and what lies between.

    reader = DialogueReader("Qwen/Qwen2.5-0.5B-Instruct", layer=13)
    dialogues = open_dialogues("chats.jsonl", unique=True)
    for rows in read_flow(reader, dialogues, Flow(), tokens=2_000_000):           # FAST: each dialogue alone
        ...                                                                       # TokenRows
    read_flow(reader, dialogues, Flow(pack="blocks"), tokens=2_000_000)           # BT(F)
    read_flow(reader, text_documents("pile.jsonl"), Flow(pack="blocks"), tokens=2_000_000)  # BT(P)
    cache_flow(reader, dialogues, Flow(pack="masked"), Path("states"))            # a RowFile, to learn from

Whatever the flow, the same documents give the same tokens in the same order, as many as are asked for; what differs is
what the model sees before each of them, and at which position it stands.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from hourglass.adapters.chat_templates import Document, Rendered
from hourglass.adapters.dialogues import DialogueReader, TokenRows, Tokens
from hourglass.data.dialogues import Documents, plain
from hourglass.data.keeping import Kept, Unit, keep_rows
from hourglass.data.states import at_once
from hourglass.errors import ConfigError, SourceError, StatesError, nearest
from hourglass.storage.rows import RowFile, RowWriter

Array = np.ndarray[Any, Any]
Pack = Literal["none", "blocks", "masked"]


@dataclass(frozen=True, kw_only=True)
class Flow:
    """What a token is read with.

    pack      "none": its document alone, from the first token on. "blocks": documents one after another, cut every
              `block` tokens; all of a block see each other, and positions count from its beginning. "masked": documents
              side by side in rows of about `block` tokens, but none sees another and each has positions of its own: the
              states of "none", of causal models only
    block     tokens; a document that is longer makes a longer row of "masked"
    template  write dialogues with the chat template; False: what the turns say, as a plain text
    special   keep the states of special and template tokens; the model sees them in either case

    Raises ConfigError for a value that cannot be.
    """

    pack: Pack = "none"
    block: int = 2048
    template: bool = True
    special: bool = True

    def __post_init__(self) -> None:
        if self.pack not in get_args(Pack):
            raise ConfigError(f"no pack {self.pack!r}{nearest(str(self.pack), get_args(Pack))}")
        if self.block < 1:
            raise ConfigError(f"block {self.block}: expected 1 token or more")

    def describe(self) -> dict[str, Any]:
        """The settings that the states depend on, for manifests."""
        settings = dataclasses.asdict(self)
        return settings if self.pack != "none" else {key: value for key, value in settings.items() if key != "block"}


@dataclass(frozen=True)
class Sequences:
    """Tokens that are read at once, and the sequences in which the model sees them.

    tokens   of the documents `numbers` [n]; the first document may have begun in the Sequences before
    cuts     [m + 1] the model sees tokens cuts[i] : cuts[i + 1] together
    keep     [T] bool, the tokens whose states count
    ended    documents that end here
    """

    tokens: Tokens
    numbers: Array
    cuts: Array
    keep: Array
    ended: int


def read_flow(
    reader: DialogueReader, documents: Documents, flow: Flow, *, tokens: int | None = None
) -> Iterator[TokenRows]:
    """States of all documents, or of the first `tokens` tokens that the flow keeps, some hundred thousand characters at once.

    The documents of TokenRows are numbers of rows of the source. Documents that the chat template refuses are left out, in
    `documents.report`. Raises SourceError when the documents end before `tokens` tokens, ConfigError for a flow that the
    model cannot have, StatesError, with the number of the document, for states that are not finite.
    """
    for sequences in arrange(reader, documents, flow, tokens=tokens):
        yield _read(reader, sequences, flow)


def cache_flow(
    reader: DialogueReader,
    documents: Documents,
    flow: Flow,
    folder: Path,
    *,
    tokens: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> RowFile:
    """Keep the states of `read_flow` in `folder`, as `cache_states` does: resumable, and refused for other settings.

    A row's span is the place of its token in its document and the one after that. `advance` is told how many documents have
    been read each time. Raises as `read_flow` and `cache_states`.
    """
    units = arrange(reader, documents, flow, tokens=tokens)
    first = next(units)
    beginning = hashlib.sha256(np.ascontiguousarray(first.tokens.ids).tobytes()).hexdigest()
    made_from = {
        **reader.describe(),
        **flow.describe(),
        "source": documents.name,
        "tokens": tokens,
        "beginning": beginning[:16],
    }

    def append(sequences: Sequences, writers: Mapping[int, RowWriter], done: int) -> None:
        read = _read(reader, sequences, flow)
        spans = torch.stack([read.positions, read.positions + 1], 1)
        writers[0].append(read.states, read.documents.numpy(), spans.numpy(), done)

    made = (Unit(some.ended, partial(append, some)) for some in chain([first], units))
    return keep_rows(made, [Kept(Path(folder), reader.width, made_from)], advance)[0]


def gather(reader: DialogueReader, documents: Iterable[tuple[int, Document]], flow: Flow) -> TokenRows:
    """The states of a few documents with rising numbers, all at once; SourceError for one that the template refuses."""
    _require(reader, flow)
    numbers, rendered = [], []
    for number, document in documents:
        try:
            rendered.append(reader.render(document if flow.template else plain(document)))
        except SourceError as error:
            raise SourceError(f"document {number}: {error}") from None
        numbers.append(number)
    stream = _Stream(flow, None)
    stream.append(reader.tokenize(rendered), np.array(numbers, np.int64))
    ready = stream.take(last=True)
    if ready is None:
        raise SourceError("no token to read: the documents are empty")
    return _read(reader, ready, flow)


def whole_dialogues(reader: DialogueReader, documents: Documents) -> Iterator[TokenRows]:
    """Each document by itself, read alone and whole (up to the reader's `max_tokens`): what to measure on."""
    for rows in read_flow(reader, documents, Flow()):
        for own in rows.documents.unique_consecutive():
            yield rows.where(rows.documents == own)


def arrange(
    reader: DialogueReader, documents: Documents, flow: Flow, *, tokens: int | None = None
) -> Iterator[Sequences]:
    """The tokens of a flow before any is read by the model; raises as `read_flow`."""
    if tokens is not None and tokens < 1:
        raise ConfigError(f"tokens {tokens}: expected 1 or more")
    _require(reader, flow)
    stream, found = _Stream(flow, tokens), False
    for numbers, rendered in _together(reader, documents, flow):
        stream.append(reader.tokenize(rendered), np.array(numbers, np.int64))
        if (ready := stream.take(last=False)) is not None:
            found = True
            yield ready
        if stream.left == 0:
            return
    if (ready := stream.take(last=True)) is not None:
        found = True
        yield ready
    if tokens is not None and stream.left:
        raise SourceError(
            f"{documents.name}: ends after {tokens - stream.left:,} tokens, {tokens:,} were asked for; give more documents "
            "or ask for fewer tokens"
        )
    if not found:
        why = "; ".join(line.split(": ", 1)[-1] for line in documents.report.lines())
        raise SourceError(f"{documents.name}: no token to read; {why or 'the documents are empty'}")


def _require(reader: DialogueReader, flow: Flow) -> None:
    """Raise ConfigError for a flow that the model cannot have."""
    if flow.pack == "blocks" and flow.block > reader.longest:
        raise ConfigError(f"block {flow.block}: the model takes {reader.longest} tokens at most")
    if flow.pack == "masked":
        reader.require_isolation()


def _together(reader: DialogueReader, documents: Documents, flow: Flow) -> Iterator[tuple[list[int], list[Rendered]]]:
    """Documents written down, as many at once as make some hundred thousand characters, fewer where states are wide."""
    most = at_once(reader.width)
    numbers: list[int] = []
    rendered: list[Rendered] = []
    size = 0
    for number, document in documents:
        try:
            one = reader.render(document if flow.template else plain(document))
        except SourceError as error:
            documents.report.skip(number, str(error))
            continue
        numbers.append(number)
        rendered.append(one)
        size += len(one.text)
        if size >= most:
            yield numbers, rendered
            numbers, rendered, size = [], [], 0
    if numbers:
        yield numbers, rendered


class _Stream:
    """Tokens of documents that wait to be read, and how many are still asked for."""

    def __init__(self, flow: Flow, left: int | None) -> None:
        self.left, self._flow = left, flow
        # Columns: ids, positions, special, the document's number.
        self._waiting = tuple(np.zeros(0, kind) for kind in (np.int64, np.int32, bool, np.int64))

    def append(self, tokens: Tokens, numbers: Array) -> None:
        columns = (tokens.ids, tokens.positions, tokens.special, numbers[tokens.documents])
        self._waiting = tuple(np.concatenate(pair) for pair in zip(self._waiting, columns))

    def take(self, last: bool) -> Sequences | None:
        """What is ready to be read, if anything; with `last` all that is left."""
        special = self._waiting[2]
        keep = np.ones(len(special), bool) if self._flow.special else ~special
        size = len(keep)
        counted = np.cumsum(keep)
        if self.left is not None and size and counted[-1] >= self.left:
            size = int(np.searchsorted(counted, self.left)) + 1
        elif self._flow.pack == "blocks" and not last:
            size -= size % self._flow.block  # the rest waits for its block to fill
        if not size:
            return None
        ids, positions, special, owners = (column[:size] for column in self._waiting)
        self._waiting = tuple(column[size:] for column in self._waiting)
        if self.left is not None:
            self.left -= int(counted[size - 1])
        bounds = np.flatnonzero(np.diff(owners, prepend=-1))
        offsets = np.append(bounds, size)
        goes_on = len(self._waiting[3]) > 0 and self._waiting[3][0] == owners[-1]
        return Sequences(
            Tokens(ids, positions, special, offsets),
            owners[bounds],
            self._cuts(offsets),
            keep[:size],
            len(bounds) - int(goes_on),
        )

    def _cuts(self, offsets: Array) -> Array:
        if self._flow.pack == "none":
            return offsets
        if self._flow.pack == "blocks":
            return np.append(np.arange(0, offsets[-1], self._flow.block), offsets[-1])
        cuts = [0]
        for first, past in pairwise(offsets.tolist()):
            if past - cuts[-1] > self._flow.block and first > cuts[-1]:
                cuts.append(first)
        return np.array([*cuts, offsets[-1]])


def _read(reader: DialogueReader, sequences: Sequences, flow: Flow) -> TokenRows:
    tokens, keep = sequences.tokens, torch.from_numpy(sequences.keep)
    try:
        states = reader.states(tokens, sequences.cuts, apart=flow.pack == "masked")
    except StatesError as error:
        raise StatesError(error.where, int(sequences.numbers[error.text])) from None
    columns = (sequences.numbers[tokens.documents], tokens.positions, tokens.special, tokens.ids)
    rows = TokenRows(states, *map(torch.from_numpy, columns))
    return rows if flow.special else rows.where(keep)
