"""The papers, a file each. They are found by walking the package: there is no list to keep."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

from huggingface_hub import hf_hub_download

from hourglass.adapters.huggingface_loading import loading_errors
from hourglass.errors import ConfigError, FolderError, nearest
from hourglass.storage.atomic import read_json
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


def load(folder: str | Path) -> Waist:
    """A trained model from its folder or Hub id, whatever its system; FolderError, in one line, where there is none."""
    config = Path(folder) / "config.json"
    if not Path(folder).is_dir():
        with loading_errors(str(folder), "model"):
            config = Path(hf_hub_download(str(folder), "config.json"))
    elif not config.is_file():
        inside = Path(folder) / "model"
        hint = f"name {inside}" if (inside / "config.json").is_file() else "a run has it in its folder model/"
        raise FolderError(f"{folder}: no trained model (no config.json); {hint}")
    values = read_json(config)
    name = values.get("system") or values.get("hourglass", {}).get("system")
    if name is None:
        raise FolderError(f"{config}: names no system of Hourglass; expected the folder of a model that it has trained")
    return get(str(name)).from_pretrained(str(folder))


def held_by(folder: str | Path) -> type[Waist] | None:
    """The system that a folder holds, where it is one of ours that transformers does not open; else None."""
    path = Path(folder) / "config.json"
    name = read_json(path).get("system") if path.is_file() else None
    return None if name is None else discover().get(str(name))


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
