"""Labels said against labels that are true, with intervals over the items.

Numbers stand for labels: 0, 1, 2 ...
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hourglass.metrics.estimates import Estimate
from hourglass.metrics.proportions import wilson

Array = np.ndarray[Any, Any]

_DRAWS = 2000


def accuracy(truth: Array, said: Array) -> Estimate:
    """Share of `said` [n] that is `truth` [n]; Wilson's interval."""
    right, n = int((np.asarray(truth) == np.asarray(said)).sum()), len(truth)
    low, high = wilson(np.array(right), n)
    return Estimate(right / n, float(low), float(high), n)


def macro_f1(truth: Array, said: Array, seed: int = 0) -> Estimate:
    """Mean over labels, true or said, of their F1; bootstrap over items."""
    n, labels = len(truth), int(max(np.max(truth), np.max(said))) + 1
    cells, counts = np.unique(np.asarray(truth) * labels + np.asarray(said), return_counts=True)
    # To draw items with replacement is to draw how often each cell of the confusion matrix comes.
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, _DRAWS)
    low, high = np.quantile(_macro_f1(drawn, cells, labels), [0.025, 0.975])
    return Estimate(float(_macro_f1(counts[None], cells, labels)[0]), float(low), float(high), n)


def _macro_f1(counts: Array, cells: Array, labels: int) -> Array:
    """[draws] of counts [draws, cells]; a label that is neither true nor said does not count."""
    of_truth, of_said = np.divmod(cells, labels)
    is_true, is_said = (np.eye(labels)[of] for of in (of_truth, of_said))
    both = counts @ is_true + counts @ is_said
    right = counts @ (is_true * (of_truth == of_said)[:, None])
    f1 = 2 * right / np.maximum(both, 1)
    return np.asarray(f1.sum(1) / (both > 0).sum(1))
