"""The third stage: pooled codes, words and dense vectors of every document, shard by shard."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from hourglass.adapters.huggingface import pooled
from hourglass.storage.memory import release_memory
from hourglass.storage.rows import RowFile
from hourglass.uses.engines import Advance, Engine
from hourglass.uses.explore import windows
from hourglass.uses.explore.parts import Part
from hourglass.uses.explore.pooling import PooledCodes, pool
from hourglass.uses.explore.words import word_presence
from hourglass.uses.explore.workspace import CodedDocuments, Workspace
from hourglass.uses.progress import Progress
from hourglass.waist import TokenStates

Array = np.ndarray[Any, Any]


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
    stored = _stored_states(workspace)
    texts = workspace.inside(part.shard, [workspace.text_column]).column(0).to_pylist()
    lengths = np.array([len(text) for text in texts])
    codes: list[PooledCodes] = []
    dense: list[Array] = []
    for window in windows.runs(lengths, np.arange(len(texts))):
        if stored is not None:
            found, means = _coded(workspace, *_states_of(stored, window + part.start))
        elif windows.is_long(lengths[window[0]]):
            found, means = _coded_in_parts(workspace, texts[window[0]])
        else:
            found, means = _read_and_coded(workspace, [texts[i] for i in window])
        codes.append(found)
        dense.append(means)
        advance(len(window))
    coded = CodedDocuments(PooledCodes.concatenate(codes), word_presence(texts, workspace.words), np.concatenate(dense))
    coded.save(workspace.code_file(part.shard))
    release_memory()
    return int(coded.codes.tokens.sum())


def _coded(workspace: Workspace, states: torch.Tensor, offsets: Array) -> tuple[PooledCodes, Array]:
    """Pooled codes and mean states of the documents that own `states` [T, d] by `offsets`."""
    codes = pool(workspace.coder.codes(states), offsets, workspace.settings["threshold"])
    return codes, _means(states, offsets)


def _read_and_coded(workspace: Workspace, texts: list[str]) -> tuple[PooledCodes, Array]:
    read = workspace.coder.reader.read(texts)
    # Half precision as in the stored states, so that a document's code does not depend on where it came from.
    return _coded(workspace, read.states.half(), read.offsets.numpy())


def _coded_in_parts(workspace: Workspace, text: str) -> tuple[PooledCodes, Array]:
    """The same for one document whose states would not fit into memory at once."""
    parts = [_read_and_coded(workspace, [piece]) for piece in windows.parts(text)]
    tokens = np.array([codes.tokens[0] for codes, _ in parts], np.float64)
    means = np.concatenate([means for _, means in parts]).astype(np.float64)
    mean = (tokens @ means / max(tokens.sum(), 1)).astype(np.float16)
    return PooledCodes.of_one_document([codes for codes, _ in parts]), mean[None]


def _stored_states(workspace: Workspace) -> RowFile | None:
    """The states kept for learning, where they are those of the whole corpus."""
    if workspace.manifest["stage"] == "coding" and workspace.manifest["learning"]["whole_corpus"]:
        return RowFile(workspace.folder / "sample")
    return None


def _states_of(stored: RowFile, window: Array) -> tuple[torch.Tensor, Array]:
    """States [T, d] and offsets of the documents in `window` (consecutive positions)."""
    bounds = np.searchsorted(stored.documents, np.append(window, window[-1] + 1))
    return torch.from_numpy(stored.rows[bounds[0] : bounds[-1]]), bounds - bounds[0]


def _means(states: torch.Tensor, offsets: Array) -> Array:
    """[n, d] float16 mean state of each document; zero for one without tokens."""
    tokens = TokenStates(states, torch.from_numpy(offsets), torch.empty(0, 2))
    return np.asarray(pooled(tokens).half().numpy())
