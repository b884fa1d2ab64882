"""Weights as the authors of term weights publish them: an encoder of transformers and linear layers, in one folder.

    config.json, tokenizer files
    model.safetensors or pytorch_model.bin    encoder and linear layers together
    model.pt                                  linear layers, where they are apart from the encoder (COIL)

The names of the encoder's tensors begin with its prefix ("bert."), with "coil_encoder." before it or not; tensors
without one are the encoder's as well. What is in no place of encoder or layers is refused, and so is a layer that
lacks.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hourglass.adapters.huggingface_loading import loading_errors, open_tokenizer
from hourglass.adapters.sae_weights import read_pickle, read_safetensors
from hourglass.errors import FolderError

_OUTER = "coil_encoder."


@dataclass(frozen=True)
class Published:
    """network and tokenizer of transformers, linear layers by name."""

    network: Any
    tokenizer: Any
    linears: dict[str, nn.Linear]


def read_published(folder: str | Path, linears: Set[str], required: Set[str]) -> Published:
    """What a folder holds, with those of `linears` that there are; FolderError where `required` ones, or tensors of
    the encoder, lack, and for tensors of anything else. Pickles are read for tensors alone."""
    from transformers import AutoConfig, AutoModel

    folder = Path(folder)
    with loading_errors(str(folder), "model"):
        network = AutoModel.from_config(AutoConfig.from_pretrained(folder, trust_remote_code=False))
        tokenizer = open_tokenizer(str(folder))
    file, tensors = _tensors(folder)
    places = network.state_dict()
    body: dict[str, Tensor] = {}
    layers: dict[str, dict[str, Tensor]] = {}
    unknown = []
    for name, tensor in tensors.items():
        short = name.removeprefix(_OUTER)
        layer, _, part = short.rpartition(".")
        inner = short.removeprefix(f"{network.base_model_prefix}.")
        if layer in linears and part in ("weight", "bias"):
            layers.setdefault(layer, {})[part] = tensor
        elif inner in places and places[inner].shape == tensor.shape:
            body[inner] = tensor
        elif "pooler" not in short and "position_ids" not in short:
            unknown.append(name)
    if unknown:
        raise FolderError(
            f"{file}: {len(unknown)} of its tensors fit neither {type(network).__name__} nor {', '.join(sorted(linears))}, "
            f"{unknown[0]} first; expected an encoder with these layers"
        )
    missing = sorted(
        name for name in places if name not in body and "pooler" not in name and "position_ids" not in name
    )
    missing += sorted(name for name in required | layers.keys() if "weight" not in layers.get(name, {}))
    if missing:
        raise FolderError(
            f"{file}: lacks {len(missing)} tensors, {missing[0]} first; expected an encoder with {min(required)}"
        )
    network.load_state_dict(body, strict=False)
    return Published(network.float().eval(), tokenizer, {name: _linear(parts) for name, parts in layers.items()})


def longest(found: Published, usual: int, asked: int | None) -> int:
    """Tokens of a text: as asked, or as usual where the network has so many positions."""
    return asked or min(usual, getattr(found.network.config, "max_position_embeddings", usual))


def _tensors(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """The file that holds the encoder, and all tensors of the folder."""
    safe, pickled, beside = folder / "model.safetensors", folder / "pytorch_model.bin", folder / "model.pt"
    file = safe if safe.is_file() else pickled
    if not file.is_file():
        raise FolderError(f"{folder}: no model.safetensors or pytorch_model.bin; TensorFlow's checkpoints are not read")
    tensors = dict(read_safetensors(file) if file == safe else read_pickle(file))
    if beside.is_file():
        tensors |= {name: tensor for name, tensor in read_pickle(beside).items() if not name.startswith("model.")}
    return file, tensors


def _linear(parts: dict[str, Tensor]) -> nn.Linear:
    weight = parts["weight"]
    made = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        made.weight.copy_(weight)
        made.bias.copy_(parts["bias"]) if "bias" in parts else made.bias.zero_()
    return made
