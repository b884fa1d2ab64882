"""BM25: what words find.

    idf x tf / (tf + k1 (1 - b + b length / mean length)),  idf = log(1 + (N - df + 0.5) / (df + 0.5))

Robertson and Zaragoza 2009, in the form of Lucene, as bm25s computes it. A query counts each of its terms as often as it has it,
or by the weights that a stage before has given them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import final

import numpy as np
from scipy.sparse import csc_matrix, csr_matrix

from hourglass.errors import ConfigError
from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.inverting import Inverter
from hourglass.uses.search.postings import Postings
from hourglass.uses.search.stages import Array, Query, Ranking, Scorer

_TERMS_AT_ONCE = 1 << 18


@final
class BM25(Scorer):
    """Documents by the query's words; those that have none of them are not found.

    k1, b   by default those of the index
    counts  of the same index: the weights are then made of these in memory, and nothing is kept
    """

    def __init__(
        self, index: SearchIndex, k1: float | None = None, b: float | None = None, *, counts: WordCounts | None = None
    ) -> None:
        settings = index.manifest["bm25"]
        self.name, self._index, self._counts = "bm25", index, counts
        self._k1, self._b = (float(settings["k1"] if k1 is None else k1), float(settings["b"] if b is None else b))
        if not (self._k1 >= 0 and 0 <= self._b <= 1):
            raise ConfigError(f"k1 {k1}, b {b}: expected 0 or more, and from 0 to 1")

    def retrieve(self, queries: Sequence[Query], depth: int) -> list[Ranking]:
        return self._postings.best([self._terms(query) for query in queries], depth, self._index.selected)

    def score(self, query: Query, rows: Array) -> Array:
        return self._postings.scores(self._terms(query), rows)

    def summed(self, query: Query) -> tuple[dict[str, float], Postings]:
        """(weights of the query's terms, those of documents), of which a score is the inner product."""
        return self._terms(query), self._postings

    def _terms(self, query: Query) -> dict[str, float]:
        return query.terms if query.terms is not None else dict(Counter(self._index.words(query.text)))

    @cached_property
    def _postings(self) -> Postings:
        if self._counts is not None:
            return self._counts.weighed(self._k1, self._b)
        return self._index.kept(f"bm25-{self._k1:g}-{self._b:g}", self._build, Postings.open)

    def _build(self, folder: Path) -> None:
        inverter, vocabulary, lengths = Inverter(folder), dict[str, int](), [np.zeros(0, np.int64)]
        documents = 0
        for found, terms in _terms_of(self._index, vocabulary):
            inverter.add(np.repeat(documents + np.arange(len(found)), found), terms)
            lengths.append(found)
            documents += len(found)
        weigh = partial(_weights, np.concatenate(lengths), self._k1, self._b)
        inverter.write(documents, list(vocabulary), weigh)


@final
class WordCounts:
    """How often each document has each term, from one reading of the texts: BM25's weights for any k1 and b, without another."""

    def __init__(self, index: SearchIndex) -> None:
        vocabulary: dict[str, int] = {}
        read = [(np.zeros(0, np.int64), np.zeros(0, np.int64)), *_terms_of(index, vocabulary)]
        self._lengths, ids = (np.concatenate(part) for part in zip(*read))
        self._terms = list(vocabulary)
        ends = np.concatenate([[0], np.cumsum(self._lengths)])
        counted = csr_matrix((np.ones(len(ids)), ids, ends), shape=(len(self._lengths), len(vocabulary)))
        counted.sum_duplicates()
        self._counts = counted.tocsc()

    def weighed(self, k1: float, b: float) -> Postings:
        counts = self._counts
        data = _weights(self._lengths, k1, b, counts.data, counts.indices, np.diff(counts.indptr))
        return Postings.of(csc_matrix((data, counts.indices, counts.indptr), shape=counts.shape), self._terms)


def _weights(lengths: Array, k1: float, b: float, often: Array, rows: Array, having: Array) -> Array:
    """[n] weights of terms that documents `rows` [n] have so `often` [n], term by term; `having` [terms] documents have each.

    In the numbers of bm25s, rounded where it rounds: the same bits.
    """
    number = len(lengths)
    rare = [math.log(1 + (number - n + 0.5) / (n + 0.5)) for n in having.tolist()]
    usual = lengths.mean() if lengths.any() else 1.0
    share = often / (k1 * ((1 - b) + b * lengths[rows] / usual) + often)
    return np.asarray(np.repeat(np.array(rare, np.float32), having) * share)


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
