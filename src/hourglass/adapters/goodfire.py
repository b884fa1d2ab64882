"""Autoencoders of Goodfire: one .pt or .pth file.

    encoder_linear.weight [width, d], encoder_linear.bias [width], decoder_linear.weight [d, width], decoder_linear.bias [d]

A plain ReLU; the bias of the decoder is not taken off the input.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from hourglass.adapters.sae_weights import fold, read_pickle, require_tensors
from hourglass.bottlenecks.sparse.sae import SparseAutoencoder
from hourglass.errors import FolderError

KEY = "encoder_linear.weight"
"""A tensor that no other format has."""


def read_goodfire(file: str | Path) -> SparseAutoencoder:
    """The autoencoder of a file, with the same codes (for unit directions) and reconstructions.

    Raises FolderError for a file that is broken, ConfigError for tensors that ours does not have.
    """
    file = Path(file)
    tensors = read_pickle(file)
    encoder = tensors.get(KEY)
    if not isinstance(encoder, Tensor) or encoder.ndim != 2:
        raise FolderError(f"{file}: no matrix {KEY!r}; it has: {', '.join(sorted(tensors))}")
    width, d = encoder.shape
    require_tensors(
        file,
        tensors,
        {
            KEY: (width, d),
            "encoder_linear.bias": (width,),
            "decoder_linear.weight": (d, width),
            "decoder_linear.bias": (d,),
        },
        f"{KEY} has {[width, d]}",
    )
    return fold(
        file,
        "relu",
        encoder=encoder,
        encoder_bias=tensors["encoder_linear.bias"],
        decoder=tensors["decoder_linear.weight"].T,
        bias=tensors["decoder_linear.bias"],
        centred=False,
    )
