"""Against the textbook's formula, exact distributions, and counts drawn by chance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from hourglass.metrics.association import joint_tail, npmi, npmi_interval


@st.composite
def strata(draw):
    """Counts of two things and of both, in one to four strata."""
    cells = []
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.integers(1, 40))
        a, b = draw(st.integers(0, size)), draw(st.integers(0, size))
        cells.append((size, a, b, draw(st.integers(max(0, a + b - size), min(a, b)))))
    return np.array(cells)


@settings(max_examples=200, deadline=None)
@given(strata())
def test_npmi_is_the_textbooks_and_never_leaves_its_range(cells):
    size, a, b, joint = cells.T
    n, both = size.sum(), joint.sum()
    expected = (a * b / size).sum()
    assert -1 <= npmi(both, expected, n) <= 1 + 1e-9
    p, p_a, p_b = both / n, a.sum() / n, b.sum() / n
    if 0 < p < 1:
        textbook = np.log(p / (p_a * p_b)) / -np.log(p)
        assert npmi(both, a.sum() * b.sum() / n, n) == pytest.approx(textbook)


def test_npmi_at_its_ends():
    assert npmi(np.array([0, 100]), np.array([1.0, 100.0]), 100).tolist() == [-1.0, 1.0]
    assert npmi(10, 1.0, 100) == pytest.approx(1)  # ten have each, the same ten
    assert npmi(1, 1.0, 100) == 0


@settings(max_examples=200, deadline=None)
@given(strata())
def test_the_tail_is_never_below_the_exact_one(cells):
    """The exact distribution of the joint count, shuffled within strata, is that of a sum of hypergeometric counts."""
    exact = np.ones(1)
    for size, a, b, _ in cells:
        exact = np.convolve(exact, hypergeom.pmf(np.arange(min(a, b) + 1), size, a, b))
    size, a, b, _ = cells.T
    most = np.minimum(a, b).sum()
    for joint in range(most + 1):
        bound = float(joint_tail(joint, (a * b / size).sum(), most))
        assert bound >= exact[joint:].sum() - 1e-9


def test_the_tail_is_close_where_it_matters():
    for a, b, joint in [(40, 30, 8), (100, 20, 9), (20, 15, 5)]:
        exact = hypergeom.sf(joint - 1, 2000, a, b)
        assert exact < 1e-3
        assert float(joint_tail(joint, a * b / 2000, min(a, b))) < 2 * exact


def test_the_interval_covers():
    random = np.random.default_rng(0)
    p = np.array([0.05, 0.05, 0.02, 0.83])  # both, a alone, b alone, neither
    truth = np.log(p[0] / ((p[0] + p[1]) * (p[0] + p[2]))) / -np.log(p[0])
    counts = random.multinomial(600, p, 2000)
    both, a, b = counts[:, 0], counts[:, 0] + counts[:, 1], counts[:, 0] + counts[:, 2]
    low, high = npmi_interval(both, a * b / 600, 600)
    assert np.mean((low <= truth) & (truth <= high)) > 0.95
    assert np.all(low <= high)
