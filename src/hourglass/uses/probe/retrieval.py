"""How well an encoder finds what is relevant: nDCG@10, MRR@10 and recall@100 over a judged corpus, by exact search.

    found = retrieval(model, read_beir("scifact"))
    print(found.means()["ndcg@10"])                                        # with its interval over queries
    paired_bootstrap(found.values["ndcg@10"], other.values["ndcg@10"])     # two encoders on the same queries

Measures and the order of ties are trec_eval's (`hourglass.metrics.ranking`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hourglass.data.judged import Judged
from hourglass.errors import ConfigError, nearest
from hourglass.metrics.estimates import Estimate, of_rows
from hourglass.metrics.ranking import measure_run
from hourglass.uses.probe.encoders import (
    Encode,
    Rows,
    encode_documents,
    encode_queries,
    text_encoder,
    unit_length,
)
from hourglass.waist import TextEncoder, Waist

Array = np.ndarray[Any, Any]
Similarity = Literal["cosine", "dot"]
SIMILARITIES = ("cosine", "dot")
DEPTH = 100
BLOCK = 4096


@dataclass(frozen=True)
class Retrieval:
    """What an encoder found.

    queries  those that have anything relevant, in the order of the judgements
    values   ndcg@10, mrr@10, recall@100: [queries] each, from 0 to 1
    run      scores of the first documents, by query and document
    """

    queries: list[str]
    values: dict[str, Array]
    run: dict[str, dict[str, float]]

    def means(self) -> dict[str, Estimate]:
        """Mean and interval over queries of each measure."""
        return {name: of_rows(values) for name, values in self.values.items()}

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON."""
        return {"queries": len(self.queries), **{name: mean.to_dict() for name, mean in self.means().items()}}


def retrieval(
    model: TextEncoder | Waist | Encode,
    judged: Judged,
    *,
    similarity: Similarity = "cosine",
    depth: int = DEPTH,
    block: int = BLOCK,
) -> Retrieval:
    """Ask every judged query of the whole corpus.

    model       whatever `text_encoder` takes
    similarity  of query and document: "cosine", or "dot" for the inner product (BM25, models trained with it)
    depth       documents kept for each query; at least 100, or recall@100 is cut short
    block       documents (and queries) compared at once: the memory that is needed beside the texts and the queries' vectors

    Raises InputError for vectors that cannot be compared.
    """
    queries = [query for query, grades in judged.qrels.items() if any(grade > 0 for grade in grades.values())]
    run = search(
        model,
        judged.corpus,
        {query: judged.queries[query] for query in queries},
        similarity=similarity,
        depth=depth,
        block=block,
    )
    return Retrieval(*measure_run(run, judged.qrels), run)


def search(
    model: TextEncoder | Waist | Encode,
    corpus: Mapping[str, str],
    queries: Mapping[str, str],
    *,
    similarity: Similarity = "cosine",
    depth: int = DEPTH,
    block: int = BLOCK,
) -> dict[str, dict[str, float]]:
    """The `depth` documents that are most similar to each query: query -> document -> score, best first.

    Arguments as for `retrieval`; the search is exact.
    """
    if similarity not in SIMILARITIES:
        raise ConfigError(f"similarity {similarity!r}{nearest(similarity, SIMILARITIES)}")
    encoder = text_encoder(model)
    asked = _compared(encode_queries(encoder, list(queries.values())), similarity)
    # From the last name to the first: of equal scores the first seen is then first, as in trec_eval.
    names = sorted(corpus, reverse=True)
    best = [(np.empty(0, np.int64), np.empty(0, np.float32))] * len(queries)
    for start in range(0, len(names), block):
        texts = [corpus[name] for name in names[start : start + block]]
        documents = _compared(encode_documents(encoder, texts), similarity)
        if documents.shape[1] != asked.shape[1]:
            raise ConfigError(
                f"queries have {asked.shape[1]} dimensions, documents {documents.shape[1]}; expected as many"
            )
        for first in range(0, len(queries), block):
            scores = asked[first : first + block] @ documents.T
            scores = scores if isinstance(scores, np.ndarray) else scores.toarray()
            for query, row in enumerate(scores, first):
                best[query] = keep_best(best[query], row, start, depth)
    return {
        query: {names[i]: float(score) for i, score in zip(*found)} for query, found in zip(queries, best, strict=True)
    }


def keep_best(best: tuple[Array, Array], row: Array, start: int, depth: int) -> tuple[Array, Array]:
    """(documents, scores) of the best `depth` of those so far and of a row of new ones; stable."""
    least = np.partition(row, -depth)[-depth] if len(row) > depth else -np.inf
    positions = np.flatnonzero(row >= least)
    documents = np.concatenate([best[0], positions + start])
    scores = np.concatenate([best[1], row[positions]])
    order = np.argsort(-scores, kind="stable")[:depth]
    return documents[order], scores[order]


def _compared(rows: Rows, similarity: Similarity) -> Rows:
    return unit_length(rows) if similarity == "cosine" else rows
