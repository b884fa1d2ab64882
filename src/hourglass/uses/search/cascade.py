"""A cascade: stages from cheap to dear, each given fewer documents, and what a query costs by how many.

    cascade = Cascade.measured(index.pipeline("bm25 % 1000 >> dense % 100 >> cross(MODEL)"), queries)
    cascade.table()                  # milliseconds and operations, by stage
    cascade.within(50).pipeline      # with the depths for 50 ms a query

    cost of a query = sum over stages j of (ms a query)_j + n_j (ms a document)_j

n_j are the documents that stage j scores again: the k of the `% k` before it. A stage that retrieves has a cost of a query alone.
Wang et al. 2024, section on effectiveness and efficiency (arXiv 2403.00784).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Self, final

import numpy as np

from hourglass.errors import ConfigError
from hourglass.uses.search.stages import (
    DEPTH,
    Beside,
    Chain,
    First,
    Found,
    Query,
    Ranking,
    Rescorer,
    Scorer,
    Stage,
    parts,
)

if TYPE_CHECKING:
    import pandas as pd

COSTS = "costs"
"""Begins the names of what an index keeps of measured cascades."""
_FEW, _MANY = 4, 32
"""Documents at which a stage that scores again is measured."""


@final
class Gap(Stage):
    """Each ranking up to its first gap: where the score drops by more than `share` of the way from its first score to its last.

    least  documents that stay whatever their scores
    """

    def __init__(self, share: float = 0.2, *, least: int = 1) -> None:
        if not 0 < share < 1 or least < 1:
            raise ConfigError(f"share {share}, least {least}: expected a share between 0 and 1, and 1 or more")
        self.name, self._share, self._least = "gap", share, least

    def advance(self, found: Sequence[Found]) -> list[Found]:
        return [replace(each, rankings=tuple(map(self._cut, each.rankings))) for each in found]

    def _cut(self, ranking: Ranking) -> Ranking:
        if len(ranking) <= self._least:
            return ranking
        scores = ranking.scores.astype(np.float64)
        gaps = np.flatnonzero(-np.diff(scores) > self._share * (scores[0] - scores[-1]))
        gaps = gaps[gaps >= self._least - 1]
        return ranking.first(int(gaps[0]) + 1) if len(gaps) else ranking


@dataclass(frozen=True)
class StageCost:
    """Milliseconds of a stage for a query, and for each document that it scores again.

    flops  operations for each such document, of the matrix products that torch does; 0 for what is done without torch
    again  whether it scores again what another has found
    """

    stage: str
    query: float
    document: float
    flops: float
    again: bool


@dataclass(frozen=True)
class Planned:
    """A pipeline whose depths were chosen.

    depths  documents that each stage that scores again is given
    ms      that a query is expected to take; flops likewise
    """

    pipeline: Stage
    depths: tuple[int, ...]
    ms: float
    flops: float


@final
class Cascade:
    """Stages one after another, with the cost of each; `costs` has one for every stage that is not `% k`."""

    def __init__(self, pipeline: Stage, costs: Sequence[StageCost]) -> None:
        self._steps, self._cuts = _steps(pipeline)
        self.costs = list(costs)
        if [cost.stage for cost in costs] != [step.name for step in self._steps]:
            raise ConfigError(f"costs of {[cost.stage for cost in costs]} do not fit the pipeline {pipeline.name}")
        if not any(cost.again for cost in costs):
            raise ConfigError(
                f"{pipeline.name}: no stage scores again what another has found, as in bm25 >> dense; no depth to choose"
            )

    @classmethod
    def measured(cls, pipeline: Stage, queries: Sequence[Query]) -> Self:
        """Run the stages for each query and take the time: the median over the queries, the first load and all left out.

        A stage that scores again is timed with few documents and with more, whose difference is the cost of a document.
        Raises ConfigError where no query is given, or none finds anything.
        """
        if not queries:
            raise ConfigError("no query to measure with; expected one or more")
        steps = _steps(pipeline)[0]
        _timed(steps, queries[0])  # loads and compiles
        runs = [_timed(steps, query) for query in queries]
        costs = []
        for i, step in enumerate(steps):
            of = [run[i] for run in runs if run[i] is not None]
            if not of:
                raise ConfigError(f"{step.name}: no query of {len(queries)} found anything to measure it with")
            query, document, flops, again = np.median(np.array(of, float), axis=0).tolist()
            costs.append(StageCost(step.name, query, document, flops, bool(again)))
        return cls(pipeline, costs)

    def ms(self, depths: Sequence[int]) -> float:
        """Of a query, where the stages that score again are given so many documents."""
        again = [cost for cost in self.costs if cost.again]
        if len(depths) != len(again):
            raise ConfigError(f"{len(depths)} depths for {len(again)} stages that score again; expected one for each")
        return sum(cost.query for cost in self.costs) + sum(c.document * n for c, n in zip(again, depths))

    def flops(self, depths: Sequence[int]) -> float:
        """Likewise."""
        return sum(cost.flops * n for cost, n in zip([c for c in self.costs if c.again], depths))

    def within(self, ms: float) -> Planned:
        """The deepest cascade that takes `ms` milliseconds a query at most.

        The `% k` before each stage that scores again (1,000 where there is none) is the most that it may get. All are made
        smaller by the same factor, the largest that fits; what is left then goes to the last, then to those before it, so
        that no depth could be larger. Raises ConfigError where even one document for each is too many.
        """
        again = [cost for cost in self.costs if cost.again]
        most = self._most()
        least = self.ms([1] * len(most))
        if not least <= ms:
            raise ConfigError(
                f"ms {ms:g}: the stages take {least:.3g} with one document each; give more, or leave out a stage"
            )
        low, high = 0.0, 1.0
        if self.ms(most) <= ms:
            low = 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self.ms(_scaled(most, middle)) <= ms else (low, middle)
        depths = _scaled(most, low)
        while True:
            before = list(depths)
            for i in reversed(range(len(depths))):
                limit = most[i] if i == 0 else min(most[i], depths[i - 1])
                room, each = max(0.0, ms - self.ms(depths)), again[i].document
                depths[i] = limit if (limit - depths[i]) * each <= room else depths[i] + math.floor(room / each)
            if depths == before:
                break
        return Planned(self._cut(depths), tuple(depths), self.ms(depths), self.flops(depths))

    def table(self) -> pd.DataFrame:
        """A row for each stage: stage, again, ms_query, ms_document, flops_document."""
        import pandas as pd

        return pd.DataFrame(
            [(c.stage, c.again, c.query, c.document, c.flops) for c in self.costs],
            columns=["stage", "again", "ms_query", "ms_document", "flops_document"],
        )

    def to_dict(self) -> list[dict[str, Any]]:
        """The costs, for JSON."""
        return [asdict(cost) for cost in self.costs]

    def _most(self) -> list[int]:
        """What each stage that scores again may get."""
        most, limit = [], DEPTH
        for i, cost in enumerate(self.costs):
            limit = min(limit, self._cuts.get(i, limit))
            if cost.again:
                most.append(limit)
        return most

    def _cut(self, depths: Sequence[int]) -> Stage:
        """The pipeline with these depths; other `% k` stay."""
        left, cuts = iter(depths), dict(self._cuts)
        cuts |= {i: next(left) for i, cost in enumerate(self.costs) if cost.again}
        joined = self._steps[0]
        for i in range(1, len(self._steps) + 1):
            joined = joined % cuts[i] if i in cuts else joined
            joined = joined >> self._steps[i] if i < len(self._steps) else joined
        return joined


def _steps(pipeline: Stage) -> tuple[list[Stage], dict[int, int]]:
    """(stages that are not `% k`, the k before one by its place)."""
    steps: list[Stage] = []
    cuts: dict[int, int] = {}
    for stage in parts(pipeline, Chain):
        if isinstance(stage, First):
            cuts[len(steps)] = min(stage.k, cuts.get(len(steps), stage.k))
        else:
            steps.append(stage)
    return steps, cuts


def _scaled(most: Sequence[int], by: float) -> list[int]:
    return [max(1, math.floor(by * k)) for k in most]


def _timed(steps: Sequence[Stage], query: Query) -> list[tuple[float, float, float, float] | None]:
    """Of each stage (ms a query, ms a document, operations a document, whether it scores again); None where it got nothing."""
    made: list[tuple[float, float, float, float] | None] = []
    found = Found(query)
    for stage in steps:
        again = len(found.rankings) == 1 and isinstance(stage, Scorer | Rescorer | Beside)
        if not again:
            seconds, then, _ = _run(stage, found)
            made.append((1000 * seconds, 0.0, 0.0, 0.0))
            found = then
            continue
        ranking = found.rankings[0]
        few, many = (replace(found, rankings=(ranking.first(n),)) for n in (_FEW, _MANY))
        number = min(_MANY, len(ranking))
        if not number:
            made.append(None)
            continue
        first, _, _ = _run(stage, few)
        seconds, found, flops = _run(stage, many, count=True)
        if number > _FEW:
            each = max(0.0, seconds - first) / (number - _FEW)
            made.append((1000 * max(0.0, first - _FEW * each), 1000 * each, flops / number, 1.0))
        else:
            made.append((0.0, 1000 * seconds / number, flops / number, 1.0))
    return made


def _run(stage: Stage, found: Found, count: bool = False) -> tuple[float, Found, float]:
    """(seconds, what it made, operations of torch's matrix products where they are counted)."""
    start = time.perf_counter()
    made = stage.advance([found])[0]
    seconds = time.perf_counter() - start
    return seconds, made, _flops(stage, found) if count else 0.0


def _flops(stage: Stage, found: Found) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def attention(query: Any, key: Any, value: Any, *rest: Any, **more: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    # torch's own list has the attention of GPUs alone.
    on_cpu = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    with FlopCounterMode(display=False, custom_mapping=on_cpu) as counter:
        stage.advance([found])
    return float(counter.get_total_flops())
