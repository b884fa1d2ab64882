"""Autoencoders and crosscoders of dictionary_learning: a folder trainer_0 with config.json and ae.pt.

    encoder.weight [width, d], encoder.bias [width], decoder.weight [d, width], b_dec [d], k, threshold (both 0-d)
    JumpReLU and Matryoshka: W_enc [d, width], b_enc [width], W_dec [width, d], b_dec [d]

    crosscoders: encoder.weight [P, d, width], encoder.bias [width], decoder.weight [P, width, d], decoder.bias [P, d]

The bias of the decoder goes by other names in the kinds without k. AutoEncoderTopK takes the k largest of a row and leaves
its threshold unused; BatchTopKSAE and MatryoshkaBatchTopKSAE take what is above theirs, JumpReluAutoEncoder what is above
a threshold per latent, BatchTopKCrossCoder (of the fork science-of-finetuning/dictionary_learning) what is above its threshold
times the sum of the norms of its decoder rows. AutoEncoderNew and JumpReluAutoEncoder do not take the bias off their input.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hourglass.adapters.sae_weights import (
    Kind,
    fold,
    fold_crosscoder,
    read_pickle,
    require_tensors,
    setting,
    unknown_kind,
)
from hourglass.bottlenecks.sparse.crosscoder import Crosscoder
from hourglass.bottlenecks.sparse.sae import SparseAutoencoder
from hourglass.errors import ConfigError, FolderError
from hourglass.storage.atomic import read_json

CONFIG, WEIGHTS = "config.json", "ae.pt"
_LINEAR = {"encoder": "encoder.weight", "encoder_bias": "encoder.bias", "decoder": "decoder.weight", "bias": "b_dec"}
_PLAIN = {"encoder": "W_enc", "encoder_bias": "b_enc", "decoder": "W_dec", "bias": "b_dec", "threshold": "threshold"}
_GATED = {"encoder_bias": "gate_bias", "bias": "decoder_bias", "r_mag": "r_mag", "b_mag": "mag_bias"}
_KINDS: dict[str, tuple[Kind, dict[str, str]]] = {
    "AutoEncoder": ("relu", _LINEAR | {"bias": "bias"}),
    "AutoEncoderNew": ("relu", _LINEAR | {"bias": "decoder.bias"}),
    "AutoEncoderTopK": ("topk", _LINEAR),
    "BatchTopKSAE": ("batchtopk", _LINEAR | {"threshold": "threshold"}),
    "GatedAutoEncoder": ("gated", _LINEAR | _GATED),
    "JumpReluAutoEncoder": ("jumprelu", _PLAIN),
    "MatryoshkaBatchTopKSAE": ("matryoshka", _PLAIN),
}
"""Ours for each dict_class, and the names of its tensors."""
_CROSSCODERS: dict[str, Kind] = {"CrossCoder": "relu", "BatchTopKCrossCoder": "batchtopk"}
_BY_SUM_OF_NORMS = 1
"""The code_normalization_id of Lindsey et al.; the others weigh latents in other ways."""
_NOT_CENTRED = ("AutoEncoderNew", "JumpReluAutoEncoder")


def read_dictionary_learning(folder: str | Path) -> SparseAutoencoder | Crosscoder:
    """The autoencoder or crosscoder of a trainer's folder, or of the ae.pt in it, with the same codes and reconstructions.

    Raises FolderError for files that are broken or do not fit each other, ConfigError for what ours cannot express.
    """
    folder = Path(folder).parent if Path(folder).is_file() else Path(folder)
    file, weights = folder / CONFIG, folder / WEIGHTS
    config = read_json(file).get("trainer")
    if not isinstance(config, dict):
        raise FolderError(f"{file}: no 'trainer'; expected the config that dictionary_learning writes")
    dict_class = config.get("dict_class")
    if dict_class in _CROSSCODERS:
        return _read_crosscoder(file, weights, config, _CROSSCODERS[dict_class])
    if dict_class not in _KINDS:
        raise unknown_kind(file, "dict_class", dict_class, [*_KINDS, *_CROSSCODERS])
    kind, names = _KINDS[dict_class]
    d, width = setting(file, config, "activation_dim"), setting(file, config, "dict_size")
    tensors = read_pickle(weights)
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.weight": (width, d),
        "decoder.weight": (d, width),
        "W_enc": (d, width),
        "W_dec": (width, d),
        names["bias"]: (d,),
        "threshold": (width,) if kind == "jumprelu" else (),
    }
    require_tensors(
        weights,
        tensors,
        {name: shapes.get(name, (width,)) for name in names.values()},
        f"{CONFIG} says activation_dim {d} and dict_size {width}",
        others=("k", "threshold", "group_sizes"),
    )
    parts: dict[str, Any] = {part: tensors[name] for part, name in names.items()}
    for part, turned in (("encoder", "W_enc"), ("decoder", "decoder.weight")):
        if names[part] == turned:
            parts[part] = parts[part].T
    return fold(
        weights,
        kind,
        k=_k(file, config, tensors) if "k" in tensors or "k" in config else None,
        prefixes=_prefixes(weights, tensors, width) if kind == "matryoshka" else None,
        centred=dict_class not in _NOT_CENTRED,
        **parts,
    )


def _read_crosscoder(file: Path, weights: Path, config: Mapping[str, Any], kind: Kind) -> Crosscoder:
    d, width = setting(file, config, "activation_dim"), setting(file, config, "dict_size")
    tensors = read_pickle(weights)
    decoder = tensors.get("decoder.weight")
    places = len(decoder) if isinstance(decoder, Tensor) and decoder.ndim == 3 else 1
    require_tensors(
        weights,
        tensors,
        {"encoder.weight": (places, d, width), "encoder.bias": (width,), "decoder.weight": (places, width, d)}
        | {"decoder.bias": (places, d)}
        | ({"threshold": ()} if kind == "batchtopk" else {}),
        f"{CONFIG} says activation_dim {d} and dict_size {width}",
        others=("k", "code_normalization_id"),
    )
    threshold = None
    if kind == "batchtopk":
        if int(tensors.get("code_normalization_id", _BY_SUM_OF_NORMS)) != _BY_SUM_OF_NORMS:
            raise ConfigError(
                f"{weights}: latents are not chosen by the sum of the norms of their decoder rows, as ours are"
            )
        sums = torch.linalg.vector_norm(tensors["decoder.weight"].float(), dim=2).sum(0)
        threshold = tensors["threshold"].float() / sums.clamp_min(torch.finfo(sums.dtype).tiny)
    return fold_crosscoder(
        weights,
        kind,
        encoder=tensors["encoder.weight"].transpose(1, 2),
        encoder_bias=tensors["encoder.bias"],
        decoder=tensors["decoder.weight"],
        bias=tensors["decoder.bias"],
        k=_k(file, config, tensors) if "k" in tensors or "k" in config else None,
        threshold=threshold,
        by_norm=True,
    )


def _k(file: Path, config: Mapping[str, Any], tensors: Mapping[str, Any]) -> int:
    """While k is annealed the file says the k of the moment, the config that of the end."""
    k = tensors.get("k")
    return int(k) if isinstance(k, Tensor) else setting(file, config, "k")


def _prefixes(weights: Path, tensors: Mapping[str, Any], width: int) -> tuple[float, ...]:
    """Shares of the dictionary that reconstruct alone, of the sizes of the groups that are added one by one."""
    sizes = tensors.get("group_sizes")
    if not isinstance(sizes, Tensor) or sizes.ndim != 1 or sizes.sum() != width or bool((sizes < 1).any()):
        raise FolderError(
            f"{weights}: group_sizes {sizes}; expected whole numbers that sum to {width}".replace("\n", " ")
        )
    return tuple(end / width for end in sizes.cumsum(0).tolist())
