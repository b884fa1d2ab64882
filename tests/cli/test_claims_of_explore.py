"""What the claims about exploring count: truth by hand, and figures that fall when what they measure is spoiled."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer

from hourglass.uses.explore.ridge import Direction
from workspaces import WIDTH, make_workspace

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _claims(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


@pytest.fixture
def planted(tmp_path):
    """600 documents, of which every fourth has the property: those have feature 1, and feature 2 is noise."""
    random = np.random.default_rng(5)
    has = np.arange(600) % 4 == 0
    group = np.full(600, None, object)
    with_it, without = random.permutation(np.flatnonzero(has)), random.permutation(np.flatnonzero(~has))
    group[with_it[:40]] = group[without[:60]] = "a"
    group[with_it[40:50]] = group[without[60:150]] = "b"
    maxima = np.zeros((600, WIDTH))
    maxima[:, 1] = has
    maxima[:, 2] = random.random(600) < 0.5
    texts = [f"{'apple' if h else 'pear'} text" for h in has]
    return make_workspace(tmp_path / "ws", texts, {"group": group}, maxima), has, texts


def _judged(planted):
    from claims import explore_diff
    from claims.base import Row
    from claims.shared.presence import middle, presence

    ws, has, texts = planted
    counts = CountVectorizer().fit_transform(texts).tocsr()
    row = partial(Row, unit="one", seed=0)
    rows = explore_diff._judged(ws, "group", presence(ws), middle(ws), counts, has, {}, 0, row)
    return {row.part: row for row in rows}


def test_a_planted_difference_is_found_and_a_wrong_table_is_not_believed(planted, monkeypatch):
    from claims import explore_diff

    rows = _judged(planted)
    assert rows["found"].ours == rows["found_by_features"].ours == 1
    assert rows["false_discoveries"].ours == 0
    assert rows["against_log_odds"].baseline == pytest.approx(1)  # "apple" tells it as well
    wrong = pd.DataFrame({"kind": ["feature"], "difference": [0.3], "column": [2]})
    monkeypatch.setattr(explore_diff, "_different", lambda *_: (wrong, None))
    rows = _judged(planted)
    assert rows["found"].ours == rows["found_by_features"].ours == 0
    assert rows["false_discoveries"].ours == -1
    backwards = pd.DataFrame({"kind": ["feature"], "difference": [-0.3], "column": [1]})
    monkeypatch.setattr(explore_diff, "_different", lambda *_: (backwards, None))
    assert _judged(planted)["false_discoveries"].ours == -1


def test_what_all_rows_tell_together_is_found_and_when_wrong_is_false(planted, monkeypatch):
    from claims import explore_diff

    (found,) = planted[0].diff("group", "a", "b")
    nothing = found.table.head(0).assign(column=np.zeros(0, np.int64))
    monkeypatch.setattr(explore_diff, "_different", lambda *_: (nothing, found.together))
    rows = _judged(planted)
    assert (rows["found"].ours, rows["found_by_rows"].ours, rows["false_discoveries"].ours) == (1, 0, 0)
    items, weights, bar = vars(found.together.direction).values()
    turned = Direction(items.assign(weight=-items["weight"]), -weights, -bar)
    turned = replace(found.together, direction=turned)
    monkeypatch.setattr(explore_diff, "_different", lambda *_: (nothing, turned))
    rows = _judged(planted)
    assert (rows["found"].ours, rows["false_discoveries"].ours) == (0, -1)


def test_groups_have_the_planted_shares_and_share_no_document():
    from claims.explore_diff import SHARES, WHOLE, _groups

    has = np.arange(1000) % 3 == 0
    group = _groups(has, 200, SHARES, np.random.default_rng(0))
    assert [(group == g).sum() for g in "ab"] == [200, 200]
    assert [has[group == g].mean() for g in "ab"] == [0.4, 0.1]
    group = _groups(has, 200, WHOLE, np.random.default_rng(0))
    assert [has[group == g].mean() for g in "ab"] == [1, 0]
    nothing = _groups(np.zeros(1000, bool), 200, SHARES, np.random.default_rng(0))
    assert [(nothing == g).sum() for g in "ab"] == [200, 200]


def test_words_of_one_group_have_the_largest_log_odds_and_ctfidf():
    from claims.explore_diff import ctfidf, log_odds

    counts = csr_matrix([[5, 0, 3], [4, 1, 3], [0, 5, 3], [1, 4, 3]])
    a, b = np.array([True, True, False, False]), np.array([False, False, True, True])
    z = log_odds(counts, a, b)
    assert z.argmax() == 0
    assert z.argmin() == 1
    assert abs(z[2]) < 1e-9
    np.testing.assert_allclose(z[:2], -log_odds(counts, b, a)[:2])
    assert ctfidf(counts, a, b).argmax() == 0


def test_a_redrawn_workspace_holds_what_was_drawn(planted, tmp_path):
    from claims.shared.presence import middle, presence
    from claims.shared.redrawn import redrawn

    ws, has, texts = planted
    rows = np.random.default_rng(1).permutation(600)[:150]
    drawn = redrawn(ws, rows, tmp_path / "drawn")
    assert len(drawn) == 150
    assert drawn.column("_id").tolist() == [str(i) for i in range(150)]
    assert [t for part in drawn.texts() for t in part] == [texts[i] for i in rows]
    assert (drawn.codes != ws.codes[rows]).nnz == 0
    assert (presence(drawn) != presence(ws)[rows]).nnz == 0
    np.testing.assert_array_equal(drawn.dense, ws.dense[rows])
    np.testing.assert_array_equal(middle(drawn), middle(ws)[rows])
    assert drawn.features["documents"].iloc[1] == has[rows].sum()


def test_pairs_that_go_together_are_told_from_those_that_do_not():
    from claims.shared.planted_pairs import associated

    random = np.random.default_rng(0)
    a, b = (random.random((400, 3)) < 0.1 for _ in range(2))
    b[:, 1] = np.where(random.random(400) < 0.8, a[:, 0], b[:, 1])
    i, j = associated(csr_matrix(a.astype(float)), csr_matrix(b.astype(float)), 0.01, 5)
    assert list(zip(i.tolist(), j.tolist())) == [(0, 1)]
    i, j = associated(csr_matrix(a.astype(float)), csr_matrix(b[random.permutation(400)].astype(float)), 0.01, 5)
    assert not len(i)


def test_a_pair_is_true_when_both_of_its_parts_are():
    from claims.shared import planted_pairs

    kinds = np.repeat(np.array(["x", "y"], object), 100)
    drawn = np.tile([True, False], 100)
    column = csr_matrix(np.stack([kinds == "x", kinds == "y", np.arange(200) % 4 < 2], axis=1).astype(float))
    field = planted_pairs.Field(None, kinds, drawn, column, np.zeros((200, 1)), column)  # no workspace is needed

    def judged(*pairs):
        i, j = (np.array(side) for side in zip(*pairs))
        found, true = planted_pairs.judged((field, field), planted, [column, column], (i, j))
        return found.tolist(), true.tolist()

    planted = [("x", "x")]
    assert judged((0, 0)) == ([True], [True])
    assert judged((1, 1)) == ([False], [True])  # both are rarer in what is planted: together, but not what was planted
    assert judged((0, 1)) == ([False], [False])
    assert judged((0, 2)) == ([False], [False])
    assert judged((0, 0), (2, 0)) == ([True], [True, False])
    planted = [("x", "x"), ("x", "y")]
    assert judged((0, 1), (2, 0)) == ([False, True], [True, False])


def _field(present, middle=None):
    middle = np.zeros((present.shape[0], 1)) if middle is None else middle
    return SimpleNamespace(present=present, middle=middle, kinds=np.zeros(present.shape[0]))


def test_what_is_predicted_is_a_pair_with_what_predicts_it():
    from claims.shared.planted_pairs import as_pairs

    left, right = csr_matrix(np.eye(4)[:, :3]), csr_matrix(np.eye(4))
    items = pd.DataFrame({"position": [1, 0], "weight": [-2.0, 1.0]})
    rows = pd.DataFrame({"side": ["b", "a", "b", "b"], "position": [3, 2, 0, 1]})
    through = [Direction(items, np.ones(1), bar) for bar in (0.5, -0.5, -3, 0.5)]
    by_all = SimpleNamespace(
        table=rows, directions=through, in_own=[None, None, None, through[1]]
    )  # the last is a group
    (left, right), (i, j) = as_pairs([_field(left), _field(right)], by_all)
    assert (i.tolist(), j.tolist()) == ([3, 2, 4, 5], [3, 4, 0, 5])
    assert left.toarray()[:, 3:].tolist() == [[1, 1, 1], [0, 1, 0], [0, 1, 0], [0, 1, 0]]
    assert right.toarray()[:, 4:].T.tolist() == [[1, 0, 1, 1], [1, 0, 1, 1]]


def test_a_group_is_a_pair_of_what_either_text_tells_it_by():
    from claims.shared.planted_pairs import as_directions

    fields = [_field(csr_matrix(np.eye(4)[:, :3])), _field(csr_matrix(np.eye(4)), np.array([[9.0], [0], [0], [0]]))]
    items = [pd.DataFrame({"position": at, "weight": [1.0, -2.0]}) for at in ([1, 0], [3, 2])]
    sides = [
        (Direction(items[0], np.ones(1), bars[0]), Direction(items[1], -np.ones(1), bars[1]))
        for bars in ([0.5, -1], [-3, 0.5])
    ]
    groups = SimpleNamespace(table=pd.DataFrame(index=[0, 1]), directions=sides)
    (left, right), (i, j) = as_directions(fields, groups)
    assert i.tolist() == j.tolist() == [0, 1]
    assert left.toarray().T.tolist() == [[0, 1, 0, 0], [1, 1, 1, 1]]
    assert right.toarray().T.tolist() == [[0, 1, 0, 1], [0, 0, 0, 1]]
    nothing = SimpleNamespace(table=pd.DataFrame(), directions=[])
    assert [own.shape for own in as_directions(fields, nothing)[0]] == [(4, 0), (4, 0)]


def test_bm25_of_the_baseline_ranks_what_holds_the_words():
    from claims.explore_find import _Words

    texts = ["red fish", "red red fish bird", "blue fish", "blue bird", "green bird", "green fish"]
    words = _Words(texts)
    scores = words.from_query("Red things")
    assert scores[0] > 0
    assert scores[1] > 0
    assert not scores[2:].any()
    assert words.from_examples(np.array([0]), np.array([2, 3])).argmax() in (0, 1)
    assert not words.from_query("nothing of it").any()


def test_a_ranking_found_by_itself_is_scored_whole(planted):
    from claims.explore_find import _rankings, _scored

    ws, has, _ = planted
    found = ws.find(features={1: 1.0}, fuse=(), top=len(ws))
    rankings = _rankings(found, len(ws))
    rankings |= {"dense": np.zeros(600), "bm25": -has.astype(float)}
    rows = {r.part: r for r in _scored("docstrings", "one", 0, rankings, has, np.arange(600))}
    assert rows["docstrings_above_dense"].ours == 1
    assert rows["docstrings_above_dense"].baseline == pytest.approx(0.25, abs=0.05)  # all tied: in order of position
    assert rows["docstrings_above_bm25"].baseline < 0.2


def test_crossed_sets_are_balanced_and_samples_share_no_text():
    from claims.explore_cluster import _balanced, _crossed

    first = pd.DataFrame({"text": [f"a{i}" for i in range(100)], "topic": ["p", "q"] * 50})
    second = pd.DataFrame({"text": [f"b{i}" for i in range(90)], "tone": ["u", "v", "w"] * 30})
    samples = _crossed(first, "topic", second, "tone", 2, 60)
    for sample in samples:
        assert sample.groupby(["topic", "tone"]).size().nunique() == 1
        assert len(sample) == 42
    parts = [part for sample in samples for text in sample["text"] for part in text.split()]
    assert len(parts) == len(set(parts))
    both = _balanced(first.assign(tone=["u"] * 60 + ["v"] * 40), ["topic", "tone"], 2, 40)
    assert [len(sample) for sample in both] == [40, 40]
    assert not set(both[0]["text"]) & set(both[1]["text"])
