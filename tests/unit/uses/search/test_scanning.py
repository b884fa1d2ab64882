"""What is kept while everything is read once is what a sort of all of it begins with, for any number of threads."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from indexes import ordered
from scipy.sparse import csc_matrix

from hourglass.errors import FolderError
from hourglass.metrics.codes import as_words, hamming
from hourglass.uses.search import scanning
from hourglass.uses.search.buckets import Buckets
from hourglass.uses.search.postings import Postings
from hourglass.uses.search.scanning import best_of, bits, in_order, in_parts, products, products_of, rankings


@pytest.fixture(params=[1, 3], autouse=True)
def threads(request, monkeypatch):
    monkeypatch.setattr(scanning, "_LEAST", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: request.param)
    return request.param


SIZES = st.integers(0, 5000)
DEPTHS = st.sampled_from([1, 7, 64, 1000, 9000])
SEEDS = st.integers(0, 10)
# Fewer examples than usual: each is a search.
few = settings(deadline=None, max_examples=25)


def chosen(number, seed):
    """None, or some rows."""
    return None if seed % 2 else np.flatnonzero(np.random.default_rng(seed).random(number) < 0.3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@given(SIZES, DEPTHS, SEEDS, st.sampled_from([1, 2, 5, 65]))
@few
def test_products_are_those_of_a_sort(dtype, number, depth, seed, queries):
    rng = np.random.default_rng(seed)
    # Small whole numbers: sums are exact in any order, and many are equal.
    vectors = rng.integers(-3, 4, (number, 5)).astype(dtype)
    asked = rng.integers(-3, 4, (queries, 5)).astype(np.float32)
    selected = chosen(number, seed)
    found = rankings(products(vectors, asked, depth, selected), depth)
    assert len(found) == queries
    for query, ranking in zip(asked, found):
        expected = vectors.astype(np.float32) @ query
        assert ranking.rows.tolist() == ordered(expected, depth, selected).tolist()
        assert np.array_equal(ranking.scores, expected[ranking.rows])


def test_every_number_of_half_precision_is_read_as_it_is():
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)][:, None]
    for queries in (1, 3):
        kept = products(halves, np.ones((queries, 1), np.float32), len(halves))
        for ranking in rankings(kept, len(halves)):
            assert np.array_equal(ranking.scores, halves[ranking.rows, 0].astype(np.float32))
            assert len(ranking) == len(halves)


def test_products_of_long_vectors_are_those_of_numpy():
    rng = np.random.default_rng(0)
    vectors, asked = (
        rng.standard_normal((333, 771)).astype(np.float16),
        rng.standard_normal((9, 771)).astype(np.float32),
    )
    for some in (asked, asked[:1]):
        rows, scores = products(vectors, some, 333)
        expected = some @ vectors.astype(np.float32).T
        assert np.allclose(scores[rows >= 0], np.take_along_axis(expected, rows, 1)[rows >= 0], atol=1e-3)
        assert np.allclose(products_of(vectors, some, rows), np.where(rows < 0, -np.inf, scores), atol=1e-3)


def test_a_product_does_not_hang_on_the_others(threads):
    rng = np.random.default_rng(0)
    vectors, asked = rng.standard_normal((50, 97)).astype(np.float16), rng.standard_normal((4, 97)).astype(np.float32)
    rows = rng.integers(-1, 50, (4, 40))
    made = products_of(vectors, asked, rows)
    for q in range(4):
        for i in range(40):
            assert made[q, i] == products_of(vectors, asked[q : q + 1], rows[q : q + 1, i : i + 1])[0, 0]


@given(SIZES, DEPTHS, SEEDS, st.sampled_from([1, 5]))
@few
def test_the_best_of_some_rows_are_those_of_a_sort(number, depth, seed, queries):
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-3, 4, (number, 5)).astype(np.float16)
    asked = rng.integers(-3, 4, (queries, 5)).astype(np.float32)
    rows = np.stack([rng.permutation(number) for _ in range(queries)]).reshape(queries, number)
    rows[rng.random(rows.shape) < 0.3] = -1
    for query, some, ranking in zip(asked, rows, in_order(best_of(vectors, asked, rows, depth)), strict=True):
        expected = vectors.astype(np.float32) @ query
        assert ranking.rows.tolist() == ordered(expected, depth, np.sort(some[some >= 0])).tolist()
        assert np.array_equal(ranking.scores, expected[ranking.rows])


@given(SIZES, DEPTHS, SEEDS, st.sampled_from([1, 3, 65]), st.sampled_from([2, 8, 9, 32]), st.sampled_from([0, 3, 256]))
@few
def test_bits_are_those_of_a_sort(number, depth, seed, queries, size, within):
    rng = np.random.default_rng(seed)
    codes = np.packbits(rng.random((number, 8 * size)) < 0.1, axis=1)
    asked = np.packbits(rng.random((queries, 8 * size)) < 0.1, axis=1)
    selected = chosen(number, seed)
    found = rankings(bits(np.ascontiguousarray(as_words(codes).T), as_words(asked), depth, within, selected), depth)
    for distances, ranking in zip(hamming(asked, codes), found):
        near = np.flatnonzero(distances <= within)
        near = near if selected is None else np.intersect1d(near, selected)
        assert ranking.rows.tolist() == ordered(-distances, depth, near).tolist()
        assert np.array_equal(ranking.scores, -distances[ranking.rows])


def test_bits_that_grow_fewer_and_fewer_keep_to_their_room():
    # Each code is nearer than all before it: whatever is found is found for nothing.
    codes = np.packbits(np.tri(256, dtype=bool)[::-1].repeat(40, 0), axis=1)
    words = np.ascontiguousarray(as_words(codes).T)
    found = rankings(bits(words, np.zeros((1, 4), np.uint64), 30, 256), 30)[0]
    assert found.rows.tolist() == list(range(10200, 10230))


@given(st.integers(0, 3000), SEEDS, st.sampled_from([2, 4, 7, 9, 32]), st.data())
@few
def test_buckets_hold_all_within_a_small_radius(number, seed, size, data):
    rng = np.random.default_rng(seed)
    codes = np.packbits(rng.random((number, 8 * size)) < 0.1, axis=1)
    query = np.packbits(rng.random((1, 8 * size)) < 0.1, axis=1)
    words, pieces = np.ascontiguousarray(as_words(codes).T), -(-size // 2)
    radius = data.draw(st.integers(0, pieces - 1))
    with tempfile.TemporaryDirectory() as folder:
        Buckets.save(words, pieces, Path(folder))
        buckets = Buckets.open(Path(folder), number, pieces)
        rows, apart = buckets.within(words, as_words(query)[0], radius)
        with pytest.raises(FolderError, match="cannot be read"):
            Buckets.open(Path(folder), number + 1, pieces)
    expected = hamming(query, codes)[0]
    assert sorted(rows) == np.flatnonzero(expected <= radius).tolist()
    assert np.array_equal(apart, expected[rows])


@given(st.integers(1, 90_000), DEPTHS, SEEDS)
@few
def test_the_best_of_postings_are_those_of_a_sort(number, depth, seed):
    rng = np.random.default_rng(seed)
    weights = rng.integers(-1, 4, (3, number)) * (rng.random((3, number)) < [[0.5], [0.01], [0.0]])
    postings = Postings.of(csc_matrix(weights.T.astype(np.float32)), ["common", "rare", "never"])
    selected = chosen(number, seed)
    queries = [{"common": 1.0, "rare": 2.0, "unknown": 1.0}, {"never": 1.0}, {}, {"rare": 0.5}]
    for query, ranking in zip(queries, postings.best(queries, depth, selected)):
        expected = sum((query.get(term, 0) * row for term, row in zip(("common", "rare"), weights)), np.zeros(number))
        kept = np.flatnonzero(expected > 0)
        kept = kept if selected is None else np.intersect1d(kept, selected)
        assert ranking.rows.tolist() == ordered(expected, depth, kept).tolist()
        assert np.array_equal(ranking.scores, postings.scores(query, ranking.rows))
        assert np.allclose(ranking.scores, expected[ranking.rows])


@given(st.integers(0, 300))
def test_parts_are_all_things_once_and_in_order(number):
    parts = in_parts(number, 1, lambda start, stop: list(range(start, stop)))
    assert [i for part in parts for i in part] == list(range(number))
    assert len(parts) >= 1


def test_what_fails_in_a_thread_is_raised(threads):
    def work(start, stop):
        raise KeyError(start)

    with pytest.raises(KeyError):
        in_parts(1000, 1, work)
