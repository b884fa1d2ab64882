"""Autoencoders of SAELens, read and written: a folder with cfg.json and sae_weights.safetensors.

    W_enc [d, width], b_enc [width], W_dec [width, d], b_dec [d]
    jumprelu: threshold [width] beside these; gated: b_gate, b_mag, r_mag [width] in place of b_enc

BatchTopK and Matryoshka autoencoders are kept there as jumprelu with one threshold for all latents.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from hourglass.adapters.sae_weights import Kind, fold, read_safetensors, require_tensors, setting, unknown_kind
from hourglass.bottlenecks.sparse.sae import SparseAutoencoder
from hourglass.errors import ConfigError, FolderError
from hourglass.storage.atomic import atomic_folder, read_json

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
SCALER = "activation_scaler.json"
_KINDS: dict[str, Kind] = {
    "standard": "relu",
    "gated": "gated",
    "jumprelu": "jumprelu",
    "topk": "topk",
    "abstopk": "abstopk",
}
"""Ours for each architecture of theirs."""
_WRITTEN = {ours: theirs for theirs, ours in _KINDS.items()} | {"batchtopk": "topk", "matryoshka": "topk"}
"""Theirs for each of ours, where no threshold has been measured."""
_FORMAT = "6.0.0"  # without it, SAELens takes a file for one of before this version


def read_saelens(folder: str | Path) -> SparseAutoencoder:
    """The autoencoder of a folder, with the same codes (for unit directions) and reconstructions.

    Raises FolderError for files that are broken or do not fit each other, ConfigError for what ours cannot express.
    """
    folder = Path(folder)
    file, weights = folder / CONFIG, folder / WEIGHTS
    config = read_json(file)
    architecture = _architecture(file, config)
    kind = _KINDS[architecture]
    extra = {"jumprelu": ("threshold",), "gated": ("r_mag", "b_mag")}.get(architecture, ())
    encoder_bias = "b_gate" if kind == "gated" else "b_enc"
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
        {"W_enc": (d, width), encoder_bias: (width,), "W_dec": (width, d), "b_dec": (d,)}
        | dict.fromkeys(extra, (width,)),
        f"{CONFIG} says d_in {d} and d_sae {width}",
    )
    return fold(
        weights,
        kind,
        encoder=tensors["W_enc"].T,
        encoder_bias=tensors[encoder_bias],
        decoder=tensors["W_dec"],
        bias=tensors["b_dec"],
        k=_k(file, config, kind),
        centred=bool(config.get("apply_b_dec_to_input", True)),
        by_norm=kind in ("topk", "abstopk") and bool(config.get("rescale_acts_by_decoder_norm", False)),
        scale=_scale(folder, config),
        threshold=tensors.get("threshold"),
        r_mag=tensors.get("r_mag"),
        b_mag=tensors.get("b_mag"),
    )


def write_saelens(sae: SparseAutoencoder, folder: str | Path) -> None:
    """Write `sae` so that SAELens loads it (`SAE.load_from_disk`) and gives the same codes and reconstructions.

    Raises FolderError where the folder has files in it.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise FolderError(f"{folder}: is not empty; name a new folder")
    threshold = _threshold(sae)
    k, kind = sae.config.k, sae.config.activation
    if kind not in _WRITTEN:
        raise ConfigError(
            f"activation {kind!r} cannot be written for SAELens; known are: {', '.join(sorted(_WRITTEN))}"
        )
    tensors = {
        # z = W (scale x - b) + c, or W scale x + c, and codes are z / scale.
        "W_enc": sae.W_enc,
        "b_gate" if kind == "gated" else "b_enc": sae.b_enc / sae.scale,
        "W_dec": sae.W_dec,
        "b_dec": sae.offset,
    }
    config: dict[str, Any] = {
        "architecture": _WRITTEN[kind] if threshold is None else "jumprelu",
        "d_in": sae.config.d_in,
        "d_sae": sae.config.width,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.config.apply_b_dec_to_input,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": _FORMAT} | ({} if k is None else {"k": k}),
    }
    if threshold is not None:
        tensors["threshold"] = threshold.expand(sae.config.width)
    elif kind == "gated":
        own = sae.state_dict()
        tensors |= {"r_mag": own["activation.r_mag"], "b_mag": own["activation.b_mag"] / sae.scale}
    elif k is not None:
        config |= {"k": k, "rescale_acts_by_decoder_norm": False}
    with atomic_folder(folder) as new:
        save_file({name: t.detach().cpu().float().contiguous() for name, t in tensors.items()}, new / WEIGHTS)
        (new / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _architecture(file: Path, config: dict[str, Any]) -> str:
    """One that is read; earlier versions wrote a TopK one as standard with another activation."""
    kind = config.get("architecture", "standard")
    after = config.get("activation_fn_str") or config.get("activation_fn") or "relu"
    if kind == "standard" and after == "topk":
        kind = "topk"
    if kind not in _KINDS:
        raise unknown_kind(file, "architecture", kind, _KINDS)
    if kind in ("standard", "gated", "jumprelu") and after != "relu":
        raise unknown_kind(file, "activation_fn", after, ("relu", "topk"))
    return str(kind)


def _k(file: Path, config: dict[str, Any], kind: str) -> int | None:
    for place in (config, config.get("activation_fn_kwargs") or {}, config.get("metadata") or {}):
        if place.get("k", None) is not None:
            return setting(file, place, "k")
    if kind in ("topk", "abstopk"):
        raise FolderError(f"{file}: no k; expected the number of active latents")
    return None


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
    """A scalar or [width]: the largest number that is silent. None where no threshold decides."""
    threshold: Tensor | None = getattr(sae.activation, "threshold", None)
    if threshold is None or bool((threshold < 0).any()):  # not measured yet: rows are treated as in TopK
        return None
    least = threshold / sae.scale
    # Those of jumprelu are above their threshold, as theirs; the others reach it.
    return least if sae.config.activation == "jumprelu" else torch.nextafter(least, torch.full_like(least, -math.inf))
