"""Which rows are most alike, by hand, and the groups around each."""

import numpy as np
import pytest
from scipy.sparse import csc_matrix, csr_matrix

from hourglass.uses.explore import neighbours as module
from hourglass.uses.explore.neighbours import apart, groups_around, nearest
from hourglass.uses.explore.ridge import centred_gram


def cosine(of):
    centred = of - of.mean(0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    return centred @ centred.T


def test_the_most_alike_share_most_of_their_nearest_and_of_as_many_the_nearer_comes_first(monkeypatch):
    monkeypatch.setattr(module, "AMONG", 6)
    monkeypatch.setattr(module, "MOST", 9)
    monkeypatch.setattr(module, "OF", 4)
    random = np.random.default_rng(0)
    x = (random.random((40, 12)) < 0.4).astype(float)
    middle = 9 + random.normal(size=(40, 5))
    near = sum(cosine(of) / cosine(of).std() for of in (x, middle))
    np.fill_diagonal(near, 99)
    own = [set(np.argsort(-row)[:7]) for row in near]
    found = nearest([centred_gram(csr_matrix(x)), centred_gram(middle)], random)
    assert found.shape == (40, 9)
    for i, row in enumerate(found):
        by_hand = sorted(set(range(40)) - {i}, key=lambda j: (-len(own[i] & own[j]), -near[i, j]))
        assert row.tolist() == by_hand[:9]


def test_rows_that_are_all_the_same_have_others_for_each_text():
    alike = [nearest([np.zeros((200, 200))] * 2, np.random.default_rng(seed)) for seed in (0, 1)]
    assert alike[0].shape == (200, 10)
    for own in alike:
        assert (own != np.arange(200)[:, None]).all() and all(len({*row}) == 10 for row in own)
    assert (alike[0] != alike[1]).mean() > 0.8


@pytest.mark.parametrize(("most", "sizes"), [(60, [16, 61]), (15, [16]), (4, [5])])
def test_groups_are_around_each_row(most, sizes):
    alike = np.stack([np.random.default_rng(i).permutation(np.delete(np.arange(90), i))[:most] for i in range(90)])
    groups, centre = groups_around(alike)
    assert centre.tolist() == [*range(90)] * len(sizes)
    assert np.asarray(groups.sum(0)).ravel().tolist() == np.repeat(sizes, 90).tolist()
    for column, row in enumerate(centre):
        size = sizes[column // 90] - 1
        assert {*groups[:, [column]].nonzero()[0]} == {row, *alike[row, :size]}


def test_of_groups_around_rows_of_one_the_first_stands_for_all():
    groups = csc_matrix(np.array([[1, 0, 1, 1], [1, 1, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]], float))
    assert apart(groups, np.arange(4), np.array([0, 1, 2, 3])).tolist() == [0, 2, 3]
    assert apart(groups, np.arange(4), np.array([3, 1, 2])).tolist() == [3, 2]
    assert apart(groups, np.arange(4), np.zeros(0, int)).tolist() == []
