"""A training run on disk: whatever it takes to go on bit for bit.

    out/checkpoint/
      model.safetensors      the model as it trains
      training.safetensors   state of the optimiser and the average of the weights, by parameter name
      state.json             step, settings, history, random states
      finished               empty; there once out/model holds the model of this checkpoint
    out/model/               the trained model
    out/before-decay/        with `keep_before_decay`, a run of its own: the checkpoint at the end of the constant rate

The folder is replaced whole, so that a kill at any moment leaves the last checkpoint or the new one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from hourglass.errors import FolderError
from hourglass.storage.atomic import atomic_folder, read_json, write_json
from hourglass.training.callbacks import Record
from hourglass.training.config import TrainConfig
from hourglass.training.schedules import is_steady

_WATCHING = {"eval_every", "save_every", "keep_before_decay", "log_every", "tracker"}
"""Settings that do not change what is learned."""


@dataclass
class RunState:
    """How far a run is. `schedule_steps` is the number of steps it was planned for when it began."""

    schedule_steps: int
    step: int = 0
    history: list[Record] = field(default_factory=list)
    evaluations: list[Record] = field(default_factory=list)


def read(out: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """state.json of the checkpoint in `out`, or None where the run is to begin.

    identity    what the run is made of: {"system", "model": config, "train": config, "examples", "processes"}

    Raises FolderError when the folder holds another run, naming the first setting that differs.
    """
    folder = out / "checkpoint"
    if not folder.exists():
        if (out / "model").exists():
            raise FolderError(
                f"{out / 'model'}: a model is there but no checkpoint to go on from; choose another folder"
            )
        return None
    saved = read_json(folder / "state.json")
    now = json.loads(json.dumps(identity))
    for part in ("system", "model", "train", "examples", "processes"):
        _compare(folder, part, saved["identity"][part], now[part], saved["run"]["step"])
    return saved


def _compare(folder: Path, part: str, saved: Any, now: Any, done: int) -> None:
    if not isinstance(now, dict):
        if saved != now:
            raise FolderError(f"{folder}: made with {part} {saved!r}, now {now!r}; choose another folder")
        return
    for name in sorted(saved.keys() | now.keys()):
        before, after = saved.get(name), now.get(name)
        if before == after or (part == "train" and name in _WATCHING):
            continue
        if part == "train" and name == "steps":
            if now["schedule"] == "constant" and now["steps"] >= done:
                continue
            if now["schedule"] == "wsd" and all(is_steady(done, TrainConfig(**plan)) for plan in (saved, now)):
                continue
            raise FolderError(
                f"{folder}: made with steps {before!r}, now {after!r}; steps can only grow, and only with schedule "
                "'constant' or, between warm-up and decay, 'wsd'; choose another folder"
            )
        raise FolderError(f"{folder}: made with {part} setting {name} {before!r}, now {after!r}; choose another folder")


def is_finished(out: Path) -> bool:
    """Whether out/model belongs to the checkpoint."""
    return (out / "checkpoint" / "finished").exists() and (out / "model").exists()


def mark_finished(out: Path) -> None:
    """Say that out/model belongs to the checkpoint. Losing the mark costs no more than writing the model again."""
    (out / "checkpoint" / "finished").touch()


def write(
    out: Path,
    identity: Mapping[str, Any],
    run: RunState,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    average: Sequence[Tensor] | None,
    *,
    random_states: Sequence[Any],
    scaler: Mapping[str, Any] | None,
) -> Path:
    """Replace the checkpoint in `out`; returns its folder. `average` is in the order of `parameters`."""
    tensors = {
        f"optimizer.{name}.{key}": value.contiguous()
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }
    if average is not None:
        tensors |= {f"ema.{name}": value for name, value in zip(parameters, average)}
    state = {"identity": identity, "run": vars(run), "random_states": random_states, "scaler": scaler}
    with atomic_folder(out / "checkpoint") as folder:
        save_model(model, str(folder / "model.safetensors"))
        save_file(tensors, folder / "training.safetensors")
        write_json(folder / "state.json", state)
    return out / "checkpoint"


def restore(
    out: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
) -> list[Tensor] | None:
    """Put weights and optimiser back; returns the average of the weights where there is one."""
    folder = out / "checkpoint"
    try:
        load_model(model, folder / "model.safetensors")
        tensors = load_file(folder / "training.safetensors")
    except (OSError, RuntimeError, SafetensorError) as error:
        raise FolderError(f"{folder}: cannot be read ({str(error).splitlines()[0]}); choose another folder") from None
    # Copies: torch's own memory is aligned as in the run that is continued, a file's is not.
    state: dict[int, dict[str, Tensor]] = {}
    positions = {name: i for i, name in enumerate(parameters)}
    for full, value in tensors.items():
        kind, _, rest = full.partition(".")
        if kind == "optimizer":
            name, _, key = rest.rpartition(".")
            state.setdefault(positions[name], {})[key] = value.clone()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    if not any(full.startswith("ema.") for full in tensors):
        return None
    return [tensors[f"ema.{name}"].to(p.device, copy=True) for name, p in parameters.items()]
