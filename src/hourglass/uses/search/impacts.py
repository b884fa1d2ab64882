"""Learned weights of words (SPLADE and its kin): the inner product of the query's and the document's, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import final

import numpy as np

from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.inverting import Inverter
from hourglass.uses.search.postings import Postings
from hourglass.uses.search.stages import Array, Query, Ranking, Scorer


@final
class Impacts(Scorer):
    """Documents by weights of the model's tokens; those that share none with the query are not found.

    ConfigError for an index without weights.
    """

    def __init__(self, index: SearchIndex) -> None:
        self.name, self._index = "impacts", index
        index.require_weights()

    def retrieve(self, queries: Sequence[Query], depth: int) -> list[Ranking]:
        return self._postings.best(self._index.weigh(queries), depth, self._index.selected)

    def score(self, query: Query, rows: Array) -> Array:
        return self._postings.scores(self._index.weigh([query])[0], rows)

    def summed(self, query: Query) -> tuple[dict[str, float], Postings]:
        """(weights of the query's terms, those of documents), of which a score is the inner product."""
        return self._index.weigh([query])[0], self._postings

    @cached_property
    def _postings(self) -> Postings:
        return self._index.kept("impacts", self._build, Postings.open)

    def _build(self, folder: Path) -> None:
        inverter, vocabulary, documents = Inverter(folder), dict[str, int](), 0
        for batch in self._index.batches(["tokens", "weights"]):
            tokens = batch.column("tokens")
            numbers = [vocabulary.setdefault(token, len(vocabulary)) for token in tokens.flatten().to_pylist()]
            rows = np.repeat(documents + np.arange(len(batch)), np.diff(tokens.offsets.to_numpy()))
            weights = batch.column("weights").flatten().to_numpy(zero_copy_only=False)
            inverter.add(rows, np.array(numbers, np.int64), weights)
            documents += len(batch)
        inverter.write(documents, list(vocabulary))
