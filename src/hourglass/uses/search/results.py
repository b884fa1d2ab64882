"""What a search shows of each document that it found: the passage that answers best, with the query's terms marked."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hourglass.errors import ConfigError
from hourglass.uses.search.cross import CutTexts
from hourglass.uses.search.explain import Explanation, Step, explained, watched
from hourglass.uses.search.passages import Passage, sentences
from hourglass.uses.search.stages import Query, Ranking, Stage
from hourglass.uses.search.words import Words

if TYPE_CHECKING:
    import pandas as pd

    from hourglass.uses.search.index import SearchIndex


@dataclass(frozen=True)
class Hit:
    """A document that was found.

    score    of the last stage of the pipeline; what it means is that stage's
    fields   the source's columns
    passage  the sentence (of a long one a window of 40 words) with the most of the query's terms, the rare ones of the text
             counting more; the first where none has any
    marks    (start, stop) of the query's terms, in characters of the passage
    """

    id: str
    score: float
    text: str
    passage: Passage
    marks: list[tuple[int, int]]
    fields: dict[str, Any]

    def marked(self, before: str = "[", after: str = "]") -> str:
        """The passage with something around each mark."""
        made, at = [], 0
        for start, stop in self.marks:
            made += [self.passage.text[at:start], before, self.passage.text[start:stop], after]
            at = stop
        return "".join([*made, self.passage.text[at:]])

    def to_dict(self) -> dict[str, Any]:
        passage = {"start": self.passage.start, "stop": self.passage.stop, "text": self.passage.text}
        marks = [list(mark) for mark in self.marks]
        return {"id": self.id, "score": self.score, "passage": passage, "marks": marks, "fields": self.fields}


@dataclass(frozen=True)
class Results:
    """Hits, the best first. `costs` are milliseconds by stage, `searched` the documents among which was looked.

    notes    what stages had to say, a line each: texts that were cut, layers that were read
    ranking  all that the pipeline ranked, of which the hits are the first; steps: its stages one by one
    """

    query: str
    pipeline: str
    hits: list[Hit]
    searched: int
    costs: dict[str, float]
    notes: list[str]
    ranking: Ranking = field(repr=False)
    steps: list[Step] = field(repr=False)
    index: SearchIndex = field(repr=False)

    def __len__(self) -> int:
        return len(self.hits)

    def __getitem__(self, place: int) -> Hit:
        return self.hits[place]

    def explain(self, place: int, *, near: bool = True) -> Explanation:
        """Why a hit is where it is, by its place from 0.

        near  also its sentences that are nearest to the query, which the encoder then reads; only where a stage goes by vectors
        """
        return explained(self.index, self.steps, int(self.ranking.rows[place]), self.hits[place].text, near=near)

    @property
    def widened(self) -> list[tuple[str, dict[str, float]]]:
        """(stage, weights of the query's terms after it) of the stages that changed them."""
        return [(step.stage.name, terms) for step in self.steps if (terms := step.widened) is not None]

    @property
    def table(self) -> pd.DataFrame:
        """A row for each hit: id, score, passage, and the source's columns."""
        import pandas as pd

        return pd.DataFrame(
            [{"id": h.id, "score": h.score, "passage": h.passage.text, **h.fields} for h in self.hits],
            columns=None if self.hits else ["id", "score", "passage"],
        )

    def to_dict(self, *, explain: bool = False) -> dict[str, Any]:
        """Values for JSON; with `explain` also why each hit is there."""
        why = {}
        hits = [hit.to_dict() for hit in self.hits]
        if explain:
            why = {"widened": [{"stage": stage, "terms": terms} for stage, terms in self.widened]}
            hits = [hit | {"why": self.explain(place).to_dict()} for place, hit in enumerate(hits)]
        return {
            "query": self.query,
            "pipeline": self.pipeline,
            "searched": self.searched,
            "ms": self.costs,
            "notes": self.notes,
            **why,
            "hits": hits,
        }


def search(index: SearchIndex, query: str, pipeline: str | Stage | None, top: int) -> Results:
    """As `SearchIndex.search`."""
    if not query.strip():
        raise ConfigError("the query is empty; say in words what to search for")
    if top < 1:
        raise ConfigError(f"top {top}: expected 1 document or more")
    stage = pipeline if isinstance(pipeline, Stage) else index.pipeline(pipeline)
    spent: dict[str, float] = {}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", CutTexts)
        ranking, steps = watched(stage, Query("1", query), spent)
    notes = []
    for warning in warned:
        if issubclass(warning.category, CutTexts):
            notes.append(str(warning.message))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    notes += stage.told()
    first = ranking.first(top)
    found = index.take(first.rows, ["_id", "text", *index.columns]).to_pylist()
    terms = set(index.words(query))
    hits = []
    for row, score in zip(found, first.scores.tolist()):
        text = row.pop("text")
        passage, marks = best_passage(text, terms, index.words)
        hits.append(Hit(row.pop("_id"), score, text, passage, marks, row))
    searched = len(index) if index.selected is None else len(index.selected)
    costs = {name: 1000 * seconds for name, seconds in spent.items()}
    return Results(query, stage.name, hits, searched, costs, notes, ranking, steps, index)


def best_passage(text: str, terms: Collection[str], words: Words) -> tuple[Passage, list[tuple[int, int]]]:
    """(the passage with the most of `terms`, where they are in it)."""
    having = [(start, stop, term) for start, stop, term in words.spans(text) if term in terms]
    often = Counter(term for _, _, term in having)
    best, most = Passage(0, 0, ""), -1.0
    for passage in sentences(text):
        inside = {term for start, stop, term in having if passage.start <= start and stop <= passage.stop}
        value = sum(1 / often[term] + 1 for term in inside)
        if value > most:
            best, most = passage, value
    marks: list[tuple[int, int]] = []
    for start, stop, _ in sorted(having):
        if start < best.start or stop > best.stop:
            continue
        start, stop = start - best.start, stop - best.start
        if marks and start < marks[-1][1]:  # signs and pairs of a script without spaces overlap
            marks[-1] = (marks[-1][0], max(stop, marks[-1][1]))
        else:
            marks.append((start, stop))
    return best, marks
