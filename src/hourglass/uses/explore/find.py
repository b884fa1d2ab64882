"""Find documents that have a property: by words, by example documents, or by chosen features.

A query becomes a ranked list of features with weights; a document's score is the weighted sum of its maxima, each
divided by the feature's 90th percentile. That ranking is fused with the one by dense vectors and the one by words,
because each misses what another finds.

Of words, the features are those whose names are nearest, the r-th of k weighted exp(-(r / k) / temperature), and the
rankings are fused by reciprocal ranks. From examples, each ranking is the direction that best parts them (`examples`),
and has as many votes as it earns on examples that it has not seen (`fusion`). The features and their weights can be
edited by hand; the answer then says where each document stood before.

Differences from the paper:
- Features come from examples as well as from words, and learned from examples is not the paper's: `learn=False` weights
  features that the examples have more often by rank, and fuses with equal votes.
- BM25 (Robertson and Zaragoza 2009) runs over the word presence that a workspace keeps, so a word counts once in
  a document, and over the words of the query or, from examples by rule, the ten words of highest offer weight
  (Robertson 1990); the paper lets a language model choose ten.
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

from hourglass.adapters.chat_endpoint import ChatEndpoint, Prices
from hourglass.adapters.huggingface import pooled
from hourglass.errors import ConfigError, InputError, nearest
from hourglass.metrics.ranking import rank_biased_overlap
from hourglass.uses.explore.examples import (
    RANKED,
    by_rank,
    learned,
    vector_from_examples,
    weights_from_examples,
    words_from_examples,
)
from hourglass.uses.explore.fusion import fused
from hourglass.uses.explore.judges import endpoint_of, is_address, usage_of
from hourglass.uses.explore.reranking import rerank_by
from hourglass.uses.explore.scores import dense_scores, feature_rows, unit, weighted_sums, word_scores
from hourglass.uses.explore.words import is_sign, word_presence

if TYPE_CHECKING:
    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]
Rival = Literal["dense", "words"]
Rerank = Callable[[str, pd.DataFrame], Sequence[int]]

CARRIERS = 5
"""Features named beside a document, those that add most to its score."""
COMPARED = 1000
"""Depth to which the rankings before and after an edit are compared; at p = 0.98 the rest weighs nothing."""


@dataclass(frozen=True, kw_only=True)
class FindOptions:
    """How a query is turned into features and scores.

    k            most features a query turns into; None: 20, or 400 that are learned from examples
    temperature  how fast the weight falls along them; the smaller, the more the first one rules (not where they are learned)
    scale        divide each feature by its 90th percentile
    learn        from examples, learn each ranking and its vote; False: features weighted by rank, equal votes
    fuse         rankings that the one by features is fused with: "dense" (vectors), "words" (BM25); () for none
    rerank       picks the features of a text query among the `candidates` whose names are nearest: the address of a chat
                 endpoint or a `ChatEndpoint`, or a function that is given the query and a table (feature, label,
                 similarity) and returns the numbers of those to use, the best first
    model, budget, prices  of the endpoint, as in `VerifyOptions`
    top          number of documents returned
    """

    k: int | None = None
    temperature: float = 0.2
    scale: bool = True
    learn: bool = True
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
            if getattr(self, name) is not None and getattr(self, name) < 1:
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
    votes      what each ranking that was used counts, adding up to 1; `learned` says whether examples gave them, to scores
               in standard units, or they are equal, of reciprocal ranks
    overlap    with edits only: rank-biased overlap (p = 0.98) with the ranking before them; documents then have
               rank_before, and features weight_before (NaN for one that was added)
    usage      of a language model that reranked: as in `Verified`; None without one
    """

    query: Any
    documents: pd.DataFrame
    features: pd.DataFrame
    votes: dict[str, float]
    learned: bool = False
    overlap: float | None = None
    usage: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return {
            "query": self.query,
            "features": json.loads(self.features.to_json(orient="records")),
            "votes": self.votes,
            "learned": self.learned,
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
    votes: dict[str, float] | None = None
    examples = workspace.positions([*like, *unlike])
    if query is not None:
        vector = query_vector(workspace, query)
        weights = weights_from_query(workspace, vector, options, query)
        if "dense" in options.fuse:
            rivals["dense"] = dense_scores(workspace, vector)
        # The sign that ends a question is in none of the texts that answer it.
        words = [int(w) for w in word_presence([query], workspace.words).indices if not is_sign(workspace.words[w])]
        if "words" in options.fuse and words:
            rivals["words"] = word_scores(workspace, dict.fromkeys(words))
    elif like and options.learn:
        found = learned(workspace, examples[: len(like)], examples[len(like) :], options)
        weights, rivals, votes = found.weights, found.scores, found.votes
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
    questions = [weights, before] if edited else [weights]
    by_features = weighted_sums(workspace, questions, options.scale).T
    after, *unedited = [
        _ranked({**({"features": by} if any(w.values()) or not rivals else {}), **rivals}, examples, votes)
        for w, by in zip(questions, by_features)
    ]
    columns: dict[str, Any] = {}
    best = after.order[: options.top]
    labels = pd.Series(workspace.labels(used), dtype=object)
    table = pd.DataFrame({"feature": used, "label": labels, "weight": list(weights.values())})
    overlap = None
    if edited:
        table["weight_before"] = [before.get(f, np.nan) for f in used]
        earlier = unedited[0].order
        rank = np.empty(len(workspace), np.int64)
        rank[earlier] = np.arange(1, len(earlier) + 1)
        columns["rank_before"] = rank[best]
        overlap = rank_biased_overlap(earlier[:COMPARED].tolist(), after.order[:COMPARED].tolist())
    for name, scores in after.rankings.items():
        among = scores[after.order]
        columns[f"by_{name}"] = [int((among > scores[d]).sum()) + 1 for d in best]
    columns["carried"] = _carriers(workspace, best, weights, options.scale)
    rows = workspace.rows(best.tolist(), ["_id", workspace.text_column])
    documents = pd.DataFrame(
        {"position": best, "id": rows.column(0).to_pylist(), "score": after.scores[best], **columns}
    ).assign(text=rows.column(1).to_pylist())
    asked = query if query is not None else list(like) or chosen
    usage = None if endpoint is None else usage_of(endpoint)
    return Found(asked, documents, table, after.votes, votes is not None, overlap, usage)


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
        return by_rank(
            nearest_features(workspace, vector, options.k or RANKED)["feature"].to_numpy(), options.temperature
        )
    candidates = nearest_features(workspace, vector, options.candidates)
    picked = [int(feature) for feature in options.rerank(query, candidates)]
    for feature in picked:
        if feature not in set(candidates["feature"]):
            raise InputError(f"rerank returned feature {feature}, which is not among the {len(candidates)} candidates")
    return by_rank(np.array(list(dict.fromkeys(picked)), np.int64)[: options.k or RANKED], options.temperature)


@dataclass(frozen=True)
class _Ranked:
    """Scores [documents] by which `order` (positions, best first, no example among them) goes; what they are made of."""

    scores: Array
    order: Array
    rankings: dict[str, Array]
    votes: dict[str, float]


def _ranked(rankings: dict[str, Array], examples: Array, votes: Mapping[str, float] | None) -> _Ranked:
    scores = fused(rankings, votes)
    order = np.argsort(-scores, kind="stable")
    if len(examples):
        order = order[~np.isin(order, examples)]
    shares = {name: 1.0 if votes is None else votes[name] for name in rankings}
    total = sum(shares.values())
    return _Ranked(scores, order, rankings, {name: share / total for name, share in shares.items()})


def _carriers(workspace: Workspace, documents: Array, weights: Mapping[int, float], scale: bool) -> list[list[dict]]:
    """For each of `documents` the features that add (or take) most, the most first."""
    of_feature = np.zeros(workspace.manifest["width"])
    of_feature[list(weights)] = list(weights.values())
    rows = feature_rows(workspace, documents, scale)
    carriers = []
    for row in np.searchsorted(np.sort(documents), documents):
        inside = slice(rows.indptr[row], rows.indptr[row + 1])
        features, added = rows.indices[inside], rows.data[inside] * of_feature[rows.indices[inside]]
        most = np.argsort(-np.abs(added), kind="stable")[:CARRIERS]
        carriers.append(
            [{"feature": int(features[i]), "contribution": round(float(added[i]), 4)} for i in most if added[i]]
        )
    return carriers


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
    for id in unlike:
        if id in like:
            raise InputError(
                f"document {id!r} is given both as one that has it (like) and as one that has it not (unlike)"
            )
    if unlike and not like:
        raise InputError("examples that have it not (unlike) need examples that have it (like)")
    if dropped and query is None and not like:
        raise InputError("features can only be left out (without) of a query or of examples")
    for feature in dropped:
        if feature in chosen:
            raise InputError(f"feature {feature} is both given a weight and left out")


def _check_weights(workspace: Workspace, features: Mapping[int, float]) -> dict[int, float]:
    width = workspace.manifest["width"]
    for feature in features:
        if not 0 <= int(feature) < width:
            raise InputError(f"{workspace.folder}: no feature {feature}; they go from 0 to {width - 1}")
    return {int(f): float(w) for f, w in features.items()}
