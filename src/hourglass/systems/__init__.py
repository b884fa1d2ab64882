"""The papers, a file each. They are found by walking the package: there is no list to keep."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from importlib.metadata import entry_points

from hourglass.errors import ConfigError, nearest
from hourglass.waist import Waist

ENTRY_POINTS = "hourglass.systems"
"""Entry-point group by which other packages add their systems; each entry names a class."""


def discover() -> dict[str, type[Waist]]:
    """Every system by its name: those of this package and those of installed others.

    Raises ConfigError when two have the same name or an entry point does not lead to a system.
    """
    found: dict[str, type[Waist]] = {}
    for cls in (*_own(), *_foreign()):
        name = cls.system_name()
        if name in found:
            raise ConfigError(f"two systems are called {name!r}: {_where(found[name])} and {_where(cls)}; rename one")
        found[name] = cls
    return dict(sorted(found.items()))


def get(name: str) -> type[Waist]:
    """The system called `name`; ConfigError with the nearest name where there is none."""
    systems = discover()
    if name not in systems:
        raise ConfigError(f"no system {name!r}{nearest(name, systems)}")
    return systems[name]


def _own() -> Iterator[type[Waist]]:
    for root in ("hourglass.systems", "hourglass.bottlenecks"):
        package = importlib.import_module(root)
        for entry in pkgutil.walk_packages(package.__path__, f"{root}."):
            if entry.name.endswith("_parts"):  # what a paper's file has no room for, no system of its own
                continue
            module = importlib.import_module(entry.name)
            for _, cls in inspect.getmembers(module, _is_system):
                if cls.__module__ == module.__name__:
                    yield cls


def _foreign() -> Iterator[type[Waist]]:
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            cls = entry.load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"entry point {entry.name} = {entry.value!r} cannot be loaded: {error}") from None
        if not _is_system(cls):
            raise ConfigError(
                f"entry point {entry.name} = {entry.value!r}: expected a Waist that defines collate, loss and encode"
            )
        yield cls


def _is_system(thing: object) -> bool:
    return (
        inspect.isclass(thing)
        and not inspect.isabstract(thing)
        and issubclass(thing, Waist)
        and all(getattr(thing, name) is not getattr(Waist, name) for name in ("collate", "loss", "encode"))
    )


def _where(cls: type[Waist]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
