"""Autoencoders of Llama Scope (He et al. 2024): a folder with hyperparams.json and checkpoints/final.safetensors.

    encoder.weight [width, d], encoder.bias [width], decoder.weight [d, width], decoder.bias [d]

This is the format of OpenMOSS's Language-Model-SAEs of October 2024, after its code: no published file was
read. Rows are multiplied by sqrt(d) over the mean norm of a row, which the config has; b_dec is not taken off them. The
one threshold counts after both are undone: activations of unit directions, in the units of the data, are above it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch

from hourglass.adapters.sae_weights import fold, read_safetensors, require_tensors, setting, unknown_kind
from hourglass.bottlenecks.sparse.sae import SparseAutoencoder
from hourglass.errors import ConfigError, FolderError
from hourglass.storage.atomic import read_json

CONFIG, WEIGHTS = "hyperparams.json", "checkpoints/final.safetensors"
_KNOWN = ("jumprelu", "relu")


def read_llama_scope(folder: str | Path) -> SparseAutoencoder:
    """The autoencoder of a folder, with the same codes (for unit directions) and reconstructions.

    Raises FolderError for files that are broken or do not fit each other, ConfigError for what ours cannot express.
    """
    file, weights = Path(folder) / CONFIG, Path(folder) / WEIGHTS
    config = read_json(file)
    kind = config.get("act_fn", "relu")
    if kind not in _KNOWN:
        raise unknown_kind(file, "act_fn", kind, _KNOWN)
    if config.get("use_glu_encoder"):
        raise ConfigError(f"{file}: use_glu_encoder is on; that is more than a sparse autoencoder, and cannot be read")
    d, width = setting(file, config, "d_model"), setting(file, config, "d_sae")
    scale = _scale(file, config, d)
    tensors = read_safetensors(weights)
    biased = bool(config.get("use_decoder_bias", True))
    require_tensors(
        weights,
        tensors,
        {"encoder.weight": (width, d), "encoder.bias": (width,), "decoder.weight": (d, width)}
        | ({"decoder.bias": (d,)} if biased else {}),
        f"{CONFIG} says d_model {d} and d_sae {width}",
    )
    decoder = tensors["decoder.weight"].T.float()
    return fold(
        weights,
        "jumprelu" if kind == "jumprelu" else "relu",
        encoder=tensors["encoder.weight"],
        encoder_bias=tensors["encoder.bias"],
        decoder=decoder,
        bias=tensors["decoder.bias"] if biased else torch.zeros(d),
        k=setting(file, config, "top_k") if config.get("top_k") else None,
        threshold=_threshold(file, config) * scale / _lengths(config, decoder) if kind == "jumprelu" else None,
        centred=biased and bool(config.get("apply_decoder_bias_to_pre_encoder", True)),
        scale=scale,
    )


def _scale(file: Path, config: Mapping[str, Any], d: int) -> float:
    """What rows are multiplied by."""
    here, there = config.get("hook_point_in"), config.get("hook_point_out")
    normalize = config.get("norm_activation", "token-wise")
    if there not in (None, here):
        raise ConfigError(f"{file}: reads {here} and writes {there}: a transcoder, which cannot be read")
    if normalize in ("token-wise", "batch-wise"):
        raise ConfigError(
            f"{file}: norm_activation {normalize!r} is more than one scale for all rows, which is what ours has"
        )
    if normalize != "dataset-wise":
        return 1.0
    norms = config.get("dataset_average_activation_norm")
    norm = norms.get("in") if isinstance(norms, dict) else None
    if isinstance(norms, dict) and norms.get("out", norm) != norm:
        raise ConfigError(f"{file}: reads and writes rows of different norms: a transcoder, which cannot be read")
    if not _is_number(norm) or norm <= 0:
        raise FolderError(f"{file}: no dataset_average_activation_norm; expected the mean norm of a row, as 'in'")
    return math.sqrt(d) / float(norm)


def _threshold(file: Path, config: Mapping[str, Any]) -> float:
    threshold = config.get("jump_relu_threshold")
    if not _is_number(threshold):
        raise FolderError(f"{file}: no jump_relu_threshold; expected a number")
    return float(threshold)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _lengths(config: Mapping[str, Any], decoder: torch.Tensor) -> torch.Tensor:
    """[width] of the directions that activations count for as they meet the threshold."""
    if config.get("sparsity_include_decoder_norm", True):
        return torch.linalg.vector_norm(decoder, dim=1).clamp_min(torch.finfo(decoder.dtype).tiny)
    return torch.ones(len(decoder))
