"""The verbs as functions: what the command line and notebooks call.

    import hourglass as hg
    ws = hg.explore(df, text="body", by="label", out="reviews")
    ws.diff("label")
    ws.correlate()
    ws.trend("month")
    ws.find("polite refusals")
    ws = hg.open("reviews")
    hg.steer("reviews", "Dear customer,", feature="refusals").table
    hg.generate("run/model", n=8, seed=0).texts

Each comes with its part of the house on first use: who searches does not wait for what explores.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hourglass.api.exploring import explore, explore_sae, open
    from hourglass.api.folders import load
    from hourglass.api.generating import generate, interpolate, rewrite, stream
    from hourglass.api.models import encode, fit, fit_sae, text_system
    from hourglass.api.searching import evaluate, index, open_index
    from hourglass.api.steering import logit_effect, steer
    from hourglass.uses.adapt import adapt

__all__ = [
    "adapt",
    "encode",
    "evaluate",
    "explore",
    "explore_sae",
    "fit",
    "fit_sae",
    "generate",
    "index",
    "interpolate",
    "load",
    "logit_effect",
    "open",
    "open_index",
    "rewrite",
    "steer",
    "stream",
    "text_system",
]

_HOMES = {
    "hourglass.api.exploring": ("explore", "explore_sae", "open"),
    "hourglass.api.folders": ("load",),
    "hourglass.api.generating": ("generate", "interpolate", "rewrite", "stream"),
    "hourglass.api.models": ("encode", "fit", "fit_sae", "text_system"),
    "hourglass.api.searching": ("evaluate", "index", "open_index"),
    "hourglass.api.steering": ("logit_effect", "steer"),
    "hourglass.uses.adapt": ("adapt",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'hourglass.api' has no attribute {name!r}")
