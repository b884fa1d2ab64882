"""Where work is done: in this process, or on a cluster.

An engine does work on units and gives the results in their order. What is read and coded together is a unit's, whoever works
on it, so every engine leaves the same bytes (on machines of a kind: other hardware has its own rounding).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from hourglass.adapters import ray_data
from hourglass.errors import ConfigError, nearest

Unit = TypeVar("Unit")
Result = TypeVar("Result")

Advance = Callable[[int], None]
"""Is told how much has been done, in the units of a progress bar."""


class Engine(Protocol):
    """Gives what `work(unit, advance)` returns, unit by unit, in order; work can be pickled."""

    def __call__(
        self, work: Callable[[Unit, Advance], Result], units: Sequence[Unit], advance: Advance, /
    ) -> Iterator[Result]: ...


def here(work: Callable[[Unit, Advance], Result], units: Sequence[Unit], advance: Advance) -> Iterator[Result]:
    """One unit after another, in this process."""
    for unit in units:
        yield work(unit, advance)


def engine(name: str) -> Engine:
    """By name: "local" or "ray". ConfigError for another, MissingExtra where Ray is not installed."""
    engines: dict[str, Engine] = {"local": here, "ray": ray_data.on_cluster}
    if name not in engines:
        raise ConfigError(f"no engine {name!r}{nearest(name, engines)}")
    if name == "ray":
        ray_data.require_ray()
    return engines[name]
