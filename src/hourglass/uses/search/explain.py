"""Why a document was found: where each stage of a pipeline put it, which terms carried it, which of its sentences are near.

    ranking, steps = watched(index.pipeline("bm25 | dense >> rrf"), Query("1", "polite refusals"))
    explained(index, steps, row, text).places      # rank 3 by bm25, 12 by dense, 1 by rrf

What a stage by terms says of a document sums to its score there. `index.search(...)` keeps the steps: `found.explain(0)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from hourglass.uses.search.approximate import Approximate
from hourglass.uses.search.dense import Dense
from hourglass.uses.search.hamming import Hamming
from hourglass.uses.search.lexical import BM25
from hourglass.uses.search.passages import sentences
from hourglass.uses.search.postings import Postings
from hourglass.uses.search.stages import First, Found, Query, Ranking, Stage
from hourglass.uses.search.term_weights import explain

if TYPE_CHECKING:
    from hourglass.uses.search.index import SearchIndex

_MOST_SENTENCES, _NEAR = 64, 3


@dataclass(frozen=True)
class Step:
    """A stage of a pipeline, and where the query stood before it and after it."""

    stage: Stage
    before: Found
    after: Found

    @property
    def widened(self) -> dict[str, float] | None:
        """Weights of the query's terms, of a stage that gave it some, the largest first."""
        terms = self.after.query.terms
        if terms is None or terms is self.before.query.terms:
            return None
        return dict(sorted(terms.items(), key=lambda term: (-term[1], term[0])))


@dataclass(frozen=True)
class Term:
    """A term that a query and a document share.

    word       as the document first writes it, and `times` how often it has it; the term itself, and None, of a model's tokens
    documents  in which it is
    query      its weight there; document: its weight in the document; score: their product
    """

    term: str
    word: str
    times: int | None
    documents: int
    query: float
    document: float
    score: float


@dataclass(frozen=True)
class Place:
    """Where a stage put a document.

    rank   from 1, of the `among` documents that it ranked; None: it is none of them
    score  of this stage
    terms  that sum to the score, the most first; none of a stage that does not go by terms
    """

    stage: str
    rank: int | None
    score: float | None
    among: int
    terms: list[Term]


class Near(NamedTuple):
    """A sentence, characters `start` to `stop` of the text, and its score by the encoder for the query."""

    start: int
    stop: int
    text: str
    score: float


@dataclass(frozen=True)
class Explanation:
    """Of one document.

    places  by stage, in the order of the pipeline; stages that only change the query have none
    near    the sentences that are nearest to the query, where a stage goes by vectors
    """

    places: list[Place]
    near: list[Near]

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON."""
        return {"places": [asdict(place) for place in self.places], "near": [near._asdict() for near in self.near]}


@runtime_checkable
class ByTerms(Protocol):
    """A stage whose score is a sum over terms."""

    def summed(self, query: Query) -> tuple[dict[str, float], Postings]:
        """(weights of the query's terms, those of documents), of which a score is the inner product."""
        ...


def watched(stage: Stage, query: Query, costs: dict[str, float] | None = None) -> tuple[Ranking, list[Step]]:
    """What a pipeline finds, and its stages one by one; costs as of `Stage.run`."""
    steps: list[Step] = []

    def see(one: Stage, before: Sequence[Found], after: Sequence[Found], seconds: float) -> None:
        steps.append(Step(one, before[0], after[0]))

    ranking = stage.run([query], costs, see)[0]
    return ranking, steps


def explained(index: SearchIndex, steps: Sequence[Step], row: int, text: str, *, near: bool = True) -> Explanation:
    """Of document `row`, which has `text`.

    near  also its sentences that are nearest to the query, for which the encoder reads the first 64
    """
    places = [place for step in steps if (place := _place(index, step, row, text)) is not None]
    asked = [step.before.query for step in steps if isinstance(step.stage, Dense | Approximate | Hamming)]
    return Explanation(places, _near(index, asked[-1], text) if near and asked else [])


def _place(index: SearchIndex, step: Step, row: int, text: str) -> Place | None:
    if isinstance(step.stage, First):
        # Told of where it cuts the document off, and passed over elsewhere.
        lost = any(_rank(b, row) and not _rank(a, row) for b, a in zip(step.before.rankings, step.after.rankings))
        return Place(step.stage.name, None, None, step.stage.k, []) if lost else None
    if len(step.after.rankings) != 1:
        return None
    ranking = step.after.rankings[0]
    rank = _rank(ranking, row)
    if rank is None:
        return Place(step.stage.name, None, None, len(ranking), [])
    terms = _terms(index, step, row, text) if isinstance(step.stage, ByTerms) else []
    return Place(step.stage.name, rank, float(ranking.scores[rank - 1]), len(ranking), terms)


def _rank(ranking: Ranking, row: int) -> int | None:
    found = np.flatnonzero(ranking.rows == row)
    return int(found[0]) + 1 if len(found) else None


def _terms(index: SearchIndex, step: Step, row: int, text: str) -> list[Term]:
    assert isinstance(step.stage, ByTerms)
    query, postings = step.stage.summed(step.before.query)
    written: dict[str, list[str]] = {}
    if isinstance(step.stage, BM25):  # others have terms of their own
        for start, stop, term in index.words.spans(text):
            if term in query:
                written.setdefault(term, []).append(text[start:stop])
    return [
        Term(
            each.term,
            written[each.term][0] if each.term in written else each.term,
            len(written[each.term]) if each.term in written else None,
            postings.having(each.term),
            each.query,
            each.document,
            each.score,
        )
        for each in explain(query, postings.weights(query, row))
    ]


def _near(index: SearchIndex, query: Query, text: str) -> list[Near]:
    parts = sentences(text)[:_MOST_SENTENCES]
    if not parts or not index.answers_vectors:
        return []
    scores = index.compare(query, [part.text for part in parts])
    best = np.argsort(-scores, kind="stable")[:_NEAR]
    return [Near(parts[i].start, parts[i].stop, parts[i].text, float(scores[i])) for i in best]
