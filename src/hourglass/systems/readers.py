"""The reader that a model's name stands for: one of a network's token states, or one of a trained system's latents.

reader = open_reader("minilm", layer=4)          # token states: a `HuggingFaceReader`
reader = open_reader("bank/model")               # a trained cosmos: its latents, several of each piece of a text
hourglass explore SOURCE --encoder bank/model    # what features of the latents stand for
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hourglass.adapters.huggingface import HuggingFaceReader
from hourglass.errors import ConfigError
from hourglass.nn.text_system import TextSystem
from hourglass.systems import held_by, load
from hourglass.waist import TokenStates, as_device

_PARTS_AT_ONCE = 64


class LatentReader:
    """The latents of a trained system's folder, as if they were the states of tokens.

    A latent has the characters of the part of the text that it was made of, so that several may have the same.

    Raises ConfigError where the folder holds no system whose latents are of texts, and for settings of token states.
    """

    def __init__(self, model: str, *, device: str | torch.device | None = None, **settings: Any) -> None:
        system = load(model)
        if not isinstance(system, TextSystem):
            raise ConfigError(f"{model}: holds a {system.system_name()}, whose latents are not of texts")
        for name, value in settings.items():
            if value not in _USUAL[name]:
                raise ConfigError(
                    f"{name} {value!r}: {model} holds a {system.system_name()}, which is read by its latents; leave {name} out"
                )
        self._model, self._name = system.to(as_device(device)).eval(), model
        self.layer = None
        self.place = self.middle = (None, "residual")
        self.width = int(self._latents(["a"]).shape[-1])

    def __reduce__(self) -> tuple[Any, ...]:
        # To another process it goes by name, not by weight, and takes the best device there is.
        return LatentReader, (self._name,)

    def width_at(self, layer: int | None, site: str) -> int:
        """The width; ConfigError for any place but that of the latents."""
        self._require([(layer, site)])
        return self.width

    def describe(self) -> dict[str, Any]:
        """What it takes to have the same latents again, for manifests."""
        place = {"layer": None, "site": "residual"}
        return {"model": self._name, "revision": None, **place, "system": self._model.system_name()}

    def read(self, texts: Sequence[str]) -> TokenStates:
        """The latents of `texts` in their order, float32; a text without a part (an empty one) has none."""
        parts, spans, counts = [], [], []
        for text in texts:
            found = list(self._parts(text))
            parts += [part for part, _ in found]
            spans += [span for _, span in found]
            counts.append(len(found))
        latents = self._latents(parts) if parts else torch.zeros(0, 1, self.width)
        each = latents.shape[1]
        offsets = np.append(0, np.cumsum(counts, dtype=np.int64)) * each
        marks = np.repeat(np.array(spans, np.int32).reshape(-1, 2), each, axis=0)
        return TokenStates(latents.flatten(0, 1), torch.from_numpy(offsets), torch.from_numpy(marks))

    def read_sites(
        self, texts: Sequence[str], places: Sequence[tuple[int | None, str]], *, aligned: bool = False
    ) -> dict[tuple[int | None, str], TokenStates]:
        """As a `HuggingFaceReader`'s; there is one place."""
        self._require(places)
        return dict.fromkeys(places, self.read(texts))

    def _require(self, places: Sequence[tuple[int | None, str]]) -> None:
        for layer, site in places:
            if (layer, site) != (None, "residual"):
                raise ConfigError(
                    f"layer {layer}, site {site!r}: {self._name} is read by its latents; leave layer and site out"
                )

    def _parts(self, text: str) -> Iterator[tuple[str, tuple[int, int]]]:
        at = 0
        for part in self._model.parts(text):
            start = text.index(part, at)
            at = start + len(part)
            yield part, (start, at)

    def _latents(self, parts: Sequence[str]) -> Tensor:
        """[parts, latents of each, width] float32, computed in batches of like length."""
        order = np.argsort([-len(part) for part in parts], kind="stable")
        with torch.inference_mode():
            found = [
                self._model.latents_of([parts[i] for i in order[start : start + _PARTS_AT_ONCE]]).float().cpu()
                for start in range(0, len(order), _PARTS_AT_ONCE)
            ]
        return torch.cat(found)[torch.from_numpy(np.argsort(order))]


Reader = HuggingFaceReader | LatentReader

_USUAL: Mapping[str, tuple[Any, ...]] = {
    "layer": (None,),
    "site": ("residual",),
    "role": ("none",),
    "dtype": ("auto", "float32"),
    "special": (False,),
    "max_norm": (None,),
}


def open_reader(model: str, **settings: Any) -> Reader:
    """A reader of "minilm", a model folder or a Hub id; of a folder that holds a system of ours that transformers does not
    open, a reader of its latents. Settings: as in `HuggingFaceReader`."""
    cls = held_by(model)
    return LatentReader(model, **settings) if cls is not None else HuggingFaceReader(model, **settings)
