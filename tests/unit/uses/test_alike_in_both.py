"""Documents that are alike in both texts: the exact test against all shuffles, what is found where something is and where nothing is."""

import json
from itertools import permutations, product

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.stats import hypergeom

from hourglass.uses.explore import alike_in_both as module
from hourglass.uses.explore.alike_in_both import shared_p
from hourglass.uses.explore.neighbours import nearest
from hourglass.uses.explore.presence import present_in
from hourglass.uses.explore.ridge import Ridge, centred_gram
from hourglass.uses.explore.scores import dense_rows
from workspaces import kinds_in_both


def marked(neighbours):
    inside = np.zeros((len(neighbours),) * 2, bool)
    np.put_along_axis(inside, neighbours, True, axis=1)
    return inside


def by_views(random, *views):
    return nearest([centred_gram(view) for view in views], random)


def at_random(rows, number, random):
    return marked(np.stack([random.permutation(np.delete(np.arange(rows), i))[:number] for i in range(rows)]))


@pytest.mark.parametrize("strata", [[0] * 7, [0, 1, 0, 1, 1, 0, 1]])
def test_p_is_the_share_of_all_shuffles_that_share_as_much(strata):
    strata = np.array(strata)
    random = np.random.default_rng(1)
    left, right = at_random(7, 4, random), at_random(7, 3, random)
    shared = (left & right).sum(1)
    parts = [list(permutations(np.flatnonzero(strata == s))) for s in np.unique(strata)]
    drawn = []
    for orders in product(*parts):
        text = np.empty(7, int)
        for s, order in enumerate(orders):
            text[strata == s] = order
        drawn.append((left & right[text][:, text]).sum(1))
    p, expected = shared_p(shared, left, right, strata)
    assert (shared >= 2).sum() >= 2
    by_hand = (np.array(drawn) >= shared).mean(0)
    np.testing.assert_allclose(p, np.where(shared >= 2, by_hand, 1), rtol=1e-9)
    np.testing.assert_allclose(expected[shared >= 2], np.mean(drawn, 0)[shared >= 2], rtol=1e-9)


def test_the_smallest_p_has_its_digits():
    near = marked(np.array([np.delete(np.arange(200), i)[:15] for i in range(200)]))
    p, expected = shared_p(np.full(200, 15), near, near, np.zeros(200, int))
    np.testing.assert_allclose(p, hypergeom.sf(14, 199, 15, 15), rtol=1e-9)
    np.testing.assert_allclose(expected, 15 * 15 / 199)


def test_documents_that_have_nothing_are_not_alike_in_both():
    """Two hundred of 600 documents have nothing in either text: each is as near to all others of them, by both."""
    random = np.random.default_rng(0)
    p = []
    for _ in range(2):
        x = random.random((600, 50)) < 0.2
        x[random.permutation(600)[:200]] = False
        p.append(marked(by_views(random, csr_matrix(x.astype(float)), x[:, :9])[:, :15]))
    found, _ = shared_p((p[0] & p[1]).sum(1), *p, np.zeros(600, int))
    assert found.min() > 1e-5


def test_p_is_no_more_often_small_than_it_says():
    random = np.random.default_rng(0)
    strata, found = np.arange(400) // 100, []
    for _ in range(10):
        # Length is in both texts: documents of a stratum are alike in each.
        left, right = (
            marked(by_views(random, csr_matrix(of), random.normal(size=(400, 3)))[:, :15])
            for of in (random.random((2, 400, 40)) < 0.1 + 0.1 * (strata[:, None] == np.arange(40) // 10)).astype(float)
        )
        found.append(shared_p((left & right).sum(1), left, right, strata)[0])
    p = np.concatenate(found)
    for level in (0.1, 0.01, 0.001):
        assert (p <= level).mean() <= 1.5 * level


def test_a_group_without_a_common_item_is_found_and_told_by_either_text(tmp_path):
    a, b, groups = kinds_in_both(tmp_path, True)
    found = a.correlate(b, max_similarity=None, progress=False)
    assert len(found.table) < 2  # no pair of items is in enough of the documents
    alike = found.alike_in_both
    sure = alike.table[alike.table["q"] < 0.01]
    assert sure.index.tolist() == [0, 1]
    for row, line in sure.iterrows():
        (kind,) = set(groups[line["positions"]]) - {0}
        assert line["documents"] == len(line["positions"]) and (groups[line["positions"]] == kind).mean() > 0.7
        assert line["q"] < 0.05 and line["expected"] < 1 < line["shared"]
        of_kind = [f"{name}{i}" for name in ("first", "second") for i in range(40 * kind - 40, 40 * kind)]
        assert {*alike.has(row, 0)[:4], *alike.has(row, 1)[:4]} <= set(of_kind)
        for ws, direction in zip((a, b), alike.directions[row]):
            present = present_in(ws, np.arange(ws.manifest["width"]), 0.5, 1)
            more = direction.sums(present, dense_rows(ws, np.arange(len(ws)), "middle")) > direction.bar
            assert more[groups == kind].mean() > more[groups != kind].mean() + 0.5
    got = json.loads(json.dumps(found.to_dict()["alike_in_both"]))
    assert (got["documents"], got["neighbours"]) == (600, 15)
    assert got["rows"][0]["items_a"][0]["label"] == alike.has(0, 0)[0]


def test_that_most_documents_are_alike_in_both_is_said(tmp_path):
    a, b, _ = kinds_in_both(tmp_path / "one", True)
    _, again, _ = kinds_in_both(tmp_path / "two", True)
    said = "of 600 documents are alike in both texts"
    assert not any(said in note for note in a.correlate(b, max_similarity=None, progress=False).notes)
    found = b.correlate(again, max_similarity=None, progress=False)
    assert any(note.startswith(f"{found.alike_in_both.sure} {said}") for note in found.notes)


def test_where_nothing_goes_together_nothing_is_alike_in_both(tmp_path):
    a, b, _ = kinds_in_both(tmp_path, False)
    found = a.correlate(b, max_similarity=None, progress=False)
    assert found.alike_in_both.table.empty
    assert found.to_dict()["alike_in_both"]["rows"] == []
    assert a.correlate(max_same_tokens=None, progress=False).alike_in_both is None


def test_groups_that_both_texts_tell_in_one_way_are_one():
    random = np.random.default_rng(0)
    kind = np.arange(200) % 10 == 0
    x, y = (csr_matrix((random.random((200, 30)) < np.where(kind, 0.6, 0.1)[:, None]).astype(float)) for _ in range(2))
    ridges = {"a": Ridge(y, np.zeros((200, 1))), "b": Ridge(x, np.zeros((200, 1)))}
    learned = module.Learned(np.arange(200), {}, {}, {}, ridges, {}, np.zeros(200, int))
    rows = np.flatnonzero(kind)
    groups = [np.isin(np.arange(200), of) for of in (rows[:10], rows[8:], [1, 2, 3, 4, 5, 6])]
    centres, merged = module._merged([0, 100, 1], groups, learned)
    assert centres == [0, 1]
    assert np.array_equal(merged[0], kind) and np.array_equal(merged[1], groups[2])
    assert module._merged([], [], learned) == ([], [])
