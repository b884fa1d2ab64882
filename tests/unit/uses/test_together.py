"""All rows together: against brute force, on what no single row tells, and where there is nothing."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.linear_model import Ridge

from hourglass.errors import ConfigError
from hourglass.uses.explore.diff import DiffOptions, select
from hourglass.uses.explore.ridge import RIDGE
from hourglass.uses.explore.scores import dense_rows
from hourglass.uses.explore.together import told, told_of_pairs
from workspaces import WIDTH, make_workspace, states_of


def _penalty(x):
    return RIDGE * (x**2).sum(1).mean()


def _side_by_side(x, vectors, centre):
    """Columns, and vectors that weigh as much as these do; the scale of the vectors."""
    size, of_vectors = (((own - own.mean(0) if centre else own) ** 2).sum() for own in (x, vectors))
    scale = np.sqrt(size / of_vectors)
    return np.hstack([x, scale * vectors]), scale


def test_a_document_is_judged_by_a_direction_learned_without_it():
    random = np.random.default_rng(0)
    in_a = random.random(40) < 0.4
    items = (random.random((40, 15)) < np.where(in_a, 0.5, 0.3)[:, None]).astype(float)
    vectors = 9 * random.normal(size=(40, 4)) + 4 * in_a[:, None]
    found = told(csr_matrix(items), vectors, in_a, 9, random)
    x, scale = _side_by_side(items, vectors, True)
    penalty = _penalty(x - x.mean(0))
    scores = np.zeros(40)
    for i in range(40):
        others = np.arange(40) != i
        scores[i] = Ridge(alpha=penalty).fit(x[others], in_a[others].astype(float)).predict(x[[i]])[0]
    middle = (scores[in_a].mean() + scores[~in_a].mean()) / 2
    assert found.share_a == pytest.approx((scores > middle)[in_a].mean())
    assert found.share_b == pytest.approx((scores > middle)[~in_a].mean())
    fitted = Ridge(alpha=penalty).fit(x, in_a.astype(float))
    assert found.weights.columns == pytest.approx(fitted.coef_[:15])
    assert found.weights.vectors == pytest.approx(fitted.coef_[15:] * scale)
    assert found.bar == pytest.approx(middle - fitted.intercept_)


def test_a_pair_is_judged_by_a_direction_learned_without_it():
    random = np.random.default_rng(0)
    items = (random.random((30, 12)) < 0.5).astype(float) - (random.random((30, 12)) < 0.3)
    vectors = random.normal(size=(30, 4)) + 0.3
    found = told_of_pairs(csr_matrix(items), vectors, 9, random)
    x, _ = _side_by_side(items, vectors, False)
    right = 0
    for i in range(30):
        others = np.arange(30) != i
        fitted = Ridge(alpha=_penalty(x), fit_intercept=False).fit(x[others], np.ones(29))
        right += fitted.predict(x[[i]])[0] > 0
    assert found.share_a == pytest.approx(right / 30)
    assert found.share_a + found.share_b == pytest.approx(1)


def test_p_is_as_often_small_as_it_says():
    random = np.random.default_rng(0)
    p, of_pairs = [], []
    for _ in range(200):
        x = csr_matrix((random.random((30, 40)) < 0.3).astype(float))
        p.append(told(x, np.zeros((30, 1)), np.arange(30) < 12, 19, random).p)
        of_pairs.append(told_of_pairs(x[:15] - x[15:], np.zeros((15, 1)), 19, random).p)
    for found in (p, of_pairs):
        assert np.mean(np.array(found) <= 0.05) < 0.1
        assert 0.4 < np.mean(np.array(found) <= 0.5) < 0.6


def _leaning(folder, *, by, size=150, features=WIDTH, pairs=False):
    """Documents of two groups; each feature in `by` more of the one."""
    random = np.random.default_rng(1)
    shares = np.where(np.arange(2 * size) < size, 0.4 + by, 0.4)
    maxima = (random.random((2 * size, features)) < shares[:, None]).astype(float)
    columns = {"g": ["x"] * size + ["y"] * size}
    if pairs:
        columns["pair"] = [f"p{i}" for i in range(size)] * 2
    return make_workspace(folder, ["a b"] * (2 * size), columns, maxima, dense=states_of(maxima, random))


def _bare(together):
    """What it says where only items that speak for x have a name."""
    items = together.direction.items
    named = items.assign(label=items["label"].where(items["weight"] > 0))
    return replace(together, direction=replace(together.direction, items=named)).sentences("x", "y")


@pytest.mark.parametrize("pair", [None, "pair"])
def test_what_no_row_tells_all_tell_together(tmp_path, pair):
    ws = _leaning(tmp_path / "ws", by=0.12, pairs=True)
    (found,) = ws.diff("g", "x", "y", pair=pair)
    assert len(found.table) <= 1
    together = found.together
    assert together.p == pytest.approx(1 / 1000)
    assert together.q <= 0.05
    assert together.low < together.difference < together.high
    assert together.frequency_a - together.frequency_b == pytest.approx(together.difference)
    assert (together.direction.items["weight"] > 0).mean() > 0.8
    assert {ws.column("g")[i] for i in together.typical_a} == {"x"}
    assert {ws.column("g")[i] for i in together.typical_b} == {"y"}
    plain = found.to_dict()["together"]
    assert plain["q"] == together.q and plain["items_a"][0]["weight"] > 0
    said = together.sentences("x", "y")
    assert ("pairs" in said[0]) == (pair is not None)
    assert "surer than by how much" not in said[0] and "For y: nothing that has a name." in _bare(together)[1]
    assert "surer than by how much" in replace(together, low=-0.01).sentences("x", "y")[0]


def test_the_bar_is_that_of_documents_which_had_no_say(tmp_path):
    ws = _leaning(tmp_path / "ws", by=0.3)
    together = ws.diff("g", "x", "y")[0].together
    present = csr_matrix((ws.codes > 0).astype(float))
    above = together.direction.sums(present, dense_rows(ws, np.arange(300), "middle")) > together.direction.bar
    assert above[:150].mean() - above[150:].mean() == pytest.approx(together.difference, abs=0.1)


def test_without_shuffling_nothing_is_tested():
    with pytest.raises(ConfigError, match="permutations 0: expected 1 or more"):
        DiffOptions(permutations=0)


def test_nothing_is_told_where_nothing_differs(tmp_path):
    ws = _leaning(tmp_path / "ws", by=0.0)
    (found,) = ws.diff("g", "x", "y")
    assert found.together is None and found.to_dict()["together"] is None
    assert ws.diff("g", "x", "y", false_discovery=None)[0].together.q > 0.05


def test_nothing_is_told_of_documents_that_have_all_the_same(tmp_path):
    ws = make_workspace(
        tmp_path / "ws", ["a b"] * 20, {"g": ["x", "y"] * 10, "p": [i // 2 for i in range(20)]}, np.ones((20, WIDTH))
    )
    assert ws.diff("g", "x", "y", false_discovery=None)[0].together is None
    assert ws.diff("g", "x", "y", pair="p", false_discovery=None)[0].together is None


def test_with_a_split_only_the_half_that_did_not_select_is_read(tmp_path):
    ws = _leaning(tmp_path / "ws", by=0.2)
    (found,) = ws.diff("g", "x", "y", split=True)
    fresh = select(ws, "g", "x", "y", DiffOptions(split=True)).fresh
    assert fresh[found.together.typical_a].all() and fresh[found.together.typical_b].all()
    assert len(fresh) == 2 * fresh.sum()
