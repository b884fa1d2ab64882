from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import tracking
from accelerate.tracking import GeneralTracker
from accelerate.utils import LoggerType
from dense import DenseAutoencoder, DenseConfig

from hourglass.errors import ConfigError, FolderError, SourceError, TrainingError
from hourglass.storage.atomic import read_json
from hourglass.training import Callback, TrainConfig, fit
from hourglass.training.schedules import factor

ROWS = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
BRIEF = TrainConfig(steps=12, batch_size=8, lr=0.01, log_every=1)


def build(kind=DenseAutoencoder, **settings):
    torch.manual_seed(0)
    return kind(DenseConfig(**settings))


def weights(model):
    return torch.cat([t.flatten().double() for t in model.state_dict().values()])


def losses(result):
    return [record["loss"] for record in result.history]


class Stream:
    def __iter__(self):
        return iter(ROWS)


class Killed(Exception):
    pass


class KilledAt(Callback):
    def __init__(self, step):
        self.last = step

    def on_step(self, step, record):
        if step == self.last:
            raise Killed


def test_the_steps_are_those_of_a_plain_loop():
    result = fit(build(), ROWS, BRIEF)
    model = build()
    order = np.concatenate([np.random.default_rng((0, 4, epoch)).permutation(50) for epoch in range(2)])
    model.mean.copy_(torch.from_numpy(ROWS[order[:8]]).mean(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0, fused=True)
    for step in range(1, 13):
        total = sum(model.loss(model.collate(ROWS[order[8 * (step - 1) : 8 * step]])).values())
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = 0.01 * factor(step, BRIEF)
        optimizer.step()
        optimizer.zero_grad()
        assert losses(result)[step - 1] == total.item()
    assert torch.equal(weights(result.model), weights(model))


def test_history_and_result():
    result = fit(build(), ROWS, replace(BRIEF, log_every=5), eval_data=ROWS[:20])
    assert [record["step"] for record in result.history] == [5, 10, 12]
    assert set(result.history[0]) == {"step", "loss", "reconstruction", "size", "lr", "examples_per_s"}
    for record in result.history:
        assert record["loss"] == pytest.approx(record["reconstruction"] + record["size"])
        assert record["lr"] == pytest.approx(0.01 * factor(record["step"], BRIEF))
    assert result.steps == 12
    assert not result.model.training
    (evaluation,) = result.evaluations
    with torch.no_grad():
        expected = result.model.loss(result.model.collate(ROWS[:20]))
    assert evaluation["reconstruction"] == pytest.approx(expected["reconstruction"].item(), rel=1e-5)


def test_hooks_come_in_order_and_see_gradients():
    class Watched(DenseAutoencoder):
        calls: list = []  # noqa: RUF012

        def initialize(self, batches):
            self.calls.append(("initialize", sum(1 for _ in batches)))

        def before_step(self, step):
            assert all(p.grad is not None for p in self.parameters())
            self.calls.append(("before", step, self.encoder.weight.detach().clone()))

        def after_step(self, step):
            assert not torch.equal(self.calls[-1][2], self.encoder.weight)
            self.calls.append(("after", step))

    fit(build(Watched), ROWS, replace(BRIEF, steps=2, warmup=0.0))
    assert [call[:2] for call in Watched.calls] == [
        ("initialize", 7),
        ("before", 1),
        ("after", 1),
        ("before", 2),
        ("after", 2),
    ]


def test_micro_batches_give_the_same_curve():
    whole, split = (fit(build(), ROWS, replace(BRIEF, accumulate=parts)) for parts in (1, 4))
    assert losses(split) == pytest.approx(losses(whole), rel=1e-5)
    assert torch.allclose(weights(split.model), weights(whole.model), atol=1e-6)


def test_collation_is_seeded_by_the_step_and_the_caller_keeps_their_randomness():
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    expected = torch.rand(1), np.random.rand(), random.random()
    first = fit(build(noise=0.5, dropout=0.2), ROWS, BRIEF)
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    model = DenseAutoencoder(DenseConfig(noise=0.5, dropout=0.2))
    model.load_state_dict(build().state_dict())
    torch.manual_seed(1)
    second = fit(model, ROWS, BRIEF)
    assert (torch.rand(1), np.random.rand(), random.random()) == expected
    assert losses(first) == losses(second)


def test_averaged_weights():
    seen = []

    class Watched(DenseAutoencoder):
        def after_step(self, step):
            seen.append(self.encoder.weight.detach().clone())

    result = fit(build(Watched), ROWS, replace(BRIEF, ema=0.75))
    average = seen[0]
    for weight in seen[1:]:
        average = torch.lerp(average, weight, 0.25)
    assert torch.allclose(result.model.encoder.weight, average)


def test_bfloat16_leaves_no_wrapper():
    plain, half = (fit(build(), ROWS, replace(BRIEF, precision=p)) for p in ("no", "bf16"))
    assert losses(plain) != losses(half)
    assert losses(half) == pytest.approx(losses(plain), rel=0.05)
    assert "forward" not in vars(half.model)
    assert losses(fit(build(), ROWS, BRIEF)) == losses(plain)


def test_a_model_learns_in_bfloat16_every_time():
    half = replace(BRIEF, precision="bf16")
    model, twin = fit(build(), ROWS, half).model, build()
    twin.load_state_dict(model.state_dict())
    assert losses(fit(model, ROWS, half)) == losses(fit(twin, ROWS, half))


# Going on ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [ROWS, Stream()], ids=["rows", "stream"])
def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path, data):
    settings = {"noise": 0.3, "dropout": 0.3}
    config = replace(BRIEF, ema=0.9, save_every=5)
    whole = fit(build(**settings), data, config, out=tmp_path / "whole")
    with pytest.raises(Killed):
        fit(build(**settings), data, config, out=tmp_path / "cut", callbacks=[KilledAt(9)])
    torch.manual_seed(99)
    resumed = fit(DenseAutoencoder(DenseConfig(**settings)), data, config, out=tmp_path / "cut")
    assert torch.equal(weights(resumed.model), weights(whole.model))
    assert losses(resumed) == losses(whole)
    for name in ("model/model.safetensors", "checkpoint/model.safetensors", "checkpoint/training.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_finished_run_returns_at_once(tmp_path):
    first = fit(build(), ROWS, replace(BRIEF, ema=0.5), out=tmp_path)
    before = (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns
    again = fit(DenseAutoencoder(DenseConfig()), ROWS, replace(BRIEF, ema=0.5), out=tmp_path, callbacks=[KilledAt(1)])
    assert again.history == first.history
    assert torch.equal(weights(again.model), weights(first.model))
    assert torch.equal(weights(DenseAutoencoder.from_pretrained(str(tmp_path / "model"))), weights(first.model))
    assert (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_a_constant_schedule_can_grow(tmp_path):
    constant = replace(BRIEF, schedule="constant", warmup=0.25)
    fit(build(), ROWS, constant, out=tmp_path)
    grown = fit(build(), ROWS, replace(constant, steps=20), out=tmp_path)
    assert [record["step"] for record in grown.history] == list(range(1, 21))
    assert [record["lr"] for record in grown.history[2:]] == [0.01] * 18
    assert torch.equal(weights(DenseAutoencoder.from_pretrained(str(tmp_path / "model"))), weights(grown.model))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.02}, "made with train setting lr 0.01, now 0.02"),
        ({"steps": 13}, "made with steps 12, now 13; steps can only grow, and only with schedule 'constant' or"),
        ({"betas": (0.9, 0.99)}, r"made with train setting betas \[0.9, 0.999\], now \[0.9, 0.99\]"),
    ],
)
def test_another_run_is_refused(tmp_path, change, message):
    fit(build(), ROWS, BRIEF, out=tmp_path)
    with pytest.raises(FolderError, match=message):
        fit(build(), ROWS, replace(BRIEF, **change), out=tmp_path)


def test_another_model_or_other_data_are_refused(tmp_path):
    fit(build(), ROWS, BRIEF, out=tmp_path)
    with pytest.raises(FolderError, match="made with model setting width 4, now 3"):
        fit(build(width=3), ROWS, BRIEF, out=tmp_path)
    with pytest.raises(FolderError, match="made with examples 50, now 49"):
        fit(build(), ROWS[1:], BRIEF, out=tmp_path)
    assert fit(build(), ROWS, replace(BRIEF, log_every=3, save_every=1), out=tmp_path).steps == 12


def test_folders_that_hold_something_else(tmp_path):
    build().save_pretrained(tmp_path / "model")
    with pytest.raises(FolderError, match="a model is there but no checkpoint"):
        fit(build(), ROWS, BRIEF, out=tmp_path)


def test_a_broken_checkpoint_is_named(tmp_path):
    fit(build(), ROWS, BRIEF, out=tmp_path)
    (tmp_path / "checkpoint" / "training.safetensors").write_bytes(b"nothing")
    with pytest.raises(FolderError, match="checkpoint: cannot be read"):
        fit(build(), ROWS, BRIEF, out=tmp_path)


# When things go wrong ---------------------------------------------------------------------------------


class BreaksAt(DenseAutoencoder):
    step = 0
    at = 7

    def after_step(self, step):
        self.step = step

    def loss(self, batch):
        broken = {"size": batch["x"].sum() * float("inf")} if self.step == self.at - 1 else {}
        return {**super().loss(batch), **broken}


def test_a_loss_that_is_no_number_names_step_loss_and_batch(tmp_path):
    model = build(BreaksAt)
    good = []
    with pytest.raises(TrainingError) as error:
        fit(model, ROWS, replace(BRIEF, save_every=3), out=tmp_path, callbacks=[Saved(good)])
    rows = np.random.default_rng((0, 4, 0)).permutation(50)[48:], np.random.default_rng((0, 4, 1)).permutation(50)[:6]
    shown = ", ".join(map(str, np.concatenate(rows)))
    message = str(error.value)
    assert (
        message.startswith("step 7: the loss is ") and "(size = " in message and f"epoch 0, examples {shown}" in message
    )
    assert "reconstruction" not in message
    assert good == [3, 6]
    assert read_json(tmp_path / "checkpoint" / "state.json")["run"]["step"] == 6
    assert torch.isfinite(weights(model)).all()


class Saved(Callback):
    def __init__(self, steps):
        self.steps = steps

    def on_save(self, step, folder):
        assert (folder / "state.json").exists()
        self.steps.append(step)


def test_weights_that_are_no_number_are_not_saved(tmp_path):
    class Spoils(DenseAutoencoder):
        def after_step(self, step):
            if step == 6:
                self.encoder.weight.detach()[0, 0] = float("nan")

    with pytest.raises(TrainingError, match=r"step 6: weight 'encoder.weight' is no longer finite"):
        fit(build(Spoils), ROWS, replace(BRIEF, save_every=3), out=tmp_path)
    assert read_json(tmp_path / "checkpoint" / "state.json")["run"]["step"] == 3


def test_what_does_not_fit():
    with pytest.raises(SourceError, match="the data is empty"):
        fit(build(), [], BRIEF)
    with pytest.raises(ConfigError, match="no trainable parameter"):
        fit(build().requires_grad_(False), ROWS, BRIEF)
    with pytest.raises(ConfigError, match="precision 'fp16' needs a GPU"):
        fit(build(), ROWS, replace(BRIEF, precision="fp16"))
    with pytest.raises(ConfigError, match="no tracker 'wandv'"):
        fit(build(), ROWS, replace(BRIEF, tracker="wandv"))
    with pytest.raises(ConfigError, match="tracker 'wandb' is not installed"):
        fit(build(), ROWS, replace(BRIEF, tracker="wandb"))

    class Short(DenseAutoencoder):
        def collate(self, examples):
            return {"x": super().collate(examples)["x"][1:]}

    with pytest.raises(TrainingError, match="the first axis of every tensor must be the example"):
        fit(build(Short), ROWS, BRIEF)


def test_a_tracker_gets_every_record(monkeypatch):
    seen = []

    class Fake(GeneralTracker):
        name = "wandb"
        requires_logging_directory = False
        tracker = None

        def __init__(self, project, **settings):
            super().__init__()

        def store_init_configuration(self, values):
            seen.append(values["train/lr"])

        def log(self, values, step=None, **settings):
            seen.append((step, sorted(values)))

        def finish(self):
            seen.append("finished")

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Fake)
    monkeypatch.setattr(tracking, "_available_trackers", [*tracking.get_available_trackers(), LoggerType.WANDB])
    fit(build(), ROWS, replace(BRIEF, steps=1, tracker="wandb"), eval_data=ROWS)
    named = ["loss", "reconstruction", "size"]
    assert seen == [
        "0.01",
        (1, sorted([*named, "lr", "examples_per_s"])),
        (1, sorted(f"eval/{name}" for name in named)),
        "finished",
    ]


def test_the_bar_is_silent_without_a_terminal(capfd):
    fit(build(), ROWS, BRIEF)
    assert capfd.readouterr() == ("", "")
