"""BM25 behind the door of an encoder: what words alone find, the baseline of every retrieval.

    retrieval(BM25(corpus), judged, similarity="dot")

Robertson and Zaragoza 2009, in the form of Lucene: the weight of a term in a document is
idf x tf / (tf + k1 (1 - b + b length / mean length)), idf = log(1 + (N - df + 0.5) / (df + 0.5)). A query counts its terms.
Terms are words in lower case, neither stemmed nor stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer

from hourglass.errors import SourceError


class BM25:
    """Documents and queries as rows [n, terms of the corpus] whose inner products are BM25's scores."""

    def __init__(self, corpus: Iterable[str], k1: float = 1.2, b: float = 0.75) -> None:
        """Take words, their frequencies and the mean length from `corpus`; SourceError where it has no word."""
        self._counter = CountVectorizer(token_pattern=r"(?u)\w+", dtype=np.float32)
        try:
            counts = self._counter.fit_transform(corpus)
        except ValueError:
            raise SourceError("there is no word in the corpus") from None
        having = np.bincount(counts.indices, minlength=counts.shape[1])
        self._idf = np.log1p((counts.shape[0] - having + 0.5) / (having + 0.5)).astype(np.float32)
        self._mean_length = counts.sum() / counts.shape[0]
        self._k1, self._b = k1, b

    def encode_document(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """Weights of the terms. Words that the corpus lacks do not count, for the length either."""
        counts = sparse.csr_matrix(self._counter.transform(texts))
        lengths = np.asarray(counts.sum(1)).ravel() / self._mean_length
        held_back = self._k1 * (1 - self._b + self._b * lengths)
        counts.data /= counts.data + np.repeat(held_back, np.diff(counts.indptr))
        counts.data *= self._idf[counts.indices]
        return counts

    def encode_query(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """Counts of the terms."""
        return sparse.csr_matrix(self._counter.transform(texts))
