"""Search by features, by examples and by words, over a workspace made by hand."""

import numpy as np
import pytest

from hourglass.errors import InputError


def test_by_features_ranks_by_scaled_maximum(planted):
    found = planted.find(features={2: 1.0}, top=10)
    values = planted.codes[:, [2]].toarray().ravel()
    assert found.documents["position"].tolist() == np.argsort(-values, kind="stable")[:10].tolist()
    p90 = planted.features["p90"].iloc[2]
    assert found.documents["score"].iloc[0] == pytest.approx(values.max() / p90, rel=1e-3)
    assert planted.find(features={2: 1.0}, scale=False).documents["score"].iloc[0] == pytest.approx(
        values.max(), rel=1e-3
    )


def test_by_examples_finds_their_shared_feature(planted):
    has = np.flatnonzero(planted.codes[:, [2]].toarray().ravel() > 0)
    without = np.flatnonzero(planted.codes[:, [2]].toarray().ravel() == 0)
    like, unlike = [str(i) for i in has[:10]], [str(i) for i in without[:10]]
    found = planted.find(like=like, unlike=unlike, fuse=False, top=20)
    assert found.features["feature"].iloc[0] == 2
    assert set(found.documents["position"][:10]) <= set(has)
    assert not set(found.documents["id"]) & {*like, *unlike}


def test_by_words_uses_the_nearest_names(planted, monkeypatch):
    monkeypatch.setattr("hourglass.uses.explore.find.query_vector", lambda ws, q: np.array([0, 0, 1, 0.1], np.float32))
    found = planted.find("anything", k=3, fuse=False)
    assert found.features["feature"].iloc[0] == 2
    assert found.features["weight"].tolist() == pytest.approx(np.exp(-np.arange(3) / 3 / 0.2).tolist())
    fused = planted.find("anything", k=3)
    assert fused.documents["position"].tolist() != found.documents["position"].tolist()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({}, "exactly one of"),
        ({"query": "x", "like": ["1"]}, "exactly one of"),
        ({"query": "  "}, "query is empty"),
        ({"like": ["nobody"]}, "no document with id 'nobody'"),
        ({"features": {99: 1.0}}, "no feature 99; they go from 0 to 7"),
    ],
)
def test_bad_questions_get_one_line(planted, call, said):
    with pytest.raises(InputError, match=said):
        planted.find(**call)


def test_rows_come_back_in_the_order_asked(planted):
    wanted = [250, 3, 120, 3]
    rows = planted.rows(wanted, ["_id"])
    assert rows.column(0).to_pylist() == [str(i) for i in wanted]
