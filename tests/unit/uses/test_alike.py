"""Rows about the same documents: one stands for all, and nothing of what was tested is lost."""

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, vstack

from hourglass.cli.output import also, gathered
from hourglass.uses.explore.alike import first_alike, same_as
from hourglass.uses.explore.presence import present_by_shard, present_in
from workspaces import WIDTH, make_workspace


def columns(*documents, of=20):
    """[of, columns] presence of columns that are each given by their documents."""
    present = np.zeros((of, len(documents)))
    for column, own in enumerate(documents):
        present[list(own), column] = 1
    return csr_matrix(present)


def test_columns_that_share_four_of_five_documents_are_alike():
    present = columns(range(10), range(9), range(2, 10), range(3, 10), range(10, 20), [])
    assert first_alike(present).tolist() == [0, 0, 0, 3, 4, 5]  # 7 of 10 are too few, and nothing is like nothing


def test_the_clearest_name_stands_for_all_alike():
    first = np.array([0, 0, 0, 3, 3])
    terms = [["and"], [], ["kind regards"], ["the"], []]
    assert pd.isna(same_as(first, terms)[2])
    assert same_as(first, terms).fillna(-1).tolist() == [2, 2, -1, -1, 3]
    # A key of their own joins rows, and those that they stood for come along.
    joined = same_as(first, terms, keys=["a", "b", "c", "a", "d"])
    assert joined.fillna(-1).tolist() == [2, 2, -1, 2, 2]
    assert len(same_as(np.zeros(0, np.int64), [])) == 0


def test_presence_of_some_columns_is_that_of_the_whole(tmp_path):
    random = np.random.default_rng(0)
    maxima = random.random((60, WIDTH)) * (random.random((60, WIDTH)) < 0.5)
    texts = [f"red {'green' if i % 3 else 'blue'}" for i in range(60)]
    counts = (maxima > 0) * random.integers(1, 4, maxima.shape)
    ws = make_workspace(tmp_path / "ws", texts, {}, maxima, shard=25, counts=counts)
    level = 0.5 * ws.features["p90"].to_numpy(np.float32)
    whole = [np.hstack([c.codes.present(level).toarray(), c.words.toarray()]) for c in ws.coded()]
    chosen = np.array([WIDTH + ws.words.index("blue"), 5, 2])
    assert np.array_equal(present_in(ws, chosen, 0.5, 1).toarray(), np.concatenate(whole)[:, chosen])
    assert present_in(ws, np.zeros(0, np.int64), 0.5, 1).shape == (60, 0)
    of_two = np.concatenate([c.codes.present(level, 2).toarray() for c in ws.coded()])
    assert np.array_equal(present_in(ws, chosen[1:], 0.5, 2).toarray(), of_two[:, chosen[1:]])
    some = np.array([3, 24, 55])  # none of the second shard
    assert np.array_equal(present_in(ws, chosen, 0.5, 1, some).toarray(), np.concatenate(whole)[some][:, chosen])
    by_shard = list(present_by_shard(ws, some, 0.5, 1))
    assert [part.shape[0] for part in by_shard] == [2, 1]
    assert np.array_equal(vstack(by_shard).toarray(), np.concatenate(whole)[some])


def test_a_phrase_that_rises_is_one_finding(tmp_path):
    """1,000 documents; the phrase, its words and feature 1 rise together, feature 2 by itself."""
    random = np.random.default_rng(0)
    month = random.integers(1, 6, 1000)
    polite = random.random(1000) < month / 7
    maxima = np.zeros((1000, WIDTH))
    maxima[:, 1] = polite
    maxima[:, 2] = random.random(1000) < month / 8
    texts = [f"word{i % 7} {'with kind regards' if p else 'now'}" for i, p in enumerate(polite)]
    ws = make_workspace(tmp_path / "ws", texts, {"month": month.tolist()}, maxima, shard=300)
    found = ws.trend("month")
    assert len(found.table) > 5  # every word of it was tested, and is told
    by_name = dict(zip(found.table["label"], found.table.index))
    rising = {row.label: {row.label, *others["label"]} for row, others in gathered(found.table) if row.change > 0}
    phrase = {"name 1", "kind", "regards", "kind regards", "with kind"}
    name = next(name for name, all_of_it in rising.items() if "kind" in all_of_it)
    assert rising[name] >= phrase and len(phrase & set(rising)) == 1
    assert rising["name 2"] == {"name 2"}
    row = found.to_dict()["rows"][by_name["kind"]]
    assert row["same_as"] is None or found.table["label"][row["same_as"]] == name
    shown = also("kind", ["kind regards", "with kind", "and thanks", "kind", None], 60)
    assert shown == "kind\n  also: kind regards; thanks"

    groups = make_workspace(
        tmp_path / "groups", texts, {"g": np.where(polite | (month < 3), "a", "b").tolist()}, maxima
    )
    difference = groups.diff("g")[0]
    assert phrase <= set(difference.table["label"])
    assert len(phrase & {row.label for row, _ in gathered(difference.table)}) == 1
