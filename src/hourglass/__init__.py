"""Hourglass: learned bottlenecks. Train an autoencoder, look through it, put it to use.

Names load on first use, so that importing the package stays light.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Threads of torch that are done wait by turning on their core for milliseconds, and hold it from the threads of our own loops. libgomp
# reads this when torch is loaded; who has said how threads wait is not overruled.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

_HOMES = {
    "HourglassError": "hourglass.errors",
    "InputError": "hourglass.errors",
    "Studio": "hourglass.studio.app",
    "TrainConfig": "hourglass.training",
    "Waist": "hourglass.waist",
    "Workspace": "hourglass.uses.explore",
    "adapt": "hourglass.api",
    "encode": "hourglass.api",
    "evaluate": "hourglass.api",
    "explore": "hourglass.api",
    "explore_sae": "hourglass.api",
    "fit": "hourglass.api",
    "fit_sae": "hourglass.api",
    "generate": "hourglass.api",
    "index": "hourglass.api",
    "interpolate": "hourglass.api",
    "load": "hourglass.api",
    "logit_effect": "hourglass.api",
    "open": "hourglass.api",
    "open_index": "hourglass.api",
    "rewrite": "hourglass.api",
    "steer": "hourglass.api",
    "stream": "hourglass.api",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'hourglass' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
