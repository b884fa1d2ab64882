"""Differences against planted truth, by hand and against brute force."""

import numpy as np
import pytest

from hourglass.errors import ConfigError, InputError
from hourglass.metrics.proportions import difference_interval, fisher
from hourglass.uses.explore.diff import TO_TOGETHER
from workspaces import WIDTH, make_workspace


def test_the_planted_feature_comes_first_with_the_true_size(planted):
    (found,) = planted.diff("group", "a", "b")
    features = found.table[found.table["kind"] == "feature"]
    assert features["feature"].iloc[0] == 1
    first = features.iloc[0]
    assert first["low"] < 0.5 < first["high"]
    assert first["low"] > 0.2
    assert first["q"] < 0.01
    assert "apple" in found.table[found.table["kind"] == "word"]["label"].tolist()
    assert found.documents == (100, 100)
    (split,) = planted.diff("group", "a", "b", split=True)
    assert split.documents == (50, 50)  # the half that did not select
    assert 1 in split.table["feature"].dropna().tolist()


def test_the_papers_rule_drowns_it(planted):
    (found,) = planted.diff("group", "a", "b", level=0.0)
    assert 1 not in found.table["feature"].dropna().tolist()


def test_one_against_the_rest_and_the_nearest_group(planted):
    (found,) = planted.diff("group", "c", metric="nearest")
    row = found.table[found.table["feature"] == 2].iloc[0]
    level = 0.5 * planted.features["p90"].iloc[2]
    share = (planted.codes[200:, [2]].toarray() > level).mean()
    assert row["frequency_a"] == pytest.approx(share)
    assert row["frequency_b"] == row["nearest"] == 0
    (one,) = planted.diff("group", "b", false_discovery=None)
    row = one.table[one.table["feature"] == 1].iloc[0]
    by_group = (planted.codes[:, [1]].toarray().ravel() > 0.5 * planted.features["p90"].iloc[1]).reshape(3, 100).mean(1)
    assert row["nearest"] == pytest.approx(max(by_group[0], by_group[2]))
    assert row["frequency_b"] == pytest.approx(by_group[[0, 2]].mean())


def test_every_group_against_the_rest(planted):
    found = planted.diff("group")
    assert [d.a for d in found] == ["a", "b", "c"]
    assert {d.b for d in found} == {"(the rest)"}
    assert set(found.table["a"]) <= {"a", "b", "c"}


def test_noise_is_not_selected(planted):
    for difference in planted.diff("group"):
        assert 3 not in difference.table["feature"].dropna().tolist()


def test_pairs_are_compared_pair_by_pair(planted):
    (found,) = planted.diff("group", "a", "b", pair="prompt")
    row = found.table[found.table["feature"] == 1].iloc[0]
    has = planted.codes[:, [1]].toarray().ravel() > 0.5 * planted.features["p90"].iloc[1]
    a, b = has[:100], has[100:200]
    assert row["difference"] == pytest.approx(a.mean() - b.mean())
    assert found.documents == (100, 100)
    assert row["low"] < row["difference"] < row["high"]


def test_pairs_against_several_others_take_their_union(planted):
    (found,) = planted.diff("group", "a", pair="prompt", false_discovery=None)
    row = found.table[found.table["feature"] == 1].iloc[0]
    has = (planted.codes[:, [1]].toarray().ravel() > 0.5 * planted.features["p90"].iloc[1]).reshape(3, 100)
    assert row["frequency_b"] == pytest.approx((has[1] | has[2]).mean())


def test_permutation_agrees_with_fisher_where_it_matters(planted):
    (exact,) = planted.diff("group", "a", "b", false_discovery=None)
    (shuffled,) = planted.diff("group", "a", "b", false_discovery=None, test="permutation", permutations=199)
    assert shuffled.table.set_index("feature")["p"].get(1) == pytest.approx(1 / 200)
    assert exact.table.set_index("feature")["p"].get(1) < 1e-6


def test_relative_puts_rare_but_exclusive_features_first(tmp_path):
    maxima = np.zeros((400, WIDTH))
    maxima[:200, 1] = np.arange(200) < 180  # 90 % against 60 %
    maxima[200:, 1] = np.arange(200) < 120
    maxima[:200, 2] = np.arange(200) < 20  # 10 % against none
    ws = make_workspace(tmp_path / "ws", ["a b"] * 400, {"g": ["x"] * 200 + ["y"] * 200}, maxima)
    assert ws.diff("g", metric="absolute")[0].table["feature"].dropna().tolist() == [1, 2]
    assert ws.diff("g", metric="relative")[0].table["feature"].dropna().tolist() == [2, 1]


def test_length_matching_removes_what_length_explains(tmp_path):
    random = np.random.default_rng(1)
    tokens = np.concatenate([random.integers(10, 60, 400), random.integers(40, 200, 400)])
    maxima = np.zeros((800, WIDTH))
    maxima[:, 1] = random.random(800) < tokens / 220  # longer documents have it more often, whatever the group
    groups = ["short"] * 400 + ["long"] * 400
    ws = make_workspace(tmp_path / "ws", ["a b"] * 800, {"g": groups}, maxima, tokens=tokens)
    (plain,) = ws.diff("g", "long", "short")
    assert 1 in plain.table["feature"].dropna().tolist()
    assert any("differ in length" in note and "`--match-length`" in note for note in plain.notes)
    (matched,) = ws.diff("g", "long", "short", match_length=True)
    assert 1 not in matched.table["feature"].dropna().tolist()
    assert matched.median_tokens[0] == pytest.approx(matched.median_tokens[1], rel=0.15)


def test_length_matching_of_pairs_looks_inside_each_pair(tmp_path):
    """Of like length as a whole, the two sides can still have a long and a short document in every pair."""
    random = np.random.default_rng(1)
    short, long, like = random.integers(10, 60, 200), random.integers(80, 200, 200), random.integers(10, 200, 100)
    tokens = np.concatenate([long, short, like, short, long, like])
    of = [*range(200), *range(200, 400), *range(400, 500), *range(200), *range(500, 700), *range(400, 500)]
    maxima = np.zeros((1000, WIDTH))
    maxima[:, 1] = random.random(1000) < tokens / 220
    columns = {"g": ["a"] * 500 + ["b"] * 500, "prompt": [f"p{i}" for i in of]}
    ws = make_workspace(tmp_path / "ws", ["a b"] * 1000, columns, maxima, tokens=tokens)
    assert 1 in ws.diff("g", "a", "b", pair="prompt")[0].table["feature"].dropna().tolist()
    (matched,) = ws.diff("g", "a", "b", pair="prompt", match_length=True)
    assert matched.documents == (100, 100)  # the pairs of like length
    assert 1 not in matched.table["feature"].dropna().tolist()


def test_min_tokens_asks_for_repeated_firing(tmp_path):
    maxima = np.zeros((200, WIDTH))
    maxima[:100, 1] = 1
    counts = np.where(maxima > 0, 1, 0)
    ws = make_workspace(tmp_path / "ws", ["a b"] * 200, {"g": ["x"] * 100 + ["y"] * 100}, maxima, counts=counts)
    assert ws.diff("g")[0].table["feature"].dropna().tolist() == [1]
    assert ws.diff("g", min_tokens=2)[0].table["feature"].dropna().tolist() == []


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"by": "grup"}, r"no column 'grup' \(did you mean 'group'"),
        ({"by": "group", "a": "aa"}, "no group 'aa'"),
        ({"by": "group", "b": "a"}, "without group a"),
        ({"by": "prompt"}, "has 0 group.*of 5 documents or more"),
        ({"by": "prompt", "a": "p1"}, r"group 'p1' of column 'prompt' has 3 document\(s\); at least 5"),
        ({"by": "group", "metric": "absolut"}, "did you mean 'absolute'"),
        ({"by": "group", "tset": "fisher"}, r"no option 'tset' \(did you mean 'test'"),
    ],
)
def test_bad_questions_get_one_line(planted, call, said):
    with pytest.raises((InputError, ConfigError), match=said) as error:
        planted.diff(**call)
    assert "\n" not in str(error.value)


def test_few_documents_are_not_split_and_say_so(tmp_path):
    maxima = np.zeros((60, WIDTH))
    maxima[:30, 1] = 1
    ws = make_workspace(tmp_path / "ws", ["a b"] * 60, {"g": ["x"] * 30 + ["y"] * 30}, maxima)
    (found,) = ws.diff("g", split=True)
    assert found.documents == (30, 30)
    assert any("select and estimate" in note for note in found.notes)


def _corpus(tmp_path, shares_a, shares_b, size=200):
    """Two groups of documents, each feature in its share of either."""
    maxima = np.zeros((2 * size, WIDTH))
    for feature, (a, b) in enumerate(zip(shares_a, shares_b, strict=True)):
        maxima[:size, feature] = np.arange(size) < round(a * size)
        maxima[size:, feature] = np.arange(size) < round(b * size)
    return make_workspace(tmp_path / "ws", ["a b"] * (2 * size), {"g": ["x"] * size + ["y"] * size}, maxima)


def test_what_cannot_differ_by_the_threshold_is_not_tested(tmp_path):
    shares_a, shares_b = [0.3, 0.2, 0.12, 0.02, 0.01], [0.2, 0.18, 0.05, 0.0, 0.01]
    ws = _corpus(tmp_path, shares_a, shares_b)
    table = ws.diff("g", "x", "y", false_discovery=None)[0].table.set_index("feature")
    p = float(
        fisher(np.array([60]), 200, np.array([40]), 200)[0]
    )  # the third of what is tested, all together the first
    # Of 400 documents 4 have one of the last two, so that neither can differ by 3 of 100.
    assert table["q"][0] == pytest.approx(p * 3 / 3 / (1 - TO_TOGETHER))
    assert 3 not in table.index and 4 not in table.index
    everything = ws.diff("g", "x", "y", threshold=0.0, false_discovery=None)[0].table.set_index("feature")
    assert everything["q"][0] == pytest.approx(p * 5 / 3 / (1 - TO_TOGETHER))


def test_intervals_allow_for_what_was_looked_at(tmp_path):
    ws = _corpus(tmp_path, [0.5, 0.3, 0.3, 0.3], [0.2, 0.3, 0.29, 0.3])
    (found,) = ws.diff("g", "x", "y")
    assert found.table["feature"].tolist() == [0]  # one of four
    low, high = difference_interval(np.array([100]), 200, np.array([40]), 200, 1 - 0.05 / 4)
    assert (found.table["low"][0], found.table["high"][0]) == pytest.approx((low[0], high[0]))


def test_where_nothing_differs_next_to_nothing_is_shown(tmp_path):
    random = np.random.default_rng(0)
    shown = 0
    for draw in range(100):
        maxima = random.random((300, WIDTH)) < random.uniform(0.02, 0.6, WIDTH)
        groups = random.permutation(np.repeat(["x", "y"], 150)).tolist()
        ws = make_workspace(tmp_path / str(draw), ["a b"] * 300, {"g": groups}, maxima.astype(float))
        shown += len(ws.diff("g", "x", "y", threshold=0.0)[0].table) > 0
    assert shown <= 8  # a false discovery rate of 5 %: of 100 corpora 5 may; more than 8 with a chance of 6 %


def test_too_few_shufflings_are_told(planted):
    (found,) = planted.diff("group", "a", "b", test="permutation", permutations=99)
    assert any("99 shufflings cannot tell" in note for note in found.notes)
    assert not planted.diff("group", "a", "b", test="permutation", permutations=999)[0].notes
