"""The stages that a pipeline written as text may name, and the pipeline that an index has by default."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from hourglass.uses.search.cross import CrossEncoder
from hourglass.uses.search.dense import Dense
from hourglass.uses.search.fusion import Interpolated, ReciprocalRank
from hourglass.uses.search.hamming import Hamming
from hourglass.uses.search.impacts import Impacts
from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.lexical import BM25
from hourglass.uses.search.spec import Make, parse
from hourglass.uses.search.stages import Stage

STAGES: dict[str, Callable[..., Stage]] = {
    "bm25": BM25,
    "dense": Dense,
    "impacts": Impacts,
    "splade": Impacts,
    "hamming": Hamming,
    "cross": CrossEncoder,
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
