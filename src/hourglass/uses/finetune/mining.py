"""What pairs are given to learn more from: hard negatives by search, and a teacher's scores.

sentence-transformers has `mine_hard_negatives`, which takes its own models alone; this takes whatever `text_encoder` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hourglass.errors import ConfigError, SourceError
from hourglass.uses.finetune.retriever import Pair
from hourglass.uses.probe.encoders import Encode
from hourglass.uses.probe.retrieval import Similarity, search
from hourglass.waist import TextEncoder, Waist

Teacher = Callable[[list[tuple[str, str]]], Any]
"""Scores [n] of n pairs (query, document): the `predict` of a cross-encoder of sentence-transformers, for one."""


def mine_negatives(
    model: TextEncoder | Waist | Encode,
    pairs: Sequence[Pair],
    documents: Sequence[str],
    number: int,
    *,
    first: int = 0,
    last: int = 200,
    similarity: Similarity = "cosine",
    seed: int = 0,
) -> list[Pair]:
    """The pairs with `number` negatives each, drawn among the documents that `model` ranks first + 1 to last for the query.

    What is the document of a query in any of the pairs is not a negative for it. `first` passes over the very first, which are
    often right and not known to be. Raises SourceError for a query with too few documents left.
    """
    if number < 1 or not 0 <= first < last:
        raise ConfigError(f"number {number}, first {first}, last {last}: expected 1 or more, and 0 <= first < last")
    own: dict[str, set[str]] = {}
    for pair in pairs:
        own.setdefault(pair.query, set()).add(pair.document)
    known = dict.fromkeys(documents)
    corpus = {f"{i:09d}": text for i, text in enumerate(known)}
    most = max(map(len, own.values()))
    found = search(model, corpus, {query: query for query in own}, similarity=similarity, depth=last + most)
    random = np.random.default_rng(seed)
    mined = []
    for i, pair in enumerate(pairs):
        wrong = [corpus[name] for name in found[pair.query] if corpus[name] not in own[pair.query]][first:last]
        if len(wrong) < number:
            raise SourceError(f"pair {i}: {len(wrong)} documents are no answer to its query; expected {number} or more")
        drawn = np.sort(random.choice(len(wrong), number, replace=False))
        mined.append(replace(pair, negatives=tuple(wrong[j] for j in drawn), teacher=None))
    return mined


def with_teacher(teacher: Teacher, pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs with the teacher's scores of document and negatives."""
    asked = [(pair.query, document) for pair in pairs for document in (pair.document, *pair.negatives)]
    scores = np.asarray(teacher(asked), float)
    if scores.shape != (len(asked),) or not np.isfinite(scores).all():
        raise SourceError(
            f"the teacher gave shape {scores.shape} for {len(asked)} pairs: expected a finite score of each"
        )
    ends = np.cumsum([1 + len(pair.negatives) for pair in pairs])
    return [replace(pair, teacher=tuple(part.tolist())) for pair, part in zip(pairs, np.split(scores, ends[:-1]))]
