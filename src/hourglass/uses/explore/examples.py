"""What examples turn a search into: features, a dense vector and words.

Either learned: of each of the three the direction that best parts the examples from those that have it not, or from a
sample of the corpus. Or by rule: the features that examples have more often, weighted by rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix

from hourglass.errors import InputError
from hourglass.uses.explore.discriminant import discriminant
from hourglass.uses.explore.fusion import votes
from hourglass.uses.explore.scores import (
    dense_rows,
    dense_scores,
    feature_counts,
    feature_rows,
    presence_scores,
    unit,
    word_rows,
)

if TYPE_CHECKING:
    from hourglass.uses.explore.find import FindOptions
    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]

WORDS = 10
"""Words that examples turn into by rule."""
RANKED, LEARNED = 20, 400
"""Most features that a question turns into: by rule, and learned."""
BACKGROUND = 200
"""Documents that examples are parted from where none is said to have it not."""


@dataclass(frozen=True)
class Learned:
    """Weights of features, the largest 1; scores [documents] of the other rankings; the vote of every ranking."""

    weights: dict[int, float]
    scores: dict[str, Array]
    votes: dict[str, float]


def learned(workspace: Workspace, positive: Array, negative: Array, options: FindOptions) -> Learned:
    """The rankings that part the examples best, with the votes that they earn on examples they have not seen.

    Of the features those of largest weight rank; their vote is that of all together. What parts nothing has no ranking.
    InputError where no document is left beside the examples.
    """
    rows = np.union1d(positive, negative if len(negative) else _background(workspace, positive))
    has = np.isin(rows, positive)
    examples: dict[str, Array | csr_matrix] = {"features": feature_rows(workspace, rows, options.scale)}
    if "dense" in options.fuse:
        examples["dense"] = unit(dense_rows(workspace, rows))
    if "words" in options.fuse:
        examples["words"] = word_rows(workspace, rows)
    directions, unseen = {}, {}
    for name, x in examples.items():
        directions[name], unseen[name] = discriminant(x, has)
    score_by = {"dense": dense_scores, "words": presence_scores}
    scores = {name: by(workspace, directions[name]) for name, by in score_by.items() if np.any(directions.get(name, 0))}
    return Learned(_largest(directions["features"], options.k or LEARNED), scores, votes(unseen, has))


def _background(workspace: Workspace, positive: Array) -> Array:
    """Documents drawn from those that are no example, the same in every call."""
    number = min(len(workspace), BACKGROUND + len(positive))
    drawn = np.random.default_rng(0).choice(len(workspace), number, replace=False)
    others = drawn[~np.isin(drawn, positive)][:BACKGROUND]
    if not len(others):
        raise InputError("all documents are examples; none is left to be found")
    return others


def _largest(weights: Array, number: int) -> dict[int, float]:
    """The weights of largest size over the largest of them, what speaks most for the property first."""
    best = np.argsort(-np.abs(weights), kind="stable")[:number]
    best = best[weights[best] != 0]
    best = best[np.argsort(-weights[best], kind="stable")]
    largest = np.abs(weights[best]).max(initial=0)
    return {int(f): float(weights[f] / largest) for f in best}


# By rule --------------------------------------------------------------------------------------------


def weights_from_examples(
    workspace: Workspace, positive: Array, negative: Array, options: FindOptions
) -> dict[int, float]:
    """The features that the examples have more often than `negative`, or than the corpus where there are none."""
    if len(negative):
        rest = feature_counts(workspace, negative) / len(negative)
    else:
        rest = workspace.features["documents"].to_numpy() / len(workspace)
    gain = feature_counts(workspace, positive) / len(positive) - rest
    best = np.argsort(-gain, kind="stable")[: options.k or RANKED]
    return by_rank(best[gain[best] > 0], options.temperature)


def vector_from_examples(workspace: Workspace, positive: Array, negative: Array) -> Array:
    """[d] mean unit vector of the examples, less that of `negative` where there are any (Rocchio 1971)."""
    mean = unit(dense_rows(workspace, positive)).mean(0)
    return mean - unit(dense_rows(workspace, negative)).mean(0) if len(negative) else mean


def words_from_examples(workspace: Workspace, positive: Array, negative: Array) -> dict[int, float]:
    """The words of highest offer weight r * w, with their relevance weights w (Robertson and Sparck Jones 1976).

    The rest of the corpus is what the examples are weighed against; a word that the `negative` have as often is none.
    """
    total = np.zeros(len(workspace.words), np.int64)
    for arrays in workspace.stored("word_indices"):
        total += np.bincount(arrays["word_indices"], minlength=len(total))
    r, number = _counts(workspace, positive), len(positive)
    n, rest = total - r, len(workspace) - number
    weight = np.log((r + 0.5) * (rest - n + 0.5) / ((n + 0.5) * (number - r + 0.5)))
    if len(negative):
        weight[r / number <= _counts(workspace, negative) / len(negative)] = 0
    best = np.argsort(-r * weight, kind="stable")[:WORDS]
    return {int(w): float(weight[w]) for w in best if r[w] > 0 and weight[w] > 0}


def by_rank(features: Array, temperature: float) -> dict[int, float]:
    """The paper's weights: the r-th of k features, from 0, has exp(-(r / k) / temperature)."""
    rank = np.arange(len(features)) / max(len(features), 1)
    return {int(f): float(w) for f, w in zip(features, np.exp(-rank / temperature))}


def _counts(workspace: Workspace, rows: Array) -> Array:
    """[words] how many of the documents at `rows` have each word."""
    return np.bincount(word_rows(workspace, rows).indices, minlength=len(workspace.words))
