"""Far tails of what shuffling gives, against scipy's density, and against counts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import gamma, norminvgauss

from hourglass.metrics.shuffles import heavy_tail, shuffled_p


@pytest.mark.parametrize("alpha, beta", [(1.0, 0.3), (2.0, 1.9), (4.0, 0.5), (20.0, 5.0)])
def test_the_tail_is_the_integral_of_the_density(alpha, beta):
    known = norminvgauss(alpha, beta)
    mean, variance, skewness, excess = (float(value) for value in known.stats("mvsk"))
    z = np.array([-1.0, 0, 1, 3, 6, 9])
    wanted = [
        quad(known.pdf, x, x + 80 * np.sqrt(variance), epsabs=0, epsrel=1e-9, limit=200)[0]
        for x in mean + z * np.sqrt(variance)
    ]
    assert heavy_tail(z, np.full(6, skewness), np.full(6, excess)) == pytest.approx(wanted, rel=1e-6)


def test_p_is_right_far_beyond_the_shuffles():
    # 2,000 draws of a skewed sum stand for the shuffles; its own tail says what p is.
    random, shape = np.random.default_rng(0), 20.0
    drawn = random.gamma(shape, size=(2000, 300))
    for wanted in (1e-3, 1e-5, 1e-7):
        p = shuffled_p(np.full(300, gamma.isf(wanted, shape)), drawn)
        assert 0.5 * wanted < np.median(p) < 3 * wanted


def test_where_shuffles_reach_they_are_counted_and_what_never_moves_is_nothing():
    drawn = np.arange(100.0)[:, None] * np.array([1, 0])
    assert shuffled_p(np.array([80.0, 0]), drawn).tolist() == [21 / 101, 1]
    assert shuffled_p(np.array([80.0, 5.0]), drawn).tolist() == [21 / 101, 1]
