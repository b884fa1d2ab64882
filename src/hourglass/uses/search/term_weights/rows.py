"""Weights of terms, {term: weight} for each text: as term frequencies, as weights of BM25, as bytes, and what they
explain."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from hourglass.errors import ConfigError, SourceError

Terms = dict[str, float]
"""Weights of a text's terms; a term without one has 0."""

Spans = Callable[[str], Iterable[tuple[int, int, str]]]
"""(start, stop, term) of the terms of a text, in its characters; the same for documents and queries.
`Words(...).spans` of an index is one."""

_WORD = re.compile(r"\w+")
_MOST = 255


def word_spans(text: str) -> Iterator[tuple[int, int, str]]:
    """Runs of letters, digits and _ in any script, in lower case."""
    for match in _WORD.finditer(text):
        yield *match.span(), match[0].lower()


# For an index ---------------------------------------------------------------------------------------------


def frequencies(rows: Sequence[Mapping[str, float]], scale: int = 100, *, root: bool = False) -> list[dict[str, int]]:
    """round(scale x weight), or round(scale x sqrt(weight)) with `root`, in the place of term frequencies; below 1 a
    term is left out."""
    if scale < 1:
        raise ConfigError(f"scale {scale}: expected 1 or more")
    made = []
    for row in rows:
        positive = {term: max(weight, 0.0) for term, weight in row.items()}
        whole = {term: round(scale * (weight**0.5 if root else weight)) for term, weight in positive.items()}
        made.append({term: number for term, number in whole.items() if number})
    return made


def bm25_weights(rows: Sequence[Mapping[str, float]], k1: float, b: float) -> list[Terms]:
    """BM25 as weights of terms, by frequencies that need not be whole: the inner product with a query's counts is its
    score.

    log(1 + (N - n + 1/2) / (n + 1/2)) x f / (f + k1 (1 - b + b x length / mean length)), Lucene's form, lengths being
    sums of frequencies. Both k1 and b have to be chosen anew when frequencies change: DeepCT's authors take 10 and
    0.9, 18 and 0.7 with the root. ConfigError for a k1 below 0, or a b that is no share.
    """
    if not k1 >= 0 or not 0 <= b <= 1:
        raise ConfigError(f"k1 {k1}, b {b}: expected 0 or more, and a share from 0 to 1")
    lengths = np.array([sum(row.values()) for row in rows], np.float64)
    mean = lengths.mean() if len(rows) and lengths.any() else 1.0
    spread = Counter(term for row in rows for term in row)
    rarity = {term: float(np.log1p((len(rows) - n + 0.5) / (n + 0.5))) for term, n in spread.items()}
    return [
        {term: rarity[term] * f / (f + k1 * (1 - b + b * length / mean)) for term, f in row.items() if f > 0}
        for row, length in zip(rows, lengths.tolist())
    ]


def as_matrix(rows: Sequence[Mapping[str, float]]) -> tuple[csr_matrix, list[str]]:
    """[texts, terms] float32, and the terms, in the order in which they come first."""
    number: dict[str, int] = {}
    columns = [number.setdefault(term, len(number)) for row in rows for term in row]
    values = np.array([weight for row in rows for weight in row.values()], np.float32)
    ends = np.cumsum([0, *map(len, rows)])
    return csr_matrix((values, np.array(columns, np.int64), ends), shape=(len(rows), len(number))), list(number)


class Carried(NamedTuple):
    """A term that a query and a document share: its weight in each; what it adds to the score is their product."""

    term: str
    query: float
    document: float

    @property
    def score(self) -> float:
        return self.query * self.document


def explain(query: Mapping[str, float], document: Mapping[str, float], first: int | None = None) -> list[Carried]:
    """Which terms carried the document for the query, the most first, of equal ones in the order of the alphabet;
    their scores sum to the document's."""
    shared = [Carried(term, weight, document[term]) for term, weight in query.items() if term in document]
    return sorted(shared, key=lambda each: (-each.score, each.term))[:first]


# Bytes ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quantised:
    """Weights as whole numbers from 1 to 255, each worth `scale`."""

    rows: list[dict[str, int]]
    scale: float

    def weights(self) -> list[Terms]:
        """What is left of the weights: each within scale / 2 of what it was."""
        return [{term: number * self.scale for term, number in row.items()} for row in self.rows]


def quantised(rows: Sequence[Mapping[str, float]], scale: float | None = None) -> Quantised:
    """Weights, 0 or more, as bytes: the nearest multiple of the scale; below half of it a term is left out.

    scale  of an index that these rows are added to; None: the largest weight is 255

    Raises SourceError for a weight that is below 0, not finite, or more than 255 times the scale.
    """
    largest = 0.0
    for i, row in enumerate(rows):
        for term, weight in row.items():
            if not 0 <= weight < float("inf"):
                raise SourceError(f"row {i}: weight {weight} of {term!r}: expected a finite number, 0 or more")
            largest = max(largest, weight)
    if scale is None:
        scale = largest / _MOST or 1.0
    if not 0 < scale < float("inf"):
        raise ConfigError(f"scale {scale}: expected a positive number")
    if round(largest / scale) > _MOST:
        raise SourceError(f"a weight of {largest:g} is more than {_MOST} x the scale {scale:g}; quantise all rows anew")
    made = [{term: round(weight / scale) for term, weight in row.items()} for row in rows]
    return Quantised([{term: number for term, number in row.items() if number} for row in made], scale)
