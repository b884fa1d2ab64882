"""Autoencoders of EleutherAI's sparsify: a folder (one a hook point) with cfg.json and sae.safetensors.

encoder.weight [width, d], encoder.bias [width], W_dec [width, d], b_dec [d]; the k largest, through a ReLU, of x - b_dec
"""

from __future__ import annotations

from pathlib import Path

from hourglass.adapters.sae_weights import fold, read_safetensors, require_tensors, setting, unknown_kind
from hourglass.bottlenecks.sparse.sae import SparseAutoencoder
from hourglass.errors import ConfigError
from hourglass.storage.atomic import read_json

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
_KNOWN = ("topk",)
_BEYOND = ("transcode", "skip_connection", "embed_skip", "gram_lookup", "signed")


def read_sparsify(folder: str | Path) -> SparseAutoencoder:
    """The autoencoder of a hook point's folder, with the same codes and reconstructions.

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
    require_tensors(
        folder / WEIGHTS,
        tensors,
        {"encoder.weight": (width, d), "encoder.bias": (width,), "W_dec": (width, d), "b_dec": (d,)},
        f"{CONFIG} says d_in {d} and {width} latents",
    )
    return fold(
        folder / WEIGHTS,
        "topk",
        encoder=tensors["encoder.weight"],
        encoder_bias=tensors["encoder.bias"],
        decoder=tensors["W_dec"],
        bias=tensors["b_dec"],
        k=setting(file, config, "k"),
    )
