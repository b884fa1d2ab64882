"""How far apart shuffling puts documents: against brute force, against all shuffles, and how often p is small where there is nothing."""

from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_matrix, csr_matrix
from scipy.stats import chisquare, kstest
from sklearn.linear_model import Ridge as Peer

from hourglass.uses.explore import distances as module
from hourglass.uses.explore.distances import Distances, Said
from hourglass.uses.explore.ridge import RIDGE, Ridge

NOTHING = np.zeros((400, 1))
"""Mean states that say nothing."""


def said(x):
    """By all columns of x [documents, columns] alone."""
    return Said.by(Ridge(csr_matrix(x.astype(float)), NOTHING[: len(x)]))


def marks(*has):
    """[rows, items] of masks of rows."""
    return csc_matrix(np.column_stack(has).astype(float))


def test_distances_are_of_scores_without_the_document_itself(monkeypatch):
    """By hand for the rows that an item has, and for all that it could have by chance: one of each stratum of its two."""
    monkeypatch.setattr(module, "MOST_SAID", 1)
    random = np.random.default_rng(0)
    x = (random.random((30, 12)) < 0.4).astype(float)
    strata = np.repeat([0, 1, 2], [6, 4, 20])

    def distance(rows):
        has, scores = np.isin(np.arange(30), rows), np.zeros(30)
        for i in range(30):
            others = np.arange(30) != i
            fitted = Peer(alpha=RIDGE * ((x - x.mean(0)) ** 2).sum(1).mean()).fit(x[others], has[others].astype(float))
            scores[i] = fitted.predict(x[[i]])[0]
        return scores[has].mean() - scores[~has].mean()

    of_x = said(x)
    found = Distances(of_x, marks(np.isin(np.arange(30), [2, 7])), strata)
    assert found.found[0] == pytest.approx(distance([2, 7]), abs=of_x.step)
    by_hand = np.array([distance([i, j]) for i in range(6) for j in range(6, 10)])
    values, counts = np.unique(found.drawn(np.zeros(1, np.int64), 12_000, random), return_counts=True)
    np.testing.assert_allclose(values, np.sort(by_hand), atol=of_x.step)
    assert chisquare(counts).pvalue > 1e-3
    mean, of_rows, of_pairs = found.moments()
    assert mean[0] == pytest.approx(by_hand.mean(), abs=of_x.step)
    assert of_rows[0] + of_pairs[0] == pytest.approx(by_hand.var(), rel=0.02)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(4, 6), min_size=1, max_size=3), st.integers(0, 2**32 - 1))
def test_mean_and_variance_are_those_of_all_shuffles(sizes, seed):
    random, strata = np.random.default_rng(seed), np.repeat(np.arange(len(sizes)), sizes)
    rows = len(strata)
    order = random.permutation(rows)
    strata = strata[order]
    both = random.integers(-127, 128, (rows, rows)).astype(np.int8)
    both = np.tril(both, -1) + np.tril(both, -1).T
    of = Said(both, 0.5, random.normal(size=rows))
    has = [np.zeros(rows, bool) for _ in range(3)]
    for own in has:
        own[random.permutation(rows)[: random.integers(1, min(5, rows))]] = True
    distances = Distances(of, marks(*has), strata)
    mean, of_rows, of_pairs = distances.moments()
    for item, own in enumerate(has):
        parts = [combinations(np.flatnonzero(strata == s), int(own[strata == s].sum())) for s in range(len(sizes))]
        drawn = [np.isin(np.arange(rows), [row for part in parts for row in part]) for parts in product(*parts)]
        every = Distances(of, marks(*drawn), strata).found
        assert mean[item] == pytest.approx(every.mean(), abs=1e-6)
        assert of_rows[item] + of_pairs[item] == pytest.approx(every.var(), rel=1e-5, abs=1e-6)


def test_p_is_as_often_small_as_it_says():
    """Items of 5 to 80 documents, some all of one stratum, which say more or less of each other."""
    random = np.random.default_rng(0)
    strata = np.arange(400) // 80
    x = random.random((400, 60)) < 0.1 + 0.2 * (strata[:, None] == np.arange(60) // 12)
    has = [random.random(400) < share for share in random.uniform(0.02, 0.15, 3000)]
    has += [(random.random(400) < 0.3) & (strata == i % 5) for i in range(1000)]
    p = Distances(said(x), marks(*has), strata).p_values(random)
    assert kstest(p, "uniform").pvalue > 1e-3
    assert (p <= 0.001).sum() <= 12


def test_p_of_one_item_is_that_of_its_own_shuffles():
    random = np.random.default_rng(0)
    x = random.random((300, 40)) < 0.2
    has = random.random(300) < 0.07 + 0.15 * x[:, 0]
    distances = Distances(said(x), marks(has), np.arange(300) // 100)
    share = (distances.drawn(np.zeros(1, np.int64), 200_000, random) >= distances.found[0]).mean()
    assert 1e-4 < share < 0.1
    assert distances.p_values(random)[0] == pytest.approx(share, rel=0.2)


def test_what_shuffling_does_not_move_is_nothing():
    """An item that all of a stratum have, and documents that are all alike."""
    random = np.random.default_rng(0)
    strata, x = np.arange(60) // 10, random.random((60, 20)) < 0.3
    has = marks(strata == 2, random.random(60) < 0.2)
    assert Distances(said(x), has, strata).p_values(random)[0] == 1
    assert Distances(said(x[:1].repeat(60, 0)), has, strata).p_values(random).tolist() == [1, 1]
    assert len(Distances(said(x), csc_matrix((60, 0)), strata).p_values(random)) == 0


def test_two_copies_are_no_finding(monkeypatch):
    """Two documents of 400 have the same twenty rare words and, by chance, the same item: as one of 5,000 draws has."""
    random = np.random.default_rng(0)
    x = np.column_stack([random.random((400, 60)) < 0.2, np.isin(np.arange(400), [5, 6])[:, None].repeat(20, 1)])
    has = marks(np.isin(np.arange(400), [5, 6, *random.permutation(np.arange(7, 400))[:4]]))
    monkeypatch.setattr(module, "MOST_DRAWS", 999)
    p = {}
    for share in (1, module.MOST_SAID):
        monkeypatch.setattr(module, "MOST_SAID", share)
        p[share] = Distances(said(x), has, np.zeros(400, int)).p_values(np.random.default_rng(1))[0]
    assert p[1] < 1e-5 < 1e-4 < p[0.999]


def test_draws_are_the_same_on_any_number_of_threads():
    random = np.random.default_rng(0)
    x, y = ((random.random((100, n)) < 0.2).astype(float) for n in (30, 200))
    found, threads, p = Distances(said(x), csc_matrix(y), np.arange(100) // 50), torch.get_num_threads(), []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            p.append(found.p_values(np.random.default_rng(1)))
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(*p)
