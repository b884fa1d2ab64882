"""The second stage: token states of (a sample of) the documents, and an autoencoder trained on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from hourglass.bottlenecks.sparse.recipe import recipe
from hourglass.data.states import append_states, naming
from hourglass.errors import SourceError
from hourglass.metrics.reconstruction import fvu
from hourglass.storage.atomic import write_json
from hourglass.storage.rows import RowFile, RowWriter
from hourglass.training import fit
from hourglass.uses.engines import Advance, Engine
from hourglass.uses.explore import windows
from hourglass.uses.explore.parts import Part
from hourglass.uses.explore.reading import MIDDLE, TOKENS, DocumentReader, read
from hourglass.uses.explore.words import vocabulary
from hourglass.uses.explore.workspace import TextCoder, Workspace
from hourglass.uses.progress import Progress
from hourglass.waist import TokenStates

Array = np.ndarray[Any, Any]

LEARN_TOKENS = 1_000_000
"""Token states on which the autoencoder learns; a larger corpus is sampled."""
NAME_TOKENS = 300_000
"""Tokens on which features are named and shown."""
CHARACTERS_PER_TOKEN = 4.0
"""Rule of thumb by which a sample is sized before anything is tokenised."""

MakeCoder = Callable[[int], TextCoder]
"""From the number of tokens in the corpus (or its sample) to an untrained coder."""


def learn(workspace: Workspace, make_coder: MakeCoder, engine: Engine, seed: int, bar: Progress) -> TextCoder:
    """Store token states of (a sample of) the documents and, where it is not trained, train the autoencoder on them."""
    folder = workspace.folder
    lengths = windows.lengths_of(workspace)
    whole = not windows.is_long(int(lengths.max()))
    lengths = windows.beginnings(lengths)
    sample = _sample(lengths, seed)
    coder = make_coder(min(LEARN_TOKENS, int(lengths[sample].sum() / CHARACTERS_PER_TOKEN)))
    _store_states(workspace, coder.reader, sample, lengths, engine, bar)
    rows = RowFile(folder / TOKENS)
    if len(rows.rows) == 0:
        raise SourceError(
            f"{workspace.manifest['sources'][0]['name']}: the encoder found no token in {len(lengths):,} documents"
        )
    steps = 0
    if not coder.trained:
        bar.pause()  # training draws a bar of its own
        train = recipe(coder.sae.config, len(rows.rows), seed=seed)
        steps = fit(coder.sae, rows.rows, train, out=folder / "learning", progress=bar.shown).steps
    coder.sae.eval()
    held = torch.from_numpy(rows.rows[:: max(1, len(rows.rows) // 8192)].astype(np.float32))
    codes = coder.codes(held)
    workspace.manifest["learning"] = {
        "tokens": len(rows.rows),
        "documents": len(sample),
        "whole_corpus": whole and len(sample) == len(lengths),
        "steps": steps,
        "fvu": fvu(held, coder.sae.decode(codes)) if coder.reconstructs else None,
        "l0": len(codes.values) / len(held),
    }
    coder.save_pretrained(folder / "coder")
    words = _first_texts(workspace, sample, lengths)
    write_json(folder / "words.json", vocabulary(words))
    return coder


def _sample(lengths: Array, seed: int) -> Array:
    """Positions, in rising order, of random documents with about LEARN_TOKENS tokens.

    All of them where there are up to twice as many: what is kept for learning need not be read again for coding.
    """
    if lengths.sum() <= 2 * LEARN_TOKENS * CHARACTERS_PER_TOKEN:
        return np.arange(len(lengths))
    order = np.random.default_rng(seed).permutation(len(lengths))
    enough = np.searchsorted(np.cumsum(lengths[order]), LEARN_TOKENS * CHARACTERS_PER_TOKEN) + 1
    return np.sort(order[:enough])


def _store_states(
    workspace: Workspace, reader: DocumentReader, sample: Array, lengths: Array, engine: Engine, bar: Progress
) -> None:
    """Read the sampled documents and keep their token states; after a crash, those that lack."""
    task = bar.start("Encoding", int(lengths[sample].sum()), "characters")
    parts = list(_windows(workspace, sample, lengths))
    with (
        RowWriter(workspace.folder / TOKENS, reader.width) as rows,
        RowWriter(workspace.folder / MIDDLE, reader.width_at(*reader.middle)) as of_documents,
    ):
        done, waiting = parts[: rows.done], parts[rows.done :]
        bar.advance(task, sum(int(lengths[part.positions].sum()) for part in done))
        found = engine(partial(_read, workspace, reader), waiting, partial(bar.advance, task))
        for number, (part, (tokens, middle)) in enumerate(zip(waiting, found), len(done) + 1):
            if of_documents.done < number:  # else a kill came when these were kept and the tokens were not
                nowhere = np.zeros((len(middle), 2), np.int32)
                of_documents.append(torch.from_numpy(middle), part.positions, nowhere, done=number)
            append_states(rows, tokens, part.positions, done=number)


def _windows(workspace: Workspace, sample: Array, lengths: Array) -> Iterator[Part]:
    """Sampled documents that are read at once, always those of one shard."""
    for part in workspace.parts():
        first, last = np.searchsorted(sample, [part.start, part.start + part.shard["documents"]])
        for window in windows.runs(lengths, sample[first:last]):
            yield replace(part, rows=window - part.start)


def _read(workspace: Workspace, reader: DocumentReader, part: Part, advance: Advance) -> tuple[TokenStates, Array]:
    """What is read of the beginnings of documents."""
    column = workspace.inside(part.shard, [workspace.text_column], part.rows).column(0)
    texts = [windows.beginning(text) for text in column.to_pylist()]
    with naming(part.positions):
        found = read(reader, texts)
    advance(sum(map(len, texts)))
    return found


def _first_texts(workspace: Workspace, sample: Array, lengths: Array) -> list[str]:
    """The texts of sampled documents up to NAME_TOKENS tokens."""
    rows = workspace.rows(for_names(sample, lengths).tolist(), [workspace.text_column])
    return [windows.beginning(text) for text in rows.column(0).to_pylist()]


def for_names(sample: Array, lengths: Array) -> Array:
    """Positions of the sampled documents on which features are named: spread over the sample."""
    total = lengths[sample].sum() / CHARACTERS_PER_TOKEN
    step = max(1, int(np.ceil(total / NAME_TOKENS)))
    return sample[::step]
