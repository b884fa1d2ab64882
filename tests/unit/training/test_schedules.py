from __future__ import annotations

import math

import pytest

from hourglass.errors import ConfigError
from hourglass.training import TrainConfig
from hourglass.training.schedules import decay_begins, factor, is_steady


def factors(**settings):
    config = TrainConfig(**settings)
    return [factor(step, config) for step in range(1, config.steps + 1)]


def test_constant_with_warmup():
    assert factors(steps=10, schedule="constant", warmup=0.4) == [0.25, 0.5, 0.75] + [1.0] * 7


def test_constant_without_warmup():
    assert factors(steps=3, schedule="constant", warmup=0.0) == [1.0] * 3


def test_linear():
    assert factors(steps=5, schedule="linear", warmup=0.0) == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    assert factors(steps=5, schedule="linear", warmup=0.2, min_lr=0.5) == pytest.approx([1.0, 1.0, 0.875, 0.75, 0.625])


def test_cosine():
    expected = [0.5 * (1 + math.cos(math.pi * t / 4)) for t in range(4)]
    assert factors(steps=4, schedule="cosine", warmup=0.0) == pytest.approx(expected)
    floor = factors(steps=4, schedule="cosine", warmup=0.0, min_lr=0.1)
    assert floor == pytest.approx([0.1 + 0.9 * e for e in expected])


def test_warmup_stable_decay():
    expected = [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert factors(steps=10, schedule="wsd", warmup=0.2, decay=0.4) == pytest.approx(
        [*expected[:6], 1, 0.75, 0.5, 0.25]
    )
    assert factors(steps=4, schedule="wsd", warmup=0.0, decay=0.0) == [1.0] * 4


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "wsd"])
@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
def test_no_step_is_wasted(schedule, steps):
    assert all(0 < value <= 1 for value in factors(steps=steps, schedule=schedule))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "cosin"}, r"no schedule 'cosin' \(did you mean 'cosine'\?\)"),
        ({"precision": "fp8"}, "no precision 'fp8'"),
        ({"steps": 0}, "steps 0: expected at least 1"),
        ({"warmup": 1.5}, "warmup 1.5: expected a share"),
        ({"lr": float("nan")}, "lr nan: expected a positive number"),
        ({"clip": 0.0}, "clip 0.0: expected a positive number or None"),
        ({"ema": 1.0}, r"ema 1.0: expected a number in \[0, 1\)"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"batch_size": 10, "accumulate": 3}, "accumulate 3: expected a divisor of batch_size 10"),
        ({"schedule": "wsd", "warmup": 0.5, "decay": 0.6}, "decay 0.6: expected at most 1 together with warmup 0.5"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**settings)


def test_between_warm_up_and_decay():
    config = TrainConfig(steps=20, schedule="wsd", warmup=0.25, decay=0.2)
    assert decay_begins(config) == 16
    assert [step for step in range(21) if is_steady(step, config)] == list(range(5, 17))
    with pytest.raises(ConfigError, match="keep_before_decay True: expected schedule 'wsd' with it"):
        TrainConfig(keep_before_decay=True)
