"""Random state: seeded for a moment, kept over a stretch, carried over a restart.

Covers torch (the CPU and the one device that trains), NumPy's global generator and Python's `random`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

State = dict[str, Any]

INITIALIZE, TRAIN, COLLATE, EVALUATE, SHUFFLE = range(5)
"""What a seed is for; keeps the streams of one run apart."""


def capture(device: torch.device) -> State:
    """The state of every generator."""
    state = {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "python": random.getstate()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore(state: State, device: torch.device) -> None:
    """Undo whatever was drawn since `capture`."""
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


def number(*key: int) -> int:
    """A well mixed 32-bit seed for a tuple of integers."""
    return int(np.random.SeedSequence(key).generate_state(1)[0])


def seed(device: torch.device, *key: int) -> None:
    """Seed every generator from a tuple of integers."""
    value = number(*key)
    # torch.manual_seed would reseed every GPU as well.
    torch.default_generator.manual_seed(value)
    np.random.seed(value)
    random.seed(value)
    if device.type == "cuda":
        torch.cuda.manual_seed(value)


@contextmanager
def preserved(device: torch.device) -> Iterator[None]:
    """Whatever is drawn inside does not show outside."""
    state = capture(device)
    try:
        yield
    finally:
        restore(state, device)


@contextmanager
def seeded(device: torch.device, *key: int) -> Iterator[None]:
    """Randomness inside follows from `key` alone and does not show outside."""
    with preserved(device):
        seed(device, *key)
        yield


def to_json(state: State) -> State:
    """A captured state as plain values."""
    name, keys, position, has_gauss, gauss = state["numpy"]
    plain = {
        "torch": state["torch"].numpy().tobytes().hex(),
        "numpy": [name, keys.tolist(), position, has_gauss, gauss],
        "python": state["python"],
    }
    if "cuda" in state:
        plain["cuda"] = state["cuda"].numpy().tobytes().hex()
    return plain


def from_json(plain: State) -> State:
    """The inverse of `to_json`."""
    name, keys, *rest = plain["numpy"]
    version, words, gauss = plain["python"]
    state: State = {
        key: torch.frombuffer(bytearray.fromhex(plain[key]), dtype=torch.uint8)
        for key in ("torch", "cuda")
        if key in plain
    }
    return {**state, "numpy": (name, np.array(keys, dtype=np.uint32), *rest), "python": (version, tuple(words), gauss)}
