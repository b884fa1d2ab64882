"""What every kind of sparse autoencoder promises, and what only some do."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from test_sae import dictionary_rows

from hourglass.bottlenecks.sparse import SparseAutoencoder, SparseAutoencoderConfig
from hourglass.bottlenecks.sparse.activations import ACTIVATIONS
from hourglass.bottlenecks.sparse.selection import above, largest_by_size, positive
from hourglass.errors import ConfigError
from hourglass.metrics.reconstruction import fvu
from hourglass.metrics.sparsity import l0
from hourglass.testing import SYSTEM_CHECKS
from hourglass.training import TrainConfig, fit

TINY = {
    "topk": {"k": 4},
    "batchtopk": {"k": 4},
    "abstopk": {"k": 4},
    "matryoshka": {"k": 4, "prefixes": (0.25, 1.0)},
    "relu": {"sparsity_warmup": 2, "target_l0": 4},
    "jumprelu": {"sparsity_warmup": 2, "target_l0": 4},
    "gated": {"sparsity_warmup": 2, "target_l0": 4},
}


def test_every_kind_is_tested():
    assert TINY.keys() == ACTIVATIONS.keys()


def system(kind):
    """The autoencoder as a system whose tiny preset is of this kind."""

    @dataclass(frozen=True, kw_only=True)
    class Config(SparseAutoencoderConfig):
        presets = {  # noqa: RUF012
            name: {"d_in": 16, "width": 64, "activation": kind, **TINY[kind]} for name in ("tiny", "base", "paper")
        }

    coupled = {"batch-coupled"} if kind in ("batchtopk", "matryoshka") else set()
    return type(
        "Kind", (SparseAutoencoder,), {"__doc__": kind, "Config": Config, "tags": SparseAutoencoder.tags | coupled}
    )


@pytest.mark.parametrize("check", SYSTEM_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", TINY)
def test_the_contract_of_a_system(kind, check):
    check(system(kind))


def trained(steps, batch_size=256, **settings):
    torch.manual_seed(0)
    sae = SparseAutoencoder(SparseAutoencoderConfig(**settings))
    rows = dictionary_rows(d=settings["d_in"])[1]
    config = TrainConfig(steps=steps, batch_size=batch_size, lr=5e-3, schedule="wsd")
    return fit(sae, rows, config, progress=False).model, torch.from_numpy(rows[:2000])


@pytest.mark.parametrize(
    ("target", "settings"),
    [
        (2, {"activation": "jumprelu"}),
        (3, {"activation": "jumprelu"}),
        (2, {"activation": "jumprelu", "penalty": "tanh"}),
        (3, {"activation": "gated"}),
        (3, {"activation": "relu"}),
    ],
)
def test_the_target_is_reached_and_the_dictionary_found(target, settings):
    sae, x = trained(900, d_in=24, width=64, target_l0=target, precision="float32", **settings)
    codes = sae.codes(x)
    assert l0(codes) == pytest.approx(target, rel=0.05)
    assert fvu(x, sae.decode(codes)) < (0.7 if settings["activation"] == "relu" else 0.22)  # L1 shrinks what it keeps
    likeness = dictionary_rows()[0] @ sae.W_dec.detach().numpy().T
    assert likeness[linear_sum_assignment(-likeness)].mean() > 0.9


@pytest.mark.parametrize("kind", ["relu", "jumprelu"])
def test_a_target_above_what_the_rows_need_is_reached(kind):
    """Rows have 3 directions; no price makes a code of them have 12 active latents."""
    sae, x = trained(400, d_in=24, width=64, activation=kind, target_l0=12, precision="float32")
    codes = sae.codes(x)
    assert l0(codes) == pytest.approx(12, rel=0.05)
    assert fvu(x, sae.decode(codes)) < 0.1


@pytest.mark.parametrize("kind", ["relu", "jumprelu", "gated"])
def test_calibration_brings_other_rows_to_the_target(kind):
    sae, x = trained(40, d_in=24, width=64, activation=kind, target_l0=3, sparsity_warmup=10, precision="float32")
    others = 1.3 * x + 0.1
    assert l0(sae.codes(others)) != pytest.approx(3, rel=0.02)
    sae.calibrate(others)
    assert l0(sae.codes(others)) == pytest.approx(3, rel=0.002)


def test_calibration_leaves_kinds_without_a_target_as_they_are():
    for settings in ({"activation": "topk", "k": 3}, {"activation": "relu"}):
        sae, x = trained(5, d_in=24, width=64, **settings)
        before = {name: weight.clone() for name, weight in sae.state_dict().items()}
        sae.calibrate(x)
        assert all(torch.equal(weight, before[name]) for name, weight in sae.state_dict().items())


def test_the_price_goes_on_where_it_was(tmp_path):
    """A run that resumes has the whole of the controller: see also the contract's check of resuming."""
    sae, _ = trained(30, d_in=16, width=64, activation="relu", target_l0=4, sparsity_warmup=10)
    sae.save_pretrained(tmp_path / "sae")
    again = SparseAutoencoder.from_pretrained(str(tmp_path / "sae")).activation.sparsity
    assert int(again.steps) == 30
    for name in ("log_factor", "log_ratio"):
        assert getattr(again, name) == getattr(sae.activation.sparsity, name) != 0


def test_the_first_latents_of_a_matryoshka_reconstruct_alone():
    shared = {"d_in": 24, "width": 64, "k": 3}
    unexplained = {}
    for kind, more in (("matryoshka", {"prefixes": (0.25, 1.0)}), ("batchtopk", {})):
        sae, x = trained(300, activation=kind, **shared, **more)
        codes = sae.codes(x)
        unexplained[kind] = fvu(x, sae.decode(codes.where(codes.indices < 16)))
    assert unexplained["matryoshka"] < 0.8 * unexplained["batchtopk"]


def test_an_abstopk_latent_stands_for_both_directions():
    directions = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0]
    random = np.random.default_rng(1)
    codes = np.zeros((4000, 8))
    for row in codes:
        row[random.choice(8, 2, replace=False)] = random.choice([-1, 1], 2) * random.uniform(0.5, 1.5, 2)
    rows = (codes @ directions).astype(np.float32)
    torch.manual_seed(0)
    sae = SparseAutoencoder(SparseAutoencoderConfig(d_in=8, width=8, k=2, activation="abstopk"))
    fit(sae, rows, TrainConfig(steps=400, batch_size=256, lr=1e-2), progress=False)
    found = sae.codes(torch.from_numpy(rows)).to_dense()
    assert bool((found < 0).any(0).all() and (found > 0).any(0).all())
    assert fvu(torch.from_numpy(rows), sae.decode(found)) < 0.1  # eight latents for sixteen directions


@pytest.mark.parametrize("kind", TINY)
def test_codes_do_not_depend_on_the_batch_or_on_the_number_format(kind):
    sae, x = trained(20, 64, d_in=16, width=64, activation=kind, **TINY[kind])
    together = sae.codes(x[:300])
    assert bool((together.values != 0).all())
    assert kind == "abstopk" or bool((together.values > 0).all())
    alone = torch.cat([sae.codes(x[i : i + 1]).to_dense() for i in range(20)])
    torch.testing.assert_close(together.to_dense()[:20], alone)
    assert sae.codes(x[:0]).to_dense().shape == (0, 64)


@pytest.mark.parametrize("kind", TINY)
def test_an_evaluation_leaves_no_trace(kind):
    sae, x = trained(5, 64, d_in=16, width=64, activation=kind, **TINY[kind])
    before = {name: t.clone() for name, t in sae.state_dict().items()}
    with torch.no_grad():
        sae.loss({"x": 3 * x})
        sae.activation.after_step(sae.b_enc)
    assert all(torch.equal(t, before[name]) for name, t in sae.state_dict().items())


@pytest.mark.parametrize("kind", ["topk", "relu"])
def test_an_encoder_that_sees_rows_as_they_are_starts_the_same(kind):
    rows = dictionary_rows(d=16)[1] + 5
    dense = []
    for centred in (True, False):
        config = {"d_in": 16, "width": 64, "activation": kind, "precision": "float32", "apply_b_dec_to_input": centred}
        torch.manual_seed(0)
        sae = SparseAutoencoder(SparseAutoencoderConfig(**config, **({"k": 4} if kind == "topk" else {})))
        sae.initialize([sae.collate(rows)])
        dense.append(sae.codes(torch.from_numpy(rows[:200])).to_dense())
    torch.testing.assert_close(*dense, rtol=1e-3, atol=1e-3)


def test_selection_by_size_and_above_a_bound():
    pre = torch.tensor([[0.5, -2.0, -0.1, 0.0], [1.0, 0.9, -3.0, 0.2]])
    assert largest_by_size(pre, 2).to_dense().tolist() == [[0.5, -2, 0, 0], [1, 0, -3, 0]]
    assert positive(pre).to_dense().tolist() == pre.relu().tolist()
    found = above(pre, torch.tensor([0.7, -2.5, -0.2, 0.2]))
    assert found.rows.tolist() == [0, 0, 1, 1] and found.indices.tolist() == [1, 2, 0, 1]


BASE = {"d_in": 4, "width": 8}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"activation": "jumpreluu"}, "no activation 'jumpreluu' (did you mean 'jumprelu'?)"),
        ({}, "activation 'topk' needs k"),
        ({"activation": "relu", "k": 2}, "activation 'relu' has no k: leave it at None (it belongs to topk"),
        ({"k": 2, "sparsity": 0.1}, "activation 'topk' has no sparsity"),
        ({"k": 2, "activation": "matryoshka", "bandwidth": 0.1}, "has no bandwidth: leave it at"),
        ({"activation": "abstopk", "k": 9}, "k 9 is larger than width 8"),
        ({"activation": "jumprelu", "penalty": "tan"}, "no penalty 'tan' (did you mean 'tanh'?)"),
        ({"activation": "jumprelu", "target_l0": 9}, "target_l0 9 is larger than width 8"),
        ({"activation": "relu", "target_l0": 0}, "target_l0 0: expected a positive number"),
        ({"activation": "relu", "sparsity": -1.0}, "sparsity -1.0: expected a positive number"),
        ({"activation": "relu", "sparsity_warmup": -1}, "sparsity_warmup -1: expected 0 steps or more"),
        ({"activation": "jumprelu", "bandwidth": 0.0}, "bandwidth 0.0: expected a positive number"),
        *[
            ({"activation": "matryoshka", "k": 2, "prefixes": prefixes}, "expected shares above 0 that rise to 1")
            for prefixes in ([0.0, 1.0], [0.5, 1.5], [-0.5, 1.0], [0.5], [0.5, 0.25, 1.0], [])
        ],
    ],
)
def test_settings_that_do_not_fit_the_kind(settings, said):
    with pytest.raises(ConfigError) as caught:
        SparseAutoencoderConfig(**BASE, **settings)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_config_of_before_the_kinds_still_loads():
    old = {"d_in": 16, "width": 64, "k": 4, "activation": "batchtopk", "normalize": True, "aux_k": None}
    old |= {"aux_weight": 1 / 32, "dead_after": 200_000, "precision": "auto"}
    config = SparseAutoencoderConfig.from_dict(json.loads(json.dumps(old)))
    assert config.apply_b_dec_to_input and config.k == 4
