"""Autoencoders of OpenAI's sparse_autoencoder (Gao et al. 2024): one .pt file.

    pre_bias [d], latent_bias [width], encoder.weight [width, d], decoder.weight [d, width], activation "ReLU" or "TopK",
    activation_state_dict {k, postact_fn} of TopK

A file without an activation is one of a ReLU. Their TopK autoencoders read each row less its own mean and divided by its
own deviation, and undo both at the end. Ours has one centre and one scale for all rows, so it reads rows that
`layer_normalized` has prepared.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from hourglass.adapters.sae_weights import fold, read_pickle, require_tensors, setting, unknown_kind
from hourglass.bottlenecks.sparse.sae import SparseAutoencoder
from hourglass.errors import ConfigError, FolderError

_KNOWN = ("ReLU", "TopK")
KEY = "pre_bias"
"""A tensor that no other format has."""
_COUNTERS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")


def read_openai(file: str | Path, *, normalized: bool = False) -> SparseAutoencoder:
    """The autoencoder of a file, with the same codes; of a TopK one, for rows that went through `layer_normalized`.

    `normalized` says that you know: without it a TopK file is refused, since codes of plain rows would be wrong.
    Raises FolderError for a file that is broken, ConfigError for what ours cannot express.
    """
    file = Path(file)
    tensors = read_pickle(file)
    kind = tensors.pop("activation", "ReLU")
    if kind not in _KNOWN:
        raise unknown_kind(file, "activation", kind, _KNOWN)
    state = tensors.pop("activation_state_dict", {})
    after = state.get("postact_fn", "ReLU")
    if kind == "TopK" and after != "ReLU":
        raise ConfigError(f"{file}: activations go through {after}; only those of a ReLU can be read")
    encoder = tensors.get("encoder.weight")
    if not isinstance(encoder, Tensor) or encoder.ndim != 2:
        raise FolderError(f"{file}: no matrix 'encoder.weight'; it has: {', '.join(sorted(tensors))}")
    width, d = encoder.shape
    require_tensors(
        file,
        tensors,
        {"encoder.weight": (width, d), "latent_bias": (width,), "decoder.weight": (d, width), "pre_bias": (d,)},
        f"encoder.weight has {[width, d]}",
        others=_COUNTERS,
    )
    if kind == "TopK" and not normalized:
        raise ConfigError(
            f"{file}: reads rows less their own mean, divided by their own deviation, which ours does not do; "
            "use read_openai(file, normalized=True) on rows from layer_normalized(x)"
        )
    return fold(
        file,
        "topk" if kind == "TopK" else "relu",
        encoder=encoder,
        encoder_bias=tensors["latent_bias"],
        decoder=tensors["decoder.weight"].T,
        bias=tensors["pre_bias"],
        k=setting(file, state, "k") if kind == "TopK" else None,
    )


def layer_normalized(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(rows, mean, deviation) of x [n, d]: a reconstruction r of the rows is r * deviation + mean of x."""
    mean = x.mean(-1, keepdim=True)
    deviation = x.std(-1, keepdim=True)
    return (x - mean) / (deviation + 1e-5), mean, deviation
