"""BM25: what words find.

    idf x tf / (tf + k1 (1 - b + b length / mean length)),  idf = log(1 + (N - df + 0.5) / (df + 0.5))

Robertson and Zaragoza 2009, in the form of Lucene, as bm25s computes it. A query counts each of its terms as often as it has it,
or by the weights that a stage before has given them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import final

import numpy as np

from hourglass.errors import ConfigError
from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.inverting import Inverter
from hourglass.uses.search.postings import Postings, best_rows
from hourglass.uses.search.stages import Array, Query, Ranking, Scorer

_TERMS_AT_ONCE = 1 << 18


@final
class BM25(Scorer):
    """Documents by the query's words; those that have none of them are not found.

    k1, b  by default those of the index
    """

    def __init__(self, index: SearchIndex, k1: float | None = None, b: float | None = None) -> None:
        settings = index.manifest["bm25"]
        self.name, self._index = "bm25", index
        self._k1, self._b = (float(settings["k1"] if k1 is None else k1), float(settings["b"] if b is None else b))
        if not (self._k1 >= 0 and 0 <= self._b <= 1):
            raise ConfigError(f"k1 {k1}, b {b}: expected 0 or more, and from 0 to 1")

    def retrieve(self, queries: Sequence[Query], depth: int) -> list[Ranking]:
        among = self._index.selected
        return [best_rows(self._postings.scores(self._terms(q)), depth, among=among, above=0) for q in queries]

    def score(self, query: Query, rows: Array) -> Array:
        return np.asarray(self._postings.scores(self._terms(query))[rows])

    def _terms(self, query: Query) -> dict[str, float]:
        return query.terms if query.terms is not None else dict(Counter(self._index.words(query.text)))

    @cached_property
    def _postings(self) -> Postings:
        return self._index.kept(f"bm25-{self._k1:g}-{self._b:g}", self._build, Postings.open)

    def _build(self, folder: Path) -> None:
        inverter, vocabulary, lengths = Inverter(folder), dict[str, int](), [np.zeros(0, np.int64)]
        documents = 0
        for found, terms in _terms_of(self._index, vocabulary):
            inverter.add(np.repeat(documents + np.arange(len(found)), found), terms)
            lengths.append(found)
            documents += len(found)
        length = np.concatenate(lengths)
        usual = length.mean() if len(vocabulary) else 1.0

        def weigh(often: Array, rows: Array, having: Array) -> Array:
            # In the numbers of bm25s, rounded where it rounds: the same bits.
            rare = [math.log(1 + (documents - number + 0.5) / (number + 0.5)) for number in having.tolist()]
            share = often / (self._k1 * ((1 - self._b) + self._b * length[rows] / usual) + often)
            return np.asarray(np.repeat(np.array(rare, np.float32), having) * share)

        inverter.write(documents, list(vocabulary), weigh)


def _terms_of(index: SearchIndex, vocabulary: dict[str, int]) -> Iterator[tuple[Array, Array]]:
    """(how many terms each has, the numbers of their terms) of some documents at a time; new terms go into `vocabulary`."""
    found: list[int] = []
    numbers: list[int] = []
    for batch in index.batches(["text"]):
        for text in batch.column("text").to_pylist():
            terms = index.words(text)
            found.append(len(terms))
            numbers += [vocabulary.setdefault(term, len(vocabulary)) for term in terms]
            if len(numbers) >= _TERMS_AT_ONCE:
                yield np.array(found), np.array(numbers)
                found, numbers = [], []
    if found:
        yield np.array(found), np.array(numbers, np.int64)
