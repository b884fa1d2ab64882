"""Autoencoders and transcoders of SAELens, read and written: a folder with cfg.json and sae_weights.safetensors.

    W_enc [d, width], b_enc [width], W_dec [width, d], b_dec [d]
    jumprelu: threshold [width] beside these; gated: b_gate, b_mag, r_mag [width] in place of b_enc
    transcoder: W_dec [width, d_out], b_dec [d_out]; with a skip connection: W_skip [d_out, d]

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

from hourglass.adapters.sae_weights import (
    Kind,
    fold,
    fold_transcoder,
    read_safetensors,
    require_tensors,
    setting,
    unknown_kind,
)
from hourglass.bottlenecks.sparse.coder import SparseCoder
from hourglass.bottlenecks.sparse.sae import SparseAutoencoder
from hourglass.bottlenecks.sparse.transcoder import Transcoder
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
_TRANSCODERS: dict[str, Kind] = {
    "transcoder": "relu",
    "skip_transcoder": "relu",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}
_WRITTEN = {ours: theirs for theirs, ours in _KINDS.items()} | {"batchtopk": "topk", "matryoshka": "topk"}
"""Theirs for each of ours, where no threshold has been measured."""
_FORMAT = "6.0.0"  # without it, SAELens takes a file for one of before this version


def read_saelens(folder: str | Path) -> SparseAutoencoder | Transcoder:
    """The autoencoder or transcoder of a folder, with the same codes (for unit directions) and reconstructions.

    Raises FolderError for files that are broken or do not fit each other, ConfigError for what ours cannot express.
    """
    folder = Path(folder)
    file, weights = folder / CONFIG, folder / WEIGHTS
    config = read_json(file)
    architecture = _architecture(file, config)
    if architecture in _TRANSCODERS:
        return _read_transcoder(folder, config, architecture)
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


def _read_transcoder(folder: Path, config: dict[str, Any], architecture: str) -> Transcoder:
    file, weights = folder / CONFIG, folder / WEIGHTS
    kind, skip = _TRANSCODERS[architecture], "skip" in architecture
    d, d_out, width = (setting(file, config, name) for name in ("d_in", "d_out", "d_sae"))
    tensors = read_safetensors(weights)
    require_tensors(
        weights,
        tensors,
        {"W_enc": (d, width), "b_enc": (width,), "W_dec": (width, d_out), "b_dec": (d_out,)}
        | ({"threshold": (width,)} if kind == "jumprelu" else {})
        | ({"W_skip": (d_out, d)} if skip else {}),
        f"{CONFIG} says d_in {d}, d_out {d_out} and d_sae {width}",
    )
    return fold_transcoder(
        weights,
        kind,
        encoder=tensors["W_enc"].T,
        encoder_bias=tensors["b_enc"],
        decoder=tensors["W_dec"],
        bias=tensors["b_dec"],
        skip=tensors.get("W_skip"),
        k=_k(file, config, kind),
        scale=_scale(folder, config),
        threshold=tensors.get("threshold"),
    )


def write_saelens(sae: SparseCoder, folder: str | Path) -> None:
    """Write `sae` so that SAELens loads it (`SAE.load_from_disk`) and gives the same codes and reconstructions.

    Raises FolderError where the folder has files in it.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise FolderError(f"{folder}: is not empty; name a new folder")
    if not isinstance(sae, (SparseAutoencoder, Transcoder)):
        raise ConfigError(f"a {sae.system_name()} cannot be written for SAELens, which has none")
    threshold = _threshold(sae)
    k, kind = sae.config.k, sae.config.activation
    if kind not in _WRITTEN:
        raise ConfigError(
            f"activation {kind!r} cannot be written for SAELens; known are: {', '.join(sorted(_WRITTEN))}"
        )
    if isinstance(sae, Transcoder):
        _write_transcoder(sae, threshold, folder)
        return
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
    _write(folder, config, tensors)


def _write_transcoder(coder: Transcoder, threshold: Tensor | None, folder: Path) -> None:
    kind = coder.config.activation
    if threshold is None and kind != "relu":
        raise ConfigError(
            f"activation {kind!r} cannot be written for SAELens, whose transcoders know relu and thresholds"
        )
    # z = W (scale x - centre) + c, codes are z / target_scale; so is what the skip connection gives.
    turned = coder.scale / coder.target_scale
    tensors = {
        "W_enc": coder.W_enc * turned,
        "b_enc": (coder.b_enc - coder.encoder.weight @ coder.centre) / coder.target_scale,
        "W_dec": coder.W_dec,
        "b_dec": coder.offset,
    }
    if coder.W_skip is not None:
        tensors["W_skip"] = coder.W_skip * turned
        tensors["b_dec"] = coder.offset - coder.W_skip @ coder.centre / coder.target_scale
    if threshold is not None:
        tensors["threshold"] = threshold.expand(coder.config.width)
    jump, skip = "" if threshold is None else "jumprelu_", "" if coder.W_skip is None else "skip_"
    k = coder.config.k
    config = {
        "architecture": f"{jump}{skip}transcoder",
        "d_in": coder.config.d_in,
        "d_out": coder.config.columns,
        "d_sae": coder.config.width,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": _FORMAT} | ({} if k is None else {"k": k}),
    }
    _write(folder, config, tensors)


def _write(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    with atomic_folder(folder) as new:
        save_file({name: t.detach().cpu().float().contiguous() for name, t in tensors.items()}, new / WEIGHTS)
        (new / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _architecture(file: Path, config: dict[str, Any]) -> str:
    """One that is read; earlier versions wrote a TopK one as standard with another activation."""
    kind = config.get("architecture", "standard")
    after = config.get("activation_fn_str") or config.get("activation_fn") or "relu"
    if kind == "standard" and after == "topk":
        kind = "topk"
    if kind not in _KINDS and kind not in _TRANSCODERS:
        raise unknown_kind(file, "architecture", kind, [*_KINDS, *_TRANSCODERS])
    if kind not in ("topk", "abstopk") and after != "relu":
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


def _threshold(sae: SparseAutoencoder | Transcoder) -> Tensor | None:
    """A scalar or [width]: the largest number that is silent. None where no threshold decides."""
    threshold: Tensor | None = getattr(sae.activation, "threshold", None)
    if threshold is None or bool((threshold < 0).any()):  # not measured yet: rows are treated as in TopK
        return None
    least = threshold / sae.unit
    # Those of jumprelu are above their threshold, as theirs; the others reach it.
    return least if sae.config.activation == "jumprelu" else torch.nextafter(least, torch.full_like(least, -math.inf))
