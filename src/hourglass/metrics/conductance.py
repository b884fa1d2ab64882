"""Conductance: how much of a cluster's affinity leaves it, and what that is for clusters made by chance.

The conductance of a set is the affinity between it and the rest, over the affinity that the smaller of the two
has in all: 0 for a set that touches nothing else. Small sets leak more than large ones whatever they are, so it is
told as a z score against random partitions into sets of the same sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

Array = np.ndarray[Any, Any]


def conductance(inside: Array, volume: Array) -> Array:
    """[c] conductance of sets that partition a graph; NaN where a set or its rest has no affinity at all.

    inside  [c] affinity from each set to itself, both directions counted
    volume  [c] affinity from each set to everything
    """
    smaller = np.minimum(volume, volume.sum() - volume)
    return np.where(smaller > 0, (volume - inside) / np.where(smaller > 0, smaller, 1), np.nan)


def graph_conductance(affinity: csr_matrix, members: csr_matrix) -> Array:
    """[c] conductance in a graph of nodes that stand for several documents each.

    affinity  [nodes, nodes] symmetric, of one document of a node to one of another; 1 between two of one node
    members   [nodes, c] how many documents of each node are in each cluster
    """
    documents = np.asarray(members.sum(1), np.float64).ravel()
    sizes = np.asarray(members.sum(0), np.float64).ravel()  # nothing is a neighbour of itself
    inside = np.asarray(members.multiply(affinity @ members).sum(0)).ravel() - sizes
    return conductance(inside, members.T @ (affinity @ documents) - sizes)


def cosine_conductance(unit: Array, number: int, labels: Array) -> Array:
    """[number] conductance of clusters among vectors of norm 1 [n, d], all against all, with affinity (1 + cosine) / 2.

    A sum of cosines is the product of two sums of vectors, so the n x n affinities are never made.
    """
    n = len(unit)
    membership = csr_matrix((np.ones(n, np.float32), (labels, np.arange(n))), shape=(number, n))
    sums, sizes = (membership @ unit).astype(np.float64), np.bincount(labels, minlength=number)
    itself = np.bincount(labels, np.einsum("nd,nd->n", unit, unit), number)
    inside = (sizes * (sizes - 1) + (sums**2).sum(1) - itself) / 2  # nothing is a neighbour of itself
    volume = (sizes * (n - 1) + sums @ sums.sum(0) - itself) / 2
    return conductance(inside, volume)


def against_chance(
    measure: Callable[[Array], Array], labels: Array, draws: int, random: np.random.Generator
) -> tuple[Array, Array]:
    """`measure` of the labels, and its z score against `draws` shuffles of them; NaN where shuffling changes nothing."""
    found = measure(labels)
    chance = np.stack([measure(random.permutation(labels)) for _ in range(draws)])
    spread = chance.std(0, ddof=1)
    return found, np.where(spread > 0, (found - chance.mean(0)) / np.where(spread > 0, spread, 1), np.nan)
