"""What a folder of a trained model holds, and as what it is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from huggingface_hub import hf_hub_download

from hourglass import systems
from hourglass.adapters.huggingface_loading import loading_errors
from hourglass.nn.text_system import TextSystem
from hourglass.storage.atomic import read_json
from hourglass.waist import Waist, WordWeigher


def load(folder: str | Path) -> Waist:
    """A trained model from its folder or Hub id, whatever its system; FolderError, in one line, where there is none."""
    config = Path(folder) / "config.json"
    if not Path(folder).is_dir():
        with loading_errors(str(folder), "model"):
            config = Path(hf_hub_download(str(folder), "config.json"))
    values = read_json(config)
    name = values.get("system") or values.get("hourglass", {}).get("system")
    return systems.get(str(name)).from_pretrained(str(folder))


def encoder_of(model: str) -> Waist | str:
    """The model of a folder where it is a system of ours that sentence-transformers does not open; else the name."""
    cls = _system(Path(model), lambda config: config.get("system"))
    return load(model) if cls is not None and issubclass(cls, TextSystem) else model


def weigher_of(model: str) -> WordWeigher | str:
    """The model of a folder where its system has weights of words of its own; else the name."""
    cls = _system(Path(model), lambda config: config.get("hourglass", {}).get("system"))
    return cast(WordWeigher, load(model)) if cls is not None and "weighs-words" in cls.tags else model


def _system(folder: Path, name: Callable[[dict[str, Any]], Any]) -> type[Waist] | None:
    path = folder / "config.json"
    found = name(read_json(path)) if path.is_file() else None
    return systems.discover().get(str(found)) if found is not None else None
