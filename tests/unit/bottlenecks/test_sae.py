"""What a sparse autoencoder promises: selection, codes, thresholds, revival, recovery of a known dictionary."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from hourglass.bottlenecks.sparse import SparseAutoencoder, SparseAutoencoderConfig, SparseCodes, geometric_median
from hourglass.bottlenecks.sparse.recipe import recipe
from hourglass.bottlenecks.sparse.selection import at_least, largest_of_batch, largest_per_row
from hourglass.errors import ConfigError, SourceError
from hourglass.metrics.reconstruction import fvu
from hourglass.metrics.sparsity import density, l0
from hourglass.training import TrainConfig, fit


def pre_activations(seed, rows, width, dtype):
    random = torch.Generator().manual_seed(seed)
    # Few distinct values, so that ties are common.
    return (torch.randint(-40, 60, (rows, width), generator=random) / 8).to(dtype)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 999),
    st.integers(1, 9),
    st.integers(1, 700),
    st.integers(1, 40),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
)
def test_top_k_of_a_row_is_torchs(seed, rows, width, k, dtype):
    k = min(k, width)
    pre = pre_activations(seed, rows, width, dtype)
    codes = largest_per_row(pre, k)
    dense = codes.to_dense()
    expected = torch.topk(pre, k, dim=1).values.clamp(min=0)
    assert torch.equal(dense.sort(1, descending=True).values[:, :k], expected)
    assert torch.equal(dense[dense > 0], pre[dense > 0])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.integers(1, 40), st.integers(1, 300), st.integers(1, 200))
def test_the_largest_of_a_batch_are_torchs(seed, rows, width, count):
    pre = pre_activations(seed, rows, width, torch.float32)
    count = min(count, pre.numel())
    codes = largest_of_batch(pre, count)
    expected = torch.topk(pre.flatten(), count).values
    assert torch.equal(codes.values.sort(descending=True).values, expected[expected > 0])


def test_at_least_is_a_threshold():
    pre = torch.tensor([[0.5, 2.0, -1.0], [1.0, 0.9, 3.0]])
    assert at_least(pre, torch.tensor(1.0)).to_dense().tolist() == [[0, 2, 0], [1, 0, 3]]


def test_codes_slice_join_and_convert():
    dense = torch.tensor([[0, 2.0, 0], [0, 0, 0], [1, 0, 3]])
    codes = SparseCodes.from_dense(dense)
    assert torch.equal(codes.to_dense(), dense)
    assert codes.to_scipy().toarray().tolist() == dense.tolist()
    assert torch.equal(SparseCodes.concatenate([codes[:1], codes[1:]]).to_dense(), dense)
    assert codes[5:].to_dense().shape == (0, 3)


def dictionary_rows(rows=6000, d=24, atoms=48, active=3, seed=0):
    random = np.random.default_rng(seed)
    directions = random.normal(size=(atoms, d))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    codes = np.zeros((rows, atoms))
    for row in codes:
        row[random.choice(atoms, active, replace=False)] = random.uniform(0.5, 1.5, active)
    return directions, (codes @ directions + 0.01 * random.normal(size=(rows, d))).astype(np.float32)


@pytest.mark.parametrize("activation", ["topk", "batchtopk"])
def test_a_known_dictionary_is_found(activation):
    truth, rows = dictionary_rows()
    torch.manual_seed(0)
    sae = SparseAutoencoder(SparseAutoencoderConfig(d_in=24, width=64, k=3, activation=activation))
    fit(sae, rows, TrainConfig(steps=500, batch_size=256, lr=5e-3, schedule="wsd"), progress=False)
    held = torch.from_numpy(dictionary_rows(seed=0)[1][:1000])
    codes = sae.codes(held)
    assert fvu(held, sae.decode(codes)) < 0.12
    assert abs(l0(codes) - 3) < 0.6  # the threshold stands in for the batch
    likeness = truth @ sae.W_dec.detach().numpy().T
    matched = likeness[linear_sum_assignment(-likeness)]
    assert matched.mean() > 0.9
    assert density(codes).shape == (64,)


def test_decoder_rows_have_norm_one_after_training():
    sae = SparseAutoencoder(SparseAutoencoderConfig.preset("tiny"))
    fit(sae, dictionary_rows(d=16)[1], TrainConfig(steps=5, batch_size=64), progress=False)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(64))


def test_dead_latents_come_back():
    _, rows = dictionary_rows(d=16)

    def dead_after_training(aux_k):
        torch.manual_seed(0)
        sae = SparseAutoencoder(SparseAutoencoderConfig(d_in=16, width=64, k=3, dead_after=2000, aux_k=aux_k))
        fit(sae, rows, TrainConfig(steps=20, batch_size=256, lr=1e-3), progress=False)
        with torch.no_grad():
            sae.encoder.weight[:40] *= 0.01  # too faint to be among the largest
        sae.initialize = lambda batches: None  # go on from here
        fit(sae, rows, TrainConfig(steps=400, batch_size=256, lr=1e-3, schedule="constant", warmup=0), progress=False)
        return int(sae.dead.sum())

    assert dead_after_training(0) >= 40
    assert dead_after_training(8) < 20


def test_a_code_depends_on_its_row_alone_and_not_on_number_format():
    sae = SparseAutoencoder(SparseAutoencoderConfig(d_in=16, width=64, k=4, activation="batchtopk"))
    _, rows = dictionary_rows(d=16)
    fit(sae, rows, TrainConfig(steps=30, batch_size=128, lr=3e-3), progress=False)
    x = torch.from_numpy(rows[:300])
    together = sae.codes(x).to_dense()
    alone = torch.cat([sae.codes(x[i : i + 1]).to_dense() for i in range(20)])
    torch.testing.assert_close(together[:20], alone)
    assert sae.codes(x.half()).width == 64
    assert sae.codes(x[:0]).to_dense().shape == (0, 64)


def test_the_median_withstands_outliers():
    x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    x[:100] += 1000
    assert geometric_median(x).norm() < 2
    assert torch.equal(geometric_median(torch.ones(4, 3)), torch.ones(3))


@pytest.mark.parametrize(
    ("settings_", "said"),
    [
        ({"d_in": 0, "width": 4, "k": 1}, "must be at least 1"),
        ({"d_in": 4, "width": 4, "k": 5}, "k 5 is larger than width 4"),
        ({"d_in": 4, "width": 4, "k": 1, "activation": "topkk"}, "no activation 'topkk'"),
        ({"d_in": 4, "width": 4, "k": 1, "precision": "int8"}, "no precision 'int8'"),
    ],
)
def test_settings_that_cannot_be(settings_, said):
    with pytest.raises(ConfigError, match=said):
        SparseAutoencoderConfig(**settings_)


def test_rows_that_cannot_be():
    sae = SparseAutoencoder(SparseAutoencoderConfig.preset("tiny"))
    for rows, said in [
        (np.zeros((3, 5)), "expected .n, 16."),
        ([np.zeros(16), np.zeros(3)], "row 1 has shape"),
        (np.full((2, 16), np.nan), "row 0 holds NaN"),
        (np.zeros((0, 16)), "no rows"),
    ]:
        with pytest.raises(SourceError, match=said):
            sae.collate(rows)
    with pytest.raises(SourceError, match=r"expected .n, 16."):
        sae.codes(torch.zeros(3, 5))


def test_the_recipe_fits_any_number_of_rows():
    config = SparseAutoencoderConfig.preset("base")
    assert recipe(config, 40).batch_size == 32
    assert recipe(config, 1_000_000).steps * 1024 <= 1_500_000
    assert recipe(config, 40).steps == 200


def test_the_largest_of_runs_of_rows():
    dense = torch.tensor([[0, 2.0, -1], [3, 0, 0], [1, 5, -2], [0, 0, 0]])
    best = SparseCodes.from_dense(dense).largest(torch.tensor([0, 2, 2, 4]))
    assert best.tolist() == [[3, 2, 0], [0, 0, 0], [1, 5, 0]]
