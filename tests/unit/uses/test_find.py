"""Search by features, by examples and by words, over a workspace made by hand."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from hourglass.errors import InputError
from hourglass.uses.explore.examples import words_from_examples
from hourglass.uses.explore.scores import word_scores
from workspaces import DIM, WIDTH, make_workspace


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
    found = planted.find(like=like, unlike=unlike, fuse=(), top=20)
    assert found.features["feature"].iloc[0] == 2
    assert set(found.documents["position"][:10]) <= set(has)
    assert not set(found.documents["id"]) & {*like, *unlike}


def test_by_words_uses_the_nearest_names(planted, monkeypatch):
    monkeypatch.setattr("hourglass.uses.explore.find.query_vector", lambda ws, q: np.array([0, 0, 1, 0.1], np.float32))
    found = planted.find("anything", k=3, fuse=())
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
        ({"like": ["nobody", "d0", "a third"]}, "no document with id 'nobody'"),  # the first, not the first by name
        ({"features": {99: 1.0}}, "no feature 99; they go from 0 to 7"),
        ({"query": "x", "without": [99]}, "no feature 99; they go from 0 to 7"),
        ({"query": "x", "unlike": ["1"]}, "need examples that have it"),
        ({"features": {1: 1.0}, "without": [2]}, "can only be left out"),
        ({"query": "x", "features": {1: 1.0}, "without": [1]}, "both given a weight and left out"),
        ({"like": ["1", "2"], "unlike": ["2"]}, "document '2' is given both as one that has it"),
        ({"query": "x", "fuse": ("dens",)}, "did you mean 'dense'"),
        ({"query": "x", "fuse": "dense"}, "expected a list"),
        ({"query": "x", "temperature": 0}, "expected a number above 0"),
    ],
)
def test_bad_questions_get_one_line(planted, call, said):
    with pytest.raises(InputError, match=said):
        planted.find(**call)


@pytest.fixture
def asked(planted, monkeypatch):
    """The planted workspace, where any query's vector is nearest to the names of features 2, 3 and 1, in this order."""
    vector = np.array([0, 0.2, 1, 0.5], np.float32)
    monkeypatch.setattr("hourglass.uses.explore.find.query_vector", lambda ws, q: vector)
    return planted


def test_the_sign_that_ends_a_question_ranks_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("hourglass.uses.explore.find.query_vector", lambda ws, q: np.ones(DIM, np.float32))
    texts = ["where is milk?", "milk is here", "bread is here"] * 20
    ws = make_workspace(tmp_path / "ws", texts, {}, np.ones((60, 2)))
    assert "?" in ws.words
    with_sign, without = (ws.find(query, fuse=("words",), top=60).documents for query in ("milk?", "milk"))
    assert with_sign.equals(without)


def test_edits_change_weights_and_say_what_was_before(asked):
    before = asked.find("anything", k=3, fuse=(), top=300)
    after = asked.find("anything", k=3, fuse=(), top=300, features={1: 2.0, 5: -1.0}, without=[2])
    table = after.features.set_index("feature")
    assert table["weight"].to_dict() == {2: 0.0, 3: pytest.approx(np.exp(-1 / 0.6)), 1: 2.0, 5: -1.0}
    assert np.isnan(table["weight_before"][5])
    assert table["weight_before"][2] == 1
    place = {d: i for i, d in enumerate(before.documents["position"], 1)}
    assert after.documents["rank_before"].tolist() == [place[d] for d in after.documents["position"]]
    assert 0 < after.overlap < 1
    assert before.overlap is None
    assert asked.find("anything", k=3, features={2: 1.0}).overlap == pytest.approx(1)  # its weight already


def test_a_feature_without_a_name_has_none(planted):
    assert planted.find(features={0: 1.0, 1: 1.0}).features["label"].tolist() == [None, "name 1"]


def test_what_carries_a_document_adds_up_to_its_score(asked):
    found = asked.find("anything", k=3, fuse=(), top=300, features={1: -0.5})
    for row in found.documents.itertuples():
        assert sum(c["contribution"] for c in row.carried) == pytest.approx(row.score, abs=1e-3)
        sizes = [abs(c["contribution"]) for c in row.carried]
        assert sizes == sorted(sizes, reverse=True)


def test_places_in_the_single_rankings_fuse_to_the_score(asked):
    found = asked.find("apple", k=3, top=300)
    places = found.documents[["by_features", "by_dense", "by_words"]]
    assert (1 / (60 + places)).sum(axis=1).to_numpy() == pytest.approx(found.documents["score"].to_numpy())
    assert places.min().tolist() == [1, 1, 1]
    only = asked.find("apple", k=3, fuse=("words",))
    assert list(only.documents.columns) == ["position", "id", "score", "by_features", "by_words", "carried", "text"]


def test_a_query_of_unknown_words_has_no_ranking_by_words(asked):
    assert "by_words" not in asked.find("zzz", k=3).documents


def test_rerank_picks_among_the_nearest_names(asked):
    seen = []

    def rerank(query, candidates):
        seen.append((query, candidates["feature"].tolist()))
        return [1, 3]

    found = asked.find("anything", rerank=rerank, candidates=3, fuse=())
    assert seen == [("anything", [2, 3, 1])]
    assert found.features["feature"].tolist() == [1, 3]
    assert found.features["weight"].tolist() == pytest.approx([1, np.exp(-1 / 2 / 0.2)])
    with pytest.raises(InputError, match="returned feature 7"):
        asked.find("anything", rerank=lambda q, c: [7])


def test_words_are_ranked_by_bm25_over_presence(tmp_path):
    random = np.random.default_rng(0)
    known = [f"word{i}" for i in range(12)]
    texts = [" ".join(random.choice(known, random.integers(1, 9), replace=False)) for _ in range(130)]
    ws = make_workspace(tmp_path / "ws", texts, {}, random.random((130, WIDTH)))
    matrix = np.concatenate([c.words.toarray() for c in ws.coded()])
    asked = [ws.words.index("word3"), ws.words.index("word7")]
    got = word_scores(ws, dict.fromkeys(asked))
    lengths = matrix.sum(1)
    for d in range(130):
        expected = 0.0
        for w in asked:
            n = matrix[:, w].sum()
            norm = 1.2 * (1 - 0.75 + 0.75 * lengths[d] / lengths.mean())
            expected += np.log(1 + (130 - n + 0.5) / (n + 0.5)) * matrix[d, w] * 2.2 / (matrix[d, w] + norm)
        assert got[d] == pytest.approx(expected, rel=1e-5)


def test_words_of_examples_are_those_they_share(tmp_path):
    texts = ["common shared word"] * 20 + ["common plain text"] * 80
    ws = make_workspace(tmp_path / "ws", texts, {}, np.ones((100, WIDTH)))
    weights = words_from_examples(ws, np.arange(5), np.array([50, 51]))
    assert {ws.words[w] for w in weights} == {"shared", "word", "common shared", "shared word"}
    found = ws.find(like=["0", "1"], unlike=["50"], fuse=("words",), learn=False, top=18)
    assert set(found.documents["position"]) == set(range(2, 20))


def test_a_question_that_turns_into_nothing_says_so(planted):
    with pytest.raises(InputError, match="no feature and no word"):
        planted.find(features={1: 0.0})


def test_rows_come_back_in_the_order_asked(planted):
    wanted = [250, 3, 120, 3]
    rows = planted.rows(wanted, ["_id"])
    assert rows.column(0).to_pylist() == [str(i) for i in wanted]


def test_rows_are_read_from_the_row_groups_that_hold_them(planted):
    for shard in planted.shards:
        path = planted.document_file(shard)
        pq.write_table(pq.read_table(path), path, row_group_size=7)
    wanted = [250, 3, 6, 7, 120, 3, 299]
    rows = planted.rows(wanted, ["_id", "no such column"])
    assert rows.column(0).to_pylist() == [str(i) for i in wanted]
    assert rows.column(1).to_pylist() == [None] * 7


def test_what_an_example_has_not_counts_against_it_in_the_dense_ranking(tmp_path):
    dense = np.zeros((60, DIM))
    dense[:, 0] = 1.0  # what all have in common
    dense[:20, 1] = dense[10:40, 2] = 1.0
    ws = make_workspace(tmp_path / "ws", ["text"] * 60, {}, np.eye(60, WIDTH), dense=dense)
    like, unlike = [str(i) for i in range(10, 15)], [str(i) for i in range(30, 35)]
    ranked = [
        ws.find(like=like, unlike=apart, top=60, learn=False).documents.set_index("position")["by_dense"]
        for apart in ((), unlike)
    ]
    # 0 to 9 share with the examples what sets them apart, 35 to 39 what does not.
    assert all(ranked[0].loc[0:9].to_numpy() >= ranked[0].loc[35])
    assert all(ranked[1].loc[i] < ranked[1].loc[35] for i in range(10))
