"""Do two features, or words, stand on the same tokens? A pair that does is one thing seen twice, not two that go together.

Pooled codes do not say where in a document a feature fires, so a few of the documents that have both are read again. A
word is on the tokens that it is made of.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csc_matrix

from hourglass.uses.explore import windows
from hourglass.uses.explore.words import places
from hourglass.uses.progress import Progress

if TYPE_CHECKING:
    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]
Item = int | str

READ = 5
"""Documents that are read again for a pair."""


def same_tokens(
    workspace: Workspace, pairs: Sequence[tuple[Item, Item]], documents: Sequence[Array], level: Array, bar: Progress
) -> Array:
    """[pairs] how far two items are on the same or on neighbouring tokens: 1 always, 0 as often as by chance.

    It is the share of the rarer one's tokens that have the other at most one token away, over the share of all tokens
    that have (kappa), so that a feature that fires all over a document is not taken for every other one.

    pairs      two items each: the number of a feature, or a word or pair of words
    documents  of each pair: positions of documents that have both; the first few are read
    level      [features] a feature fires on a token whose activation passes this

    The mean over the documents read; NaN where both fire in none of them (of a very long one, in its beginning).
    """
    wanted: dict[int, list[int]] = defaultdict(list)
    for pair, positions in enumerate(documents):
        for position in positions[:READ]:
            wanted[int(position)].append(pair)
    total, seen = np.zeros(len(pairs)), np.zeros(len(pairs))
    positions = np.array(sorted(wanted), np.int64)
    if not len(positions):
        return np.full(len(pairs), np.nan)
    texts = workspace.rows(positions.tolist(), [workspace.text_column]).column(0).to_pylist()
    texts = [windows.beginning(text) for text in texts]
    task = bar.start("Reading again", len(texts), "documents")
    for run in windows.runs(np.array([len(text) for text in texts]), np.arange(len(texts))):
        read = workspace.coder.reader.read([texts[i] for i in run])
        codes = workspace.coder.codes(read.states.half()).to_scipy()
        for text, start, stop, position in zip(
            run, read.offsets[:-1].tolist(), read.offsets[1:].tolist(), positions[run]
        ):
            here, spans = codes[start:stop].tocsc(), read.spans[start:stop].numpy()
            asked = wanted[int(position)]
            said = places(texts[text], {item for pair in asked for item in pairs[pair] if isinstance(item, str)})
            for pair in asked:
                first, second = (
                    _covered(spans, said[item]) if isinstance(item, str) else _fired(here, item, level[item])
                    for item in pairs[pair]
                )
                if len(first) and len(second):
                    total[pair] += _agreement(first, second, stop - start)
                    seen[pair] += 1
        bar.advance(task, len(run))
    return np.where(seen > 0, total / np.maximum(seen, 1), np.nan)


def _fired(codes: csc_matrix, feature: int, level: float) -> Array:
    """Tokens on which the feature fires."""
    own = slice(codes.indptr[feature], codes.indptr[feature + 1])
    return codes.indices[own][codes.data[own] > level]


def _covered(spans: Array, places: Sequence[tuple[int, int]]) -> Array:
    """Tokens that have a character in one of the places."""
    inside = np.zeros(len(spans), bool)
    for first, last in places:
        inside |= (spans[:, 0] < last) & (spans[:, 1] > first)
    return np.flatnonzero(inside)


def _agreement(first: Array, second: Array, tokens: int) -> float:
    few, many = sorted((first, second), key=len)
    near = np.zeros(tokens + 2, bool)  # one to spare at each end
    for step in (0, 1, 2):
        near[many + step] = True
    near = near[1:-1]
    chance = near.mean()
    return float((near[few].mean() - chance) / (1 - chance)) if chance < 1 else 0.0
