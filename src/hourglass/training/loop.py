"""The training loop: one for every system, from a laptop to many GPUs (`accelerate launch`).

A step: the examples of the whole batch -> `collate` -> this process's share of the rows -> micro-batches -> `loss` ->
gradients -> `before_step` -> clip -> AdamW (new where `begins_anew`) -> `after_step` -> average of the weights.

A run is a function of model, data and settings. Data order and collation are seeded by the step, so that every
process meets the same batch however many there are; the loss curve is then that of one process within float error.
Two things break this: randomness inside `loss` (dropout), which each process draws for its own rows, and losses that
are not a mean over examples (tag "batch-coupled").
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from hourglass.errors import ConfigError, TrainingError
from hourglass.training import checkpoint, randomness
from hourglass.training.callbacks import Callback, Record
from hourglass.training.checkpoint import RunState
from hourglass.training.config import TrainConfig
from hourglass.training.devices import leave_at_exit, open_accelerator
from hourglass.training.order import Order, in_order, open_order
from hourglass.training.progress import ProgressBar
from hourglass.training.schedules import decay_begins, factor
from hourglass.waist import Batch, Losses, Waist

BEFORE_DECAY = "before-decay"
"""Folder within that of a run, itself one of a run: its checkpoint at the end of the constant learning rate."""


@dataclass(frozen=True)
class FitResult:
    """A finished run.

    model        the trained model, in evaluation mode (with `ema`: the averaged weights)
    steps        optimiser steps made in all
    history      {"step", "loss", each named loss, "lr", "examples_per_s"} for every recorded step
    evaluations  {"step", "loss", each named loss} for every evaluation
    """

    model: Waist
    steps: int
    history: list[Record]
    evaluations: list[Record]


def fit(
    model: Waist,
    data: Any,
    config: TrainConfig,
    *,
    out: Path | None = None,
    eval_data: Any = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> FitResult:
    """Train `model` in place.

    data       raw examples of the model's modality: a sequence (list, array, memory map, tensor, Dataset), shuffled anew
               for every pass, or an iterable that can be read again, in its own order
    out        folder of the run: checkpoints, and at the end out/model. The same call goes on from the last
               checkpoint, bit for bit; after a finished run it returns at once. With schedule "constant", a call with
               more steps continues a finished run; its warm-up stays that of the first call. With "wsd", so does one
               that goes on from before the decay (`keep_before_decay`), past its own warm-up
    eval_data  examples on which the losses are measured
    progress   show a bar on standard error, where that is a terminal

    Raises ConfigError and SourceError for settings and data that do not fit, FolderError when `out` holds another run,
    TrainingError when the loss is no longer a number.
    """
    order = open_order(data, config.batch_size, config.seed)
    accelerator = open_accelerator(config, out)
    with randomness.preserved(accelerator.device):
        run = _Run(model, order, config, accelerator, Path(out) if out is not None else None, eval_data, callbacks)
        try:
            run.begin()
            shown = progress and accelerator.is_main_process and run.state.step < config.steps
            with ProgressBar(config.steps, run.state.step, shown) as bar:
                run.train(bar)
            run.finish()
        finally:
            run.close()
    leave_at_exit()
    return FitResult(model, run.state.step, run.state.history, run.state.evaluations)


class _Run:
    def __init__(
        self,
        model: Waist,
        order: Order,
        config: TrainConfig,
        accelerator: Accelerator,
        out: Path | None,
        eval_data: Any,
        callbacks: Sequence[Callback],
    ) -> None:
        self.model = model.to(accelerator.device).train()
        self.order, self.config, self.out, self.eval_data = order, config, out, eval_data
        self.accelerator, self.device = accelerator, accelerator.device
        self.callbacks = callbacks if accelerator.is_main_process else ()
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.weights = list(self.parameters.values())
        if not self.weights:
            raise ConfigError(f"{type(model).__name__} has no trainable parameter")
        self.optimizer = torch.optim.AdamW(
            self.weights,
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=self.device.type in ("cpu", "cuda") and all(w.is_floating_point() for w in self.weights),
        )
        self.wrapped: nn.Module = model
        self.average: list[Tensor] | None = None
        self.state = RunState(schedule_steps=config.steps)
        self.finished = False
        self.identity = {
            "system": model.system_name(),
            "model": model.config.to_dict(),
            "train": config.to_dict(),
            "examples": order.size,
            "processes": accelerator.num_processes,
        }

    # A run ----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Initialise the model or take up the checkpoint, and wrap the model for its devices."""
        rank = self.accelerator.process_index
        saved = checkpoint.read(self.out, self.identity) if self.out is not None else None
        self.accelerator.wait_for_everyone()
        if saved is None:
            with randomness.seeded(self.device, self.config.seed, randomness.INITIALIZE):
                self.model.initialize(
                    self._moved(self._collated(examples, randomness.COLLATE, step))
                    for step, examples in enumerate(self.order.first(), 1)
                )
            randomness.seed(self.device, self.config.seed, randomness.TRAIN, rank)
        self.wrapped = self.accelerator.prepare(self.model)
        # accelerate's optimiser costs 0.2 ms a step and is needed only where gradients are scaled.
        self.stepper = self.optimizer if self.accelerator.scaler is None else self.accelerator.prepare(self.optimizer)
        if saved is not None and self.out is not None:
            self.average = checkpoint.restore(self.out, self.model, self.optimizer, self.parameters)
            self.state = RunState(**saved["run"])
            self.finished = self.state.step == self.config.steps and checkpoint.is_finished(self.out)
            if self.config.schedule == "wsd":
                self.state.schedule_steps = self.config.steps
            randomness.restore(randomness.from_json(saved["random_states"][rank]), self.device)
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(saved["scaler"])
        self.plan = replace(self.config, steps=self.state.schedule_steps)
        # What is there stays: it may have been gone on from.
        kept = self.out is None or (self.out / BEFORE_DECAY).exists()
        self.keep_at = decay_begins(self.plan) if self.config.keep_before_decay and not kept else None
        self.accelerator.wait_for_everyone()
        if self.config.tracker is not None and self.state.step < self.config.steps:
            self.accelerator.init_trackers("hourglass", config=_plain(self.identity))

    def train(self, bar: ProgressBar) -> None:
        """Make all steps that are left."""
        config = self.config
        since, then = self.state.step, time.perf_counter()
        for step in range(self.state.step + 1, config.steps + 1):
            batch = self._collated(self.order.batch(step), randomness.COLLATE, step)
            loss, parts = self._gradients(self._moved(self._share(batch)), step)
            self._update(step)
            self.state.step = step
            bar.step(loss)
            last = step == config.steps
            if last or step % config.log_every == 0:
                now = time.perf_counter()
                speed = (step - since) * config.batch_size / (now - then)
                bar.rate(speed)
                self._record(step, loss, parts, speed)
                since, then = step, now
            pause = time.perf_counter()
            if self.eval_data is not None and (last or _due(step, config.eval_every)):
                self._evaluate(step)
            if self.out is not None and not last and _due(step, config.save_every):
                self._save(self.out)
            if self.out is not None and step == self.keep_at:
                self._save(self.out / BEFORE_DECAY)
            then += time.perf_counter() - pause

    def finish(self) -> None:
        """Leave the trained model in memory and, with `out`, on disk."""
        if self.out is not None and not self.finished:
            self._save(self.out)
            with self._averaged():
                if self.accelerator.is_main_process:
                    self.model.save_pretrained(self.out / "model")
                    checkpoint.mark_finished(self.out)
            self.accelerator.wait_for_everyone()
        if self.average is not None:
            torch._foreach_copy_([w.detach() for w in self.weights], self.average)
        self.optimizer.zero_grad(set_to_none=True)
        self.model.eval()

    def close(self) -> None:
        """Leave the model as it came: without wrappers."""
        self.accelerator.unwrap_model(self.wrapped, keep_fp32_wrapper=False)
        # By this mark accelerate passes over a model the next time, which would then learn in float32.
        for name in ("forward", "_is_accelerate_prepared"):
            vars(self.model).pop(name, None)
        for tracker in self.accelerator.trackers:
            tracker.finish()

    # A step ---------------------------------------------------------------------------------------

    def _collated(self, examples: Any, purpose: int, number: int) -> Batch:
        with randomness.seeded(self.device, self.config.seed, purpose, number):
            batch = self.model.collate(examples)
        for name, tensor in batch.items():
            if tensor.shape[:1] != (len(examples),):
                raise TrainingError(
                    f"{type(self.model).__name__}.collate gave {name!r} of shape {tuple(tensor.shape)} for "
                    f"{len(examples)} examples; the first axis of every tensor must be the example"
                )
        return batch

    def _share(self, batch: Batch) -> Batch:
        """This process's rows."""
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        if processes == 1:
            return batch
        return {name: t[len(t) * rank // processes : len(t) * (rank + 1) // processes] for name, t in batch.items()}

    def _moved(self, batch: Batch) -> Batch:
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}

    def _gradients(self, batch: Batch, step: int) -> tuple[float, list[Losses]]:
        """Leave the gradients of the step in the parameters; returns its loss and the losses of its micro-batches."""
        accumulate = self.config.accumulate
        micro = self.config.batch_size // self.accelerator.num_processes // accumulate
        totals: list[Tensor] = []
        parts: list[Losses] = []
        for i in range(accumulate):
            last = i == accumulate - 1
            rows = batch if accumulate == 1 else {name: t[i * micro : (i + 1) * micro] for name, t in batch.items()}
            with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                losses = self.wrapped(rows)
                total = reduce(add, losses.values())
                self.accelerator.backward(total if accumulate == 1 else total / accumulate)
            totals.append(total.detach())
            parts.append({name: value.detach() for name, value in losses.items()})
        mean = totals[0] if accumulate == 1 else torch.stack(totals).mean()
        if self.accelerator.num_processes > 1:
            mean = self.accelerator.reduce(mean, "mean")
        loss = float(mean)
        if not math.isfinite(loss):
            self._refuse(step, loss, parts)
        return loss, parts

    def _update(self, step: int) -> None:
        self.accelerator.unscale_gradients()
        self.model.before_step(step)
        if self.config.clip is not None:
            nn.utils.clip_grad_norm_(self.weights, self.config.clip)
        self.optimizer.param_groups[0]["lr"] = self.config.lr * factor(step, self.plan)
        if self.model.begins_anew(step):
            self.optimizer.state.clear()
        self.stepper.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.model.after_step(step)
        if self.config.ema is None:
            return
        weights = [w.detach() for w in self.weights]
        if self.average is None:
            self.average = [w.clone() for w in weights]
        else:
            torch._foreach_lerp_(self.average, weights, 1 - self.config.ema)

    def _refuse(self, step: int, loss: float, parts: Sequence[Losses]) -> None:
        """Stop before the broken gradients reach the weights."""
        self.optimizer.zero_grad(set_to_none=True)
        means = _means(gather_object([{name: v.item() for name, v in part.items()} for part in parts]))
        broken = ", ".join(f"{name} = {value}" for name, value in means.items() if not math.isfinite(value))
        raise TrainingError(
            f"step {step}: the loss is {loss} ({broken or 'the sum overflows'}; {self.order.describe(step)}); "
            "look at these examples, or lower lr"
        )

    # Beside the steps -----------------------------------------------------------------------------

    def _record(self, step: int, loss: float, parts: Sequence[Losses], speed: float) -> None:
        named = _means(gather_object([{name: v.item() for name, v in part.items()} for part in parts]))
        lr = self.optimizer.param_groups[0]["lr"]
        record = {"step": step, **named, "loss": loss, "lr": lr, "examples_per_s": speed}
        self.state.history.append(record)
        self._log(record)
        for callback in self.callbacks:
            callback.on_step(step, record)

    def _evaluate(self, step: int) -> None:
        """Mean losses over the evaluation data, with the weights that would be kept."""
        sums: dict[str, Any] = {}
        rows = 0
        self.model.eval()
        with torch.no_grad(), self._averaged(), randomness.seeded(self.device, self.config.seed, randomness.EVALUATE):
            for i, examples in enumerate(in_order(self.eval_data, self.config.batch_size)):
                share = self._share(self._collated(examples, randomness.EVALUATE, i))
                size = len(next(iter(share.values())))
                if size:
                    for name, value in self.model(self._moved(share)).items():
                        sums[name] = sums.get(name, 0.0) + value * size
                    rows += size
        self.model.train()
        gathered = gather_object([{"rows": rows, **{name: float(value) for name, value in sums.items()}}])
        count = sum(part.pop("rows") for part in gathered)
        means = {name: value * len(gathered) / count for name, value in _means(gathered).items()}
        record = {"step": step, **means, "loss": sum(means.values())}
        self.state.evaluations.append(record)
        self._log({f"eval/{name}": value for name, value in record.items() if name != "step"} | {"step": step})
        for callback in self.callbacks:
            callback.on_eval(step, record)

    def _log(self, record: Record) -> None:
        if self.config.tracker is not None:
            self.accelerator.log({k: v for k, v in record.items() if k != "step"}, step=record["step"])

    def _save(self, out: Path) -> None:
        step = self.state.step
        for name, weight in self.parameters.items():
            if not torch.isfinite(weight).all():
                raise TrainingError(
                    f"step {step}: weight {name!r} is no longer finite, so it was not saved ({self.order.describe(step)} "
                    "came last); lower lr or set clip"
                )
        states = gather_object([randomness.to_json(randomness.capture(self.device))])
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            folder = checkpoint.write(
                out,
                self.identity,
                self.state,
                self.model,
                self.optimizer,
                self.parameters,
                self.average,
                random_states=states,
                scaler=None if scaler is None else scaler.state_dict(),
            )
            for callback in self.callbacks:
                callback.on_save(step, folder)
        self.accelerator.wait_for_everyone()

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The averaged weights in the model for a while, where there are any."""
        if self.average is None:
            yield
            return
        weights = [w.detach() for w in self.weights]
        trained = [w.clone() for w in weights]
        torch._foreach_copy_(weights, self.average)
        try:
            yield
        finally:
            torch._foreach_copy_(weights, trained)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _means(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each named loss over micro-batches and processes; one that a part lacks counts as 0 there."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: math.fsum(part.get(name, 0.0) for part in parts) / len(parts) for name in names}


def _plain(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as the flat table that trackers show."""
    return {
        **{f"model/{k}": str(v) for k, v in identity["model"].items()},
        **{f"train/{k}": str(v) for k, v in identity["train"].items()},
        "system": identity["system"],
    }
