"""Settings of a pipeline that are chosen on development queries, never on those that it is measured with.

    done = tune(index, "bm25 | dense >> mix", queries, qrels)
    done.chosen      # "bm25(k1=0.9, b=0.4) | dense >> mix(0.6, 0.4)"
    done.table       # what was tried

What is tried: values in brackets, as in rm3(share=[0.2, 0.5]); and over the usual values, where nothing is written, k1 and b of
`bm25`, the weights of `mix`, and share of `rm3` and `ceqe`. Settings that are written stay. A re-ranker and BM25 are weighed by
`bm25 % 50 >> cross(MODEL) | bm25 >> mix`.

One stage after another, in the order of the text, those before it as chosen; all values of one stage with each other. Stages that are
written alike are tuned as one. Of equal values the first stays, and the pipeline as it is written comes first.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, final

import numpy as np
import pandas as pd

from hourglass.data.judged import Qrels
from hourglass.errors import ConfigError, SourceError
from hourglass.metrics.ranking import measure_run, ranking_measure
from hourglass.uses.progress import Progress
from hourglass.uses.search.evaluate import askable
from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.lexical import BM25, WordCounts
from hourglass.uses.search.passages import ByText
from hourglass.uses.search.pipelines import AROUND, JOINTS, STAGES, stages
from hourglass.uses.search.spec import Call, Make, parse, read
from hourglass.uses.search.stages import Beside, Chain, Found, Query, Ranking, Rescorer, Stage, parts

USUAL: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "bm25": {"k1": (0.6, 0.9, 1.2, 1.5, 2.0, 3.0), "b": (0.2, 0.4, 0.6, 0.75, 0.9)},
    "rm3": {"share": (0.0, 0.2, 0.4, 0.5, 0.6, 0.8)},
    "ceqe": {"share": (0.0, 0.2, 0.4, 0.5, 0.6, 0.8)},
}
"""Values that are tried of what is not written, by stage and setting."""
_PLACES = {"bm25": ("k1", "b")}
"""Settings that may be given without their names, in their order."""
_STEPS_OF_TWO, _STEPS = 10, 4
"""The weights of `mix` are shares of so many parts: of two rankings, and of more."""


@dataclass(frozen=True)
class Tuned:
    """What was tried and chosen on development queries.

    given    the pipeline as it was given
    chosen   the text of the best one
    measure  by which; its mean over `queries` queries
    before   of the pipeline as it is given, with the first of the values to choose from
    value    of the chosen one, on the queries that chose it: too good, the more so the more was tried
    table    a row for each that was tried: stage (with its settings), pipeline, value, chosen (when its stage's turn had come)
    """

    given: str
    chosen: str
    measure: str
    queries: int
    before: float
    value: float
    table: pd.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON."""
        return {
            "given": self.given,
            "chosen": self.chosen,
            "measure": self.measure,
            "queries": self.queries,
            "before": self.before,
            "value": self.value,
            "tried": self.table.to_dict("records"),
        }


def tune(
    index: SearchIndex,
    pipeline: str,
    queries: Mapping[str, str],
    qrels: Qrels,
    *,
    measure: str = "ndcg@10",
    progress: bool = True,
) -> Tuned:
    """Choose the settings of a pipeline that do best on these queries.

    queries, qrels  texts by name, and graded relevance by query and document, of development queries

    Raises ConfigError for a pipeline that cannot be read, or around which `within` stands; SourceError as `evaluate`.
    """
    ranking_measure(measure)
    asked, _ = askable(index, queries, qrels)
    trial = _Trial(index, {query: queries[query] for query in asked}, {query: qrels[query] for query in asked}, measure)
    text = _first_values(pipeline)
    steps = list(_steps(pipeline))
    value = before = trial.value(text, trial.start)
    rows: list[dict[str, Any]] = [{"stage": "as it is given", "pipeline": text, "value": value, "chosen": False}]
    best = rows[0]
    with Progress(progress) as bars:
        task = bars.start("tuning", sum(len(step.values) for step in steps), "pipelines")
        for step in steps:
            written = _calls(text)
            calls = [written[place] for place in step.places]
            ready = trial.before(text, calls)
            for settings in step.values:
                new = _changed(calls[0], settings)
                tried = _with(text, calls, new)
                rows.append({"stage": str(new), "pipeline": tried, "value": trial.value(tried, ready), "chosen": False})
                best = rows[-1] if rows[-1]["value"] > best["value"] else best
                bars.advance(task, 1)
            best["chosen"] = True
            text, value = best["pipeline"], best["value"]
    return Tuned(pipeline, text, measure, len(asked), before, value, pd.DataFrame(rows))


def with_chosen(pipelines: Sequence[str | Stage], tuned: Sequence[Tuned]) -> list[str | Stage]:
    """Each pipeline and, where another was chosen for it, that one after it; of those with values to choose from that alone."""
    of = {each.given: each for each in tuned}
    made: list[str | Stage] = []
    for pipeline in pipelines:
        if not isinstance(pipeline, str) or pipeline not in of:
            made.append(pipeline)
            continue
        given = [pipeline] if _first_values(pipeline) == pipeline else []
        made += [text for text in (*given, of[pipeline].chosen) if text not in made]
    return made


def require_apart(development: tuple[Mapping[str, str], Qrels], test: tuple[Mapping[str, str], Qrels]) -> None:
    """SourceError that names a query by which is both tuned and measured, by its text; each of both is (queries, qrels)."""
    seen = {_plain(queries[name]): name for queries, qrels in [development] for name in qrels if name in queries}
    queries, qrels = test
    for name in qrels:
        if name in queries and _plain(queries[name]) in seen:
            raise SourceError(
                f"query {name!r} is among the development queries ({seen[_plain(queries[name])]!r}); tune on queries that are not "
                "measured with, or the measure says how well they were learned"
            )


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


# What is tried -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Step:
    """Stages by their place among the calls of the text, and the settings to try for all of them."""

    places: tuple[int, ...]
    values: list[dict[str | int, Any]]


@final
class _Written(Stage):
    """Stands for a stage that is not made."""

    def __init__(self, call: Call) -> None:
        self.name, self.call = call.name, call

    def advance(self, found: Sequence[Found]) -> list[Found]:
        raise NotImplementedError


def _tree(text: str) -> Stage:
    def make(call: Call, *inner: Any) -> Stage:
        if inner:
            raise ConfigError(f"{call.name}: tune the pipeline in it, and put {call.name} around what was chosen")
        return _Written(call)

    return read(text, make, {*STAGES, *JOINTS}, AROUND)


def _walk(stage: Stage, beside: int = 1) -> Iterator[tuple[Call, int]]:
    """(each call, the rankings that are side by side before it), in the order of the text."""
    if isinstance(stage, _Written):
        yield stage.call, beside
    elif isinstance(stage, Beside):
        for one in stage.stages:
            yield from _walk(one)
    elif isinstance(stage, Chain):
        for one in stage.stages:
            yield from _walk(one, beside)
            beside = len(one.stages) if isinstance(one, Beside) else 1


def _calls(text: str) -> list[Call]:
    return [call for call, _ in _walk(_tree(text))]


def _steps(text: str) -> Iterator[_Step]:
    alike: dict[str, list[int]] = {}
    found = list(_walk(_tree(text)))
    for place, (call, _) in enumerate(found):
        alike.setdefault(str(call), []).append(place)
    for places in alike.values():
        values = list(_values(*found[places[0]]))
        if values:
            yield _Step(tuple(places), values)


def _values(call: Call, rankings: int) -> Iterator[dict[str | int, Any]]:
    """Settings to try, by name or place."""
    lists = {key: value for key, value in _settings(call).items() if isinstance(value, tuple)}
    if not lists and call.name == "mix" and not call.given and rankings > 1:
        of = _STEPS_OF_TWO if rankings == 2 else _STEPS
        for shares in itertools.product(range(of + 1), repeat=rankings):
            if sum(shares) == of:
                yield {place: round(share / of, 4) for place, share in enumerate(shares)}
        return
    if not lists:
        written = {*_PLACES.get(call.name, ())[: len(call.given)], *call.named}
        lists = {name: values for name, values in USUAL.get(call.name, {}).items() if name not in written}
    for combination in itertools.product(*lists.values()) if lists else ():
        yield dict(zip(lists, combination))


def _first_values(text: str) -> str:
    for place in range(len(_calls(text))):
        call = _calls(text)[place]
        first = {key: value[0] for key, value in _settings(call).items() if isinstance(value, tuple)}
        text = _with(text, [call], _changed(call, first)) if first else text
    return text


def _settings(call: Call) -> dict[str | int, Any]:
    """By name, or by place."""
    made: dict[str | int, Any] = dict(enumerate(call.given))
    made.update(call.named.items())
    return made


def _changed(call: Call, settings: Mapping[str | int, Any]) -> Call:
    new = _settings(call) | dict(settings)
    places = sorted(key for key in new if isinstance(key, int))
    return replace(
        call,
        given=tuple(new[place] for place in places),
        named={key: value for key, value in new.items() if isinstance(key, str)},
    )


def _with(text: str, calls: Sequence[Call], new: Call) -> str:
    for call in sorted(calls, key=lambda call: -call.start):
        text = text[: call.start] + str(new) + text[call.stop :]
    return text


# Trying it ---------------------------------------------------------------------------------------------------


class _Trial:
    """Development queries, and what is remembered of pipelines that were tried with them."""

    def __init__(self, index: SearchIndex, queries: Mapping[str, str], qrels: Qrels, measure: str) -> None:
        self._index, self._qrels, self._measure = index, qrels, measure
        self.start = 0, [Found(Query(name, text)) for name, text in queries.items()]
        self._kept: dict[str, Stage] = {}

    def value(self, text: str, ready: tuple[int, list[Found]]) -> float:
        """The mean of a pipeline of which the first stages have been run."""
        done, found = ready
        ended = Chain(parts(self._pipeline(text), Chain)[done:]).advance(found)
        run = {}
        for each in ended:
            if each.ranking is None:
                raise ConfigError(f"{text}: finds nothing by itself; begin with bm25, dense or another that retrieves")
            run[each.query.id] = dict(zip(self._index.names(each.ranking.rows), each.ranking.scores.tolist()))
        return float(np.mean(measure_run(run, self._qrels, [self._measure])[1][self._measure]))

    def before(self, text: str, calls: Sequence[Call]) -> tuple[int, list[Found]]:
        """The stages before the first of `calls` run once: (how many, what they found)."""
        made, written = parts(self._pipeline(text), Chain), parts(_tree(text), Chain)
        first = min(call.start for call in calls)
        place = next(i for i, stage in enumerate(written) if any(call.start == first for call, _ in _walk(stage)))
        if not place or len(made) != len(written):
            return self.start
        return place, Chain(made[:place]).advance(self.start[1])

    def _pipeline(self, text: str) -> Stage:
        known: dict[str, Make] = {**stages(self._index), "bm25": self._bm25}
        return parse(text, {name: partial(self._made, name, make) for name, make in known.items()})

    def _made(self, name: str, make: Make, *given: Any, **named: Any) -> Stage:
        """A stage is made once, with its model; those of BM25 are as large as the index, and are not kept."""
        key = str(Call(name, given, named, 0, 0))
        if key in self._kept:
            return self._kept[key]
        made = make(*given, **named)
        made = _Remembering(made) if isinstance(made, ByText) else made
        if name != "bm25":
            self._kept[key] = made
        return made

    def _bm25(self, k1: float | None = None, b: float | None = None) -> Stage:
        return BM25(self._index, k1, b, counts=self._counts)

    @cached_property
    def _counts(self) -> WordCounts:
        return WordCounts(self._index)


@final
class _Remembering(Rescorer):
    """A stage whose score of a document hangs on nothing but query and text, and is asked for once."""

    def __init__(self, inner: ByText) -> None:
        self.name, self._inner = inner.name, inner
        self._kept: dict[tuple[str, int], float] = {}

    def again(self, query: Query, ranking: Ranking) -> Ranking:
        rows = ranking.rows.tolist()
        new = [row for row in rows if (query.text, row) not in self._kept]
        if new:
            scored = self._inner.again(query, Ranking(np.array(new), np.zeros(len(new), np.float32)))
            self._kept.update(zip([(query.text, row) for row in scored.rows.tolist()], scored.scores.tolist()))
        return Ranking.of(ranking.rows, np.array([self._kept[query.text, row] for row in rows], np.float32))
