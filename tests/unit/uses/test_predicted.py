"""What all of one text predicts of the other: against brute force, on what no pair tells, and where there is nothing."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csc_matrix, csr_matrix
from scipy.stats import chisquare, kstest
from sklearn.linear_model import Ridge as Peer

from hourglass.metrics.proportions import benjamini_hochberg
from hourglass.uses.explore import predicted as module
from hourglass.uses.explore.predicted import Distances, Said
from hourglass.uses.explore.presence import present_in
from hourglass.uses.explore.ridge import RIDGE, Ridge
from hourglass.uses.explore.scores import dense_rows
from hourglass.uses.progress import Progress
from workspaces import kind_that_is_told, two_texts

NOTHING = np.zeros((400, 1))
"""Mean states that say nothing."""


def said(x):
    """By all columns of x [documents, columns] alone."""
    return Said.by(Ridge(csr_matrix(x.astype(float)), NOTHING[: len(x)]))


def test_p_is_of_scores_without_the_document_itself(monkeypatch):
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

    item = np.isin(np.arange(30), [2, 7]).astype(float)
    found = Distances(said(x), csc_matrix(item[:, None]), strata)
    rounded = found._said.step
    assert found.found[0] == pytest.approx(distance([2, 7]), abs=rounded)
    by_hand = np.array([distance([i, j]) for i in range(6) for j in range(6, 10)])
    values, counts = np.unique(found._drawn(np.zeros(1, np.int64), 12_000, random), return_counts=True)
    np.testing.assert_allclose(values, np.sort(by_hand), atol=rounded)
    assert chisquare(counts).pvalue > 1e-3
    share = np.mean(by_hand >= found.found[0] - rounded)
    assert found.p_values(np.zeros(1, np.int64), 12_000, random)[0] == pytest.approx(share, abs=0.02)


def test_p_is_as_often_small_as_it_says():
    random = np.random.default_rng(0)
    x = Ridge(csr_matrix((random.random((200, 60)) < 0.2).astype(float)), random.normal(size=(200, 30)))
    y = csc_matrix((random.random((200, 2000)) < 0.1).astype(float))
    p = Distances(Said.by(x), y, np.zeros(200, np.int64)).p_values(np.arange(2000), 999, random)
    assert kstest(p, "uniform").pvalue > 1e-3
    assert (p <= 0.001).sum() <= 8


def test_two_copies_are_no_finding():
    """Two documents of 400 have the same twenty rare words and, by chance, the same item: as one of 5,000 draws has, and none of 999."""
    random = np.random.default_rng(0)
    x = np.column_stack([random.random((400, 60)) < 0.2, np.isin(np.arange(400), [5, 6])[:, None].repeat(20, 1)])
    y = np.isin(np.arange(400), [5, 6, *random.permutation(np.arange(7, 400))[:4]])
    p = {}
    for share in (1, module.MOST_SAID):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "MOST_SAID", share)
            found = Distances(said(x), csc_matrix(y[:, None].astype(float)), np.zeros(400, int))
            p[share] = found.p_values(np.zeros(1, np.int64), 999, np.random.default_rng(1))[0]
    assert p[1] < 1e-5 < 1e-4 < p[module.MOST_SAID]


def test_draws_are_the_same_on_any_number_of_threads():
    random = np.random.default_rng(0)
    x, y = ((random.random((100, n)) < 0.2).astype(float) for n in (30, 200))
    found, threads, p = Distances(said(x), csc_matrix(y), np.arange(100) // 50), torch.get_num_threads(), []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            p.append(found.p_values(np.arange(200), 99, np.random.default_rng(1)))
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(*p)


def test_rounds_leave_what_is_sure_or_hopeless_and_tell_the_same():
    random = np.random.default_rng(0)
    x = random.random((300, 40)) < 0.2
    told = [(x[:, :30].sum(1) + random.normal(size=300) * noise) > 9 for noise in (0.5, 1, 2, 3, 4)]
    y = csc_matrix(np.column_stack([*told, random.random((300, 60)) < 0.1]).astype(float))
    found = [Distances(said(x), y, np.zeros(300, np.int64))] * 2
    drawn = []

    class Counting:
        def __init__(self, one):
            self.found, self.one = one.found, one

        def further(self, which, p, told):
            return which

        def p_values(self, which, draws, random):
            drawn.append(len(which))
            return self.one.p_values(which, draws, random)

    p = module._p_values([Counting(one) for one in found], benjamini_hochberg, 0.01, random, Progress(False))
    everything = found[0].p_values(np.arange(65), 9999, random)
    assert drawn[0] == 65 and sum(drawn[-2:]) < 20
    for of_one in p:
        assert ((benjamini_hochberg(of_one) <= 0.01) == (benjamini_hochberg(everything) <= 0.01)).all()


def test_how_large_p_may_be():
    p = np.array([1.0, 1e-2, 1e-9, 1e-300, 0.0])
    most = module._at_most(p, 0.19)
    size = -np.log10(most)
    np.testing.assert_allclose(size[:4] + 0.19 * size[:4] ** 2, -np.log10(p[:4]), atol=1e-9)
    assert (most >= p).all() and most[-1] > 0
    assert module._at_most(p, 0.0) is p


@pytest.mark.parametrize(
    ("number", "kept", "stands"), [(9, [0, 2, 4, 1, 3], [0, 0, 0, 3, 3]), (3, [0, 2, 1], [0, 0, 2]), (1, [0], [0])]
)
def test_every_finding_has_a_row_before_any_has_a_second(number, kept, stands):
    got = module._every_finding(np.array([0, 1, 0, 1, 0]), number)
    assert [own.tolist() for own in got] == [kept, stands]
    assert [own.tolist() for own in module._every_finding(np.zeros(0, np.int64), number)] == [[], []]


def test_items_that_are_told_in_one_way_are_one_finding():
    """Of the left text items 0 and 1 go with one half of the right text's words, 2 with the other half; so does the right's item."""
    random = np.random.default_rng(0)
    of_kind = np.arange(400) % 8
    words = np.repeat((of_kind[:, None] == [0, 1]), 10, axis=1) & (random.random((400, 20)) < 0.5)
    right = csr_matrix((words | (random.random((400, 20)) < 0.05)).astype(float))
    items = np.column_stack([(of_kind == kind) & (random.random(400) < 0.8) for kind in (0, 0, 1)])
    has = np.column_stack([items[:, 0], right.toarray()[:, 0] > 0, items[:, 1:]])
    ridges = {"a": Ridge(right, NOTHING), "b": Ridge(csr_matrix(items.astype(float)), NOTHING)}
    assert module._findings(np.array(["a", "b", "a", "a"]), has, ridges).tolist() == [0, 1, 0, 3]


def test_groups_around_documents_of_one_that_is_told_better_get_no_more_draws(monkeypatch):
    random = np.random.default_rng(0)
    x = random.random((6, 4)) < 0.5
    groups = csc_matrix(
        np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]], float)
    )
    of = module.GroupDistances(said(x), groups, np.zeros(6, np.int64), np.array([0, 1, 2, 3]))
    p, left = np.array([1e-3, 1e-9, 1e-4, 1e-2]), np.array([0, 2, 3])
    told = np.array([False, True, False, False])  # its rows are those that the first and the third are around
    of.found = np.array([0.3, 0.2, 0.1, 0.1])
    assert of.further(left, p, told).tolist() == [0, 3]  # the first will stand before it
    assert of.further(left, p, np.zeros(4, bool)).tolist() == [0, 2, 3]
    assert of.further(left[:0], p, told).tolist() == []
    monkeypatch.setattr(module, "MANY", 2)
    assert of.further(left, p, np.zeros(4, bool)).tolist() == [0, 3]
    assert of.further(left[:2], p, np.zeros(4, bool)).tolist() == [0, 2]


def test_groups_are_told_where_perhaps_none_at_all_is_wrong():
    assert module._of_any(np.array([1e-6, 0.3, 1.0, 0.0])).tolist() == [4e-6, 1, 1, 0]


def presence(workspace):
    return present_in(workspace, np.arange(workspace.manifest["width"]), 0.5, 1)


def test_what_no_pair_tells_is_predicted_by_all_of_the_other_text(tmp_path):
    a, b, has = two_texts(tmp_path, True)
    found = a.correlate(b, max_similarity=None, progress=False)
    assert not len(found.table)
    row = found.predicted.table.iloc[0]
    assert (row["side"], row["kind"], row["feature"], row["label"], row["documents"]) == (
        "b",
        "feature",
        0,
        "second0",
        has.sum(),
    )
    assert row["q"] < 0.01
    assert row["frequency_with"] > 0.8
    assert row["frequency_without"] < 0.2
    assert row["low"] < row["difference"] < row["high"]
    assert has[row["typical"]].all()
    # By weights and bar, which were learned from these documents, about what the table says.
    direction = found.predicted.directions[0]
    more = direction.sums(presence(a), dense_rows(a, np.arange(len(a)), "middle")) > direction.bar
    assert more[has].mean() >= row["frequency_with"]
    assert more[~has].mean() <= row["frequency_without"]
    assert (direction.items["weight"] > 0).mean() > 0.8
    got = found.to_dict()["predicted"]["rows"][0]
    assert got["items_for"][0]["label"] == found.predicted.speaks_for(0)[0] == direction.items["label"].iloc[0]
    mirrored = b.correlate(a, max_similarity=None, progress=False).predicted.table.iloc[0]
    assert (mirrored["side"], mirrored["feature"]) == ("a", 0)


def test_a_group_that_no_item_tells_is_predicted_by_all_of_the_other_text(tmp_path):
    a, b, has = kind_that_is_told(tmp_path, True)
    found = a.correlate(b, max_similarity=None, progress=False)
    assert not len(found.table)
    table = found.predicted.table
    groups = table[table["kind"] == "group"]
    assert (
        groups["side"].tolist() == ["a", "b"] and groups["same_as"].isna().all()
    )  # of each finding one, which tells more than any item
    group = groups.iloc[1]
    own = found.predicted.in_own[groups.index[1]]
    assert (group["documents"], has[group["position"]], pd.isna(group["feature"])) == (31, True, True)
    assert group["frequency_with"] - group["frequency_without"] > 0.8 and group["q"] < 0.01
    assert has[group["typical"]].all()
    assert group["label"] == "; ".join(own.names()[:3]) and set(own.names()[:3]) <= {f"second{i}" for i in range(60)}
    more = own.sums(presence(b), dense_rows(b, np.arange(len(b)), "middle")) > own.bar
    assert more[has].mean() > more[~has].mean() + 0.6
    items = table[(table["kind"] == "feature") & (table["side"] == "b")]
    assert len(items) and items["difference"].max() < group["difference"]
    assert [own is None for own in found.predicted.in_own] == (table["kind"] != "group").tolist()
    rows = found.to_dict()["predicted"]["rows"]
    assert rows[groups.index[1]]["items_own"][0]["label"] == own.names()[0]
    assert not any("items_own" in rows[at] for at in items.index)


@pytest.mark.parametrize("made", [two_texts, kind_that_is_told])
def test_where_nothing_goes_together_nothing_is_predicted(tmp_path, made):
    a, b, _ = made(tmp_path, False)
    found = a.correlate(b, progress=False)
    assert found.predicted.table.empty
    assert found.predicted.tested > 0
    assert found.to_dict()["predicted"]["rows"] == []
    assert a.correlate(max_same_tokens=None, progress=False).predicted is None
    assert (
        a.correlate(b, max_similarity=None, false_discovery=1.0, progress=False).predicted is None
    )  # nothing is tested
