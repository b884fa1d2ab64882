"""Jaccard affinity between documents, as a sparse graph, and its spectral embedding.

Documents that have exactly the same features are one node, a *pattern*, which stands for all of them: their
affinities are equal, and a corpus that is looked at through a few features has few patterns.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numba
import numpy as np
from scipy.sparse import csr_matrix, diags, identity
from scipy.sparse.linalg import LinearOperator, eigsh
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from hourglass.nn.parallel import over_rows

Array = np.ndarray[Any, Any]

_DENSE = 400  # nodes up to which all eigenvectors are computed at once


@dataclass(frozen=True)
class Patterns:
    """The distinct rows of a binary matrix, the commonest first.

    rows     [p, features] 1 where the pattern has the feature
    of       [n] pattern of each document
    weight   [p] documents of each pattern
    """

    rows: csr_matrix
    of: Array
    weight: Array


def patterns(present: csr_matrix) -> Patterns:
    """The patterns of documents [n, features]; ties of the order are broken by the first document."""
    present = present.tocsr()
    present.sort_indices()
    bounds, indices = present.indptr, present.indices
    number: dict[bytes, int] = {}
    of = np.array([number.setdefault(indices[a:b].tobytes(), len(number)) for a, b in pairwise(bounds)], np.int64)
    first = np.unique(of, return_index=True)[1]
    weight = np.bincount(of, minlength=len(number))
    order = np.argsort(-weight, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return Patterns(present[first[order]], place[of], weight[order])


def jaccard_graph(rows: csr_matrix, neighbours: int) -> csr_matrix:
    """[p, p] symmetric Jaccard similarities of each row with itself (1), with its nearest, and with those it is near to.

    Exact: rows that share no feature have similarity 0 and are never met, because candidates come from lists of the
    rows that have each feature. Of rows equally near, those that come first are taken. Memory is p numbers a thread
    beside the graph itself; with as many neighbours as there are other rows the graph is complete.
    """
    p = rows.shape[0]
    sizes = np.diff(rows.indptr)
    if neighbours >= p - 1:
        shared = (rows @ rows.T).tocoo()
        similarity = shared.data / (sizes[shared.row] + sizes[shared.col] - shared.data)
        return csr_matrix((similarity, (shared.row, shared.col)), shape=(p, p))
    lists = rows.tocsc()
    similarity, nearest = np.zeros((p, neighbours)), np.full((p, neighbours), -1, np.int64)
    arrays = rows.indptr, rows.indices, lists.indptr, lists.indices, sizes.astype(np.int32)
    over_rows(_nearest, p, *arrays, similarity, nearest)
    row, column = np.repeat(np.arange(p), neighbours), nearest.ravel()
    met = column >= 0
    one_way = csr_matrix((similarity.ravel()[met], (row[met], column[met])), shape=(p, p))
    return (one_way.maximum(one_way.T) + identity(p)).tocsr()


@numba.njit(cache=True, nogil=True)
def _nearest(
    indptr: Any,
    indices: Any,
    list_indptr: Any,
    list_rows: Any,
    sizes: Any,
    best: Any,
    nearest: Any,
    start: int,
    stop: int,
) -> None:
    """Similarity and number [p, k] of the nearest other rows, the nearest first; what there is no more of stays as it is."""
    shared = np.zeros(len(sizes), np.int32)
    met = np.empty(len(sizes), np.int32)
    k = nearest.shape[1]
    for row in range(start, stop):
        number = 0
        for at in range(indptr[row], indptr[row + 1]):
            feature = indices[at]
            for place in range(list_indptr[feature], list_indptr[feature + 1]):
                other = list_rows[place]
                if shared[other] == 0:
                    met[number] = other
                    number += 1
                shared[other] += 1
        for i in range(number):
            other = met[i]
            both = shared[other]
            shared[other] = 0
            if other == row:
                continue
            similarity = both / (sizes[row] + sizes[other] - both)
            last = k - 1
            if nearest[row, last] >= 0 and (
                similarity < best[row, last] or (similarity == best[row, last] and other > nearest[row, last])
            ):
                continue
            while last > 0 and (
                nearest[row, last - 1] < 0
                or similarity > best[row, last - 1]
                or (similarity == best[row, last - 1] and other < nearest[row, last - 1])
            ):
                best[row, last] = best[row, last - 1]
                nearest[row, last] = nearest[row, last - 1]
                last -= 1
            best[row, last] = similarity
            nearest[row, last] = other


def spectrum(graph: csr_matrix, weight: Array, number: int, random: np.random.Generator) -> tuple[Array, Array]:
    """The `number` largest eigenvalues, falling, of the documents' normalised affinity, and eigenvectors [p, number].

    The graph is of patterns, `weight` the documents of each; there may be fewer eigenvalues when there are few patterns.
    Every pair of documents is given a little affinity more, a mean document's whole affinity spread over all (Zhang
    and Rohe 2018): otherwise a handful of documents that hang together by a thread are the best cut of a sparse graph.
    """
    weight = weight.astype(np.float64)
    # From all documents of one pattern to all of another; none is a neighbour of itself.
    affinity = diags(weight) @ graph @ diags(weight) - diags(weight)
    degree = np.asarray(affinity.sum(1)).ravel()
    spread = max(degree.sum() / weight.sum(), 1e-12)
    root = np.sqrt(degree + spread * weight)
    lone = weight / root * np.sqrt(spread / weight.sum())
    p = len(weight)
    scaled = (diags(1 / root) @ affinity @ diags(1 / root)).tocsr()
    if p <= max(_DENSE, number + 1):
        values, vectors = np.linalg.eigh(scaled.toarray() + np.outer(lone, lone))
    else:
        operator = LinearOperator((p, p), matvec=lambda x: scaled @ x.ravel() + lone * (lone @ x.ravel()))
        values, vectors = eigsh(operator, number, which="LA", v0=random.normal(size=p), tol=1e-8)
    order = np.argsort(-values, kind="stable")[:number]
    return values[order], vectors[:, order]


def by_eigengap(eigenvalues: Array, most: int) -> int:
    """The number of clusters, from two to `most`, after which the eigenvalues (falling) drop most."""
    # Where there are fewer patterns, further ones are about 0: documents of one pattern differ in nothing.
    values = np.append(eigenvalues, np.zeros(max(0, most + 1 - len(eigenvalues))))[: most + 1]
    return int(np.argmax(values[1:-1] - values[2:])) + 2


def parts(vectors: Array, weight: Array, seed: int) -> Array:
    """[p] at most as many parts as there are eigenvectors [p, number]: k-means over their rows, scaled to norm 1 (Ng et al. 2001)."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    means = KMeans(vectors.shape[1], n_init=10, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer parts than asked for: the caller counts them
        return np.asarray(means.fit_predict(unit, sample_weight=weight), np.int64)
