"""Bytes of vectors of one length: near where inner products are large, of any width; of other lengths there are none."""

import numpy as np
import pytest

from hourglass.uses.search.byte_codes import ByteCodes


def unit(rows, width, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("width", [1, 24, 32])
@pytest.mark.parametrize("scale", [1e-3, 1, 50])
def test_distances_of_bytes_have_the_order_of_inner_products(width, scale):
    vectors, queries = scale * unit(400, width), 7 * unit(50, width, 1)
    codes = ByteCodes.of([vectors[:150], vectors[150:]])
    kept, asked = codes.documents(vectors), codes.queries(queries)
    for made in (kept, asked):
        assert made.shape[1] == codes.width == -(-width // 16) * 16
        assert (made == np.rint(made)).all()
        assert 0 <= made.min() <= made.max() <= 255
    distances = ((asked[:, None] - kept[None]) ** 2).sum(2)
    products = queries @ vectors.T / np.float32(7 * scale)
    assert distances * codes.step**2 / scale**2 == pytest.approx(2 - 2 * products, abs=0.1)


def test_a_query_of_zeros_is_no_error():
    codes = ByteCodes.of([unit(10, 8)])
    assert np.isfinite(codes.queries(np.zeros((1, 8), np.float32))).all()


@pytest.mark.parametrize("lengths", [[1, 2], [0, 1], [0, 0]])
def test_vectors_of_other_lengths_have_none(lengths):
    assert ByteCodes.of([unit(2, 8) * np.array(lengths)[:, None]]) is None
