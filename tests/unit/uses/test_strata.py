"""Documents of like length, and halves of them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hourglass.uses.explore.strata import halves, length_strata

LENGTHS = st.lists(st.integers(0, 5000), min_size=1, max_size=300)


@settings(max_examples=100, deadline=None)
@given(LENGTHS, st.integers(1, 60))
def test_every_stratum_is_a_run_of_lengths_and_large_enough(lengths, smallest):
    tokens = np.array(lengths)
    strata = length_strata(tokens, smallest=smallest)
    sizes = np.bincount(strata)
    assert sizes.min() >= min(smallest, len(tokens))
    assert np.all(np.diff(strata[np.argsort(tokens, kind="stable")]) >= 0)


def test_the_second_length_cuts_the_strata_of_the_first():
    random = np.random.default_rng(0)
    first, second = random.integers(10, 1000, 3000), random.integers(10, 1000, 3000)
    strata = length_strata(first, second)
    assert np.bincount(strata).min() >= 50
    of_first = length_strata(first)
    for number in range(strata.max() + 1):
        assert len(set(of_first[strata == number])) == 1
    spread = [np.log(second[strata == number]).std() for number in range(strata.max() + 1)]
    assert np.mean(spread) < 0.5 * np.log(second).std()


def test_halves_are_even_in_every_stratum():
    strata = np.array([0] * 11 + [1] * 6 + [2])
    half = halves(strata, np.random.default_rng(0))
    for number in range(3):
        inside = half[strata == number]
        assert abs((inside == 0).sum() - (inside == 1).sum()) <= 1
    assert not np.array_equal(half, halves(strata, np.random.default_rng(1)))
