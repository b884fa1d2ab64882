"""Against least squares, the exact test of two bins, and labels shuffled by hand."""

import numpy as np
import pytest
from scipy.stats import hypergeom

from hourglass.metrics.trends import trends


def cells(has, bins, strata=None):
    """count and total of `trends`, of documents with or without one feature."""
    strata = np.zeros(len(bins), int) if strata is None else strata
    count = np.zeros((strata.max() + 1, bins.max() + 1, 1))
    total = np.zeros(count.shape[:2])
    np.add.at(total, (strata, bins), 1)
    np.add.at(count, (strata, bins, 0), has)
    return count, total


def test_slope_and_p_of_one_stratum():
    random = np.random.default_rng(0)
    bins = random.integers(0, 5, 400)
    has = random.random(400) < 0.2 + 0.05 * bins
    found = trends(*cells(has, bins))
    assert found.slope[0] == pytest.approx(np.polyfit(bins, has.astype(float), 1)[0])
    shuffled = np.array([bins @ random.permutation(has) for _ in range(4000)])
    beyond = np.abs(shuffled - shuffled.mean()) >= abs(bins @ has - shuffled.mean())
    assert 0 < found.p[0] < 0.1
    assert found.p[0] == pytest.approx(beyond.mean(), abs=0.008)


@pytest.mark.parametrize(("size", "rare", "number", "hits"), [(1000, 10, 100, 5), (1000, 10, 5, 3), (300, 30, 40, 12)])
def test_a_rare_bin_does_not_fake_a_trend(size, rare, number, hits):
    """Two bins, one of them small: the normal curve's p would be smaller by powers of ten."""
    count = np.array([[number - hits, hits]], float)[:, :, None]
    exact = 2 * hypergeom.sf(hits - 1, size, rare, number)
    p = trends(count, np.array([[size - rare, rare]])).p[0]
    assert 0.4 * exact < p < 20 * exact


def test_what_a_third_thing_explains_is_no_trend():
    """Later bins have longer documents and longer ones have the feature: within a length nothing moves."""
    random = np.random.default_rng(1)
    bins = random.integers(0, 4, 4000)
    long = (random.random(4000) < 0.2 + 0.2 * bins).astype(int)
    has = random.random(4000) < 0.1 + 0.5 * long
    plain, matched = trends(*cells(has, bins)), trends(*cells(has, bins, long))
    assert plain.p[0] < 1e-10
    assert matched.low[0] < 0 < matched.high[0]
    assert matched.p[0] > 0.01


def test_p_is_small_as_seldom_as_it_says_and_the_interval_covers():
    random = np.random.default_rng(2)
    p, covered = [], []
    for _ in range(300):
        bins = np.minimum(random.geometric(0.4, 200) - 1, 5)
        strata = random.integers(0, 3, 200)
        found = trends(*cells(random.random(200) < 0.08 + 0.1 * strata, bins, strata))
        p.append(found.p[0])
        covered.append(found.low[0] <= 0 <= found.high[0])
    assert np.mean(np.array(p) <= 0.05) < 0.085
    assert np.mean(np.array(p) <= 0.5) < 0.57
    assert np.mean(covered) > 0.9


def test_no_two_bins_in_a_stratum_say_nothing():
    found = trends(np.array([[[3.0], [0.0]], [[0.0], [2.0]]]), np.array([[5, 0], [0, 4]]))
    assert np.isnan(found.slope[0])
    assert found.p[0] == 1
