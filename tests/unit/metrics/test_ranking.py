"""Against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from hourglass.metrics.ranking import (
    auroc,
    average_precision,
    bootstrap_interval,
    precision_at,
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
