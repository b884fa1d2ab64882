"""Autoencoders of Gemma Scope (Lieberum et al. 2024) and Gemma Scope 2: a folder with params.npz or params.safetensors.

    W_enc [d, width], b_enc [width], W_dec [width, d], b_dec [d], threshold [width]; Scope 2 writes w_enc and w_dec

JumpReLU with a threshold per latent; b_dec is not taken off the input. A transcoder of the same width has the same tensors
and is not told apart, unless a config.json beside them names two places or it has a skip connection. Those of token
embeddings read rows that are divided by sqrt(d): their file does not say so.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hourglass.adapters.sae_weights import fold, read_safetensors, require_tensors, unknown_kind
from hourglass.bottlenecks.sparse.sae import SparseAutoencoder
from hourglass.errors import ConfigError, FolderError
from hourglass.storage.atomic import read_json

CONFIG, ARRAYS, WEIGHTS = "config.json", "params.npz", "params.safetensors"


def read_gemma_scope(path: str | Path) -> SparseAutoencoder:
    """The autoencoder of a folder, or of the params file in it, with the same codes (for unit directions).

    Raises FolderError for files that are broken, ConfigError for what ours cannot express.
    """
    file = Path(path)
    if file.is_dir():
        file = file / (ARRAYS if (file / ARRAYS).is_file() else WEIGHTS)
    _check_config(file.parent / CONFIG)
    tensors = _read_arrays(file) if file.suffix == ".npz" else read_safetensors(file)
    tensors = {name.lower(): tensor for name, tensor in tensors.items()}
    encoder = tensors.get("w_enc")
    if encoder is None or encoder.ndim != 2:
        raise FolderError(f"{file}: no matrix 'W_enc'; it has: {', '.join(sorted(tensors))}")
    d, width = encoder.shape
    require_tensors(
        file,
        tensors,
        {"w_enc": (d, width), "b_enc": (width,), "w_dec": (width, d), "b_dec": (d,), "threshold": (width,)},
        f"w_enc has {[d, width]}",
    )
    return fold(
        file,
        "jumprelu",
        encoder=encoder.T,
        encoder_bias=tensors["b_enc"],
        decoder=tensors["w_dec"],
        bias=tensors["b_dec"],
        threshold=tensors["threshold"],
        centred=False,
    )


def _check_config(file: Path) -> None:
    """Scope 2 has a config, which says what is not an autoencoder."""
    if not file.is_file():
        return
    config = read_json(file)
    kind = config.get("architecture", "jump_relu")
    if kind != "jump_relu":
        raise unknown_kind(file, "architecture", kind, ("jump_relu",))
    here = config.get("hf_hook_point_in")
    there = config.get("hf_hook_point_out", here)
    if there != here:
        raise ConfigError(f"{file}: reads {here} and writes {there}: a transcoder, which cannot be read")


def _read_arrays(file: Path) -> dict[str, Tensor]:
    """The arrays of an .npz. Objects in it, which would run code, are refused."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except FileNotFoundError:
        raise FolderError(f"{file}: no such file") from None
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise FolderError(f"{file}: not an npz file of arrays alone ({reason[:200]})") from None
