"""Find documents that have a property: by words, by example documents, or by chosen features.

A query becomes a short ranked list of features, the r-th of k weighted exp(-(r / k) / temperature); a
document's score is the weighted sum of its maxima, each divided by the feature's 90th percentile. The
ranking is fused with that of the dense vectors (reciprocal ranks), because the two miss different things.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hourglass.errors import InputError
from hourglass.metrics.ranking import reciprocal_rank_fusion

if TYPE_CHECKING:
    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class FindOptions:
    """How a query is turned into features and scores.

    k            most features a query turns into
    temperature  how fast the weight falls along them; the smaller, the more the first one rules
    scale        divide each feature by its 90th percentile
    fuse         fuse with the ranking by dense vectors; False ranks by features alone
    top          number of documents returned
    """

    k: int = 20
    temperature: float = 0.2
    scale: bool = True
    fuse: bool = True
    top: int = 20


@dataclass(frozen=True)
class Found:
    """documents: position, id, score, text, best first; features: feature, label, weight, as they were used."""

    query: Any
    documents: pd.DataFrame
    features: pd.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return {
            "query": self.query,
            "features": json.loads(self.features.to_json(orient="records")),
            "documents": json.loads(self.documents.to_json(orient="records")),
        }


def find(
    workspace: Workspace,
    query: str | None = None,
    *,
    like: Sequence[str] = (),
    unlike: Sequence[str] = (),
    features: Mapping[int, float] | None = None,
    options: FindOptions,
) -> Found:
    """Rank all documents by a text query, by ids of examples (`like`, `unlike`), or by features with weights.

    Exactly one of the three is given; InputError says so otherwise, and names an id or feature that does not exist.
    """
    given = [query is not None, bool(like), features is not None]
    if sum(given) != 1:
        raise InputError("find needs exactly one of: a query, example documents (like), features with weights")
    dense_query: Array | None = None
    if features is not None:
        weights = _check_weights(workspace, features)
    elif query is not None:
        if not query.strip():
            raise InputError("the query is empty")
        dense_query = query_vector(workspace, query)
        weights = weights_from_query(workspace, dense_query, options)
    else:
        positive, negative = workspace.positions(like), workspace.positions(unlike)
        weights = weights_from_examples(workspace, positive, negative, options)
        dense_query = _unit(workspace.dense)[positive].mean(0)
    scores = feature_scores(workspace, weights, options.scale)
    if options.fuse and dense_query is not None:
        dense = dense_scores(workspace, dense_query)
        scores = reciprocal_rank_fusion([scores, dense]) if weights else dense
    best = np.argsort(-scores, kind="stable")
    if like:
        best = best[~np.isin(best, workspace.positions([*like, *unlike]))]
    best = best[: options.top]
    rows = workspace.rows(best.tolist(), ["_id", workspace.text_column])
    documents = pd.DataFrame(
        {
            "position": best,
            "id": rows.column(0).to_pylist(),
            "score": scores[best],
            "text": rows.column(1).to_pylist(),
        }
    )
    used = pd.DataFrame(
        [(f, workspace.features["label"].iloc[f], w) for f, w in weights.items()],
        columns=["feature", "label", "weight"],
    )
    return Found(query if query is not None else list(like) or dict(features or {}), documents, used)


def query_vector(workspace: Workspace, query: str) -> Array:
    """[d] mean token state of the query, as the documents' dense vectors are made."""
    states = workspace.coder.reader.read([query]).states.float()
    if not len(states):
        raise InputError(f"the query {query!r} holds nothing that the encoder reads")
    return states.mean(0).numpy()


def weights_from_query(workspace: Workspace, vector: Array, options: FindOptions) -> dict[int, float]:
    """The labelled features whose labels are nearest to the query vector [d], weighted by rank."""
    similarity = workspace.label_vectors @ _unit(vector)
    labelled = np.flatnonzero(np.any(workspace.label_vectors != 0, axis=1))
    best = labelled[np.argsort(-similarity[labelled], kind="stable")][: options.k]
    return _by_rank(best, options.temperature)


def weights_from_examples(
    workspace: Workspace, positive: Array, negative: Array, options: FindOptions
) -> dict[int, float]:
    """The features that the examples have more often than `negative`, or than the corpus where there are none."""
    level = 0.5 * workspace.features["p90"].to_numpy(np.float32)
    with_it, without_it, everywhere = np.zeros(len(level)), np.zeros(len(level)), np.zeros(len(level))
    start = 0
    for coded in workspace.coded():
        present = coded.codes.present(level)
        stop = start + present.shape[0]
        for rows, sums in ((positive, with_it), (negative, without_it)):
            here = rows[(rows >= start) & (rows < stop)] - start
            sums += np.asarray(present[here].sum(0)).ravel()
        everywhere += np.asarray(present.sum(0)).ravel()
        start = stop
    rest = without_it / len(negative) if len(negative) else everywhere / len(workspace)
    gain = with_it / len(positive) - rest
    best = np.argsort(-gain, kind="stable")[: options.k]
    return _by_rank(best[gain[best] > 0], options.temperature)


def feature_scores(workspace: Workspace, weights: Mapping[int, float], scale: bool = True) -> Array:
    """[documents] weighted sum of (scaled) maxima."""
    vector = np.zeros(workspace.manifest["width"], np.float32)
    p90 = workspace.features["p90"].to_numpy(np.float32)
    for feature, weight in weights.items():
        vector[feature] = weight / (p90[feature] if scale and p90[feature] > 0 else 1)
    return np.concatenate([coded.codes.matrix("max") @ vector for coded in workspace.coded()])


def dense_scores(workspace: Workspace, vector: Array) -> Array:
    """[documents] cosine of the documents' dense vectors with `vector` [d]."""
    query = _unit(vector)
    return np.concatenate([_unit(coded.dense.astype(np.float32)) @ query for coded in workspace.coded()])


def _by_rank(features: Array, temperature: float) -> dict[int, float]:
    rank = np.arange(len(features)) / max(len(features), 1)
    return {int(f): float(w) for f, w in zip(features, np.exp(-rank / temperature))}


def _check_weights(workspace: Workspace, features: Mapping[int, float]) -> dict[int, float]:
    width = workspace.manifest["width"]
    for feature in features:
        if not 0 <= int(feature) < width:
            raise InputError(f"{workspace.folder}: no feature {feature}; they go from 0 to {width - 1}")
    return {int(f): float(w) for f, w in features.items()}


def _unit(x: Array) -> Array:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
