"""By hand, and against dense matrices."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hourglass.bottlenecks.sparse import SparseAutoencoder, SparseAutoencoderConfig
from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.errors import SourceError
from hourglass.metrics import autoencoders
from hourglass.metrics.autoencoders import measure_sae
from hourglass.metrics.reconstruction import fvu
from hourglass.metrics.sparsity import counts, dead, dense, density, l0, log_density_histogram

CODES = SparseCodes.from_dense(torch.tensor([[0.5, 0, 0, 2], [0, 0, 0, 1], [0.1, 0, 0, -3], [0, 0, 7, 1]]))


def test_small_codes_by_hand():
    assert l0(CODES) == 7 / 4
    assert counts(CODES).tolist() == [2, 0, 1, 4]
    assert density(CODES).tolist() == [0.5, 0, 0.25, 1]
    assert dead(density(CODES)).tolist() == [False, True, False, False]
    assert dense(density(CODES), above=0.5).tolist() == [False, False, False, True]
    found = log_density_histogram(density(CODES), edges=(-2, -0.5, -0.2, 0))
    assert found == {"edges": [-2, -0.5, -0.2, 0], "counts": [1, 1, 1]}


def test_what_is_beyond_the_edges_is_in_the_outermost_bins():
    found = log_density_histogram(torch.tensor([1e-9, 0.0, 1e-6, 1.0]))
    assert (found["counts"][0], found["counts"][-1], sum(found["counts"])) == (2, 1, 3)
    assert len(found["edges"]) == len(found["counts"]) + 1


def test_no_rows():
    none = SparseCodes.from_dense(torch.zeros(0, 3))
    assert np.isnan(l0(none)) and density(none).isnan().all()


@settings(max_examples=40, deadline=None)
@given(arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(1, 9)), elements=st.sampled_from([0, 0, 1, -2])))
def test_as_of_the_dense_matrix(matrix):
    codes = SparseCodes.from_dense(torch.from_numpy(matrix))
    assert l0(codes) == pytest.approx((matrix != 0).sum(1).mean())
    share = density(codes)
    assert share.numpy() == pytest.approx((matrix != 0).mean(0))
    assert sum(log_density_histogram(share)["counts"]) == (matrix != 0).any(0).sum()


@pytest.fixture
def sae():
    torch.manual_seed(0)
    return SparseAutoencoder(SparseAutoencoderConfig.preset("tiny", precision="float32")).eval()


@pytest.mark.parametrize("kind", ["tensor", "half array"])
def test_an_autoencoder_measured_in_parts_as_in_one(sae, kind, monkeypatch):
    x = 100 + torch.randn(50, 16, generator=torch.Generator().manual_seed(1))  # far off together
    x = x.half().float()
    monkeypatch.setattr(autoencoders, "_ROWS_AT_ONCE", 7)
    found = measure_sae(sae, x if kind == "tensor" else x.half().numpy())
    codes = sae.codes(x)
    share = density(codes)
    assert found["fvu"] == pytest.approx(fvu(x, sae.decode(codes)), rel=1e-6)
    assert found["l0"] == pytest.approx(l0(codes))
    assert (found["rows"], found["width"]) == (50, 64)
    assert found["dead"] == int((share == 0).sum()) == 64 * found["dead_share"]
    assert found["dense"] == int((share > 0.1).sum()) == 64 * found["dense_share"]
    assert sum(found["density_histogram"]["counts"]) == 64 - found["dead"]
    assert json.loads(json.dumps(found)) == found


def test_rows_without_variance_and_no_rows(sae):
    assert measure_sae(sae, torch.full((9, 16), 0.1))["fvu"] is None
    with pytest.raises(SourceError, match="no rows"):
        measure_sae(sae, torch.zeros(0, 16))
