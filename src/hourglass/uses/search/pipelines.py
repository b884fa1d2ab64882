"""The stages that a pipeline written as text may name, and the pipeline that an index has by default."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hourglass.adapters.huggingface import HuggingFaceReader
from hourglass.adapters.huggingface_loading import loading_errors
from hourglass.errors import ConfigError
from hourglass.storage.atomic import read_json
from hourglass.uses.search.approximate import Approximate
from hourglass.uses.search.cascade import COSTS, Cascade, Gap, StageCost
from hourglass.uses.search.cedr import Cedr
from hourglass.uses.search.cross import CrossEncoder
from hourglass.uses.search.dense import Dense
from hourglass.uses.search.duo import Compared, Duo
from hourglass.uses.search.exits import EarlyExit, Exits
from hourglass.uses.search.expansion import CEQE, RM3, BertQE, ColbertPRF, Rocchio
from hourglass.uses.search.fusion import Interpolated, ReciprocalRank
from hourglass.uses.search.hamming import Hamming
from hourglass.uses.search.impacts import Impacts
from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.late import IndexTokens, Late
from hourglass.uses.search.lexical import BM25
from hourglass.uses.search.parade import Parade
from hourglass.uses.search.passages import ByPassages, ByText
from hourglass.uses.search.prettr import Precomputed, PreTTR
from hourglass.uses.search.spec import Make, parse
from hourglass.uses.search.stages import Query, Stage
from hourglass.uses.search.term_weights import Coil

_SAMPLES, _SAMPLE_WORDS = 8, 8


def _cross(index: SearchIndex, model: str) -> Stage:
    scorer = CrossEncoder(model)
    return ByText(index, scorer.score_texts, scorer.name)


def _parade(index: SearchIndex, model: str) -> Stage:
    with loading_errors(model, "PARADE"):
        return ByText(index, Parade.from_pretrained(model).score_texts, "parade")


def _coil(index: SearchIndex, model: str) -> Stage:
    with loading_errors(model, "COIL"):
        return ByText(index, Coil.from_pretrained(model).score_texts, "coil")


def _cedr(index: SearchIndex, model: str) -> Stage:
    with loading_errors(model, "CEDR"):
        return ByText(index, Cedr.from_pretrained(model).score_texts, "cedr")


def _duo(index: SearchIndex, model: str, **settings: Any) -> Stage:
    with loading_errors(model, "cross-encoder"):
        return Compared(index, Duo.from_pretrained(model).compare, **settings)


def _exits(index: SearchIndex, model: str, exit_at: float = 0.9) -> Stage:
    with loading_errors(model, "EarlyExit"):
        scorer = Exits(EarlyExit.from_pretrained(model), exit_at)
    return ByText(index, scorer.score_texts, "exits", scorer.told)


def _prettr(
    index: SearchIndex, model: str, joint_from: int | None = None, dtype: Literal["float16", "float32"] = "float16"
) -> Stage:
    with loading_errors(model, "cross-encoder"):
        return Precomputed(index, PreTTR.open(model, joint_from), dtype=dtype)


def _passages(index: SearchIndex, model: str | None = None, **settings: Any) -> Stage:
    """Documents by their passages, scored by a cross-encoder, or without one by the encoder of the index."""
    if model is not None:
        return ByPassages(index, CrossEncoder(model).score_texts, **settings)
    index.require_vectors()
    return ByPassages(index, index.compare, **settings)


def _birch(
    index: SearchIndex,
    model: str | None = None,
    *,
    keep: float = 0.5,
    second: float = 0.5,
    third: float = 0.25,
    most: int | None = None,
) -> Stage:
    """Documents by their three best sentences and the score before: Birch."""
    weights = (1.0, second, third)
    sentences: dict[str, Any] = {"unit": "sentences", "size": 1, "stride": 1, "aggregate": "top", "weights": weights}
    return _passages(index, model, **sentences, keep=keep, most=most, name="birch")


def _colbert_prf(index: SearchIndex, **settings: Any) -> Stage:
    index.require_tokens()
    return ColbertPRF(index.encode_tokens, cache(lambda: IndexTokens(index)), **settings)


STAGES: dict[str, Callable[..., Stage]] = {
    "bm25": BM25,
    "dense": Dense,
    "near": Approximate,
    "impacts": Impacts,
    "splade": Impacts,
    "hamming": Hamming,
    "late": Late,
    "colbert": Late,
    "cross": _cross,
    "passages": _passages,
    "birch": _birch,
    "parade": _parade,
    "cedr": _cedr,
    "coil": _coil,
    "duo": _duo,
    "exits": _exits,
    "prettr": _prettr,
    "bert_qe": lambda index, model, **settings: BertQE(index, CrossEncoder(model).score_texts, **settings),
    "rm3": lambda index, **settings: RM3(index, index.words, **settings),
    "ceqe": lambda index, model="minilm", **settings: CEQE(index, index.words, HuggingFaceReader(model), **settings),
    "colbert_prf": _colbert_prf,
    "rocchio": lambda index, **settings: Rocchio(index.encode, index.vectors, **settings),
}
"""Stages of an index, by name: each takes the index, then its settings. Whoever has more adds them here."""

JOINTS: dict[str, Callable[..., Stage]] = {
    "rrf": lambda constant=60.0, *weights: ReciprocalRank(constant, weights),
    "mix": Interpolated,
    "gap": Gap,
}
"""Stages that need no index, by name."""


def _within(index: SearchIndex, inner: Stage, text: str, ms: float) -> Stage:
    """The pipeline `inner`, its depths chosen so that a query takes `ms` milliseconds at most."""
    known = [text, platform.node(), os.cpu_count(), None if index.selected is None else len(index.selected)]
    digest = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:12]

    def measure(folder: Path) -> None:
        costs = Cascade.measured(inner, _samples(index)).to_dict()
        (folder / "costs.json").write_text(json.dumps(costs, indent=2) + "\n", encoding="utf-8")

    kept = read_json(index.cached(f"{COSTS}-{digest}", measure) / "costs.json")
    return Cascade(inner, [StageCost(**cost) for cost in kept]).within(ms).pipeline


def _samples(index: SearchIndex) -> list[Query]:
    """Queries to measure with: the first words of documents from all over the index."""
    rows = np.arange(len(index)) if index.selected is None else index.selected
    some = rows[np.unique(np.linspace(0, len(rows) - 1, _SAMPLES).astype(int))] if len(rows) else rows
    begun = [" ".join(text.split()[:_SAMPLE_WORDS]) for text in index.texts(some)]
    if not any(begun):
        raise ConfigError("no document with words, from which queries to measure with could be made")
    return [Query(str(number), text) for number, text in enumerate(filter(None, begun))]


AROUND: dict[str, Callable[..., Stage]] = {"within": _within}
"""Stages that are set around a pipeline, by name: each takes the index, the pipeline and its text, then its settings."""


def stages(index: SearchIndex) -> dict[str, Make]:
    """All stages, made for an index: what `spec.parse` takes."""
    return {**{name: partial(make, index) for name, make in STAGES.items()}, **JOINTS}


def around(index: SearchIndex) -> dict[str, Make]:
    """The stages that are set around a pipeline, made for an index: what `spec.parse` takes too."""
    return {name: partial(make, index) for name, make in AROUND.items()}


def pipeline(index: SearchIndex, spec: str | None = None) -> Stage:
    """What `spec` names; ConfigError with the place for what cannot be read."""
    return parse(spec if spec is not None else default(index), stages(index), around(index))


def default(index: SearchIndex) -> str:
    """Words and vectors side by side, fused by rank; words alone where there are no vectors that a query can have."""
    return "bm25 | dense >> rrf" if index.answers_vectors else "bm25"
