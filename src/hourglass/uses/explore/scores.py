"""Scores of all documents by features, a dense vector or words, and counts over some; shard by shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.sparse import csr_matrix, vstack

from hourglass.uses.explore.presence import picked

if TYPE_CHECKING:
    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]

LEVEL = 0.5
"""A document has a feature above this share of its 90th percentile, as in the table of features."""

_K1, _B = 1.2, 0.75  # BM25's usual constants


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
        together.data /= _scales(workspace)[list(features)][together.indices]
    return together


def feature_scores(workspace: Workspace, weights: Mapping[int, float], scale: bool = True) -> Array:
    """[documents] weighted sum of (scaled) maxima."""
    return weighted_sums(workspace, [weights], scale)[:, 0]


def weighted_sums(workspace: Workspace, questions: Sequence[Mapping[int, float]], scale: bool = True) -> Array:
    """[documents, questions] the same for several weightings in one reading."""
    width = workspace.manifest["width"]
    weights = np.zeros((width, len(questions)), np.float32)
    for column, question in enumerate(questions):
        weights[list(question), column] = list(question.values())
    if scale:
        weights /= _scales(workspace)[:, None]
    return np.concatenate(
        [
            csr_matrix((single(a["maximum"]), a["indices"], a["indptr"]), (len(a["indptr"]) - 1, width)) @ weights
            for a in workspace.stored("indptr", "indices", "maximum")
        ]
    )


def dense_scores(workspace: Workspace, vectors: Array) -> Array:
    """[documents] cosine of the documents' dense vectors with a vector [d], or [documents, m] with each of vectors [m, d]."""
    asked = unit(vectors).astype(np.float32).T
    parts = []
    for arrays in workspace.stored("dense"):
        dense = single(arrays["dense"])
        length = np.sqrt(np.einsum("nd,nd->n", dense, dense))
        parts.append(((dense @ asked).T / np.maximum(length, 1e-12)).T)
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


def presence_scores(workspace: Workspace, weights: Array) -> Array:
    """[documents] sum of the `weights` [words] of the words that a document has."""
    parts = []
    for a in workspace.stored("word_indptr", "word_indices"):
        total = np.concatenate([[0.0], np.cumsum(weights[a["word_indices"]])])
        parts.append(np.diff(total[a["word_indptr"]]))
    return np.concatenate(parts)


def feature_counts(workspace: Workspace, rows: Array) -> Array:
    """[features] how many of the documents at `rows` have each feature."""
    level = LEVEL * workspace.features["p90"].to_numpy(np.float32)
    counts = np.zeros(len(level), np.int64)
    for arrays, inside in workspace.shards_of(rows, "indptr", "indices", "maximum"):
        for a, b in zip(arrays["indptr"][inside], arrays["indptr"][inside + 1]):
            features = arrays["indices"][a:b]
            counts[features[arrays["maximum"][a:b] > level[features]]] += 1
    return counts


def dense_rows(workspace: Workspace, rows: Array, name: str = "dense") -> Array:
    """[rows, d] dense vectors of the documents at `rows`, in rising order: of `CodedDocuments` "dense" or "middle"."""
    parts = [file.get_slice(name)[r : r + 1] for file, inside in workspace.files_of(rows) for r in map(int, inside)]
    return np.concatenate(parts).astype(np.float32)


def feature_rows(workspace: Workspace, rows: Array, scale: bool = True) -> csr_matrix:
    """[rows, features] (scaled) maxima of the documents at `rows`, in rising order."""
    found = _sparse_rows(workspace, rows, ("indptr", "indices", "maximum"), workspace.manifest["width"])
    if scale:
        found.data /= _scales(workspace)[found.indices]
    return found


def word_rows(workspace: Workspace, rows: Array) -> csr_matrix:
    """[rows, words] 1 where a document at `rows` (in rising order) has the word."""
    return _sparse_rows(workspace, rows, ("word_indptr", "word_indices"), len(workspace.words))


def _sparse_rows(workspace: Workspace, rows: Array, names: Sequence[str], width: int) -> csr_matrix:
    """Rows of a stored CSR matrix, by the names of its bounds, columns and values (ones without); no others are read."""
    bounds, columns, values = [0], [np.zeros(0, np.int32)], [np.zeros(0, np.float32)]
    for file, inside in workspace.files_of(rows):
        indptr = file.get_tensor(names[0])
        for a, b in zip(indptr[inside].tolist(), indptr[inside + 1].tolist()):
            bounds.append(bounds[-1] + b - a)
            if b > a:  # no slice may be empty
                columns.append(file.get_slice(names[1])[a:b])
                values.append(file.get_slice(names[2])[a:b] if len(names) > 2 else np.ones(b - a))
    data = np.concatenate(values).astype(np.float32)
    return csr_matrix((data, np.concatenate(columns), bounds), shape=(len(bounds) - 1, width))


def _scales(workspace: Workspace) -> Array:
    """[features] what maxima are divided by: the 90th percentile, 1 for a feature that never fires."""
    p90 = workspace.features["p90"].to_numpy(np.float32)
    return np.where(p90 > 0, p90, np.float32(1))


def single(x: Array) -> Array:
    """Of half precision float32. Torch does that with the processor's own instruction, five times as fast as NumPy."""
    return torch.from_numpy(x).float().numpy()


def unit(x: Array) -> Array:
    """Vectors of norm 1."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
