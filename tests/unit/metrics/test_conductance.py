"""Against networkx and by summing over all pairs."""

import networkx as nx
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from hourglass.metrics.conductance import against_chance, conductance, cosine_conductance, graph_conductance


def by_networkx(affinity, labels):
    graph = nx.from_numpy_array(affinity)
    return [nx.conductance(graph, set(np.flatnonzero(labels == c)), weight="weight") for c in range(labels.max() + 1)]


def test_all_pairs_of_vectors():
    random = np.random.default_rng(0)
    vectors, labels = random.normal(size=(40, 5)) + 0.5, random.integers(0, 3, 40)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    affinity = (1 + unit @ unit.T) / 2
    np.fill_diagonal(affinity, 0)
    assert cosine_conductance(unit, 3, labels) == pytest.approx(by_networkx(affinity, labels))


def test_nodes_that_stand_for_several_documents():
    random = np.random.default_rng(1)
    node, labels = random.integers(0, 8, 60), random.integers(0, 3, 60)
    between = random.random((8, 8))
    between = np.triu(between, 1) + np.triu(between, 1).T + np.eye(8)
    affinity = between[node][:, node]
    np.fill_diagonal(affinity, 0)
    members = csr_matrix((np.ones(60), (node, labels)), shape=(8, 3))
    assert graph_conductance(csr_matrix(between), members) == pytest.approx(by_networkx(affinity, labels))


def test_nothing_to_leak_is_not_a_number():
    assert np.isnan(conductance(np.array([4.0, 0.0]), np.array([4.0, 0.0]))).all()


def test_z_is_far_below_zero_for_a_planted_partition_and_near_it_for_a_random_one():
    random = np.random.default_rng(2)
    labels = np.repeat([0, 1], 50)
    vectors = random.normal(size=(100, 4)) + np.where(labels[:, None] == 0, 2, -2) * [1, 0, 0, 0]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def measure(labels):
        return cosine_conductance(unit, 2, labels)

    found, z = against_chance(measure, labels, 100, np.random.default_rng(0))
    assert found == pytest.approx(measure(labels))
    assert (z < -10).all()
    _, z = against_chance(measure, random.permutation(labels), 100, np.random.default_rng(0))
    assert (abs(z) < 4).all()
