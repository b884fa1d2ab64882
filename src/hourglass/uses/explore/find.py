"""Find documents that have a property: by words, by example documents, or by chosen features.

A query becomes a short ranked list of features, the r-th of k weighted exp(-(r / k) / temperature); a
document's score is the weighted sum of its maxima, each divided by the feature's 90th percentile. That
ranking is fused, by reciprocal ranks, with the one by dense vectors and the one by words (BM25), because
each misses what another finds. The features and their weights can be edited by hand; the answer then says
where each document stood before.

Differences from the paper:
- Features come from examples as well as from words.
- BM25 (Robertson and Zaragoza 2009) runs over the word presence that a workspace keeps, so a word counts once in
  a document, and over the words of the query or, from examples, the ten words of highest offer weight (Robertson
  1990); the paper lets a language model choose ten.
- What picks among the candidates is a language model behind an address, or any function.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, vstack

from hourglass.adapters.chat_endpoint import ChatEndpoint, Prices
from hourglass.adapters.huggingface import pooled
from hourglass.errors import ConfigError, InputError, nearest
from hourglass.metrics.ranking import rank_biased_overlap, reciprocal_rank_fusion
from hourglass.uses.explore.judges import endpoint_of, is_address, usage_of
from hourglass.uses.explore.presence import picked
from hourglass.uses.explore.reranking import rerank_by
from hourglass.uses.explore.words import word_presence

if TYPE_CHECKING:
    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]
Rival = Literal["dense", "words"]
Rerank = Callable[[str, pd.DataFrame], Sequence[int]]

WORDS = 10
"""Words that examples turn into."""
CARRIERS = 5
"""Features named beside a document, those that add most to its score."""
COMPARED = 1000
"""Depth to which the rankings before and after an edit are compared; at p = 0.98 the rest weighs nothing."""
LEVEL = 0.5
"""A document has a feature above this share of its 90th percentile, as in the table of features."""

_K1, _B = 1.2, 0.75  # BM25's usual constants


@dataclass(frozen=True, kw_only=True)
class FindOptions:
    """How a query is turned into features and scores.

    k            most features a query turns into
    temperature  how fast the weight falls along them; the smaller, the more the first one rules
    scale        divide each feature by its 90th percentile
    fuse         rankings that the one by features is fused with: "dense" (vectors), "words" (BM25); () for none
    rerank       picks the features of a text query among the `candidates` whose names are nearest: the address of a chat
                 endpoint or a `ChatEndpoint`, or a function that is given the query and a table (feature, label,
                 similarity) and returns the numbers of those to use, the best first
    model, budget, prices  of the endpoint, as in `VerifyOptions`
    top          number of documents returned
    """

    k: int = 20
    temperature: float = 0.2
    scale: bool = True
    fuse: Sequence[Rival] = ("dense", "words")
    rerank: str | ChatEndpoint | Rerank | None = None
    candidates: int = 100
    model: str | None = None
    budget: float | None = None
    prices: Prices | tuple[float, float] | None = None
    top: int = 20

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ConfigError(f"temperature {self.temperature}: expected a number above 0")
        for name in ("k", "candidates", "top"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)}: expected 1 or more")
        if not isinstance(self.fuse, (tuple, list)):
            raise ConfigError(f"fuse {self.fuse!r}: expected a list with some of: {', '.join(get_args(Rival))}")
        if isinstance(self.rerank, str) and not is_address(self.rerank):
            raise ConfigError(f"rerank {self.rerank!r}: expected the address of a chat endpoint, or a function")
        for name in ("model", "budget", "prices"):
            if getattr(self, name) is not None and not isinstance(self.rerank, str):
                raise ConfigError(f"{name} belongs to the address of a chat endpoint (rerank)")
        for rival in self.fuse:
            if rival not in get_args(Rival):
                raise ConfigError(f"nothing to fuse with is called {rival!r}{nearest(rival, get_args(Rival))}")


@dataclass(frozen=True)
class Found:
    """The best documents, and what they were found by.

    documents  best first: position, id, score, text; by_features, by_dense, by_words (its place in each ranking that was
               used, from 1); carried ([{feature, contribution}], the features that add most to its score)
    features   feature, label, weight, as they were used
    overlap    with edits only: rank-biased overlap (p = 0.98) with the ranking before them; documents then have
               rank_before, and features weight_before (NaN for one that was added)
    usage      of a language model that reranked: as in `Verified`; None without one
    """

    query: Any
    documents: pd.DataFrame
    features: pd.DataFrame
    overlap: float | None = None
    usage: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return {
            "query": self.query,
            "features": json.loads(self.features.to_json(orient="records")),
            **({} if self.overlap is None else {"overlap": self.overlap}),
            **({} if self.usage is None else {"usage": self.usage}),
            "documents": json.loads(self.documents.to_json(orient="records")),
        }


def find(
    workspace: Workspace,
    query: str | None = None,
    *,
    like: Sequence[str] = (),
    unlike: Sequence[str] = (),
    features: Mapping[int, float] | None = None,
    without: Sequence[int] = (),
    options: FindOptions,
) -> Found:
    """Rank all documents by a text query, by ids of examples (`like`, `unlike`), or by features with weights.

    Beside a query or examples, `features` and `without` edit the features that these have turned into: they set
    weights, add and drop. InputError says what is missing or at odds, and names an id or feature that does not exist.
    """
    chosen = _check_weights(workspace, features or {})
    dropped = _check_weights(workspace, dict.fromkeys(without, 0.0))
    _check_question(query, like, unlike, chosen, dropped)
    if options.rerank is not None and query is None:
        raise ConfigError("rerank picks among the features of a text query; there is none")
    options, endpoint = _with_model(workspace, options)
    rivals: dict[str, Array] = {}
    weights: dict[int, float] = {}
    examples = workspace.positions([*like, *unlike])
    if query is not None:
        vector = query_vector(workspace, query)
        weights = weights_from_query(workspace, vector, options, query)
        if "dense" in options.fuse:
            rivals["dense"] = dense_scores(workspace, vector)
        words = word_presence([query], workspace.words).indices
        if "words" in options.fuse and len(words):
            rivals["words"] = word_scores(workspace, dict.fromkeys(map(int, words)))
    elif like:
        positive, negative = examples[: len(like)], examples[len(like) :]
        weights = weights_from_examples(workspace, positive, negative, options)
        if "dense" in options.fuse:
            rivals["dense"] = dense_scores(workspace, vector_from_examples(workspace, positive, negative))
        telling = words_from_examples(workspace, positive, negative) if "words" in options.fuse else {}
        if telling:
            rivals["words"] = word_scores(workspace, telling)
    before = weights
    edited = bool(chosen or dropped) and (query is not None or bool(like))
    weights = {**weights, **chosen, **dropped}
    if not rivals and not any(weights.values()):
        raise InputError("the question turns into no feature and no word of this corpus; ask in other words, or fuse")
    used = list(weights)
    strength = strengths(workspace, used, options.scale)
    after = _ranked(strength, used, weights, rivals, examples)
    columns: dict[str, Any] = {}
    best = after.order[: options.top]
    labels = pd.Series(workspace.labels(used), dtype=object)
    table = pd.DataFrame({"feature": used, "label": labels, "weight": list(weights.values())})
    overlap = None
    if edited:
        table["weight_before"] = [before.get(f, np.nan) for f in used]
        earlier = _ranked(strength, used, before, rivals, examples).order
        rank = np.empty(strength.shape[0], np.int64)
        rank[earlier] = np.arange(1, len(earlier) + 1)
        columns["rank_before"] = rank[best]
        overlap = rank_biased_overlap(earlier[:COMPARED].tolist(), after.order[:COMPARED].tolist())
    for name, scores in after.rankings.items():
        columns[f"by_{name}"] = [int((scores[after.order] > scores[d]).sum()) + 1 for d in best]
    columns["carried"] = _carriers(strength[best], used, weights)
    rows = workspace.rows(best.tolist(), ["_id", workspace.text_column])
    documents = pd.DataFrame(
        {"position": best, "id": rows.column(0).to_pylist(), "score": after.scores[best], **columns}
    ).assign(text=rows.column(1).to_pylist())
    asked = query if query is not None else list(like) or chosen
    return Found(asked, documents, table, overlap, None if endpoint is None else usage_of(endpoint))


# What a question turns into -------------------------------------------------------------------------


def _with_model(workspace: Workspace, options: FindOptions) -> tuple[FindOptions, ChatEndpoint | None]:
    """The options with a function to rerank by, and the endpoint that it asks."""
    endpoint = options.rerank
    if isinstance(endpoint, str):
        endpoint = endpoint_of(workspace, endpoint, options.model, options.budget, options.prices)
    if not isinstance(endpoint, ChatEndpoint):
        return options, None
    by_model = partial(rerank_by, endpoint)
    return replace(options, rerank=by_model, model=None, budget=None, prices=None), endpoint


def query_vector(workspace: Workspace, query: str) -> Array:
    """[d] mean token state of the query, as the documents' dense vectors are made."""
    states = workspace.coder.reader.read([query]).states.float()
    if not len(states):
        raise InputError(f"the query {query!r} holds nothing that the encoder reads")
    return states.mean(0).numpy()


def text_vectors(workspace: Workspace, texts: Sequence[str]) -> Array:
    """[texts, d] mean token states of short texts; zero for one that holds nothing to read."""
    return pooled(workspace.coder.reader.read(list(texts))).float().numpy()


def nearest_features(workspace: Workspace, vector: Array, number: int) -> pd.DataFrame:
    """feature, label, similarity of the named features whose names are nearest to `vector` [d], the nearest first."""
    similarity = workspace.label_vectors @ unit(vector)
    labelled = np.flatnonzero(np.any(workspace.label_vectors != 0, axis=1))
    best = labelled[np.argsort(-similarity[labelled], kind="stable")][:number]
    labels = pd.Series(workspace.labels(best), dtype=object)
    return pd.DataFrame({"feature": best, "label": labels, "similarity": similarity[best]})


def weights_from_query(workspace: Workspace, vector: Array, options: FindOptions, query: str = "") -> dict[int, float]:
    """The features whose names are nearest to the query's vector [d], or those that `rerank` picks, weighted by rank."""
    if not callable(options.rerank):
        return _by_rank(nearest_features(workspace, vector, options.k)["feature"].to_numpy(), options.temperature)
    candidates = nearest_features(workspace, vector, options.candidates)
    picked = [int(feature) for feature in options.rerank(query, candidates)]
    for feature in picked:
        if feature not in set(candidates["feature"]):
            raise InputError(f"rerank returned feature {feature}, which is not among the {len(candidates)} candidates")
    return _by_rank(np.array(list(dict.fromkeys(picked)), np.int64)[: options.k], options.temperature)


def weights_from_examples(
    workspace: Workspace, positive: Array, negative: Array, options: FindOptions
) -> dict[int, float]:
    """The features that the examples have more often than `negative`, or than the corpus where there are none."""
    if len(negative):
        rest = feature_counts(workspace, negative) / len(negative)
    else:
        rest = workspace.features["documents"].to_numpy() / len(workspace)
    gain = feature_counts(workspace, positive) / len(positive) - rest
    best = np.argsort(-gain, kind="stable")[: options.k]
    return _by_rank(best[gain[best] > 0], options.temperature)


def vector_from_examples(workspace: Workspace, positive: Array, negative: Array) -> Array:
    """[d] mean unit vector of the examples, less that of `negative` where there are any (Rocchio 1971)."""
    mean = unit(_dense_rows(workspace, positive)).mean(0)
    return mean - unit(_dense_rows(workspace, negative)).mean(0) if len(negative) else mean


def words_from_examples(workspace: Workspace, positive: Array, negative: Array) -> dict[int, float]:
    """The words of highest offer weight r * w, with their relevance weights w (Robertson and Sparck Jones 1976).

    The rest of the corpus is what the examples are weighed against; a word that the `negative` have as often is none.
    """
    total = np.zeros(len(workspace.words), np.int64)
    for arrays in workspace.stored("word_indices"):
        total += np.bincount(arrays["word_indices"], minlength=len(total))
    r, number = _word_counts(workspace, positive), len(positive)
    n, rest = total - r, len(workspace) - number
    weight = np.log((r + 0.5) * (rest - n + 0.5) / ((n + 0.5) * (number - r + 0.5)))
    if len(negative):
        weight[r / number <= _word_counts(workspace, negative) / len(negative)] = 0
    best = np.argsort(-r * weight, kind="stable")[:WORDS]
    return {int(w): float(weight[w]) for w in best if r[w] > 0 and weight[w] > 0}


# Scores ---------------------------------------------------------------------------------------------


def strengths(workspace: Workspace, features: Sequence[int], scale: bool = True) -> csr_matrix:
    """[documents, len(features)] maxima of these features, in the order given, divided by their p90."""
    slots = np.full(workspace.manifest["width"], -1, np.int32)
    slots[list(features)] = np.arange(len(features))
    parts = [
        picked(a["indptr"], a["indices"], a["maximum"], slots, len(features))
        for a in workspace.stored("indptr", "indices", "maximum")
    ]
    together = vstack(parts, format="csr")
    if scale:
        p90 = workspace.features["p90"].to_numpy(np.float32)[list(features)]
        together.data /= np.where(p90 > 0, p90, 1)[together.indices]
    return together


def feature_scores(workspace: Workspace, weights: Mapping[int, float], scale: bool = True) -> Array:
    """[documents] weighted sum of (scaled) maxima."""
    return strengths(workspace, list(weights), scale) @ np.array(list(weights.values()), np.float32)


def dense_scores(workspace: Workspace, vector: Array) -> Array:
    """[documents] cosine of the documents' dense vectors with `vector` [d]."""
    query = unit(vector).astype(np.float32)
    parts = []
    for arrays in workspace.stored("dense"):
        dense = arrays["dense"].astype(np.float32)
        length = np.sqrt(np.einsum("nd,nd->n", dense, dense))
        parts.append((dense @ query) / np.maximum(length, 1e-12))
    return np.concatenate(parts)


def word_scores(workspace: Workspace, weights: Mapping[int, float | None]) -> Array:
    """[documents] BM25 over word presence; a weight of None is the word's own idf, log(1 + (N - n + 0.5) / (n + 0.5))."""
    slots = np.full(len(workspace.words), -1, np.int32)
    slots[list(weights)] = np.arange(len(weights))
    parts, lengths = [], []
    for a in workspace.stored("word_indptr", "word_indices"):
        parts.append(picked(a["word_indptr"], a["word_indices"], None, slots, len(weights)))
        lengths.append(np.diff(a["word_indptr"]))
    matched, length = vstack(parts, format="csr"), np.concatenate(lengths)
    holders = np.asarray(matched.sum(0), np.float64).ravel()
    idf = np.log1p((len(length) - holders + 0.5) / (holders + 0.5))
    weight = np.array([idf[i] if w is None else w for i, w in enumerate(weights.values())])
    norm = 1 - _B + _B * length / max(length.mean(), 1e-12)
    return np.asarray((matched @ weight) * (_K1 + 1) / (1 + _K1 * norm))


@dataclass(frozen=True)
class _Ranked:
    """scores [documents] by which `order` (positions, best first, no example among them) goes; the rankings it is of."""

    scores: Array
    order: Array
    rankings: dict[str, Array]


def _ranked(
    strength: csr_matrix,
    features: Sequence[int],
    weights: Mapping[int, float],
    rivals: Mapping[str, Array],
    examples: Array,
) -> _Ranked:
    rankings = dict(rivals)
    if any(weights.values()) or not rivals:
        vector = np.array([weights.get(f, 0.0) for f in features], np.float32)
        rankings = {"features": strength @ vector, **rankings}
    scores = list(rankings.values())
    fused = reciprocal_rank_fusion(scores) if len(scores) > 1 else scores[0]
    order = np.argsort(-fused, kind="stable")
    if len(examples):
        order = order[~np.isin(order, examples)]
    return _Ranked(fused, order, rankings)


def _carriers(strength: csr_matrix, features: Sequence[int], weights: Mapping[int, float]) -> list[list[dict]]:
    """For each row the features that add (or take) most, the most first."""
    added = strength.toarray() * np.array([weights[f] for f in features])
    return [
        [
            {"feature": int(features[i]), "contribution": round(float(row[i]), 4)}
            for i in np.argsort(-np.abs(row), kind="stable")[:CARRIERS]
            if row[i]
        ]
        for row in added
    ]


# Parts of the stored matrices -----------------------------------------------------------------------


def feature_counts(workspace: Workspace, rows: Array) -> Array:
    """[features] how many of the documents at `rows` have each feature."""
    level = LEVEL * workspace.features["p90"].to_numpy(np.float32)
    counts = np.zeros(len(level), np.int64)
    for arrays, inside in workspace.shards_of(rows, "indptr", "indices", "maximum", "count"):
        for a, b in zip(arrays["indptr"][inside], arrays["indptr"][inside + 1]):
            features = arrays["indices"][a:b]
            counts[features[(arrays["maximum"][a:b] > level[features]) & (arrays["count"][a:b] >= 1)]] += 1
    return counts


def _word_counts(workspace: Workspace, rows: Array) -> Array:
    """[words] how many of the documents at `rows` have each word."""
    counts = np.zeros(len(workspace.words), np.int64)
    for arrays, inside in workspace.shards_of(rows, "word_indptr", "word_indices"):
        for a, b in zip(arrays["word_indptr"][inside], arrays["word_indptr"][inside + 1]):
            counts[arrays["word_indices"][a:b]] += 1
    return counts


def _dense_rows(workspace: Workspace, rows: Array) -> Array:
    """[len(rows), d] dense vectors of the documents at `rows`, in the order of the corpus."""
    parts = [arrays["dense"][inside] for arrays, inside in workspace.shards_of(rows, "dense")]
    return np.concatenate(parts).astype(np.float32)


# Checks ---------------------------------------------------------------------------------------------


def _check_question(
    query: str | None,
    like: Sequence[str],
    unlike: Sequence[str],
    chosen: Mapping[int, float],
    dropped: Mapping[int, float],
) -> None:
    if query is not None and like:
        raise InputError("find needs exactly one of: a query, example documents (like)")
    if query is None and not like and not chosen:
        raise InputError("find needs exactly one of: a query, example documents (like), features with weights")
    if query is not None and not query.strip():
        raise InputError("the query is empty")
    if unlike and not like:
        raise InputError("examples that have it not (unlike) need examples that have it (like)")
    if dropped and query is None and not like:
        raise InputError("features can only be left out (without) of a query or of examples")
    for feature in dropped:
        if feature in chosen:
            raise InputError(f"feature {feature} is both given a weight and left out")


def _by_rank(features: Array, temperature: float) -> dict[int, float]:
    rank = np.arange(len(features)) / max(len(features), 1)
    return {int(f): float(w) for f, w in zip(features, np.exp(-rank / temperature))}


def _check_weights(workspace: Workspace, features: Mapping[int, float]) -> dict[int, float]:
    width = workspace.manifest["width"]
    for feature in features:
        if not 0 <= int(feature) < width:
            raise InputError(f"{workspace.folder}: no feature {feature}; they go from 0 to {width - 1}")
    return {int(f): float(w) for f, w in features.items()}


def unit(x: Array) -> Array:
    """Vectors of norm 1."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
