"""BM25: what words find.

    idf x tf / (tf + k1 (1 - b + b length / mean length)),  idf = log(1 + (N - df + 0.5) / (df + 0.5))

Robertson and Zaragoza 2009, in the form of Lucene, as bm25s computes it. A query counts each of its terms as often as it has it,
or by the weights that a stage before has given them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import final

import numpy as np
from scipy.sparse import csc_matrix, csr_matrix

from hourglass.errors import ConfigError, MissingExtra
from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.postings import Postings
from hourglass.uses.search.stages import Array, Query, Ranking, Scorer


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
        return Postings.open(self._index.cached(f"bm25-{self._k1:g}-{self._b:g}", self._build))

    def _build(self, folder: Path) -> None:
        try:
            import bm25s
        except ImportError:
            raise MissingExtra("search by words", "search") from None
        documents, vocabulary = _numbered(self._index)
        shape = (len(documents), len(vocabulary))
        if not vocabulary:
            Postings.of(csc_matrix(shape, dtype=np.float32), []).save(folder)
            return
        words = bm25s.BM25(method="lucene", k1=self._k1, b=self._b)
        words.index((documents, vocabulary), create_empty_token=False, show_progress=False)
        made = [np.asarray(words.scores[part]) for part in ("data", "indices", "indptr")]
        Postings.of(csc_matrix(tuple(made), shape=shape), list(vocabulary)).save(folder)


@final
class WordCounts:
    """How often each document has each term, from one reading of the texts: BM25's weights for any k1 and b, without another."""

    def __init__(self, index: SearchIndex) -> None:
        documents, vocabulary = _numbered(index)
        self._terms = list(vocabulary)
        self._lengths = np.array([len(ids) for ids in documents], np.float64)
        ends = np.concatenate([[0], np.cumsum(self._lengths)]).astype(np.int64)
        ids = np.fromiter((number for ids in documents for number in ids), np.int64, int(ends[-1]))
        counted = csr_matrix((np.ones(len(ids)), ids, ends), shape=(len(documents), len(vocabulary)))
        counted.sum_duplicates()
        self._counts = counted.tocsc()
        having = np.diff(self._counts.indptr)
        self._idf = np.log(1 + (len(documents) - having + 0.5) / (having + 0.5)).astype(np.float32)

    def weighed(self, k1: float, b: float) -> Postings:
        """By the formula above, rounded where bm25s rounds: the same bits."""
        often, rows = self._counts.data, self._counts.indices
        length = k1 * ((1 - b) + b * self._lengths / (self._lengths.mean() if len(rows) else 1.0))
        data = np.repeat(self._idf, np.diff(self._counts.indptr)) * (often / (length[rows] + often))
        return Postings.of(csc_matrix((data, rows, self._counts.indptr), shape=self._counts.shape), self._terms)


def _numbered(index: SearchIndex) -> tuple[list[list[int]], dict[str, int]]:
    """(numbers of the terms of each document, the number of each term)."""
    vocabulary: dict[str, int] = {}
    documents = [
        [vocabulary.setdefault(term, len(vocabulary)) for term in index.words(text)]
        for batch in index.batches(["text"])
        for text in batch.column("text").to_pylist()
    ]
    return documents, vocabulary
