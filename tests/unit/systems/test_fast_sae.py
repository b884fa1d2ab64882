"""FAST from dialogues to codes: what it learns from in each flow, and the paper's settings."""

import dataclasses
import json

import numpy as np
import pytest
import torch

import hourglass as hg
from hourglass.bottlenecks.sparse import SparseAutoencoderConfig
from hourglass.data.dialogues import open_dialogues
from hourglass.data.flows import Flow, gather
from hourglass.data.mixing import MixedRows
from hourglass.errors import ConfigError, SourceError
from hourglass.systems.fast_sae import (
    CHATML,
    PAPER_JUMPRELU,
    PAPER_RELU,
    PAPER_TRAINING,
    QWEN_SPECIAL,
    FastSAE,
    FastSAEConfig,
    train_fast,
)
from hourglass.training.schedules import factor

CHATS = [
    [{"role": "user", "content": f"what is {i}?"}, {"role": "assistant", "content": f"a number, {i} " * (i % 3 + 1)}]
    for i in range(40)
]


@pytest.fixture(scope="module")
def settings(causal_folder):
    return {
        "model": str(causal_folder / "llama"),
        "layer": 2,
        "dtype": "float32",
        "template": CHATML,
        "block": 100,
        "width": 64,
        "sae": {"activation": "topk", "k": 4},
    }


@pytest.mark.parametrize("pack", ["none", "blocks", "masked"])
@pytest.mark.parametrize("special", [True, False])
def test_what_is_learned_from_is_the_flow_and_what_is_used_is_alone(settings, pack, special):
    model = FastSAE(FastSAEConfig(**settings, pack=pack, special=special))
    alone = gather(model.reader, list(enumerate(CHATS[:6])), Flow())
    learned = gather(model.reader, list(enumerate(CHATS[:6])), Flow(pack=pack, block=100))
    for training, rows in ((True, learned), (False, alone)):
        batch = model.train(training).collate(CHATS[:6])
        torch.testing.assert_close(batch["states"][batch["mask"]], rows.states)
        assert torch.equal(batch["special"][batch["mask"]], rows.special)
        seen = model._rows(batch)["x"]
        torch.testing.assert_close(seen, rows.states if special else rows.states[~rows.special])
    codes = model.eval().encode(model.collate(CHATS[:2]))
    assert codes.shape == (2, int(alone.documents.bincount()[:2].max()), 64)
    assert ((codes != 0).sum(-1) <= 4).all()


@pytest.mark.parametrize("sae", [{"activation": "topk", "k": 4}, PAPER_RELU, PAPER_JUMPRELU])
def test_training_on_single_tokens(settings, sae, tmp_path):
    model = FastSAE(FastSAEConfig(**{**settings, "sae": sae}))
    train = hg.TrainConfig(steps=60, batch_size=64, lr=1e-3, log_every=1)
    chats = open_dialogues(CHATS, unique=True)
    result = train_fast(model, chats, out=tmp_path / "a", tokens=2000, train=train, buffer=256, progress=False)
    assert result.model is model
    rebuilt = [record["reconstruction"] for record in result.history]
    assert np.mean(rebuilt[-10:]) < np.mean(rebuilt[:10])
    assert json.loads((tmp_path / "a" / "states" / "rows.json").read_text())["rows"] == 2000
    loaded = hg.load(tmp_path / "a" / "model")
    assert isinstance(loaded, FastSAE) and loaded.config == model.config
    batch = loaded.collate(CHATS[:3])
    assert torch.equal(loaded.encode(batch), model.encode(batch))
    with pytest.raises(ConfigError, match="buffer 127: expected at least two batches of 64"):
        train_fast(model, chats, out=tmp_path / "a", tokens=2000, train=train, buffer=127, progress=False)


def test_mixed_rows_come_once_and_the_same_way_each_time():
    rows = np.arange(1000, dtype=np.float16)[:, None]
    mixed = MixedRows(rows, 100, seed=3)
    first = [int(row) for row in mixed]
    assert sorted(first) == list(range(1000)) and first != sorted(first)
    assert first == [int(row) for row in mixed]
    assert max(first[:50]) < 100  # from the buffer alone


def test_the_settings_of_the_paper():
    config = FastSAEConfig.preset("paper")
    assert (config.special_ids, config.max_tokens, config.flow) == (QWEN_SPECIAL, 8192, Flow())
    for sae, price in ((PAPER_RELU, 5.0), (PAPER_JUMPRELU, 0.01)):
        made = SparseAutoencoderConfig.from_dict({"d_in": 3584, "width": 8 * 3584, **sae})
        assert (made.sparsity, made.sparsity_warmup, made.normalize) == (price, 10_000, False)
        assert not made.apply_b_dec_to_input and made.aux_k == 0
    assert PAPER_TRAINING.steps * PAPER_TRAINING.batch_size == 40_960_000
    rates = [PAPER_TRAINING.lr * factor(step, PAPER_TRAINING) for step in (1, 16_000, 16_001, 320_000)]
    assert rates == pytest.approx([7e-5 / 16_000, 7e-5, 7e-5, 7e-6], rel=1e-3)


def test_mistakes_are_said(settings, causal_folder):
    model = FastSAE(FastSAEConfig(**settings))
    with pytest.raises(SourceError, match="example 1: with a turn whose content is a int where a text was expected"):
        model.collate([CHATS[0], [{"role": "user", "content": 3}]])
    with pytest.raises(ConfigError, match="has no chat template"):
        FastSAE(FastSAEConfig(**{**settings, "model": str(causal_folder / "gpt2"), "template": None}))
    with pytest.raises(ConfigError, match="no pack 'mask'"):
        FastSAEConfig(**settings, pack="mask")
    with pytest.raises(ConfigError, match="no setting 'activatoin'"):
        FastSAE(FastSAEConfig(**{**settings, "sae": {"activatoin": "relu"}}))
    assert dataclasses.replace(FastSAEConfig(), special_ids=[1, 2]).special_ids == (1, 2)
