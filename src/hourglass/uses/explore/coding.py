"""The third stage: pooled codes, words and dense vectors of every document, shard by shard."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from hourglass.storage.memory import release_memory
from hourglass.uses.engines import Advance, Engine
from hourglass.uses.explore import windows
from hourglass.uses.explore.parts import Part
from hourglass.uses.explore.pooling import PooledCodes, pool
from hourglass.uses.explore.reading import KeptStates, means, read
from hourglass.uses.explore.words import word_presence
from hourglass.uses.explore.workspace import CodedDocuments, Workspace
from hourglass.uses.progress import Progress
from hourglass.waist import TokenStates

Array = np.ndarray[Any, Any]
Coded = tuple[PooledCodes, Array, Array]
"""Pooled codes of documents, [n, d] their mean states and [n, d] these in the middle of the model, both float16."""


def code(workspace: Workspace, bar: Progress, engine: Engine) -> None:
    """Compute the pooled codes of every shard that lacks them."""
    manifest = workspace.manifest
    waiting = [part for part in workspace.parts() if not part.shard["coded"]]
    task = bar.start("Coding", sum(part.shard["documents"] for part in waiting), "documents")
    tokens = engine(partial(code_part, workspace), waiting, partial(bar.advance, task))
    for part, number in zip(waiting, tokens):
        part.shard.update(coded=True, tokens=number)
        workspace.commit()
    for source in manifest["sources"]:
        source["coded"] = source["read"]
    workspace.commit()


def code_part(workspace: Workspace, part: Part, advance: Advance) -> int:
    """Write the pooled codes of one shard; returns its tokens. It counts once the manifest says so."""
    stored = KeptStates.of_all(workspace)
    texts = workspace.inside(part.shard, [workspace.text_column]).column(0).to_pylist()
    lengths = np.array([len(text) for text in texts])
    found: list[Coded] = []
    for window in windows.runs(lengths, np.arange(len(texts))):
        if stored is not None:
            found.append(_coded(workspace, *stored.of(window + part.start)))
        elif windows.is_long(lengths[window[0]]):
            found.append(_coded_in_parts(workspace, texts[window[0]]))
        else:
            found.append(_coded(workspace, *read(workspace.coder.reader, [texts[i] for i in window])))
        advance(len(window))
    codes, dense, middle = zip(*found)
    words = word_presence(texts, workspace.words)
    coded = CodedDocuments(PooledCodes.concatenate(codes), words, np.concatenate(dense), np.concatenate(middle))
    coded.save(workspace.code_file(part.shard))
    release_memory()
    return int(coded.codes.tokens.sum())


def _coded(workspace: Workspace, tokens: TokenStates, middle: Array) -> Coded:
    """Of the documents that own `tokens`, with their means in the middle of the model."""
    codes = pool(workspace.coder.codes(tokens.states), tokens.offsets.numpy(), workspace.settings["threshold"])
    return codes, means(tokens), middle


def _coded_in_parts(workspace: Workspace, text: str) -> Coded:
    """The same for one document whose states would not fit into memory at once."""
    parts = [_coded(workspace, *read(workspace.coder.reader, [piece])) for piece in windows.parts(text)]
    codes, *both = zip(*parts)
    tokens = np.array([own.tokens[0] for own in codes], np.float64)
    dense, middle = (
        (tokens @ np.concatenate(own).astype(np.float64) / max(tokens.sum(), 1)).astype(np.float16)[None]
        for own in both
    )
    return PooledCodes.of_one_document(codes), dense, middle
