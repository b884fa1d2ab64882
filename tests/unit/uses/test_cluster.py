"""Clusters along an axis, over workspaces with two planted axes, and the graph that they are drawn from."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.metrics import adjusted_rand_score

from hourglass.errors import ConfigError, InputError
from hourglass.systems.interpretable_embeddings import PAPER_CLUSTER
from hourglass.uses.explore.affinity import by_eigengap, jaccard_graph, patterns, spectrum
from hourglass.uses.explore.by_phrase import surest
from workspaces import make_workspace

TOPICS, STYLES = 3, 2
PHRASES = dict(zip(("topic", "style", "rude", "friendly"), np.eye(4, dtype=np.float32)))
WORDS = {"damn": PHRASES["rude"], "kindly": PHRASES["friendly"]}


def random_rows(n, width, share, seed):
    rows = csr_matrix(np.random.default_rng(seed).random((n, width)) < share, dtype=np.float32)
    return rows[np.diff(rows.indptr) > 0]


def jaccard(rows):
    dense = rows.toarray() > 0
    shared = (dense[:, None] & dense[None]).sum(2)
    return shared / (dense[:, None] | dense[None]).sum(2)


@pytest.mark.parametrize(("n", "width", "share", "k"), [(80, 12, 0.2, 5), (150, 40, 0.1, 12), (60, 6, 0.4, 3)])
def test_neighbours_are_those_of_brute_force(n, width, share, k):
    rows = random_rows(n, width, share, seed=n)
    full = jaccard(rows)
    p = len(full)
    expected = np.zeros((p, p))
    for i in range(p):
        order = [j for j in np.lexsort((np.arange(p), -full[i])) if j != i][:k]
        expected[i, order] = full[i, order]
    expected = np.maximum(expected, expected.T) + np.eye(p)
    assert jaccard_graph(rows, k).toarray() == pytest.approx(expected)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_graph_is_the_same_with_any_number_of_threads_which_it_leaves_as_they_are(threads):
    rows, before = random_rows(400, 30, 0.2, seed=1), torch.get_num_threads()
    expected = jaccard_graph(rows, 7)
    try:
        torch.set_num_threads(threads)
        assert (jaccard_graph(rows, 7) != expected).nnz == 0
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_the_complete_graph_is_brute_force():
    rows = random_rows(50, 10, 0.3, seed=3)
    assert jaccard_graph(rows, rows.shape[0]).toarray() == pytest.approx(jaccard(rows))


def test_patterns_stand_for_their_documents():
    rows = csr_matrix(np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1], [0, 0, 1], [1, 0, 1]], np.float32))
    found = patterns(rows)
    assert found.weight.tolist() == [3, 1, 1]
    assert (found.rows[found.of].toarray() == rows.toarray()).all()


def test_weighted_patterns_have_the_spectrum_of_their_documents():
    rows = csr_matrix((np.random.default_rng(0).random((60, 5)) < 0.5).astype(np.float32))
    rows = rows[np.diff(rows.indptr) > 0]
    found = patterns(rows)
    affinity = jaccard(rows)
    np.fill_diagonal(affinity, 0)
    n = len(affinity)
    affinity += affinity.sum() / n / n
    root = np.sqrt(affinity.sum(1))
    expected = np.sort(np.linalg.eigvalsh(affinity / root[:, None] / root[None]))[::-1]
    graph = jaccard_graph(found.rows, len(found.weight))
    values, _ = spectrum(graph, found.weight, 5, np.random.default_rng(0))
    assert values == pytest.approx(expected[:5])


def test_large_graphs_take_the_sparse_solver_to_the_same_end():
    rows = random_rows(700, 30, 0.15, seed=1)
    found = patterns(rows)
    assert len(found.weight) > 400
    graph = jaccard_graph(found.rows, 20)
    values, vectors = spectrum(graph, found.weight, 4, np.random.default_rng(0))
    again, _ = spectrum(graph, found.weight, len(found.weight) - 1, np.random.default_rng(0))  # all at once
    assert values == pytest.approx(again[:4])
    assert vectors.shape == (len(found.weight), 4)


def test_the_eigengap():
    assert by_eigengap(np.array([1, 0.9, 0.88, 0.3, 0.29, 0.2]), 5) == 3
    assert by_eigengap(np.array([1, 0.5, 0.5]), 12) == 3  # three patterns that share nothing


@pytest.fixture
def two_axes(tmp_path, monkeypatch):
    """360 documents of a topic (features 1-9, three each; words) and a style (10-13, two each); 0 is nowhere; 20 have no style."""
    random = np.random.default_rng(0)
    topic, style = np.arange(360) % TOPICS, np.arange(360) // TOPICS % STYLES
    maxima = np.zeros((360, 14))
    for d in range(360):
        maxima[d, 1 + 3 * topic[d] : 4 + 3 * topic[d]] = random.random(3) < 0.8
        maxima[d, 10 + 2 * style[d] : 12 + 2 * style[d]] = random.random(2) < 0.8
        maxima[d, random.integers(1, 14)] = 1  # noise
    maxima[340:, 10:] = 0
    maxima *= random.uniform(0.8, 1.2, maxima.shape)
    words = np.array(["onion", "goal", "tax"])[topic]
    texts = [f"{w} {'kindly' if s else 'damn'} text" for w, s in zip(words, style)]
    vectors = np.zeros((14, 4))
    vectors[1:10, 0] = vectors[10:, 1] = 1
    dense = np.eye(4)[topic] + 0.1 * random.normal(size=(360, 4))
    ws = make_workspace(tmp_path / "ws", texts, {"topic": words, "style": style}, maxima, dense=dense, vectors=vectors)
    monkeypatch.setattr("hourglass.uses.explore.axis.query_vector", lambda ws, phrase: PHRASES[phrase])
    of_term = {f"name {i}": vector for i, vector in enumerate(vectors)} | WORDS
    monkeypatch.setattr(
        "hourglass.uses.explore.axis.text_vectors",
        lambda ws, texts: np.stack([of_term.get(text, np.zeros(4)) for text in texts]),
    )
    return ws, topic, style


def test_the_axis_that_is_named_is_found(two_axes):
    ws, topic, style = two_axes
    by_style = ws.cluster("style", k=4, number=2)
    inside = by_style.assignment > 0
    assert adjusted_rand_score(style[inside], by_style.assignment[inside]) > 0.6
    assert abs(adjusted_rand_score(topic[inside], by_style.assignment[inside])) < 0.05
    by_topic = ws.cluster(["topic"], k=9, number=3)
    assert adjusted_rand_score(topic, by_topic.assignment) > 0.8
    assert set(by_style.features["feature"]) == {10, 11, 12, 13}
    assert set(by_style.features["phrase"]) == {"style"}


def test_without_a_number_the_eigengap_finds_three_topics(two_axes):
    found = two_axes[0].cluster("topic", k=9)
    assert len(found) == TOPICS
    assert any("eigengap" in note for note in found.notes)


def test_phrases_and_features_join_and_a_feature_comes_once(two_axes):
    ws, _, _ = two_axes
    axis = ws.cluster(["style", "topic"], features=[0, 10], k=4, number=2).features
    assert axis["feature"].tolist() == [0, 10, 11, 12, 13, 1, 2, 3, 4]
    assert axis["phrase"].tolist() == [None, None, *["style"] * 3, *["topic"] * 4]
    assert axis["label"].tolist()[:2] == [None, "name 10"]


def test_documents_without_the_axis_stand_apart(two_axes):
    ws, _, _ = two_axes
    found = ws.cluster(features=[10, 11, 12, 13], number=2)
    has = np.asarray((ws.codes[:, [10, 11, 12, 13]] > 0).sum(1)).ravel() > 0
    assert (found.assignment[~has] == 0).all()
    assert found.table["documents"].sum() == (found.assignment > 0).sum()
    assert any("none of the axis' features" in note for note in found.notes)
    assert found.to_dict()["without"] == (found.assignment == 0).sum()


def test_names_are_distinct_and_put_unseen_documents_where_they_are(two_axes):
    ws, _, _ = two_axes
    found = ws.cluster("topic", k=9, number=3)
    words = [set(name.split(", ")) for name in found.table["name"]]
    assert not words[0] & words[1] | words[1] & words[2] | words[0] & words[2]
    assert all(len(w & {"onion", "goal", "tax"}) <= 1 for w in words)
    assert found.accuracy > 0.8 > 0.4 > found.accuracy_by_chance
    assert (found.table["accuracy"] > 0.7).all()
    assert found.accuracy_by_features > 0.8
    central = [d["text"].split()[0] for shown in found.shown for d in shown["central"]]
    assert len(central) == 15


def test_dense_vectors_see_the_topic_but_not_the_style(two_axes):
    ws, _, _ = two_axes
    by_topic, by_style = ws.cluster("topic", k=9, number=3).table, ws.cluster("style", k=4, number=2).table
    assert (by_topic["dense_conductance_z"] < -20).all()
    assert (by_style["dense_conductance_z"].abs() < 6).all()
    assert (by_style["conductance_z"] < -10).all()


def test_a_seed_fixes_everything(two_axes):
    ws, _, _ = two_axes
    one, other = ws.cluster("topic", k=9, seed=5), ws.cluster("topic", k=9, seed=5)
    assert one.to_dict() == other.to_dict()


def test_the_graph_of_the_nearest_and_the_complete_one_agree_where_all_is_plain(two_axes):
    ws, topic, _ = two_axes
    for neighbours in (15, 1000):
        found = ws.cluster("topic", k=9, number=3, neighbours=neighbours)
        assert adjusted_rand_score(topic, found.assignment) > 0.8


def test_all_features_are_the_axis_when_none_is_named(two_axes):
    ws, topic, _ = two_axes
    found = ws.cluster(number=3)
    assert len(found.features) == 14
    assert adjusted_rand_score(topic, found.assignment) > 0.5


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"features": [99]}, "no feature 99; they go from 0 to 13"),
        ({"axis": "  "}, "phrase of the axis is empty"),
        ({"features": [0]}, "none of 360 documents has any"),
        ({"features": [10]}, "nothing tells them apart"),
        ({"features": [10, 11], "number": 9}, "occurs in only 3 combinations"),
        ({"number": 1}, "expected 2 clusters or more"),
        ({"neighbours": 0}, "expected 1 or more"),
        ({"axis": "rude", "number": 2, "words": False}, "no feature has a name near to 'rude'"),
        ({"axis": ["rude", "friendly"], "each": True, "number": 3}, r"2 phrase\(s\) given, 3 expected"),
        ({"axis": "rude", "each": True}, r"1 phrase\(s\) given, 2 expected"),
        ({"axis": ["rude", "friendly"], "each": True, "features": [1]}, "chosen by hand belong to none"),
        ({"nmber": 3}, "did you mean 'number'"),
    ],
)
def test_bad_requests_get_one_line(two_axes, call, said):
    with pytest.raises((InputError, ConfigError), match=said):
        two_axes[0].cluster(**call)


def test_a_corpus_without_words_is_named_by_features(tmp_path):
    random = np.random.default_rng(0)
    kind = np.arange(80) % 2
    maxima = np.zeros((80, 5))
    for side in (0, 1):
        maxima[kind == side, 1 + 2 * side : 3 + 2 * side] = random.random((40, 2)) < 0.8
    names = [None, "apple", "bear", "cloud", "door"]
    ws = make_workspace(tmp_path / "ws", [" "] * 80, {}, maxima, names=names)
    assert ws.words == []
    found = ws.cluster(number=2)
    inside = found.assignment > 0
    assert adjusted_rand_score(kind[inside], found.assignment[inside]) == pytest.approx(1)
    assert sorted(part for name in found.table["name"] for part in name.split(", ")) == names[1:]
    assert ws.find(like=["0"], fuse=("words",), top=3).documents.shape[0] == 3


def test_words_make_an_axis_that_no_feature_has_a_name_for(two_axes):
    ws, _, style = two_axes
    found = ws.cluster("rude", k=3, features=[3])
    assert found.words["word"].tolist() == ["damn"]
    assert found.words["documents"].tolist() == [(style == 0).sum()]
    assert found.features["feature"].tolist() == [3]
    together = ws.cluster(["rude", "friendly"], number=2, each=False)
    assert set(together.words["word"]) == {"damn", "kindly"}
    assert together.table["phrase"].isna().all()
    assert adjusted_rand_score(style, together.assignment) == 1


def test_as_many_clusters_as_phrases_are_one_for_each(two_axes):
    """The dense vectors know the topic alone, and no feature has a name that is near."""
    ws, _, style = two_axes
    found = ws.cluster(["rude", "friendly"], number=2)
    assert adjusted_rand_score(style, found.assignment) == 1
    of_phrase = dict(zip(found.table["phrase"], found.table.index))
    assert ((found.assignment == of_phrase["rude"]) == (style == 0)).all()
    assert found.eigenvalues == []
    assert any("Each phrase is a cluster" in note for note in found.notes)
    assert [len(shown["central"]) for shown in found.shown] == [5, 5]
    assert found.table["conductance_z"].lt(-10).all()
    again = ws.cluster(["rude", "friendly"], each=True).to_dict()
    assert {word["word"] for word in again["words"]} == {"damn", "kindly"}
    assert again == found.to_dict()


def test_documents_without_the_axis_go_to_the_phrase_whose_documents_they_are_like(tmp_path, monkeypatch):
    """Half of the rude texts lack the word that is near, and share features with those that have it."""
    random = np.random.default_rng(0)
    rude = np.arange(200) % 2 == 0
    has = np.arange(200) % 4 < 2
    maxima = np.zeros((200, 9))
    for feature in range(1, 9):
        maxima[:, feature] = (rude == (feature % 2 == 0)) & (random.random(200) < 0.9)
    texts = [f"{('damn' if r else 'kindly') if h else 'plain'} text" for r, h in zip(rude, has)]
    ws = make_workspace(tmp_path / "ws", texts, {}, maxima, dense=np.ones((200, 4)), vectors=np.zeros((9, 4)))
    monkeypatch.setattr("hourglass.uses.explore.axis.query_vector", lambda ws, phrase: PHRASES[phrase])
    monkeypatch.setattr(
        "hourglass.uses.explore.axis.text_vectors",
        lambda ws, texts: np.stack([WORDS.get(text, np.zeros(4)) for text in texts]),
    )
    found = ws.cluster(["rude", "friendly", "topic"], number=3)
    assert any("Nothing is near to 'topic'" in note for note in found.notes)
    found = ws.cluster(["rude", "friendly"], number=2)
    assert any("100 of 200 documents have none of the axis' features and words" in note for note in found.notes)
    assert adjusted_rand_score(rude[has], found.assignment[has]) == 1
    assert adjusted_rand_score(rude[~has], found.assignment[~has]) > 0.6


def test_the_surest_of_each_phrase_teach():
    evidence = np.array([[3.0, 0], [2, 1], [1.5, 1], [0, 2], [1, 1.1], [1, 1]])
    assert surest(evidence).tolist() == [0, 0, -1, 1, 1, -1]


def test_the_paper_takes_features_alone(two_axes):
    found = two_axes[0].cluster(["topic", "style"], **vars(PAPER_CLUSTER) | {"number": 2})
    assert not len(found.words)
    assert found.table["phrase"].isna().all()
