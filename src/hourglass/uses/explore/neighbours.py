"""Which documents are most alike by one of their texts, and the groups around each, where no item marks a kind.

Of a document's nearest by a text some are only near; those whose own nearest are the same ones as well are more often of its kind
(shared nearest neighbours: Jarvis and Patrick 1973). Of the fifteen and sixty around a request to a bank more have its intent so, and
the other text tells more of them (docs/LOG.md).

Cost: the square of the documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import csc_matrix, csr_matrix, hstack

Array = np.ndarray[Any, Any]

AMONG = 30
"""The nearest of a document among which shared ones are counted."""
NEIGHBOURS, MOST = 15, 60
"""Of a document: as few as tell a small kind, and as many as a larger one has."""
OF = 20
"""But each of these at most one of so many documents."""


def nearest(grams: Sequence[Array], random: np.random.Generator) -> Array:
    """[rows, MOST or fewer] the other rows most alike to each, the most alike first, by all views in equal parts, of each of which
    the products of rows less their mean [rows, rows] are given.

    Near are rows that differ from the average one in the same way, by their cosine; alike those that share most of their nearest, of
    as many shared the nearer. Of equals some at random, drawn anew for each text: in the order in which they stand they would be
    the same by both.
    """
    total = len(grams[0])
    near = np.zeros((total, total))
    for gram in grams:
        length = np.sqrt(np.maximum(np.diag(gram), np.finfo(float).tiny))
        cosine = gram / length
        cosine /= length[:, None]
        cosine /= max(cosine.std(), np.finfo(float).tiny)
        near += cosine
    order = random.permutation(total)
    near = near[np.ix_(order, order)]
    np.fill_diagonal(near, np.inf)  # a row is the nearest of its own
    has = _marks(_first(near, _at_most(AMONG, total) + 1))
    np.fill_diagonal(near, 0)
    near /= 2 * max(np.abs(near).max(), np.finfo(float).tiny)  # less than one shared row
    near += (has @ has.T).toarray()
    np.fill_diagonal(near, -np.inf)
    alike = np.empty((total, _at_most(MOST, total)), np.int64)
    alike[order] = order[_first(near, alike.shape[1])]
    return alike


def groups_around(alike: Array) -> tuple[csc_matrix, Array]:
    """[rows, groups] 1 where a row is of a group: around each row the NEIGHBOURS most alike, and all of them; and [groups] its row.

    alike  [rows, most alike] what `nearest` gives
    """
    total, most = alike.shape
    members = np.hstack([np.arange(total)[:, None], alike])
    sizes = sorted({min(NEIGHBOURS, most), most})
    groups = hstack([_marks(members[:, : size + 1]).T for size in sizes], format="csc")
    return groups, np.tile(np.arange(total), len(sizes))


def apart(groups: csc_matrix, centre: Array, order: Array) -> Array:
    """Those of the groups, in this order, that are around no row of one that stands before.

    groups, centre  what `groups_around` gives
    order           numbers of groups
    """
    taken, kept = np.zeros(groups.shape[0], bool), []
    for k in order:
        if not taken[centre[k]]:
            kept.append(k)
            taken[groups.indices[groups.indptr[k] : groups.indptr[k + 1]]] = True
    return np.array(kept, np.int64)


def _at_most(number: int, total: int) -> int:
    return max(1, min(number, total // OF))


def _first(near: Array, number: int) -> Array:
    """[rows, number] the columns of each row's largest, the largest first."""
    largest = np.argpartition(near, -number, axis=1)[:, -number:]
    order = np.argsort(-np.take_along_axis(near, largest, axis=1), axis=1, kind="stable")
    return np.take_along_axis(largest, order, axis=1)


def _marks(members: Array) -> csr_matrix:
    """[rows, rows] 1 where a row names another, of as many names for each."""
    total, number = members.shape
    places = members.ravel(), np.arange(0, members.size + 1, number)
    return csr_matrix((np.ones(members.size, np.float32), *places), shape=(total, total))
