"""What documents have, features and words alike, and which of it tells a property on documents that chose nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csc_matrix, csr_matrix, vstack
from scipy.stats import hypergeom

import hourglass as hg
from hourglass.uses.explore.presence import present_by_shard
from hourglass.uses.explore.ridge import Direction
from hourglass.uses.explore.scores import dense_rows

Array = np.ndarray[Any, Any]

LEVEL = 0.5
"""The library's rule of presence: half of a feature's 90th percentile."""
ALPHA = 0.05
"""A one-sided p below it confirms a direction. Nulls pass once in twenty, what is weak often does not: on balance what is
true is more often called false than the other way round."""


def presence(workspace: hg.Workspace) -> csr_matrix:
    """[documents, features, then words] 1 where a document has it."""
    return vstack(list(present_by_shard(workspace, np.arange(len(workspace)), LEVEL, 1)), format="csr")


def middle(workspace: hg.Workspace) -> Array:
    """[documents, d] mean states in the middle of the model."""
    return dense_rows(workspace, np.arange(len(workspace)), "middle")


def more_like(direction: Direction, present: csr_matrix, middle: Array) -> csr_matrix:
    """[documents, 1] 1 where a document lies above the direction's bar: present and middle as above."""
    return csr_matrix((direction.sums(present, middle) > direction.bar).astype(np.float32)[:, None])


def share_gap(present: csr_matrix, has: Array) -> Array:
    """[columns] share of the documents with the property (mask `has`) that have the column, less that of the others."""
    return np.asarray(present[has].mean(0) - present[~has].mean(0)).ravel()


def confirmed(present: csr_matrix, has: Array, columns: Array, more: Array) -> Array:
    """[len(columns)] whether documents with the property have each column more often (or, where not `more`, less often).

    Fisher's exact test, one-sided, at `ALPHA`.
    """
    inside = np.asarray(present[has].sum(0)).ravel()[columns]
    overall = np.asarray(present.sum(0)).ravel()[columns]
    total, number = present.shape[0], int(has.sum())
    above = hypergeom.sf(inside - 1, total, overall, number)
    below = hypergeom.cdf(inside, total, overall, number)
    return np.asarray(np.where(more, above, below) < ALPHA)


def best_f1(present: csc_matrix, has: Array, columns: Array) -> float:
    """The largest F1 of a single one of `columns` as a sign of the property; 0 without any."""
    if not len(columns):
        return 0.0
    picked = present[:, columns].tocsc()
    both = np.asarray(picked[has].sum(0)).ravel()
    return float((2 * both / np.maximum(np.asarray(picked.sum(0)).ravel() + has.sum(), 1)).max())
