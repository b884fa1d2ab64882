"""Pooled codes against a dense loop over documents."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.errors import ConfigError
from hourglass.uses.explore.pooling import PooledCodes, pool

WIDTH = 12


@st.composite
def token_codes(draw):
    lengths = draw(st.lists(st.integers(0, 6), min_size=1, max_size=6))
    random = np.random.default_rng(draw(st.integers(0, 999)))
    dense = random.random((sum(lengths), WIDTH)) * (random.random((sum(lengths), WIDTH)) < 0.3)
    return np.cumsum([0, *lengths]), dense.astype(np.float32)


def sparse(dense):
    rows, columns = np.nonzero(dense)
    offsets = np.append(0, np.cumsum(np.count_nonzero(dense, axis=1)))
    return SparseCodes(
        torch.from_numpy(columns), torch.from_numpy(dense[rows, columns]), torch.from_numpy(offsets), WIDTH
    )


@settings(max_examples=60, deadline=None)
@given(token_codes(), st.sampled_from([0.0, 0.5]))
def test_every_pooling(case, threshold):
    offsets, dense = case
    pooled = pool(sparse(dense), offsets, threshold)
    kept = np.where(dense > threshold, dense, 0)
    parts = [kept[a:b] for a, b in pairwise(offsets)]
    expected = {
        "max": [p.max(0, initial=0) for p in parts],
        "sum": [p.sum(0) for p in parts],
        "mean": [p.sum(0) / max(len(p), 1) for p in parts],
        "count": [(p > 0).sum(0) for p in parts],
        "binarize": [(p > 0).any(0) for p in parts],
    }
    for name, rows in expected.items():
        got = pooled.matrix(name)
        assert got.has_sorted_indices or got.nnz == 0 or np.all(np.diff(got.indptr) >= 0)
        least = 2**-24  # of half precision
        np.testing.assert_allclose(got.toarray(), np.array(rows), rtol=2e-3, atol=least, err_msg=name)
    assert pooled.tokens.tolist() == np.diff(offsets).tolist()


@settings(max_examples=20, deadline=None)
@given(token_codes(), token_codes())
def test_concatenation_is_pooling_together(one, other):
    parts = [pool(sparse(dense), offsets) for offsets, dense in (one, other)]
    together = PooledCodes.concatenate(parts)
    for name in ("max", "count"):
        expected = np.concatenate([p.matrix(name).toarray() for p in parts])
        np.testing.assert_array_equal(together.matrix(name).toarray(), expected)


@settings(max_examples=20, deadline=None)
@given(token_codes())
def test_a_document_in_parts_is_the_document(case):
    offsets, dense = case
    whole = pool(sparse(dense), np.array([0, len(dense)]))
    parts = [pool(sparse(dense[a:b]), np.array([0, b - a])) for a, b in pairwise(offsets)]
    merged = PooledCodes.of_one_document(parts)
    for name in ("max", "sum", "count"):
        np.testing.assert_allclose(merged.matrix(name).toarray(), whole.matrix(name).toarray(), rtol=1e-3)
    assert merged.tokens.tolist() == whole.tokens.tolist()


@settings(max_examples=40, deadline=None)
@given(token_codes(), st.integers(1, 3), st.integers(0, 999))
def test_presence_is_what_numpy_says(case, min_tokens, seed):
    offsets, dense = case
    pooled = pool(sparse(dense), offsets)
    random = np.random.default_rng(seed)
    # Some levels are maxima themselves, and a maximum is not above itself.
    level = np.where(random.random(WIDTH) < 0.5, pooled.matrix("max").toarray().max(0), random.random(WIDTH))
    level = level.astype(np.float32)
    expected = (pooled.matrix("max").toarray() > level) & (pooled.matrix("count").toarray() >= min_tokens)
    assert np.array_equal(pooled.present(level, min_tokens).toarray(), expected)


def test_presence_by_level_and_tokens():
    dense = np.zeros((4, WIDTH), np.float32)
    dense[:, 0] = [1, 1, 0, 0]
    dense[:, 1] = [0.4, 0, 0, 0]
    dense[:, 2] = [0, 0, 0, 9]
    pooled = pool(sparse(dense), np.array([0, 3, 4]))
    assert pooled.present().toarray()[:, :3].tolist() == [[1, 1, 0], [0, 0, 1]]
    assert pooled.present(level=0.5).toarray()[:, :3].tolist() == [[1, 0, 0], [0, 0, 1]]
    assert pooled.present(min_tokens=2).toarray()[:, :3].tolist() == [[1, 0, 0], [0, 0, 0]]
    levels = np.zeros(WIDTH)
    levels[2] = 10
    assert pooled.present(level=levels).toarray()[:, :3].tolist() == [[1, 1, 0], [0, 0, 0]]


def test_unknown_pooling_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'max'"):
        pool(sparse(np.ones((1, WIDTH), np.float32)), np.array([0, 1])).matrix("maxx")
