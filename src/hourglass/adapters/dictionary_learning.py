"""Autoencoders of dictionary_learning: a folder trainer_0 with config.json and ae.pt.

    encoder.weight [width, d], encoder.bias [width], decoder.weight [d, width], b_dec [d], k, threshold (both 0-d)

AutoEncoderTopK takes the k largest of a row and leaves its threshold unused; BatchTopKSAE takes what is above it.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from hourglass.adapters.sae_weights import fold, read_pickle, require_tensors, setting, unknown_kind
from hourglass.bottlenecks.sparse.sae import SparseAutoencoder
from hourglass.errors import FolderError
from hourglass.storage.atomic import read_json

CONFIG, WEIGHTS = "config.json", "ae.pt"
_KNOWN = {"AutoEncoderTopK": False, "BatchTopKSAE": True}
"""Whether a kind decides by its threshold."""


def read_dictionary_learning(folder: str | Path) -> SparseAutoencoder:
    """The autoencoder of a trainer's folder, or of the ae.pt in it, with the same codes and reconstructions.

    Raises FolderError for files that are broken or do not fit each other, ConfigError for what ours cannot express.
    """
    folder = Path(folder).parent if Path(folder).is_file() else Path(folder)
    file, weights = folder / CONFIG, folder / WEIGHTS
    config = read_json(file).get("trainer")
    if not isinstance(config, dict):
        raise FolderError(f"{file}: no 'trainer'; expected the config that dictionary_learning writes")
    kind = config.get("dict_class")
    if kind not in _KNOWN:
        raise unknown_kind(file, "dict_class", kind, _KNOWN)
    d, width = setting(file, config, "activation_dim"), setting(file, config, "dict_size")
    tensors = read_pickle(weights)
    by_threshold = _KNOWN[kind]
    require_tensors(
        weights,
        tensors,
        {"encoder.weight": (width, d), "encoder.bias": (width,), "decoder.weight": (d, width), "b_dec": (d,)}
        | ({"threshold": ()} if by_threshold else {}),
        f"{CONFIG} says activation_dim {d} and dict_size {width}",
        others=("k", "threshold"),
    )
    k = tensors.get("k")
    return fold(
        weights,
        encoder=tensors["encoder.weight"],
        encoder_bias=tensors["encoder.bias"],
        decoder=tensors["decoder.weight"].T,
        bias=tensors["b_dec"],
        # While k is annealed the file says the k of the moment, the config that of the end.
        k=int(k) if isinstance(k, Tensor) else setting(file, config, "k"),
        threshold=tensors["threshold"] if by_threshold else None,
    )
