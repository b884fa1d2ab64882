"""What all of one text predicts of the other: on what no pair tells, and where there is nothing."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from hourglass.uses.explore import predicted as module
from hourglass.uses.explore.presence import present_in
from hourglass.uses.explore.ridge import Ridge
from hourglass.uses.explore.scores import dense_rows
from workspaces import kind_that_is_told, two_texts

NOTHING = np.zeros((400, 1))
"""Mean states that say nothing."""


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
