"""Autoencoders and transcoders of Gemma Scope (Lieberum et al. 2024) and Gemma Scope 2: a folder with params.npz or
params.safetensors.

    W_enc [d, width], b_enc [width], W_dec [width, d], b_dec [d], threshold [width]; Scope 2 writes w_enc and w_dec
    transcoders: W_dec [width, d_out], b_dec [d_out]; with a skip connection: affine_skip_connection [d, d_out]

JumpReLU with a threshold per latent; b_dec is not taken off the input. A transcoder of equal widths is told apart by a
config.json beside its tensors that names two places, or by a skip connection; where it has neither, it is taken for an
autoencoder. Those of token
embeddings read rows that are divided by sqrt(d): their file does not say so.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hourglass.adapters.sae_weights import fold, fold_transcoder, read_safetensors, require_tensors, unknown_kind
from hourglass.bottlenecks.sparse.sae import SparseAutoencoder
from hourglass.bottlenecks.sparse.transcoder import Transcoder
from hourglass.errors import FolderError
from hourglass.storage.atomic import read_json

CONFIG, ARRAYS, WEIGHTS = "config.json", "params.npz", "params.safetensors"
_SKIP = "affine_skip_connection"


def read_gemma_scope(path: str | Path) -> SparseAutoencoder | Transcoder:
    """The autoencoder or transcoder of a folder, or of the params file in it, with the same codes (for unit directions).

    Raises FolderError for files that are broken, ConfigError for what ours cannot express.
    """
    file = Path(path)
    if file.is_dir():
        file = file / (ARRAYS if (file / ARRAYS).is_file() else WEIGHTS)
    transcodes = _transcodes(file.parent / CONFIG)
    tensors = _read_arrays(file) if file.suffix == ".npz" else read_safetensors(file)
    tensors = {name.lower(): tensor for name, tensor in tensors.items()}
    encoder = tensors.get("w_enc")
    if encoder is None or encoder.ndim != 2:
        raise FolderError(f"{file}: no matrix 'W_enc'; it has: {', '.join(sorted(tensors))}")
    d, width = encoder.shape
    skip, decoder = tensors.get(_SKIP), tensors.get("w_dec")
    transcodes = transcodes or skip is not None
    d_out = decoder.shape[1] if transcodes and decoder is not None and decoder.ndim == 2 else d
    require_tensors(
        file,
        tensors,
        {"w_enc": (d, width), "b_enc": (width,), "w_dec": (width, d_out), "b_dec": (d_out,), "threshold": (width,)}
        | ({} if skip is None else {_SKIP: (d, d_out)}),
        f"w_enc has {[d, width]}",
    )
    parts: dict[str, Any] = {
        "encoder": encoder.T,
        "encoder_bias": tensors["b_enc"],
        "decoder": tensors["w_dec"],
        "bias": tensors["b_dec"],
        "threshold": tensors["threshold"],
    }
    if transcodes:
        return fold_transcoder(file, "jumprelu", skip=None if skip is None else skip.T, **parts)
    return fold(file, "jumprelu", centred=False, **parts)


def _transcodes(file: Path) -> bool:
    """Whether a config, which Scope 2 has, names another place to write than it reads."""
    if not file.is_file():
        return False
    config = read_json(file)
    kind = config.get("architecture", "jump_relu")
    if kind != "jump_relu":
        raise unknown_kind(file, "architecture", kind, ("jump_relu",))
    here = config.get("hf_hook_point_in")
    return bool(config.get("hf_hook_point_out", here) != here)


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
