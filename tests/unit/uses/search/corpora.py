"""A corpus in memory, and a scorer of it that counts words."""

from collections import Counter

import numpy as np

from hourglass.uses.search.stages import Ranking, Scorer


class Corpus:
    def __init__(self, texts):
        self._names, self._texts = list(texts), list(texts.values())

    def __len__(self):
        return len(self._names)

    def texts(self, rows):
        return [self._texts[row] for row in rows]

    def names(self, rows):
        return [self._names[row] for row in rows]


def words(text):
    return text.lower().split()


class Counts(Scorer):
    """How often the query's terms are in a text, times their weights."""

    name = "counts"

    def __init__(self, corpus):
        self._corpus = corpus

    def score(self, query, rows):
        weights = query.terms or Counter(words(query.text))
        return np.array(
            [sum(weights.get(word, 0) for word in words(text)) for text in self._corpus.texts(rows)], np.float32
        )

    def retrieve(self, queries, depth):
        rows = np.arange(len(self._corpus))
        return [Ranking.of(rows, self.score(query, rows), depth) for query in queries]
