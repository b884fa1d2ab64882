"""The stages that a pipeline written as text may name, and the pipeline that an index has by default."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from hourglass.adapters.huggingface import HuggingFaceReader
from hourglass.adapters.huggingface_loading import loading_errors
from hourglass.uses.search.cross import CrossEncoder
from hourglass.uses.search.dense import Dense
from hourglass.uses.search.expansion import CEQE, RM3, BertQE, Rocchio
from hourglass.uses.search.fusion import Interpolated, ReciprocalRank
from hourglass.uses.search.hamming import Hamming
from hourglass.uses.search.impacts import Impacts
from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.lexical import BM25
from hourglass.uses.search.parade import Parade
from hourglass.uses.search.passages import ByPassages, ByText
from hourglass.uses.search.spec import Make, parse
from hourglass.uses.search.stages import Stage


def _cross(index: SearchIndex, model: str) -> Stage:
    scorer = CrossEncoder(model)
    return ByText(index, scorer.score_texts, scorer.name)


def _parade(index: SearchIndex, model: str) -> Stage:
    with loading_errors(model, "PARADE"):
        return ByText(index, Parade.from_pretrained(model).score_texts, "parade")


def _passages(index: SearchIndex, model: str | None = None, **settings: Any) -> Stage:
    """Documents by their passages, scored by a cross-encoder, or without one by the encoder of the index."""
    if model is not None:
        return ByPassages(index, CrossEncoder(model).score_texts, **settings)
    index.require_vectors()
    return ByPassages(index, index.compare, **settings)


STAGES: dict[str, Callable[..., Stage]] = {
    "bm25": BM25,
    "dense": Dense,
    "impacts": Impacts,
    "splade": Impacts,
    "hamming": Hamming,
    "cross": _cross,
    "passages": _passages,
    "parade": _parade,
    "bert_qe": lambda index, model, **settings: BertQE(index, CrossEncoder(model).score_texts, **settings),
    "rm3": lambda index, **settings: RM3(index, index.words, **settings),
    "ceqe": lambda index, model="minilm", **settings: CEQE(index, index.words, HuggingFaceReader(model), **settings),
    "rocchio": lambda index, **settings: Rocchio(index.encode, index.vectors, **settings),
}
"""Stages of an index, by name: each takes the index, then its settings. Whoever has more adds them here."""

JOINTS: dict[str, Callable[..., Stage]] = {
    "rrf": lambda constant=60.0, *weights: ReciprocalRank(constant, weights),
    "mix": Interpolated,
}
"""Stages that need no index, by name."""


def stages(index: SearchIndex) -> dict[str, Make]:
    """All stages, made for an index: what `spec.parse` takes."""
    return {**{name: partial(make, index) for name, make in STAGES.items()}, **JOINTS}


def pipeline(index: SearchIndex, spec: str | None = None) -> Stage:
    """What `spec` names; ConfigError with the place for what cannot be read."""
    return parse(spec if spec is not None else default(index), stages(index))


def default(index: SearchIndex) -> str:
    """Words and vectors side by side, fused by rank; words alone where there are no vectors that a query can have."""
    return "bm25 | dense >> rrf" if index.answers_vectors else "bm25"
