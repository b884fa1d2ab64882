"""What pipelines find of what is relevant, what they cost, and whether they differ by more than chance.

    done = evaluate({"bm25": bm25, "both": both}, index, queries, read_qrels("qrels.txt"))
    print(done.table())                             # the first is what the others are compared with
    print(done.differences("both", "ndcg@10"))      # query by query
    done.write_runs("runs")                         # in TREC's format

Measures, and the order of equal scores, are trec_eval's (`hourglass.metrics.ranking`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hourglass.data.judged import Qrels
from hourglass.errors import ConfigError, SourceError, nearest
from hourglass.metrics.estimates import Estimate, of_rows
from hourglass.metrics.ranking import MEASURES, PairedDifference, measure_run, paired_bootstrap, ranking_measure
from hourglass.storage.atomic import atomic_file
from hourglass.uses.progress import Progress
from hourglass.uses.search.cascade import COSTS
from hourglass.uses.search.stages import Array, Documents, Found, Query, Stage

if TYPE_CHECKING:
    from hourglass.uses.search.index import SearchIndex
    from hourglass.uses.search.tune import Tuned

_QUERIES_AT_ONCE = 64
_NAMES_AT_ONCE = 100_000


@dataclass(frozen=True)
class Evaluation:
    """What each pipeline found.

    queries  those that were asked: that have a text, and something relevant that is in the index or not
    texts    of these
    values   [queries] by pipeline and measure
    runs     scores of what was found, by pipeline, query and document
    costs    milliseconds a query, by pipeline and stage, once all is loaded
    given    documents that a stage was given, mean of the queries, likewise; 0: it retrieves
    ran      each pipeline as it ran, by name: with the depths that were chosen for it
    notes    what stages had to say, lines by pipeline
    unasked  queries that have a text but no judgement
    absent   judged documents that the index does not hold; they count as not found
    tuned    pipelines that were chosen on other queries before
    """

    queries: list[str]
    texts: list[str]
    values: dict[str, dict[str, Array]]
    runs: dict[str, dict[str, dict[str, float]]]
    costs: dict[str, dict[str, float]]
    given: dict[str, dict[str, float]]
    ran: dict[str, str]
    notes: dict[str, list[str]]
    unasked: int
    absent: list[str]
    tuned: Sequence[Tuned] = ()

    @property
    def baseline(self) -> str:
        """The pipeline that the others are compared with: the first."""
        return next(iter(self.values))

    def mean(self, pipeline: str, measure: str) -> Estimate:
        """Over the queries, with its interval."""
        return of_rows(self._values(pipeline, measure))

    def against(self, pipeline: str, measure: str) -> PairedDifference:
        """A pipeline less the first, over the same queries."""
        return paired_bootstrap(self._values(pipeline, measure), self._values(self.baseline, measure))

    def table(self) -> pd.DataFrame:
        """A row for each pipeline: the mean of each measure, its difference to the first with p, milliseconds a query."""
        rows = []
        for pipeline, values in self.values.items():
            row: dict[str, Any] = {"pipeline": pipeline}
            for measure in values:
                row[measure] = self.mean(pipeline, measure).value
                if pipeline != self.baseline:
                    difference = self.against(pipeline, measure)
                    row |= {f"{measure} more": difference.difference, f"{measure} p": difference.p}
            rows.append(row | {"ms": sum(self.costs[pipeline].values())})
        return pd.DataFrame(rows)

    def stages(self) -> pd.DataFrame:
        """A row for each stage of each pipeline: documents that it was given, milliseconds a query, and a document of these."""
        rows = [
            {"pipeline": pipeline, "stage": stage, "documents": self.given[pipeline][stage], "ms": ms}
            for pipeline, costs in self.costs.items()
            for stage, ms in costs.items()
        ]
        made = pd.DataFrame(rows)
        return made.assign(ms_document=made["ms"] / made["documents"].where(made["documents"] > 0))

    def differences(self, pipeline: str, measure: str) -> pd.DataFrame:
        """A row for each query, where a pipeline gained most against the first one first."""
        ours, base = self._values(pipeline, measure), self._values(self.baseline, measure)
        made = pd.DataFrame(
            {"query": self.queries, "text": self.texts, self.baseline: base, pipeline: ours, "difference": ours - base}
        )
        return made.sort_values("difference", ascending=False, kind="stable", ignore_index=True)

    def write_runs(self, folder: str | Path) -> list[Path]:
        """A file for each pipeline, in TREC's format (query Q0 document rank score name), whole or not at all.

        Raises SourceError for a name with white space in it, which the format cannot hold.
        """
        names = {name for run in self.runs.values() for query, found in run.items() for name in (query, *found)}
        spaced = sorted(name for name in names if len(name.split()) != 1)
        if spaced:
            raise SourceError(f"name {spaced[0]!r}: TREC's format has no room for white space; give other names")
        Path(folder).mkdir(parents=True, exist_ok=True)
        written = []
        for number, (pipeline, run) in enumerate(self.runs.items(), 1):
            path = Path(folder) / f"{number}.run"
            tag = "_".join(pipeline.split())
            with atomic_file(path) as part:
                part.write_text(
                    "".join(
                        f"{query} Q0 {document} {rank} {score:.9g} {tag}\n"
                        for query, found in run.items()
                        for rank, (document, score) in enumerate(found.items(), 1)
                    ),
                    encoding="utf-8",
                )
            written.append(path)
        return written

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON."""
        pipelines = []
        for pipeline, values in self.values.items():
            measured: dict[str, Any] = {}
            for measure in values:
                measured[measure] = self.mean(pipeline, measure).to_dict()
                if pipeline != self.baseline:
                    measured[measure]["against_first"] = self.against(pipeline, measure).to_dict()
            pipelines.append(
                {
                    "pipeline": pipeline,
                    "ran": self.ran[pipeline],
                    "measures": measured,
                    "ms_per_query": self.costs[pipeline],
                    "documents_given": self.given[pipeline],
                    "notes": self.notes[pipeline],
                }
            )
        return {
            "queries": len(self.queries),
            "queries_without_judgement": self.unasked,
            "judged_documents_not_in_index": len(self.absent),
            "pipelines": pipelines,
            "tuned": [tuned.to_dict() for tuned in self.tuned],
        }

    def _values(self, pipeline: str, measure: str) -> Array:
        if pipeline not in self.values:
            raise ConfigError(f"no pipeline {pipeline!r} here{nearest(pipeline, self.values)}")
        if measure not in self.values[pipeline]:
            raise ConfigError(f"{measure!r} was not measured{nearest(measure, self.values[pipeline])}")
        return self.values[pipeline][measure]


def evaluate(
    pipelines: Mapping[str, Stage],
    documents: Documents,
    queries: Mapping[str, str],
    qrels: Qrels,
    *,
    measures: Sequence[str] = MEASURES,
    progress: bool = True,
) -> Evaluation:
    """Ask every judged query of each pipeline.

    queries, qrels  texts by name, and graded relevance by query and document (`hourglass.data.judged` reads both)

    Raises SourceError where a judged query has no text, or nothing that is relevant is in the index; ConfigError for a measure
    that there is not.
    """
    for measure in measures:
        ranking_measure(measure)
    if not pipelines:
        raise ConfigError("no pipeline to evaluate; expected one or more")
    asked, absent = askable(documents, queries, qrels)
    runs, costs, given, values = {}, {}, {}, {}
    with Progress(progress) as bars:
        task = bars.start("searching", len(pipelines) * len(asked), "queries")
        for name, pipeline in pipelines.items():
            # What is loaded and built once is no cost of a query.
            pipeline.run([Query(asked[0], queries[asked[0]])])
            spent: dict[str, float] = {}
            seen: dict[str, int] = {}
            run = {}

            def count(stage: Stage, before: Sequence[Found], _: Any, __: float, seen: dict[str, int] = seen) -> None:
                number = sum(len(ranking) for each in before for ranking in each.rankings)
                seen[stage.name] = seen.get(stage.name, 0) + number

            for start in range(0, len(asked), _QUERIES_AT_ONCE):
                some = [Query(query, queries[query]) for query in asked[start : start + _QUERIES_AT_ONCE]]
                for query, found in zip(some, pipeline.run(some, spent, count)):
                    run[query.id] = dict(zip(documents.names(found.rows), found.scores.tolist()))
                bars.advance(task, len(some))
            runs[name] = run
            costs[name] = {stage: 1000 * seconds / len(asked) for stage, seconds in spent.items()}
            given[name] = {stage: number / len(asked) for stage, number in seen.items()}
            values[name] = measure_run(run, {query: qrels[query] for query in asked}, measures)[1]
    return Evaluation(
        queries=asked,
        texts=[queries[query] for query in asked],
        values=values,
        runs=runs,
        costs=costs,
        given=given,
        ran={name: pipeline.name for name, pipeline in pipelines.items()},
        notes={name: pipeline.told() for name, pipeline in pipelines.items()},
        unasked=sum(query not in qrels for query in queries),
        absent=absent,
    )


def askable(documents: Documents, queries: Mapping[str, str], qrels: Qrels) -> tuple[list[str], list[str]]:
    """(judged queries with something relevant, judged documents that are not there); SourceError as `evaluate` says."""
    asked = [query for query, judged in qrels.items() if any(grade > 0 for grade in judged.values())]
    silent = [query for query in asked if query not in queries]
    if silent:
        raise SourceError(
            f"{len(silent)} judged queries have no text, the first {silent[0]!r}; are queries and judgements of the same set?"
        )
    if not asked:
        raise SourceError(f"none of {len(qrels)} judged queries has a relevant document; expected grades above 0")
    absent = _absent(documents, {document for query in asked for document in qrels[query]})
    if all(document in absent for query in asked for document, grade in qrels[query].items() if grade > 0):
        raise SourceError(
            f"none of the relevant documents is among the {len(documents):,} of the index; are index and judgements of "
            "the same set, with the same names?"
        )
    return asked, sorted(absent)


def bytes_on_disk(index: SearchIndex) -> dict[str, int]:
    """What an index takes: its documents, and what each retriever made of them, as far as it has searched."""
    kept = {
        place.name.rpartition("@")[0]: _bytes(place)
        for place in sorted(index.home.cache.glob("*@*"))
        if not place.name.startswith(f"{COSTS}-")
    }
    return {"documents": index.home.size(), **kept}


def bytes_per_document(index: SearchIndex) -> dict[str, float]:
    """The same for one document."""
    number = max(1, len(index))
    return {name: size / number for name, size in bytes_on_disk(index).items()}


def _bytes(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):  # a writer may have removed it meanwhile
            total += file.stat().st_size if file.is_file() else 0
    return total


def _absent(documents: Documents, named: set[str]) -> set[str]:
    left = set(named)
    for start in range(0, len(documents), _NAMES_AT_ONCE):
        left.difference_update(documents.names(np.arange(start, min(start + _NAMES_AT_ONCE, len(documents)))))
    return left
