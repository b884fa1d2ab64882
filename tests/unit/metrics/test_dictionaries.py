"""Against brute force over all matchings, and dictionaries whose likeness is known."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hourglass.metrics.dictionaries import cosines, match, mcc, mean_max_cosine, stability


def directions(seed, number, d=4):
    return torch.randn(number, d, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 5))
def test_the_matching_is_the_best_of_all(seed, n, m):
    a, b = directions(seed, n), directions(seed + 1, m)
    likeness = cosines(a, b).numpy()
    wide = likeness if n <= m else likeness.T
    best = max(sum(wide[i, j] for i, j in enumerate(order)) for order in permutations(range(wide.shape[1]), len(wide)))
    rows, columns, found = match(a, b)
    assert float(found.sum()) == pytest.approx(best, abs=1e-5)
    assert len(set(rows.tolist())) == len(set(columns.tolist())) == min(n, m)
    assert mcc(a, b) == pytest.approx(best / m, abs=1e-5)
    assert mean_max_cosine(a, b) == pytest.approx(likeness.max(0).mean(), abs=1e-5)
    if n >= m:  # else an atom is left over and counts 0, which a negative cosine is below
        assert mean_max_cosine(a, b) >= mcc(a, b) - 1e-6
    assert stability(a, b)["mean_cosine"] == pytest.approx(stability(b, a)["mean_cosine"], abs=1e-5)


def test_order_and_length_do_not_matter_and_signs_do():
    true = torch.eye(5)
    learned = torch.cat([true[[3, 1, 4, 0, 2]] * torch.arange(1.0, 6)[:, None], directions(0, 3, 5)])
    assert mcc(learned, true) == mean_max_cosine(learned, true) == 1
    assert mcc(-true, true) == pytest.approx(
        0, abs=1e-6
    )  # the other atoms, at right angles, are better than the own one


def test_one_direction_stands_for_one_atom_only():
    true = torch.tensor([[1.0, 0], [0.6, 0.8]])
    learned = torch.tensor([[1.0, 0], [0, 0]])  # the second has no direction
    assert mean_max_cosine(learned, true) == pytest.approx(0.8)
    assert mcc(learned, true) == pytest.approx(0.5)
    assert mcc(learned[:1], true) == pytest.approx(0.5)


def test_stability_by_hand():
    angle = np.deg2rad([0, 30, 60])
    a = torch.eye(6)[:3]
    b = torch.zeros(3, 6, dtype=torch.float64)
    b[range(3), range(3)] = torch.from_numpy(np.cos(angle))
    b[range(3), range(3, 6)] = torch.from_numpy(np.sin(angle))
    found = stability(a, b[[2, 0, 1]])
    assert found["mean_cosine"] == pytest.approx(np.cos(angle).mean())
    assert found["share_above"] == {"0.7": pytest.approx(2 / 3), "0.9": pytest.approx(1 / 3)}
