"""Alignment of vectors with the tokens of their texts, and how vectors fill their space."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from hourglass.metrics.alignment import alignment
from hourglass.metrics.spectrum import effective_rank, mean_cosine, variation


def test_alignment_by_hand():
    scores = np.array([[5.0, 4, 3, 2, 1], [1, 2, 3, 4, 5], [0, 0, 9, 0, 0]])
    texts = [np.array([0, 3]), np.array([0, 1]), np.array([], int)]
    found = alignment([(scores, texts)], k=1)
    assert found.hit == 0.5  # of the first text token 0, of the second none
    assert found.local == 0.25  # of the first text token 0 of two
    assert found.across == pytest.approx(1 / 3)  # token 0 of 0, 1, 3
    assert alignment([(scores, texts)], k=5).hit == 1
    halves = alignment([(scores[:1], texts[:1]), (scores[1:], texts[1:])], k=1)
    assert halves == found


def test_alignment_by_brute_force():
    random = np.random.default_rng(0)
    scores = random.normal(size=(40, 30))
    texts = [np.unique(random.integers(0, 30, size=random.integers(1, 12))) for _ in range(40)]
    found = alignment([(scores, texts)], k=3)
    order = np.argsort(-scores, axis=1)
    hit = np.mean([bool(set(row[:3]) & set(text)) for row, text in zip(order, texts)])
    named = [set(row[: len(text)]) & set(text) for row, text in zip(order, texts)]
    assert found.hit == pytest.approx(hit)
    assert found.local == pytest.approx(np.mean([len(a) / len(b) for a, b in zip(named, texts)]))
    assert found.across == pytest.approx(len(set().union(*named)) / len(set().union(*texts)))


def test_what_is_left_out_is_never_named():
    found = alignment([(np.full((1, 4), -np.inf), [np.array([0, 1])])])
    assert (found.hit, found.local, found.across) == (0, 0, 0)
    assert np.isnan(alignment([]).hit)


def test_collapse():
    random = np.random.default_rng(0)
    rows = random.normal(size=(50, 8))
    cosines = cosine_similarity(rows)
    assert mean_cosine(rows) == pytest.approx(cosines[~np.eye(50, dtype=bool)].mean())
    assert mean_cosine(rows + 100) > 0.99
    assert np.isnan(mean_cosine(rows[:1]))
    assert effective_rank(np.eye(8)) == pytest.approx(8)
    assert effective_rank(np.outer(np.arange(1, 9), np.ones(8))) == pytest.approx(1)
    assert effective_rank(np.zeros((3, 3))) == 0


def test_variation_is_found_where_it_was_put():
    random = np.random.default_rng(0)
    before = random.normal(size=(60, 6)) * [9, 1, 1, 1, 1, 1]
    found = variation(before, before + 3 * np.eye(6)[0])
    assert found.shares.sum() == pytest.approx(1)
    assert np.abs(found.variation[0] * found.components[0])[0] == pytest.approx(3, rel=0.02)
    assert np.abs(found.variation[1:]).max() < 0.3
    assert found.components.T @ found.variation == pytest.approx(3 * np.eye(6)[0], abs=1e-9)
