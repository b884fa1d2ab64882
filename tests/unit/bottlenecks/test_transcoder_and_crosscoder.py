"""What transcoders and crosscoders learn, on rows whose making is known."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from test_sae_kinds import TINY

from hourglass.bottlenecks.sparse import Crosscoder, CrosscoderConfig, Transcoder, TranscoderConfig
from hourglass.bottlenecks.sparse.activations import ACTIVATIONS
from hourglass.errors import ConfigError, SourceError
from hourglass.metrics.autoencoders import measure_sae, measure_transcoder
from hourglass.testing import SYSTEM_CHECKS
from hourglass.training import TrainConfig, fit

TRAIN = TrainConfig(steps=500, batch_size=128, lr=1e-2, schedule="wsd", decay=0.5, log_every=100)
SHARED, OWN, ACTIVE = 8, 8, 3


def system(cls, kind):
    """The transcoder or crosscoder as a system whose tiny preset is of this kind."""
    tiny = {**cls.Config.presets["tiny"], "k": None, "activation": kind, **TINY[kind]}
    presets = dict.fromkeys(("tiny", "base", "paper"), tiny)
    config = dataclass(frozen=True, kw_only=True)(type("Config", (cls.Config,), {"presets": presets}))
    coupled = {"batch-coupled"} if kind in ("batchtopk", "matryoshka") else set()
    return type("Kind", (cls,), {"__doc__": kind, "Config": config, "tags": cls.tags | coupled})


@pytest.mark.parametrize("check", SYSTEM_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("cls", [Transcoder, Crosscoder])
def test_the_contract_of_a_system_in_every_kind(cls, kind, check):
    check(system(cls, kind))


def sums(atoms, coefficients):
    return torch.from_numpy((coefficients @ atoms).astype("float32"))


def unit(random, n, d):
    rows = random.normal(size=(n, d))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def two_models():
    """[6000, 24 + 16]: 8 features that both have, 8 of each alone; the second model's states are ten times as long."""
    random = np.random.default_rng(0)
    coefficients = random.uniform(1, 2, (6000, SHARED + 2 * OWN))
    coefficients *= random.random(coefficients.shape) < 0.1  # each by itself, or an absent one would say something
    first, second = unit(random, SHARED + 2 * OWN, 24), 10 * unit(random, SHARED + 2 * OWN, 16)
    first[SHARED + OWN :] = 0
    second[SHARED : SHARED + OWN] = 0
    return torch.cat([sums(first, coefficients) + 3, sums(second, coefficients)], 1), first, second


@pytest.mark.parametrize("kind", ["topk", "batchtopk"])
def test_a_crosscoder_tells_what_models_share_from_what_one_has(two_models, kind):
    rows, first, second = two_models
    config = CrosscoderConfig(d_in=40, parts=(24, 16), width=32, k=4, activation=kind, dead_after=2000)
    torch.manual_seed(0)
    crosscoder = fit(Crosscoder(config), rows, TRAIN, progress=False).model
    found = measure_sae(crosscoder, rows, config.parts)
    assert max(found["fvu_parts"]) < 0.15 and found["fvu"] == pytest.approx(np.mean(found["fvu_parts"]))
    atoms = torch.from_numpy(np.hstack([first, second])).float() * crosscoder.scale
    match = torch.nn.functional.cosine_similarity(atoms[:, None], crosscoder.W_dec.detach()[None], dim=2).max(1)
    assert match.values.median() > 0.95
    norms = crosscoder.relative_norms[match.indices, 0]
    assert norms[:SHARED].sub(0.5).abs().median() < 0.1
    assert norms[SHARED : SHARED + OWN].median() > 0.9 and norms[SHARED + OWN :].median() < 0.1


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_a_transcoder_learns_a_layer(kind):
    random = np.random.default_rng(0)
    coefficients = random.uniform(1, 2, (6000, 24)) * (random.random((6000, 24)).argsort(1) < ACTIVE)
    x, y = sums(unit(random, 24, 20), coefficients) + 2, sums(5 * unit(random, 24, 12), coefficients)
    few = {"k": ACTIVE} if "k" in ACTIVATIONS[kind].settings else {"target_l0": 4}
    config = TranscoderConfig(d_in=20, d_out=12, width=48, activation=kind, dead_after=2000, **few)
    torch.manual_seed(0)
    transcoder = fit(Transcoder(config), torch.cat([x, y], 1), TRAIN, progress=False).model
    found = measure_transcoder(transcoder, x, y)
    assert found["fvu"] < (0.6 if kind == "relu" else 0.4) and found["l0"] < 8  # L1 makes activations too small
    assert transcoder.W_dec.norm(dim=1).sub(1).abs().max() < 1e-5


def test_the_skip_connection_takes_what_is_affine():
    random = np.random.default_rng(0)
    x = torch.from_numpy(random.normal(size=(4000, 12)).astype("float32")) + 3
    y = x @ torch.from_numpy(random.normal(size=(12, 9)).astype("float32")) + 1
    fvu = {}
    for skip in (False, True):
        torch.manual_seed(0)
        config = TranscoderConfig(d_in=12, d_out=9, width=24, k=2, skip=skip)
        model = fit(Transcoder(config), torch.cat([x, y], 1), TRAIN, progress=False).model
        fvu[skip] = measure_transcoder(model, x, y)["fvu"]
    assert fvu[True] < 0.01 < 0.1 < fvu[False]
    assert not model.skipped(x).allclose(torch.zeros(()))


def test_dead_latents_come_back_towards_the_target():
    random = np.random.default_rng(0)
    coefficients = random.uniform(1, 2, (4000, 24)) * (random.random((4000, 24)).argsort(1) < ACTIVE)
    rows = torch.cat([sums(unit(random, 24, 16), coefficients), sums(unit(random, 24, 12), coefficients)], 1)

    def dead_after_training(aux_k):
        torch.manual_seed(0)
        config = TranscoderConfig(d_in=16, d_out=12, width=64, k=ACTIVE, dead_after=2000, aux_k=aux_k)
        model = Transcoder(config)
        model.initialize([model.collate(rows)])
        with torch.no_grad():
            model.encoder.weight[:40] *= 0.01  # too faint to be among the largest
        model.initialize = lambda batches: None  # go on from here
        steady = TrainConfig(steps=400, batch_size=256, lr=1e-3, schedule="constant", warmup=0, log_every=100)
        return int(fit(model, rows, steady, progress=False).model.dead.sum())

    assert dead_after_training(0) >= 35
    assert dead_after_training(None) < 20


def test_settings_that_do_not_fit_are_one_line():
    for settings, said in [
        ({"parts": (10, 5)}, r"parts \(10, 5\): expected widths of 1 or more that sum to d_in 16"),
        ({"parts": ()}, "expected widths"),
        ({"parts": (16, 0)}, "expected widths"),
    ]:
        with pytest.raises(ConfigError, match=said):
            CrosscoderConfig(d_in=16, width=8, k=2, **settings)
    with pytest.raises(ConfigError, match="d_out 0: must be at least 1"):
        TranscoderConfig(d_in=16, d_out=0, width=8, k=2)
    with pytest.raises(SourceError, match=r"rows of shape \(3, 16\): expected \[n, 28\]"):
        Transcoder(TranscoderConfig(d_in=16, d_out=12, width=8, k=2)).collate(np.zeros((3, 16), np.float32))
