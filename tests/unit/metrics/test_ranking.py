"""Against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from hourglass.metrics.ranking import (
    auroc,
    average_precision,
    bootstrap_interval,
    mean_average_precision,
    precision_at,
    rank_biased_overlap,
    reciprocal_rank_fusion,
)


def test_against_scikit_learn():
    random = np.random.default_rng(0)
    positive = random.random(200) < 0.2
    scores = random.random((200, 3)) + positive[:, None] * [0, 0.3, 1]
    ours = auroc(np.round(scores, 1), positive)
    for column in range(3):
        assert ours[column] == pytest.approx(roc_auc_score(positive, np.round(scores[:, column], 1)))
        assert average_precision(scores[:, column], positive) == pytest.approx(
            average_precision_score(positive, scores[:, column])
        )
    assert np.isnan(auroc(scores, np.ones(200, bool))).all()


def test_small_cases_by_hand():
    assert precision_at(np.array([3, 2, 1]), np.array([1, 0, 1]), 2) == 0.5
    assert np.isnan(average_precision(np.array([1.0, 2.0]), np.array([0, 0])))
    fused = reciprocal_rank_fusion([np.array([9, 5, 1]), np.array([1, 5, 9])])
    assert fused[0] == pytest.approx(1 / 61 + 1 / 63)
    assert fused[0] == pytest.approx(fused[2])
    low, high = bootstrap_interval(np.array([1.0, 1.0, 1.0]))
    assert low == high == 1


def test_map_is_the_mean_of_scikit_learns_ap_over_queries_that_have_an_answer():
    random = np.random.default_rng(1)
    scores, relevant = random.random((5, 60)), random.random((5, 60)) < 0.2
    relevant[3] = False
    expected = np.mean([average_precision_score(relevant[q], scores[q]) for q in (0, 1, 2, 4)])
    assert mean_average_precision(scores, relevant) == pytest.approx(expected)
    assert np.isnan(mean_average_precision(scores[3:4], relevant[3:4]))


def test_precision_at_ten_and_fifty_by_counting():
    random = np.random.default_rng(2)
    scores, relevant = random.random(200), random.random(200) < 0.3
    best = sorted(range(200), key=lambda i: -scores[i])
    for k in (10, 50):
        assert precision_at(scores, relevant, k) == pytest.approx(sum(relevant[i] for i in best[:k]) / k)


def overlap_by_summing(a, b, p, depth=4000):
    """The definition, agreement by agreement, each ranking going on below its end as it did (Webber et al., section 4.4)."""
    short, long = sorted((a, b), key=len)
    total = 0.0
    for d in range(1, depth + 1):
        at = min(d, len(long))
        shared = len(set(short[:at]) & set(long[:at]))
        if at > len(short):
            shared += len(set(short) & set(long[: len(short)])) * (at - len(short)) / len(short)
        total += (1 - p) * p ** (d - 1) * shared / at
    return total


@pytest.mark.parametrize("p", [0.9, 0.98])
def test_rank_biased_overlap_is_the_infinite_sum(p):
    random = np.random.default_rng(3)
    for _ in range(20):
        a = random.permutation(30)[: random.integers(1, 30)].tolist()
        b = random.permutation(40)[: random.integers(1, 30)].tolist()
        assert rank_biased_overlap(a, b, p) == pytest.approx(overlap_by_summing(a, b, p), abs=1e-9)
        assert rank_biased_overlap(a, b, p) == pytest.approx(rank_biased_overlap(b, a, p))
    assert rank_biased_overlap("abc", "abc", p) == pytest.approx(1)
    assert rank_biased_overlap("abc", "def", p) == 0
    assert rank_biased_overlap("bacd", "abcd", p) < rank_biased_overlap("abdc", "abcd", p)
