"""What rankings learn from examples, and the votes that they earn on those they have not seen."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from hourglass.errors import InputError
from hourglass.systems.interpretable_embeddings import PAPER_FIND
from hourglass.uses.explore.discriminant import PENALTY, discriminant
from hourglass.uses.explore.find import FindOptions
from hourglass.uses.explore.fusion import fused, votes
from workspaces import WIDTH, make_workspace


def ridge(x, target, weight, penalty):
    """Weights and intercept by the normal equations."""
    wide = np.c_[x, np.ones(len(x))]
    held = penalty * np.diag([1.0] * x.shape[1] + [0.0])
    return np.linalg.solve(wide.T @ (weight[:, None] * wide) + held, wide.T @ (weight * target))


def test_a_row_is_scored_by_what_the_others_teach():
    random = np.random.default_rng(0)
    x, positive = random.normal(size=(14, 5)) + 2, np.arange(14) < 5
    weights, unseen = discriminant(x, positive)
    target = np.where(positive, 1.0, -1.0)
    share = np.where(positive, 0.5 / 5, 0.5 / 9) * 14
    middle = np.average(x, axis=0, weights=share)
    penalty = PENALTY * ((x - middle) ** 2).sum(1).mean()
    assert weights == pytest.approx(ridge(x, target, share, penalty)[:-1])
    for row in range(14):
        rest = np.arange(14) != row
        known = ridge(x[rest], target[rest], share[rest], penalty)
        assert unseen[row] == pytest.approx(x[row] @ known[:-1] + known[-1])
    for one, other in zip(discriminant(csr_matrix(x), positive), (weights, unseen)):
        assert one == pytest.approx(other)


def test_rows_that_are_alike_teach_nothing():
    weights, unseen = discriminant(np.ones((6, 3)), np.arange(6) < 2)
    assert not weights.any() and not unseen.any()


def parting(by, positive, seed):
    """Scores whose means lie `by` standard deviations apart."""
    return np.random.default_rng(seed).normal(size=len(positive)) + by * positive


def test_a_useless_ranking_has_hardly_a_vote_and_a_perfect_one_rules():
    positive = np.arange(100) < 50
    given = votes(
        {"features": parting(3, positive, 0), "dense": parting(3, positive, 1), "words": -parting(1, positive, 2)},
        positive,
    )
    assert sum(given.values()) == pytest.approx(1)
    assert given["words"] < 0.02
    assert given["features"] == pytest.approx(given["dense"], abs=0.1)
    given = votes({"features": parting(50, positive, 0), "dense": parting(0.3, positive, 1)}, positive)
    assert given["features"] > 0.95


def test_few_examples_leave_votes_nearly_equal():
    def share(number):
        positive = np.arange(2 * number) < number
        return votes({"features": 10.0 * positive + np.arange(2 * number) % 2, "words": np.zeros(2 * number)}, positive)

    assert share(1) == {"features": 0.5, "words": 0.5}
    assert share(2)["features"] == pytest.approx(0.75)
    assert 0.75 < share(4)["features"] < share(40)["features"] < 1


def test_votes_are_equal_where_no_ranking_parts_the_examples():
    positive = np.arange(20) < 10
    assert votes({"features": -1.0 * positive, "words": np.zeros(20)}, positive) == {"features": 0.5, "words": 0.5}


def test_fusion_by_votes_adds_standard_scores_and_without_votes_reciprocal_ranks():
    a, b = np.array([0.0, 2.0, 4.0]), np.array([30.0, 10.0, 20.0])
    z = np.sqrt(1.5)
    assert fused({"a": a, "b": b}, {"a": 0.75, "b": 0.25}) == pytest.approx([-0.5 * z, -0.25 * z, 0.75 * z])
    assert fused({"a": a, "b": b}) == pytest.approx([1 / 63 + 1 / 61, 1 / 62 + 1 / 63, 1 / 61 + 1 / 62])
    assert fused({"a": a}, {"a": 0.2}) is a


@pytest.fixture
def told_apart(tmp_path):
    """Sixty documents of which the first twenty have feature 3; their words and dense vectors say nothing."""
    random = np.random.default_rng(0)
    codes = random.random((60, WIDTH)) * (random.random((60, WIDTH)) < 0.3)
    codes[:, 3] = np.arange(60) < 20
    return make_workspace(tmp_path / "ws", ["the same words"] * 60, {}, codes)


LIKE, UNLIKE = [str(i) for i in range(8)], [str(i) for i in range(30, 40)]


def test_examples_decide_what_counts(told_apart):
    found = told_apart.find(like=LIKE, unlike=UNLIKE, top=12)
    assert found.learned and sum(found.votes.values()) == pytest.approx(1)
    assert found.votes["features"] > 0.7
    assert found.features["feature"].iloc[0] == 3 and found.features["weight"].iloc[0] == 1
    assert found.features["weight"].is_monotonic_decreasing
    assert set(found.documents["position"]) == set(range(8, 20))
    again = told_apart.find(like=LIKE[::-1], unlike=UNLIKE[::-1], top=12)
    assert again.votes == found.votes and again.documents.equals(found.documents)


def test_without_counter_examples_the_corpus_is_what_examples_are_parted_from(told_apart):
    found = told_apart.find(like=LIKE, top=12)
    assert found.features["feature"].iloc[0] == 3
    assert told_apart.find(like=LIKE, top=12).documents.equals(found.documents)
    with pytest.raises(InputError, match="all documents are examples"):
        told_apart.find(like=[str(i) for i in range(60)])


def test_learned_features_can_be_edited(told_apart):
    found = told_apart.find(like=LIKE, unlike=UNLIKE, without=[3], top=60)
    assert found.features.set_index("feature").loc[3, ["weight", "weight_before"]].tolist() == [0, 1]
    assert found.overlap < 1
    for row in found.documents.itertuples():
        assert 3 not in [c["feature"] for c in row.carried]


def test_as_many_features_as_asked_for(told_apart):
    assert len(told_apart.find(like=LIKE, k=2).features) == 2
    assert len(told_apart.find(like=LIKE, k=2, learn=False).features) <= 2


def test_by_rule_rankings_have_equal_votes(told_apart):
    found = told_apart.find(like=LIKE, unlike=UNLIKE, learn=False, top=12)
    assert not found.learned and set(found.votes.values()) == {1 / len(found.votes)}


def test_the_paper_s_rule_is_as_it_was(told_apart):
    assert FindOptions(k=100, temperature=0.2, scale=True, fuse=(), learn=False) == PAPER_FIND
    found = told_apart.find(like=LIKE, unlike=UNLIKE, k=100, fuse=(), learn=False)
    number = len(found.features)
    assert found.features["weight"].tolist() == pytest.approx(np.exp(-np.arange(number) / number / 0.2).tolist())
    assert found.votes == {"features": 1}
