"""Packed codes against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hourglass.errors import InputError
from hourglass.metrics.codes import ball, bit_health, hamming, nearest_codes, pack, radius_curve, two_stage, unpack

BITS = st.integers(1, 40).flatmap(lambda k: arrays(bool, st.tuples(st.integers(1, 12), st.just(k))))


@given(BITS)
def test_packing_and_back_loses_nothing(bits):
    codes = pack(bits)
    assert codes.shape == (len(bits), -(-bits.shape[1] // 8))
    assert np.array_equal(unpack(codes, bits.shape[1]), bits)


@given(BITS)
def test_distances_are_those_of_the_bits_whatever_fills_the_last_byte(bits):
    codes = pack(bits)
    assert np.array_equal(hamming(codes, codes), (bits[:, None] != bits[None]).sum(2))


def test_28_bits_are_four_bytes_with_equal_last_bits():
    codes = pack(np.random.default_rng(0).random((20, 28)) < 0.5)
    assert codes.shape == (20, 4)
    assert not (codes[:, 3] & 0b1111).any()


def test_the_nearest_are_exact_and_ties_drawn_by_the_seed():
    random = np.random.default_rng(0)
    bits = random.random((200, 12)) < 0.5
    codes = pack(bits)
    places, distances = nearest_codes(codes[:7], codes, 30, seed=3)
    assert np.array_equal(distances, np.sort((bits[:7, None] != bits[None]).sum(2), 1)[:, :30])
    assert np.array_equal(hamming(codes[:7], codes)[np.arange(7)[:, None], places], distances)
    same = np.zeros((50, 2), np.uint8)
    first, again, other = (nearest_codes(same[:1], same, 50, seed=seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[0], np.arange(50))


def test_a_ball_and_the_order_in_it():
    random = np.random.default_rng(1)
    bits, vectors = random.random((300, 16)) < 0.5, random.normal(size=(300, 5))
    codes = pack(bits)
    inside = ball(codes[0], codes, 6)
    assert np.array_equal(inside, np.flatnonzero((bits != bits[0]).sum(1) <= 6))
    found = two_stage(codes[0], codes, vectors[0], vectors, radius=6)
    cosines = vectors @ vectors[0] / np.linalg.norm(vectors, axis=1)
    assert sorted(found) == inside.tolist()
    assert (np.diff(cosines[found]) <= 0).all()
    assert found[0] == 0


def test_health_of_bits():
    same = bit_health(np.repeat([[0, 1, 1]], 6, 0))
    assert (same.stuck, same.entropy, same.buckets) == (3, 0.0, 1)
    twice = bit_health(np.array([[0, 0], [1, 1], [0, 0], [1, 1]]))
    assert twice.correlation == pytest.approx(1)
    assert twice.entropy == pytest.approx(1)
    assert (twice.lowest, twice.highest) == (0.5, 0.5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: pack(np.full((2, 3), 2)),
        lambda: pack(np.zeros(3)),
        lambda: unpack(np.zeros((2, 2), np.uint8), 28),
        lambda: hamming(np.zeros((1, 2), np.uint8), np.zeros((1, 3), np.uint8)),
        lambda: hamming(np.zeros((1, 2), np.int64), np.zeros((1, 2), np.uint8)),
        lambda: nearest_codes(np.zeros((1, 2), np.uint8), np.zeros((1, 2), np.uint8), 0),
        lambda: bit_health(np.zeros((1, 2))),
    ],
)
def test_bad_input_is_named_in_one_line(call):
    with pytest.raises(InputError) as raised:
        call()
    assert "\n" not in str(raised.value)


@given(st.integers(0, 200), st.integers(1, 5), st.integers(1, 30), st.sampled_from([4, 8, 13]))
def test_a_radius_curve_is_what_counting_every_ball_gives(seed, q, n, bits):
    random = np.random.default_rng(seed)
    queries, codes = (pack(random.integers(0, 2, (rows, bits))) for rows in (q, n))
    relevant = random.random((q, n)) < 0.4
    relevant[0, 0] = True
    curve = radius_curve(queries, codes, relevant)
    assert curve.radius.tolist() == list(range(8 * codes.shape[1] + 1))
    for radius in curve.radius:
        precision, recall, held = [], [], []
        for query, mask in zip(queries, relevant):
            if mask.any():
                inside = ball(query, codes, int(radius))
                held.append(len(inside))
                recall.append(mask[inside].sum() / mask.sum())
                if len(inside):
                    precision.append(mask[inside].mean())
        assert curve.recall[radius] == pytest.approx(np.mean(recall))
        assert curve.candidates[radius] == pytest.approx(np.mean(held))
        assert curve.empty[radius] == pytest.approx(np.mean(np.array(held) == 0))
        expected = np.mean(precision) if precision else float("nan")
        assert curve.precision[radius] == pytest.approx(expected, nan_ok=True)


def test_a_radius_curve_asks_for_a_mask_of_queries_by_codes_and_something_relevant():
    codes = pack(np.eye(8))
    with pytest.raises(InputError, match="queries by codes"):
        radius_curve(codes, codes, np.ones((8, 7)))
    with pytest.raises(InputError, match="no query has anything relevant"):
        radius_curve(codes, codes, np.zeros((8, 8)))
