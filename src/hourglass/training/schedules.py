"""The learning rate as a function of the step."""

from __future__ import annotations

import math

from hourglass.training.config import TrainConfig


def factor(step: int, config: TrainConfig) -> float:
    """The share of `config.lr` with which step `step` (1, 2, ... config.steps) is made.

    It rises linearly to 1 over the warm-up and is never 0 there; the decay starts at 1 on the step after it and would
    reach `min_lr` one step past the end, so that no step is spent on a learning rate of 0.
    """
    done = step - 1
    warm = round(config.warmup * config.steps)
    if done < warm:
        return step / warm
    match config.schedule:
        case "constant":
            fall = 0.0
        case "cosine":
            fall = (1 - math.cos(math.pi * (done - warm) / (config.steps - warm))) / 2
        case "linear":
            fall = (done - warm) / (config.steps - warm)
        case "wsd":
            before = decay_begins(config)
            fall = max(0, done - before) / max(1, config.steps - before)
    return 1 - (1 - config.min_lr) * fall


def decay_begins(config: TrainConfig) -> int:
    """Of "wsd": the step after which the decay is made."""
    return config.steps - round(config.decay * config.steps)


def is_steady(step: int, config: TrainConfig) -> bool:
    """Of "wsd": whether after `step` steps the warm-up is done and the decay not begun."""
    return round(config.warmup * config.steps) <= step <= decay_begins(config)
