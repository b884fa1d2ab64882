"""Names for all clusters at once, and what is shown of each.

A term counts for the one cluster that has it more often than every other, and no two names share a word, nor two
words that begin alike. Names are made on one half of the documents; on the other half the names alone put each document
into a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix

from hourglass.uses.explore.labels import CLEAR, clarity, quoted, says_form, says_nothing
from hourglass.uses.explore.stems import stems

if TYPE_CHECKING:
    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]

TERMS = 5
"""Most terms in a name."""
SHOWN = 5
"""Features, words and documents told of each cluster."""

_FLOOR = 0.05  # added to shares whose ratio is taken; also the least gap that a term of a name must have


@dataclass(frozen=True)
class Terms:
    """Features of the axis, then words: what a name can hold.

    texts   what is shown; None for a feature without a name
    labels  whole names, None for a feature without one
    shares  [terms, clusters] share of the documents of each cluster, in the half that names, that have the term
    counts  [terms, clusters] the same over all documents, with `sizes` [clusters]
    axis    [features] numbers of the features
    """

    texts: list[str | None]
    labels: list[str | None]
    shares: Array
    counts: Array
    sizes: Array
    axis: Array

    def of(self, cluster: int) -> Array:
        """Which terms tell this cluster from each other one, and how well: the gap times the ratio of the shares."""
        others = np.delete(self.shares, cluster, axis=1).max(1)
        gap = self.shares[:, cluster] - others
        return np.where(gap >= _FLOOR, gap * self.log_ratio(cluster), 0)

    def log_ratio(self, cluster: int) -> Array:
        others = np.delete(self.shares, cluster, axis=1).max(1)
        return np.log((self.shares[:, cluster] + _FLOOR) / (others + _FLOOR))


@dataclass(frozen=True)
class Name:
    """Terms by number, and what each adds when a document has it."""

    text: str | None
    terms: list[int]
    weights: list[float]


def terms_of(
    workspace: Workspace, features: Array, present: csr_matrix, assignment: Array, half: Array, count: int
) -> Terms:
    inside = assignment > 0
    cells = np.where(inside, 2 * (assignment - 1) + half, -1)
    number = 2 * count
    by_feature = _sums(cells, number, present)
    by_word = np.zeros((number, len(workspace.words)))
    start = 0
    for arrays in workspace.stored("word_indptr", "word_indices"):
        stop = start + len(arrays["word_indptr"]) - 1
        words = arrays["word_indices"]
        ones = np.ones(len(words), np.float32)
        shard = csr_matrix((ones, words, arrays["word_indptr"]), shape=(stop - start, len(workspace.words)))
        by_word += _sums(cells[start:stop], number, shard)
        start = stop
    counts = np.concatenate([by_feature, by_word], axis=1).T
    sizes = np.bincount(cells[inside], minlength=number)
    labels = workspace.labels(features)
    first = workspace.features["terms"].iloc[features]
    shown = [None if label is None else str(terms[0]) for label, terms in zip(labels, first)]
    return Terms(
        texts=[*shown, *workspace.words],
        labels=[*labels, *workspace.words],
        shares=counts[:, 0::2] / np.maximum(sizes[0::2], 1),
        counts=counts[:, 0::2] + counts[:, 1::2],
        sizes=sizes[0::2] + sizes[1::2],
        axis=features,
    )


def _sums(cells: Array, number: int, rows: csr_matrix) -> Array:
    """[number, columns] sums of the rows of each cell; a row in cell -1 is left out."""
    inside = np.flatnonzero(cells >= 0)
    ones = np.ones(len(inside), np.float32)
    membership = csr_matrix((ones, (cells[inside], inside)), shape=(number, rows.shape[0]))
    return np.asarray((membership @ rows).todense(), np.float64)


def names_of(terms: Terms) -> list[Name]:
    """All clusters' names at once, the most telling term first; no two hold the same word.

    Words such as "the", and phrases that begin or end with one, name only what nothing else does; signs and shapes come last.
    """
    number = terms.shares.shape[1]
    worth = np.stack([terms.of(c) for c in range(number)])
    plain = np.zeros(worth.shape[1], bool)
    for term in np.flatnonzero(worth.max(0) > 0):
        plain[term] = terms.texts[term] is not None and _is_plain(str(terms.texts[term]))
    chosen: list[list[int]] = [[] for _ in range(number)]
    taken: set[str] = set()
    for allowed in (plain, ~plain):
        nameless = [c for c in range(number) if not chosen[c]]
        for flat in np.argsort(-np.where(allowed, worth, 0), axis=None, kind="stable"):
            cluster, term = divmod(int(flat), worth.shape[1])
            if not allowed[term] or worth[cluster, term] <= 0:
                break
            text = terms.texts[term]
            if text is None or cluster not in nameless or len(chosen[cluster]) == TERMS or taken & stems(text):
                continue
            chosen[cluster].append(term)
            taken |= stems(text)
    names = []
    for cluster, picked in enumerate(chosen):
        picked = sorted(picked, key=lambda t: -clarity([str(terms.texts[t])]))
        texts = [quoted(str(terms.texts[t])) for t in picked]
        names.append(Name(", ".join(texts) or None, picked, terms.log_ratio(cluster)[picked].tolist()))
    return names


def _is_plain(term: str) -> bool:
    return clarity([term]) == CLEAR or (says_form([term]) and not says_nothing([term]))


def by_names(workspace: Workspace, names: Sequence[Name], present: csr_matrix, half: Array) -> Array:
    """[documents] the cluster (from 1) whose name fits each held-out document best; 0 where none fits."""
    features = present.shape[1]
    weights: dict[int, tuple[int, float]] = {
        term: (c, weight) for c, name in enumerate(names) for term, weight in zip(name.terms, name.weights)
    }
    words = [t for t in weights if t >= features]
    scores = _weighted(present, {t: w for t, w in weights.items() if t < features}, len(names))
    start = 0
    for coded in workspace.coded():
        here = slice(start, start + coded.words.shape[0])
        picked = coded.words[:, [t - features for t in words]]
        scores[here] += _weighted(picked, {i: weights[t] for i, t in enumerate(words)}, len(names))
        start = here.stop
    best = np.where(scores.max(1) > 0, scores.argmax(1) + 1, 0)
    return np.where(half == 1, best, -1)


def _weighted(rows: csr_matrix, weights: Mapping[int, tuple[int, float]], number: int) -> Array:
    """[rows, number] for each cluster the sum of the weights of its columns that a row has."""
    columns = np.zeros((rows.shape[1], number))
    for column, (cluster, weight) in weights.items():
        columns[column, cluster] = weight
    return np.asarray(rows @ columns)


def by_nearest_mean(present: csr_matrix, shares: Array) -> Array:
    """[documents] the cluster (from 1) whose mean over the naming half is nearest by cosine."""
    means = shares / np.maximum(np.linalg.norm(shares, axis=0), 1e-12)
    return np.asarray(np.argmax(present @ means, axis=1)) + 1


# What is shown of them ------------------------------------------------------------------------------


def shown_of(workspace: Workspace, terms: Terms, central: Sequence[Array]) -> list[dict[str, Any]]:
    """Of each cluster: features and words by inside minus outside share (all documents), and its central documents."""
    rows = workspace.rows(np.concatenate(central).tolist(), ["_id", workspace.text_column]).to_pydict()
    documents = [
        {"id": str(id), "text": text} for id, text in zip(rows["_id"], rows[workspace.text_column], strict=True)
    ]
    everything, total = terms.counts.sum(1), terms.sizes.sum()
    number, start, shown = len(terms.axis), 0, []
    for cluster, positions in enumerate(central):
        within = terms.counts[:, cluster] / max(terms.sizes[cluster], 1)
        outside = (everything - terms.counts[:, cluster]) / max(total - terms.sizes[cluster], 1)
        gap = within - outside
        best = {
            "features": np.argsort(-gap[:number], kind="stable")[:SHOWN],
            "words": number + np.argsort(-gap[number:], kind="stable")[:SHOWN],
        }
        entry: dict[str, Any] = {}
        for kind, picked in best.items():
            entry[kind] = [
                {
                    **({"feature": int(terms.axis[t])} if kind == "features" else {}),
                    "label": terms.labels[t],
                    "inside": round(float(within[t]), 4),
                    "outside": round(float(outside[t]), 4),
                }
                for t in picked
                if gap[t] > 0
            ]
        entry["central"] = documents[start : start + len(positions)]
        start += len(positions)
        shown.append(entry)
    return shown
