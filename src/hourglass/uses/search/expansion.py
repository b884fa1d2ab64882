"""Queries made wider by what a first search found: RM3 by words, CEQE by words in their context, Rocchio by vectors, ColBERT-PRF by
vectors of tokens, BERT-QE by chunks.

    bm25 >> RM3(index, words) >> bm25

Feedback helps where the first documents are good and leads astray where they are not: look at the differences query by query
(`evaluate(...).differences`). None of these sees a judgement.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, Protocol, final, get_args

import numpy as np

from hourglass.errors import ConfigError, nearest
from hourglass.uses.search.passages import TextScorer, passages
from hourglass.uses.search.residuals import centres, unit
from hourglass.uses.search.stages import Array, Documents, Found, Query, Ranking, Rescorer, Stage
from hourglass.waist import TextReader

Words = Callable[[str], list[str]]
"""Terms of a text, as the index of words makes them."""
_WORD = re.compile(r"\w+")


@final
class RM3(Stage):
    """The query's terms, and those that its first documents have in common; Abdul-Jaleel et al. 2004.

    p(w | R) ~ sum over the first `documents` of p(w | d) p(d), p(w | d) the share of d's terms, p(d) its share of the scores;
    of these the `terms` largest, made to sum to 1; the new weights are (1 - share) x the query's own + share x theirs.
    The ranking is dropped: what comes next searches with the new weights.
    """

    def __init__(
        self, documents: Documents, words: Words, *, first: int = 10, terms: int = 10, share: float = 0.5
    ) -> None:
        if first < 1 or terms < 1 or not 0 <= share <= 1:
            raise ConfigError(
                f"first {first}, terms {terms}, share {share}: expected 1 or more, and a share from 0 to 1"
            )
        self.name, self._documents, self._words = "rm3", documents, words
        self._first, self._terms, self._share = first, terms, share

    def advance(self, found: Sequence[Found]) -> list[Found]:
        return [Found(replace(each.query, terms=self._wider(each))) for each in found]

    def _wider(self, found: Found) -> dict[str, float]:
        own = _own(found.query, self._words)
        ranking = _required(found, self.name).first(self._first)
        said = [_shares(Counter(self._words(text))) for text in self._documents.texts(ranking.rows)]
        return _interpolated(own, said, ranking.scores, self._terms, self._share)


Pooling = Literal["centroid", "max", "product"]


@final
class CEQE(Stage):
    """RM3 in which a term counts by how near its mentions are to the query in the space of their contexts; Naseri et al. 2021.

    p(w | q, d) ~ the sum over w's mentions in d of their cosine with the query, below 0 as 0: with the mean of the query's states
    ("centroid"), or with each of the query's words, of which the largest ("max") or the product counts; a word's state is the mean
    of its tokens'. Then as RM3.

    reader  gives a state for each token; long documents are never cut
    """

    def __init__(
        self,
        documents: Documents,
        words: Words,
        reader: TextReader,
        *,
        pooling: Pooling = "centroid",
        first: int = 10,
        terms: int = 10,
        share: float = 0.5,
    ) -> None:
        if pooling not in get_args(Pooling):
            raise ConfigError(f"no pooling {pooling!r}{nearest(str(pooling), get_args(Pooling))}")
        if first < 1 or terms < 1 or not 0 <= share <= 1:
            raise ConfigError(
                f"first {first}, terms {terms}, share {share}: expected 1 or more, and a share from 0 to 1"
            )
        self.name, self._documents, self._words, self._reader = "ceqe", documents, words, reader
        self._pooling, self._first, self._terms, self._share = pooling, first, terms, share

    def advance(self, found: Sequence[Found]) -> list[Found]:
        return [Found(replace(each.query, terms=self._wider(each))) for each in found]

    def _wider(self, found: Found) -> dict[str, float]:
        own = _own(found.query, self._words)
        ranking = _required(found, self.name).first(self._first)
        asked, *read = _mentions(self._reader, [found.query.text, *self._documents.texts(ranking.rows)])
        if not asked:
            return own
        states = np.stack([state for _, state in asked])
        states = unit(states.mean(0, keepdims=True) if self._pooling == "centroid" else states)
        said = [self._near(states, mentions) for mentions in read]
        return _interpolated(own, said, ranking.scores, self._terms, self._share)

    def _near(self, query: Array, mentions: list[tuple[str, Array]]) -> dict[str, float]:
        """p(w | q, d) of the terms of a document's mentions."""
        known = [(term, state) for word, state in mentions for term in self._words(word)]
        if not known:
            return {}
        terms, which = np.unique([term for term, _ in known], return_inverse=True)
        cosines = np.maximum(unit(np.stack([state for _, state in known])) @ query.T, 0)
        summed = np.zeros((len(terms), len(query)))
        np.add.at(summed, which, cosines)
        shares = summed / np.maximum(summed.sum(0), 1e-12)
        pooled = shares.prod(1) if self._pooling == "product" else shares.max(1)
        total = pooled.sum()
        return dict(zip(terms.tolist(), (pooled / total).tolist())) if total else {}


@final
class Rocchio(Stage):
    """query x its vector + feedback x the mean vector of the first documents; Rocchio 1971, dense after Li et al. 2021.

    encode   [n, d] vectors of queries
    vectors  [n, d] of documents, by their rows
    """

    def __init__(
        self,
        encode: Callable[[Sequence[Query]], Array],
        vectors: Callable[[Array], Array],
        *,
        first: int = 3,
        query: float = 1.0,
        feedback: float = 0.5,
    ) -> None:
        if first < 1 or query < 0 or feedback < 0:
            raise ConfigError(f"first {first}, query {query}, feedback {feedback}: expected 1 or more, and 0 or more")
        self.name, self._encode, self._vectors = "rocchio", encode, vectors
        self._first, self._query, self._feedback = first, query, feedback

    def advance(self, found: Sequence[Found]) -> list[Found]:
        own = self._encode([each.query for each in found])
        made = []
        for each, vector in zip(found, own):
            rows = _required(each, self.name).rows[: self._first]
            mean = self._vectors(rows).astype(np.float32).mean(0) if len(rows) else 0.0
            made.append(Found(replace(each.query, vector=self._query * vector + self._feedback * mean)))
        return made


class FeedbackTokens(Protocol):
    """The tokens of documents, and how rare they are."""

    def of(self, rows: Array) -> tuple[Array, Array]:
        """(numbers in the vocabulary [n], -1 of what is none, vectors [n, d]) of documents `rows`, one after another."""
        ...

    def rarity(self, ids: Array) -> Array:
        """[n] log((N + 1) / (documents with the token + 1)) of tokens `ids` [n]."""
        ...


@final
class ColbertPRF(Stage):
    """For late interaction: the query's token vectors and what the tokens of the first documents gather around; Wang et al. 2021 (arXiv 2106.11251).

    k-means of the token vectors of the first `first` documents gives `clusters` centres; the token that most vectors of a cluster
    belong to speaks for it (the paper asks the nearest tokens of the whole index); of these the `terms` rarest are added, each with
    the weight share x its rarity. Centres are taken to length 1. The ranking is dropped, what comes next searches with all of them.

    encode  (vectors of tokens [m, d], weights [m]) of queries
    tokens  of documents, by their rows
    """

    def __init__(
        self,
        encode: Callable[[Sequence[Query]], list[tuple[Array, Array]]],
        tokens: Callable[[], FeedbackTokens],
        *,
        first: int = 3,
        clusters: int = 24,
        terms: int = 10,
        share: float = 1.0,
    ) -> None:
        if min(first, clusters, terms) < 1 or share < 0:
            raise ConfigError(
                f"first {first}, clusters {clusters}, terms {terms}, share {share}: expected 1 or more, and a share of 0 or more"
            )
        self.name, self._encode, self._tokens = "colbert_prf", encode, tokens
        self._first, self._clusters, self._terms, self._share = first, clusters, terms, share

    def advance(self, found: Sequence[Found]) -> list[Found]:
        own = self._encode([each.query for each in found])
        made = []
        for each, (vectors, weights) in zip(found, own):
            rows = _required(each, self.name).rows[: self._first]
            more, rarity = self._gathered(rows, vectors.shape[1])
            wider = np.concatenate([vectors, more]), np.concatenate([weights, self._share * rarity]).astype(np.float32)
            made.append(Found(replace(each.query, tokens=wider)))
        return made

    def _gathered(self, rows: Array, width: int) -> tuple[Array, Array]:
        """(centres [n, width], the rarity of each [n]), the rarest first, of equal ones that of the smaller token."""
        ids, vectors = self._tokens().of(rows)
        if len(ids) and ids.min() < 0:
            raise ConfigError(
                f"{self.name}: the model pools tokens, of which none says how rare it is; take another model"
            )
        if not len(ids):
            return np.zeros((0, width), np.float32), np.zeros(0)
        means = unit(centres(vectors, min(self._clusters, len(ids))))
        nearest_to = (vectors @ means.T).argmax(1)
        used = np.unique(nearest_to)
        spoken = np.array([np.bincount(ids[nearest_to == i]).argmax() for i in used])
        rarity = self._tokens().rarity(spoken)
        best = np.lexsort((spoken, -rarity))[: self._terms]
        best = best[rarity[best] > 0]
        return means[used[best]], rarity[best]


@final
class BertQE(Rescorer):
    """The best chunks of the first documents speak for the query; Zheng et al. 2020.

    The first `documents` are cut into chunks of `size` words, every half of that; `chunks` of them that `score` likes best for
    the query are kept. A document is scored by share x (sum over the chunks of softmax(chunk for query) x document for chunk)
    + (1 - share) x its score before; a document for a text is that of its best passage of 100 words, every 50.

    score    of texts for a query, for choosing chunks
    compare  of texts for a chunk; None: the same. A smaller model here costs little quality (the paper's LMT)
    """

    def __init__(
        self,
        documents: Documents,
        score: TextScorer,
        compare: TextScorer | None = None,
        *,
        first: int = 10,
        size: int = 10,
        chunks: int = 10,
        share: float = 0.4,
    ) -> None:
        if min(first, chunks) < 1 or size < 2 or not 0 <= share <= 1:
            raise ConfigError(
                f"first {first}, size {size}, chunks {chunks}, share {share}: expected 1 or more, a size of 2 or more, and a share "
                "from 0 to 1"
            )
        self.name, self._documents, self._score, self._compare = "bert_qe", documents, score, compare or score
        self._first, self._size, self._chunks, self._share = first, size, chunks, share

    def again(self, query: Query, ranking: Ranking) -> Ranking:
        texts = self._documents.texts(ranking.rows)
        chunks = [
            part.text for text in texts[: self._first] for part in passages(text, self._size, -(-self._size // 2))
        ]
        if not chunks:
            return ranking
        liked = np.asarray(self._score(query, chunks), np.float64)
        best = np.argsort(-liked, kind="stable")[: self._chunks]
        weights = np.exp(liked[best] - liked[best].max())
        weights /= weights.sum()
        cut = [passages(text, 100, 50) for text in texts]
        of = np.repeat(np.arange(len(texts)), [len(parts) for parts in cut])
        flat = [part.text for parts in cut for part in parts]
        spoken = np.zeros(len(texts))
        for chunk, weight in zip(best, weights):
            scores = self._compare(Query(query.id, chunks[chunk]), flat)
            highest = np.full(len(texts), scores.min())
            np.maximum.at(highest, of, scores)
            spoken += weight * highest
        return Ranking.of(ranking.rows, (1 - self._share) * ranking.scores + self._share * spoken)


def _own(query: Query, words: Words) -> dict[str, float]:
    """The weights of the query's terms, 1 together."""
    return _shares(query.terms or Counter(words(query.text)))


def _interpolated(
    own: dict[str, float], said: Sequence[dict[str, float]], scores: Array, terms: int, share: float
) -> dict[str, float]:
    """(1 - share) x own + share x the `terms` largest of the mean of p(w | d) in `said`, documents weighed by their scores."""
    positive = np.maximum(scores.astype(np.float64), 0)
    common: Counter[str] = Counter()
    for document, weight in zip(said, positive):
        for term, chance in document.items():
            common[term] += weight * chance
    # Of equal ones the first in the alphabet, so that it does not hang on the order of the documents.
    best = dict(sorted(common.items(), key=lambda item: (-item[1], item[0]))[:terms])
    total = sum(best.values())
    if not total:
        return own
    made = {term: (1 - share) * weight for term, weight in own.items()}
    for term, weight in best.items():
        made[term] = made.get(term, 0.0) + share * weight / total
    return {term: weight for term, weight in made.items() if weight}


def _mentions(reader: TextReader, texts: Sequence[str]) -> list[list[tuple[str, Array]]]:
    """(word, mean state [d] of its tokens) of the words of each text that have any, in their order."""
    read = reader.read(texts)
    offsets, spans = read.offsets.tolist(), read.spans.numpy()
    made = []
    for i, text in enumerate(texts):
        states = read.states[offsets[i] : offsets[i + 1]].float().numpy()
        starts = spans[offsets[i] : offsets[i + 1], 0]
        found = [match.span() for match in _WORD.finditer(text)]
        low, high = (np.searchsorted(starts, [span[side] for span in found]) for side in (0, 1))
        made.append([(text[a:b], states[x:y].mean(0)) for (a, b), x, y in zip(found, low, high) if y > x])
    return made


def _shares(counts: Mapping[str, float]) -> dict[str, float]:
    total = sum(counts.values())
    return {term: count / total for term, count in counts.items()}


def _required(found: Found, name: str) -> Ranking:
    if found.ranking is None:
        raise ConfigError(f"{name}: nothing found yet to learn from; begin with a stage that retrieves")
    return found.ranking
