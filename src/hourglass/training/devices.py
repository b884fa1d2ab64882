"""Where a run computes: an accelerate `Accelerator` made from the settings."""

from __future__ import annotations

import atexit
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedType
from accelerate.state import AcceleratorState, PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import LoggerType

from hourglass.adapters.huggingface_loading import compute_dtype
from hourglass.errors import ConfigError, nearest
from hourglass.training.config import TrainConfig

_SHARDED = {
    DistributedType.FSDP,
    DistributedType.DEEPSPEED,
    DistributedType.MEGATRON_LM,
    DistributedType.XLA,
}


def open_accelerator(config: TrainConfig, out: Path | None) -> Accelerator:
    """The accelerator for these settings; ConfigError where this machine or launch does not fit them."""
    atexit.unregister(_leave)
    if config.tracker is not None:
        _check_tracker(config.tracker)
    # accelerate keeps the precision of a process's first run for ever; a second run may ask for another.
    AcceleratorState._reset_state()
    try:
        accelerator = Accelerator(
            mixed_precision=_precision(config), log_with=config.tracker, project_dir=out if config.tracker else None
        )
    except ValueError as error:
        raise ConfigError(" ".join(str(error).split())) from None
    if config.precision == "fp16" and accelerator.scaler is None:
        raise ConfigError(f"precision 'fp16' needs a GPU, this is {accelerator.device.type}; use 'bf16' or 'no'")
    if accelerator.distributed_type in _SHARDED:
        raise ConfigError(
            f"launched with {accelerator.distributed_type.value}: fit trains data-parallel; launch it with --multi_gpu"
        )
    parts = config.accumulate * accelerator.num_processes
    if config.batch_size % parts:
        raise ConfigError(
            f"batch_size {config.batch_size}: expected a multiple of accumulate x processes "
            f"({config.accumulate} x {accelerator.num_processes} = {parts})"
        )
    return accelerator


def leave_at_exit() -> None:
    """Has this process leave its group of processes when it ends.

    A process that ends in one may be aborted, as gloo's threads still hold tensors when the interpreter is gone. To be called
    after a run that went well: leaving while others wait for this process may never end.
    """
    atexit.unregister(_leave)
    atexit.register(_leave)


def _leave() -> None:
    if torch.distributed.is_available():
        PartialState().destroy_process_group()


def _precision(config: TrainConfig) -> str:
    if config.precision != "auto":
        return config.precision
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return "bf16" if compute_dtype("auto", device) == torch.bfloat16 else "no"


def _check_tracker(name: str) -> None:
    if name not in LOGGER_TYPE_TO_CLASS:
        raise ConfigError(f"no tracker {name!r}{nearest(name, LOGGER_TYPE_TO_CLASS)}")
    if LoggerType(name) not in get_available_trackers():
        raise ConfigError(f"tracker {name!r} is not installed: pip install {name}")
