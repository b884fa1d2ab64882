"""Against scipy's own tests and published worked examples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, fisher_exact

from hourglass.metrics.proportions import (
    benjamini_hochberg,
    difference_interval,
    fisher,
    mcnemar,
    paired_interval,
    wilson,
)


def test_newcombe_worked_example():
    # Newcombe 1998, table II, method 10: 56/70 against 48/80.
    low, high = difference_interval(np.array([56]), 70, np.array([48]), 80)
    assert (low[0], high[0]) == pytest.approx((0.0524, 0.3339), abs=5e-5)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.data())
def test_fisher_bounds_scipys_and_is_symmetric(n, m, data):
    a, b = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    ours = float(fisher(np.array([a]), n, np.array([b]), m)[0])
    one_sided = min(fisher_exact([[a, n - a], [b, m - b]], alternative=side).pvalue for side in ("less", "greater"))
    assert ours == pytest.approx(min(1, 2 * one_sided), abs=1e-9)
    assert ours == pytest.approx(float(fisher(np.array([b]), m, np.array([a]), n)[0]), abs=1e-9)


def test_mcnemar_is_the_exact_binomial():
    for a, b in [(0, 0), (3, 9), (12, 2), (5, 5)]:
        expected = binomtest(min(a, b), a + b).pvalue if a + b else 1.0
        assert mcnemar(np.array([a]), np.array([b]))[0] == pytest.approx(expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 500), st.data())
def test_intervals_hold_the_estimate(n, data):
    count = data.draw(st.integers(0, n))
    low, high = wilson(np.array([count]), n)
    assert low[0] - 1e-9 <= count / n <= high[0] + 1e-9
    only_a = data.draw(st.integers(0, n))
    only_b = data.draw(st.integers(0, n - only_a))
    low, high = paired_interval(np.array([only_a]), np.array([only_b]), n)
    assert -1 <= low[0] <= high[0] <= 1


def test_newcombe_covers():
    random = np.random.default_rng(0)
    a, b = random.binomial(80, 0.3, 4000), random.binomial(60, 0.1, 4000)
    low, high = difference_interval(a, 80, b, 60)
    assert 0.93 < np.mean((low <= 0.2) & (high >= 0.2)) < 0.975


def test_benjamini_hochberg_by_hand():
    assert benjamini_hochberg(np.array([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.04, 0.04])
    assert len(benjamini_hochberg(np.array([]))) == 0
