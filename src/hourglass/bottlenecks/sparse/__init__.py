"""Sparse autoencoders: codes, activations, fast gradients, and the model itself."""

from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.bottlenecks.sparse.geometric_median import geometric_median
from hourglass.bottlenecks.sparse.sae import SparseAutoencoder, SparseAutoencoderConfig

__all__ = ["SparseAutoencoder", "SparseAutoencoderConfig", "SparseCodes", "geometric_median"]
