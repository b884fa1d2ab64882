"""The settings of a training run."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from hourglass.errors import ConfigError, nearest

Schedule = Literal["constant", "cosine", "linear", "wsd"]
Precision = Literal["no", "bf16", "fp16", "auto"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How `fit` trains.

    steps        optimiser steps in all
    batch_size   examples an optimiser step sees, over all processes and micro-batches
    lr, betas, weight_decay    of AdamW
    schedule     "constant", "cosine" or "linear" (both to the end), "wsd" (constant with a linear tail)
    warmup       share of the steps with a rising learning rate
    decay        share of the steps that is the tail of "wsd"
    min_lr       where the learning rate ends, as a share of `lr`
    clip         largest norm of the gradient; None does not clip
    accumulate   micro-batches that a step is split in, to fit into memory
    precision    "no" (float32), "bf16", "fp16" (GPU), "auto": bf16 where the hardware multiplies it, else "no"
    ema          decay of an average of the weights, which is then what is evaluated and kept; None keeps none
    eval_every   steps between evaluations, 0: only at the end (where there is evaluation data)
    save_every   steps between checkpoints, 0: only at the end
    keep_before_decay  keep the checkpoint at the end of the constant rate of "wsd" in the folder before-decay of the run's, to go
                 on from: with the same decay or, with more steps, a later one
    log_every    steps between records of the history
    seed         fixes data order, collation and training
    tracker      a tracker known to accelerate ("tensorboard", "wandb", ...)

    Raises ConfigError for a value that cannot be.
    """

    steps: int = 1000
    batch_size: int = 32
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    decay: float = 0.2
    min_lr: float = 0.0
    clip: float | None = 1.0
    accumulate: int = 1
    precision: Precision = "no"
    ema: float | None = None
    eval_every: int = 0
    save_every: int = 0
    keep_before_decay: bool = False
    log_every: int = 20
    seed: int = 0
    tracker: str | None = None

    def __post_init__(self) -> None:
        for name, choices in (("schedule", get_args(Schedule)), ("precision", get_args(Precision))):
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(f"no {name} {value!r}{nearest(str(value), choices)}")
        for name in ("steps", "batch_size", "accumulate", "log_every"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("eval_every", "save_every", "seed", "weight_decay"):
            self._require(name, getattr(self, name) >= 0, "0 or more")
        for name in ("warmup", "decay", "min_lr"):
            self._require(name, 0 <= getattr(self, name) <= 1, "a share, from 0 to 1")
        self._require("lr", 0 < self.lr < math.inf, "a positive number")
        self._require("betas", len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas), "two numbers in [0, 1)")
        self._require("clip", self.clip is None or self.clip > 0, "a positive number or None")
        self._require("ema", self.ema is None or 0 <= self.ema < 1, "a number in [0, 1) or None")
        self._require(
            "accumulate", self.batch_size % self.accumulate == 0, f"a divisor of batch_size {self.batch_size}"
        )
        self._require(
            "keep_before_decay", not self.keep_before_decay or self.schedule == "wsd", "schedule 'wsd' with it"
        )
        if self.schedule == "wsd":
            self._require("decay", self.warmup + self.decay <= 1, f"at most 1 together with warmup {self.warmup}")

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise ConfigError(f"{name} {getattr(self, name)!r}: expected {expected}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in a checkpoint."""
        return {**dataclasses.asdict(self), "betas": list(self.betas)}
