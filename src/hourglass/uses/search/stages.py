"""What a search is made of: stages, which take queries with their rankings and give them back, and how stages are joined.

    search = BM25(index) % 1000 >> (Dense(index) | Impacts(index)) >> ReciprocalRank() % 50 >> ByText(index, CrossEncoder(model).score_texts)
    found = search.run([Query("1", "sparse autoencoders")])[0]

`a >> b`    b goes on from what a found
`a | b`     both go on from the same, and each gives a ranking of its own; binds less tightly than `>>` in Python, more
            tightly in a pipeline that is written as text
`a % k`     the first k of what a found

A stage that scores documents (`Scorer`) retrieves from the whole index where nothing has been found yet, and else scores what
has been found. Documents are rows of the index here; names come back at the end.
"""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, final

import numpy as np

from hourglass.errors import ConfigError

Array = np.ndarray[Any, Any]

DEPTH = 1000
"""Documents that a stage retrieves where no `% k` says otherwise."""


@dataclass(frozen=True)
class Ranking:
    """rows [n] int64 of documents and their scores [n] float32, the best first; of equal scores the smaller row."""

    rows: Array
    scores: Array

    @classmethod
    def of(cls, rows: Array, scores: Array, depth: int | None = None) -> Ranking:
        """In order; NaN is refused."""
        rows, scores = np.asarray(rows, np.int64), np.asarray(scores, np.float32)
        if np.isnan(scores).any():
            raise ConfigError("a stage gave a score that is not a number")
        order = np.lexsort((rows, -scores))[:depth]
        return cls(rows[order], scores[order])

    def __len__(self) -> int:
        return len(self.rows)

    def first(self, k: int) -> Ranking:
        return Ranking(self.rows[:k], self.scores[:k])


@dataclass(frozen=True)
class Query:
    """What is asked: its name and text, and once a stage has expanded it, weights of terms, a vector, or vectors of tokens [m, d]
    with the weight of each [m], instead of the text's own."""

    id: str
    text: str
    terms: dict[str, float] | None = None
    vector: Array | None = None
    tokens: tuple[Array, Array] | None = None


@dataclass(frozen=True)
class Found:
    """Where a query stands between two stages: its rankings, none before the first stage."""

    query: Query
    rankings: tuple[Ranking, ...] = ()

    @property
    def ranking(self) -> Ranking | None:
        """The only one; ConfigError where there are several, which must be fused first."""
        if len(self.rankings) > 1:
            raise ConfigError(
                f"{len(self.rankings)} rankings side by side; fuse them first, as in (bm25 | dense) >> rrf"
            )
        return self.rankings[0] if self.rankings else None


class Documents(Protocol):
    """What stages read of an index."""

    def __len__(self) -> int: ...

    def texts(self, rows: Array) -> list[str]:
        """Of documents `rows` [n]."""
        ...

    def names(self, rows: Array) -> list[str]:
        """Of documents `rows` [n]."""
        ...


Watch = Callable[["Stage", Sequence[Found], Sequence[Found], float], None]
"""Told of every stage that is no composition: where the queries stood before it and after it, and its seconds."""


class Stage(ABC):
    """A step of a search. `name` is what it is called in a pipeline and in tables of cost."""

    name: str

    @abstractmethod
    def advance(self, found: Sequence[Found]) -> list[Found]:
        """All queries one step on, in their order."""

    @final
    def run(
        self, queries: Sequence[Query], costs: dict[str, float] | None = None, watch: Watch | None = None
    ) -> list[Ranking]:
        """The ranking of each query; with `costs`, seconds are added to it by stage; `watch` is told of each."""

        def seen(stage: Stage, before: Sequence[Found], after: Sequence[Found], seconds: float) -> None:
            if costs is not None:
                costs[stage.name] = costs.get(stage.name, 0.0) + seconds
            if watch is not None:
                watch(stage, before, after, seconds)

        found = _advance(self, [Found(query) for query in queries], seen)
        rankings = [each.ranking for each in found]
        if any(ranking is None for ranking in rankings):
            raise ConfigError(f"{self.name}: finds nothing by itself; begin with bm25, dense or another that retrieves")
        return [ranking for ranking in rankings if ranking is not None]

    def told(self) -> list[str]:
        """What it has to say of all that it has done so far, a line each."""
        return []

    def __rshift__(self, then: Stage) -> Stage:
        return Chain([*parts(self, Chain), *parts(then, Chain)])

    def __or__(self, other: Stage) -> Stage:
        return Beside([*parts(self, Beside), *parts(other, Beside)])

    def __mod__(self, k: int) -> Stage:
        return Chain([*parts(self, Chain), First(k)])


class Scorer(Stage):
    """A stage that scores documents: of the whole index, or of what has been found."""

    depth: int = DEPTH

    @final
    def __mod__(self, k: int) -> Stage:
        cut = First(k)
        fewer = copy.copy(self)
        fewer.depth = k
        return Chain([fewer, cut])

    @abstractmethod
    def retrieve(self, queries: Sequence[Query], depth: int) -> list[Ranking]:
        """The best `depth` documents of the whole index for each query."""

    @abstractmethod
    def score(self, query: Query, rows: Array) -> Array:
        """[n] scores of documents `rows` [n]."""

    @final
    def advance(self, found: Sequence[Found]) -> list[Found]:
        fresh = [each.query for each in found if not each.rankings]
        retrieved = iter(self.retrieve(fresh, self.depth) if fresh else ())
        made = []
        for each in found:
            had = each.ranking
            ranking = next(retrieved) if had is None else Ranking.of(had.rows, self.score(each.query, had.rows))
            made.append(replace(each, rankings=(ranking,)))
        return made


class Rescorer(Stage):
    """A stage that scores what has been found again, and finds nothing by itself."""

    @abstractmethod
    def again(self, query: Query, ranking: Ranking) -> Ranking:
        """The new ranking of one that is not empty."""

    @final
    def advance(self, found: Sequence[Found]) -> list[Found]:
        made = []
        for each in found:
            ranking = each.ranking
            if ranking is None:
                raise ConfigError(f"{self.name}: nothing found yet to score again; begin with a stage that retrieves")
            made.append(replace(each, rankings=(self.again(each.query, ranking) if len(ranking) else ranking,)))
        return made


@final
class First(Stage):
    """The first k of each ranking."""

    def __init__(self, k: int) -> None:
        if k < 1:
            raise ConfigError(f"% {k}: expected 1 document or more")
        self.name, self.k = f"% {k}", k

    def advance(self, found: Sequence[Found]) -> list[Found]:
        return [replace(each, rankings=tuple(r.first(self.k) for r in each.rankings)) for each in found]


@final
class Chain(Stage):
    """Stages one after another."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = list(stages)
        self.name = " >> ".join(stage.name for stage in self.stages).replace(" >> %", " %")

    def advance(self, found: Sequence[Found]) -> list[Found]:
        return _advance(self, found, None)

    def told(self) -> list[str]:
        return [line for stage in self.stages for line in stage.told()]


@final
class Beside(Stage):
    """Stages side by side: each goes on from the same, and adds its ranking; what one does to a query stays its own."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = list(stages)
        self.name = "(" + " | ".join(stage.name for stage in self.stages) + ")"

    def advance(self, found: Sequence[Found]) -> list[Found]:
        return _advance(self, found, None)

    def told(self) -> list[str]:
        return [line for stage in self.stages for line in stage.told()]


def parts(stage: Stage, kind: type[Chain] | type[Beside]) -> list[Stage]:
    """The stages of a chain, or of those side by side; else the stage alone."""
    return list(stage.stages) if isinstance(stage, kind) else [stage]


def _advance(stage: Stage, found: Sequence[Found], watch: Watch | None) -> list[Found]:
    """`stage.advance`, of which `watch` is told."""
    if isinstance(stage, Chain):
        for then in stage.stages:
            found = _advance(then, found, watch)
        return list(found)
    if isinstance(stage, Beside):
        made = [_advance(one, found, watch) for one in stage.stages]
        return [
            replace(each, rankings=tuple(ranking for one in several for ranking in one.rankings))
            for each, *several in zip(found, *made)
        ]
    start = time.perf_counter()
    made_by_it = stage.advance(found)
    if watch is not None:
        watch(stage, found, made_by_it, time.perf_counter() - start)
    return made_by_it
