"""Where the shards of a corpus are worked on: in this process, or on a cluster.

An engine does work on units and gives the results in their order. What is read and coded together is a unit's, whoever works
on it, so every engine leaves the same bytes (on machines of a kind: other hardware has its own rounding).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from hourglass.adapters import ray_data
from hourglass.errors import ConfigError, nearest

Array = np.ndarray[Any, Any]
Result = TypeVar("Result")

Advance = Callable[[int], None]
"""Is told how much has been done, in the units of a progress bar."""


@dataclass(frozen=True)
class Part:
    """Documents of one shard.

    shard  its entry in the manifest
    start  documents before it
    rows   rows inside it, rising; None: all
    """

    shard: dict[str, Any]
    start: int
    rows: Array | None = None

    @property
    def positions(self) -> Array:
        """Of its documents in the workspace."""
        return self.start + (np.arange(self.shard["documents"]) if self.rows is None else self.rows)

    def __str__(self) -> str:
        return f"shard {self.shard['name']}"


class Engine(Protocol):
    """Gives what `work(part, advance)` returns, part by part, in order; work can be pickled."""

    def __call__(
        self, work: Callable[[Part, Advance], Result], parts: Sequence[Part], advance: Advance, /
    ) -> Iterator[Result]: ...


def here(work: Callable[[Part, Advance], Result], parts: Sequence[Part], advance: Advance) -> Iterator[Result]:
    """One part after another, in this process."""
    for part in parts:
        yield work(part, advance)


def engine(name: str) -> Engine:
    """By name: "local" or "ray". ConfigError for another, MissingExtra where Ray is not installed."""
    engines: dict[str, Engine] = {"local": here, "ray": ray_data.on_cluster}
    if name not in engines:
        raise ConfigError(f"no engine {name!r}{nearest(name, engines)}")
    if name == "ray":
        ray_data.require_ray()
    return engines[name]
