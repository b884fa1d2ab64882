"""How strongly two things go together in documents: from counts, vectorised over many pairs at once.

Sources: Bouma 2009 (normalised pointwise mutual information); Vatutin and Mikhailov 1982 (a hypergeometric count is a
sum of independent trials); Hoeffding 1956 (such a sum is less spread than a binomial of the same mean).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import betainc

from hourglass.metrics.proportions import wilson

Array = np.ndarray[Any, Any]


def npmi(joint: Array, expected: Array, total: int) -> Array:
    """Normalised pointwise mutual information: -1 never together, 0 as often as expected, 1 never apart.

    joint     documents that have both
    expected  documents that would have both by chance; count_a * count_b / total gives the textbook's measure
    total     all documents
    """
    joint, expected = np.asarray(joint, float), np.asarray(expected, float)
    # ln(p / e) / -ln(p), with the division carried out.
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.log(expected / total) / np.log(joint / total) - 1
    return np.where(joint >= total, 1.0, np.where(joint > 0, value, -1.0))


def npmi_interval(joint: Array, expected: Array, total: int, level: float = 0.95) -> tuple[Array, Array]:
    """Interval of `npmi`: Wilson's for the joint share, with what is expected held fixed.

    Holding it fixed errs to the safe side for pairs that go together, whose joint and single counts rise and fall as one.
    """
    low, high = (npmi(bound * total, expected, total) for bound in wilson(joint, total, level))
    return low, np.minimum(high, 1.0)


def joint_tail(joint: Array, expected: Array, most: Array) -> Array:
    """Bound on the chance that at least `joint` documents have both, were one thing's documents shuffled in each stratum.

    joint     documents that have both
    expected  sum over strata of count_a * count_b / size
    most      sum over strata of min(count_a, count_b)

    The count is then a sum of hypergeometric ones, that is, of `most` independent trials, and from one above its mean on
    its tail is at most that of a binomial with as many trials and the same mean. Below that the bound is 1. It needs no
    drawing, so p can be as small as thousands of pairs demand.
    """
    joint, expected, most = (np.asarray(x, float) for x in (joint, expected, most))
    tested = (joint >= expected + 1) & (joint <= most)
    k, n = np.where(tested, joint, 1), np.where(tested, most, 1)
    share = np.clip(np.where(tested, expected, 1) / n, 0, 1)
    return np.where(tested, betainc(k, n - k + 1, share), 1.0)
