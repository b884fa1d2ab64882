"""Sparse waists: codes, activations, fast gradients, and the models: autoencoder, transcoder, crosscoder."""

from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.bottlenecks.sparse.crosscoder import Crosscoder, CrosscoderConfig
from hourglass.bottlenecks.sparse.geometric_median import geometric_median
from hourglass.bottlenecks.sparse.sae import SparseAutoencoder, SparseAutoencoderConfig
from hourglass.bottlenecks.sparse.transcoder import Transcoder, TranscoderConfig

__all__ = [
    "Crosscoder",
    "CrosscoderConfig",
    "SparseAutoencoder",
    "SparseAutoencoderConfig",
    "SparseCodes",
    "Transcoder",
    "TranscoderConfig",
    "geometric_median",
]
