"""Autoencoders and transcoders of EleutherAI's sparsify: a folder (one a hook point) with cfg.json and sae.safetensors.

encoder.weight [width, d], encoder.bias [width], W_dec [width, d], b_dec [d]; the k largest, through a ReLU, of x - b_dec
transcoders: of x; with a skip connection: W_skip [d, d]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hourglass.adapters.sae_weights import (
    fold,
    fold_transcoder,
    read_safetensors,
    require_tensors,
    setting,
    unknown_kind,
)
from hourglass.bottlenecks.sparse.sae import SparseAutoencoder
from hourglass.bottlenecks.sparse.transcoder import Transcoder
from hourglass.errors import ConfigError
from hourglass.storage.atomic import read_json

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
_KNOWN = ("topk",)
_BEYOND = ("embed_skip", "gram_lookup", "signed")


def read_sparsify(folder: str | Path) -> SparseAutoencoder | Transcoder:
    """The autoencoder or transcoder of a hook point's folder, with the same codes and reconstructions.

    Raises FolderError for files that are broken or do not fit each other, ConfigError for what ours cannot express.
    """
    folder = Path(folder)
    file = folder / CONFIG
    config = read_json(file)
    activation = config.get("activation", "topk")
    if activation not in _KNOWN:
        raise unknown_kind(file, "activation", activation, _KNOWN)
    for option in _BEYOND:
        if config.get(option):
            raise ConfigError(f"{file}: {option} is on; that is more than a sparse autoencoder, and cannot be read")
    d = setting(file, config, "d_in")
    width = config.get("num_latents") or d * setting(file, config, "expansion_factor")
    tensors = read_safetensors(folder / WEIGHTS)
    transcode, skip = bool(config.get("transcode")), bool(config.get("skip_connection"))
    require_tensors(
        folder / WEIGHTS,
        tensors,
        {"encoder.weight": (width, d), "encoder.bias": (width,), "W_dec": (width, d), "b_dec": (d,)}
        | ({"W_skip": (d, d)} if skip else {}),
        f"{CONFIG} says d_in {d} and {width} latents",
    )
    parts = {"encoder": "encoder.weight", "encoder_bias": "encoder.bias", "decoder": "W_dec", "bias": "b_dec"}
    weights: dict[str, Any] = {part: tensors[name].float() for part, name in parts.items()}
    k = setting(file, config, "k")
    if not transcode and not skip:
        return fold(folder / WEIGHTS, "topk", k=k, **weights)
    if (
        not transcode
    ):  # an autoencoder with a skip connection: the bias that its encoder takes off is a part of the other
        weights["encoder_bias"] = weights["encoder_bias"] - weights["encoder"] @ weights["bias"]
    return fold_transcoder(folder / WEIGHTS, "topk", k=k, skip=tensors.get("W_skip"), **weights)
