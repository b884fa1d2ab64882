"""Autoencoders of SAELens, read and written: a folder with cfg.json and sae_weights.safetensors.

    W_enc [d, width], b_enc [width], W_dec [width, d], b_dec [d]; jumprelu also has threshold [width]

BatchTopK autoencoders are kept there as jumprelu with one threshold for all latents.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from hourglass.adapters.sae_weights import fold, read_safetensors, require_tensors, setting, unknown_kind
from hourglass.bottlenecks.sparse.sae import SparseAutoencoder
from hourglass.errors import ConfigError, FolderError
from hourglass.storage.atomic import atomic_folder, read_json

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
SCALER = "activation_scaler.json"
_KNOWN = ("topk", "jumprelu")
_FORMAT = "6.0.0"  # without it, SAELens takes a file for one of before this version
_USUAL_K = 64  # a jumprelu file has no k, which only learning on would ask for


def read_saelens(folder: str | Path) -> SparseAutoencoder:
    """The autoencoder of a folder, with the same codes (for unit directions) and reconstructions.

    Raises FolderError for files that are broken or do not fit each other, ConfigError for what ours cannot express.
    """
    folder = Path(folder)
    file, weights = folder / CONFIG, folder / WEIGHTS
    config = read_json(file)
    kind = _kind(config)
    if kind not in _KNOWN:
        raise unknown_kind(file, "architecture", kind, _KNOWN)
    d, width = setting(file, config, "d_in"), setting(file, config, "d_sae")
    tensors = read_safetensors(weights)
    scaling = tensors.pop("scaling_factor", None)  # of finetuned ones; 1 elsewhere
    if scaling is not None and not bool((scaling == 1).all()):
        raise ConfigError(
            f"{weights}: scaling_factor changes activations after they are chosen, which ours does not do"
        )
    require_tensors(
        weights,
        tensors,
        {"W_enc": (d, width), "b_enc": (width,), "W_dec": (width, d), "b_dec": (d,)}
        | ({"threshold": (width,)} if kind == "jumprelu" else {}),
        f"{CONFIG} says d_in {d} and d_sae {width}",
    )
    return fold(
        weights,
        encoder=tensors["W_enc"].T,
        encoder_bias=tensors["b_enc"],
        decoder=tensors["W_dec"],
        bias=tensors["b_dec"],
        k=_k(file, config, kind, width),
        threshold=tensors.get("threshold"),
        centred=bool(config.get("apply_b_dec_to_input", True)),
        by_norm=kind == "topk" and bool(config.get("rescale_acts_by_decoder_norm", False)),
        scale=_scale(folder, config),
    )


def write_saelens(sae: SparseAutoencoder, folder: str | Path) -> None:
    """Write `sae` so that SAELens loads it (`SAE.load_from_disk`) and gives the same codes and reconstructions.

    Raises FolderError where the folder has files in it.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise FolderError(f"{folder}: is not empty; name a new folder")
    threshold = _threshold(sae)
    tensors = {
        # z = W (scale x - b) + c, or W scale x + c, and codes are z / scale.
        "W_enc": sae.W_enc,
        "b_enc": sae.b_enc / sae.scale,
        "W_dec": sae.W_dec,
        "b_dec": sae.offset,
    }
    config: dict[str, Any] = {
        "d_in": sae.config.d_in,
        "d_sae": sae.config.width,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": getattr(sae.config, "apply_b_dec_to_input", True),
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"k": sae.config.k, "sae_lens_version": _FORMAT},
    }
    if threshold is None:
        config |= {"architecture": "topk", "k": sae.config.k, "rescale_acts_by_decoder_norm": False}
    else:
        config["architecture"] = "jumprelu"
        tensors["threshold"] = threshold.expand(sae.config.width)
    with atomic_folder(folder) as new:
        save_file({name: t.detach().cpu().float().contiguous() for name, t in tensors.items()}, new / WEIGHTS)
        (new / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _kind(config: dict[str, Any]) -> Any:
    """The architecture; earlier versions wrote a TopK one as standard with another activation."""
    kind = config.get("architecture", "standard")
    return "topk" if kind == "standard" and config.get("activation_fn_str") == "topk" else kind


def _k(file: Path, config: dict[str, Any], kind: str, width: int) -> int:
    for place in (config, config.get("activation_fn_kwargs") or {}, config.get("metadata") or {}):
        if "k" in place:
            return setting(file, place, "k")
    if kind == "topk":
        raise FolderError(f"{file}: no k; expected the number of active latents")
    return min(_USUAL_K, width)


def _scale(folder: Path, config: dict[str, Any]) -> float:
    """What rows are multiplied by: 1 once an autoencoder is saved for use, which folds the scale of its training in."""
    normalize = config.get("normalize_activations")
    if isinstance(normalize, bool):  # as early versions wrote it
        normalize = "expected_average_only_in" if normalize else "none"
    if normalize in (None, "none"):
        return 1.0
    if normalize != "expected_average_only_in":
        raise ConfigError(
            f"{folder / CONFIG}: normalize_activations {normalize!r} is more than one scale for all rows, which is what ours has"
        )
    scaler = folder / SCALER
    factor = read_json(scaler).get("scaling_factor") if scaler.is_file() else None
    if not factor:
        raise ConfigError(
            f"{folder / CONFIG}: normalize_activations {normalize!r}, but no {SCALER} says by what rows were multiplied; "
            "have SAELens save it for use, which folds that in"
        )
    return float(factor)


def _threshold(sae: SparseAutoencoder) -> Tensor | None:
    """The largest number that is silent: ours reach the threshold, theirs are above it. None where the k largest count."""
    kind = sae.config.activation
    if kind not in ("topk", "batchtopk"):
        raise ConfigError(f"activation {kind!r} cannot be written for SAELens; known are: batchtopk, topk")
    threshold = getattr(sae.activation, "threshold", None)
    if kind == "topk" or threshold is None or threshold < 0:  # not measured yet: rows are treated as in TopK
        return None
    least = threshold / sae.scale
    return torch.nextafter(least, torch.full_like(least, -math.inf))
