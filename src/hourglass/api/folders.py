"""What a folder of a trained model holds, and as what it is read."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from hourglass.nn.text_system import TextSystem
from hourglass.storage.atomic import read_json
from hourglass.systems import discover, held_by, load
from hourglass.waist import Waist, WordWeigher


def encoder_of(model: str) -> Waist | str:
    """The model of a folder where it is a system of ours that sentence-transformers does not open; else the name."""
    cls = held_by(model)
    return load(model) if cls is not None and issubclass(cls, TextSystem) else model


def weigher_of(model: str) -> WordWeigher | str:
    """The model of a folder where its system has weights of words of its own; else the name."""
    path = Path(model) / "config.json"
    name = read_json(path).get("hourglass", {}).get("system") if path.is_file() else None
    cls = discover().get(str(name))
    return cast(WordWeigher, load(model)) if cls is not None and "weighs-words" in cls.tags else model
