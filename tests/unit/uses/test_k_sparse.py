"""Labels that known latents give away, noise that nothing gives away, and splits that keep documents together."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.errors import InputError
from hourglass.metrics.ranking import auroc
from hourglass.uses.probe import k_sparse, k_sparse_probes
from hourglass.uses.probe.splitting import train_mask

WIDTH = 20


def sparse_codes(n=240, seed=0):
    """Dense [n, WIDTH], about a fifth of it active."""
    random = np.random.default_rng(seed)
    return random.random((n, WIDTH)) * (random.random((n, WIDTH)) < 0.2)


def as_codes(matrix):
    return SparseCodes.from_dense(torch.from_numpy(matrix))


def test_a_label_that_one_latent_is():
    matrix = sparse_codes()
    label = matrix[:, 7] > 0
    rotated = matrix @ np.linalg.qr(np.random.default_rng(1).normal(size=(WIDTH, WIDTH)))[0]
    matrix[:, 7] += label  # far from 0 where it is active
    found = k_sparse_probes(as_codes(matrix), label, rows=rotated, ks=(1, 4))
    table = found.table.set_index(["of", "k"])
    one = found.table.iloc[0]
    assert (one["label"], one["chosen"], one["auroc"], one["accuracy"]) == ("True", [7], 1, 1)
    assert found.table["k"].isna().tolist() == [False, False, False, False, True]
    assert table.loc[("dimensions", 1), "auroc"] < 0.9
    assert len(table.loc[("latents", 4), "chosen"]) == 4 and found.table.iloc[-1]["chosen"] == []
    assert one["majority"] == pytest.approx(max(label[~found.train].mean(), 1 - label[~found.train].mean()))
    assert found.left_out == ()
    assert json.loads(json.dumps(found.to_dict()))["rows"][-1]["k"] is None
    assert found.means()["auroc"].iloc[0] == 1


def test_more_latents_where_a_label_is_spread_over_them():
    matrix = sparse_codes(400)
    label = (matrix[:, :4] > 0).any(1)
    table = k_sparse_probes(as_codes((matrix > 0) * 1.0), label, ks=(1, 2, 4)).table
    assert table["auroc"].is_monotonic_increasing
    assert sorted(table["chosen"].iloc[-1]) == [0, 1, 2, 3]
    assert table["auroc"].iloc[0] < 0.8 and table["auroc"].iloc[-1] == pytest.approx(1)


def test_noise_is_not_told():
    label = np.random.default_rng(3).random(600) < 0.5
    assert k_sparse_probes(as_codes(sparse_codes(600)), label, ks=(1, 8)).table["auroc"].between(0.35, 0.65).all()


def test_frequency_and_mean_choose_differently():
    random = np.random.default_rng(0)
    label = np.arange(200) % 2 == 0
    matrix = np.zeros((200, 3))
    matrix[:, 0] = (random.random(200) < 0.5) * np.where(label, 9.0, 4.0)  # as often, but stronger
    matrix[:, 1] = (random.random(200) < np.where(label, 0.9, 0.1)) * 0.1  # more often, but weak
    chosen = {
        by: k_sparse_probes(as_codes(matrix), label, by=by, ks=(1,)).table["chosen"][0] for by in ("mean", "frequency")
    }
    assert chosen == {"mean": [0], "frequency": [1]}


def test_one_against_the_rest():
    matrix = sparse_codes()
    label = np.array(["a", "b", "c"], dtype=object)[matrix[:, [3, 9, 5]].argmax(1)]
    for column, sign in ((3, "a"), (9, "b"), (5, "c")):
        matrix[:, column] = label == sign
    label[:2] = "rare"
    found = k_sparse_probes(as_codes(matrix), label, ks=(1,))
    assert found.left_out == ("rare",)
    assert dict(zip(found.table["label"], found.table["chosen"])) == {"a": [3], "b": [9], "c": [5]}
    assert (found.table["auroc"] > 0.98).all()


def test_the_regression_is_scikit_learns(monkeypatch):
    monkeypatch.setattr(k_sparse, "_STRENGTHS", (0.1,))
    matrix = sparse_codes(300, seed=5)
    label = matrix[:, 2] + 0.5 * np.random.default_rng(0).random(300) > 0.4
    train = np.arange(300) < 200
    found = k_sparse_probes(as_codes(matrix), label, ks=(2,), train=train).table.iloc[0]
    difference = np.abs(matrix[train & label].mean(0) - matrix[train & ~label].mean(0))
    chosen = np.argsort(-difference)[:2]
    assert found["chosen"] == chosen.tolist()
    scale = StandardScaler().fit(matrix[train][:, chosen])
    x = scale.transform(matrix[:, chosen])
    scores = LogisticRegression(C=0.1).fit(x[train], label[train]).decision_function(x[~train])
    assert found["auroc"] == pytest.approx(float(auroc(scores, label[~train])))
    assert found["accuracy"] == pytest.approx(((scores > 0) == label[~train]).mean())


def test_what_tests_does_not_teach():
    """The label of test items is turned round: what is chosen and learned stays, so the probe is always wrong."""
    matrix = (sparse_codes() > 0) * 1.0
    label, train = matrix[:, 7] > 0, np.arange(240) % 3 > 0
    found = k_sparse_probes(as_codes(matrix), label ^ ~train, ks=(1,), train=train).table.iloc[0]
    assert (found["chosen"], found["auroc"], found["accuracy"]) == ([7], 0, 0)


def test_documents_are_the_means_of_their_rows():
    matrix = sparse_codes(600)
    random = np.random.default_rng(0)
    documents = random.permutation(np.repeat(np.arange(120), 5))
    mean = np.stack([matrix[documents == d].mean(0) for d in range(120)])
    label = mean[:, 4] > np.median(mean[:, 4])
    found = k_sparse_probes(as_codes(matrix), label, rows=matrix, documents=documents, ks=(1, 2))
    alone = k_sparse_probes(as_codes(mean), label, rows=mean, ks=(1, 2))
    assert found.table["chosen"].tolist() == alone.table["chosen"].tolist()
    np.testing.assert_allclose(found.table["auroc"], alone.table["auroc"], atol=1e-3)
    assert found.table["auroc"][0] > 0.99


def test_tokens_of_a_document_are_on_one_side():
    matrix = sparse_codes()
    documents = np.repeat(np.arange(60), 4)
    found = k_sparse_probes(as_codes(matrix), matrix[:, 0] > 0, documents=documents, ks=(1,))
    assert {len(set(found.train[documents == d])) for d in range(60)} == {1}
    assert (~found.train).sum() == 60


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=60), st.sampled_from([0.2, 0.5]), st.integers(0, 5))
def test_a_share_of_each_label_tests(labels, share, seed):
    named = np.array(labels)
    train = train_mask(named, None, share, seed)
    for label in set(labels):
        assert (~train[named == label]).sum() == round(share * labels.count(label))
    assert np.array_equal(train, train_mask(named, None, share, seed))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": [True] * 240}, "none of 1 labels can be probed"),
        ({"labels": [0, 1] * 100}, r"labels of shape \(200,\): expected one for each of 240"),
        ({"labels": ["a", None] * 120}, "labels that cannot be sorted"),
        ({"documents": ["a", "b"] * 120, "labels": [0, 1]}, "2 labels for the documents of 240 codes"),
        ({"ks": (1, 21)}, "expected numbers of latents, from 1 to 20"),
        ({"ks": ()}, "expected numbers of latents"),
        ({"by": "meen"}, "did you mean 'mean'"),
        ({"rows": np.zeros((3, 4))}, r"rows of shape \(3, 4\)"),
        ({"train": [True]}, r"train of shape \(1,\)"),
        ({"test_share": 1.0}, "test_share 1.0"),
        ({"documents": [0, 1]}, r"documents of shape \(2,\)"),
        ({"documents": np.arange(240), "labels": [0, 1] * 50}, "100 labels for the documents of 240 codes"),
    ],
)
def test_what_does_not_fit_is_one_line(changes, said):
    arguments = {"labels": [0, 1] * 120, **changes}
    with pytest.raises(InputError, match=said) as error:
        k_sparse_probes(as_codes(sparse_codes()), **arguments)
    assert "\n" not in str(error.value)
