"""The rows are what their parts say, and an autoencoder finds their dictionary."""

import numpy as np
import pytest
import torch

from hourglass.bottlenecks.sparse import SparseAutoencoder, SparseAutoencoderConfig
from hourglass.data.simulated import simulated_rows
from hourglass.errors import ConfigError
from hourglass.metrics.dictionaries import mcc
from hourglass.training import TrainConfig, fit


def test_rows_are_sums_of_their_atoms():
    made = simulated_rows(200, d=8, atoms=16, active=3, noise=0.0, seed=4)
    expected = (made.strengths[..., None] * made.atoms[made.chosen]).sum(1)
    np.testing.assert_allclose(made.rows, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(made.atoms, axis=1), 1, rtol=1e-6)
    assert made.rows.dtype == np.float32
    assert made.strengths.min() >= 0.5 and made.strengths.max() <= 1.5
    noisy = simulated_rows(200, d=8, atoms=16, active=3, noise=0.1, seed=4)
    assert (noisy.rows - made.rows).std() == pytest.approx(0.1, rel=0.1)


def test_use_follows_the_power():
    drawn = np.bincount(simulated_rows(20_000, d=2, atoms=4, active=1, power=1.0).chosen.ravel())
    np.testing.assert_allclose(drawn / 20_000, np.array([12, 6, 4, 3]) / 25, atol=0.015)
    even = np.bincount(simulated_rows(20_000, d=2, atoms=4, active=1, power=0.0).chosen.ravel())
    np.testing.assert_allclose(even / 20_000, 0.25, atol=0.015)


def test_the_dictionary_is_found():
    made = simulated_rows(6000, d=24, atoms=32, active=2)
    torch.manual_seed(0)
    sae = SparseAutoencoder(SparseAutoencoderConfig(d_in=24, width=48, k=2))
    before = mcc(sae.W_dec, torch.from_numpy(made.atoms))
    fit(sae, made.rows, TrainConfig(steps=300, batch_size=256, lr=1e-2, schedule="wsd"), progress=False)
    assert mcc(sae.W_dec, torch.from_numpy(made.atoms)) > max(0.9, before + 0.2)


def test_what_cannot_be_made_is_one_line():
    with pytest.raises(ConfigError, match="active 0"):
        simulated_rows(5, active=0)
