"""Far tails, against scipy's density, and against a skewed sum whose own is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import gamma, norminvgauss

from hourglass.metrics.tails import heavy_tail


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


def test_the_tail_is_about_that_of_a_skewed_sum():
    """Of a gamma distribution, whose kurtosis of 1.5 squares of its skewness is a little less than this one can have."""
    shape = 20.0
    p = 10.0 ** -np.arange(1, 8)
    z = (gamma.isf(p, shape) - shape) / np.sqrt(shape)
    got = heavy_tail(z, np.full(7, 2 / np.sqrt(shape)), np.full(7, 6.8 / shape))
    assert (0.5 * p < got).all() and (got < 3 * p).all()
