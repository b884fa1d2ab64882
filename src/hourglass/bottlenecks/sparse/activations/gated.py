"""Gated (Rajamanoharan et al., "Improving dictionary learning with gated sparse autoencoders", 2024).

An L1 penalty on activations makes them too small. Here it falls on the pre-activation of a gate, which decides
whether a latent is active; how active it is has a scale and a bias of its own. The gate's open part must
reconstruct the row as well, through a decoder that it cannot change, or it would learn from the penalty alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hourglass.bottlenecks.sparse.activations.seam import Decoder, Staged
from hourglass.bottlenecks.sparse.activations.sparsity import Sparsity, start_threshold
from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.bottlenecks.sparse.selection import positive
from hourglass.bottlenecks.sparse.stages import per_latent
from hourglass.waist import Losses

if TYPE_CHECKING:
    from hourglass.bottlenecks.sparse.coder import SparseCoderConfig


class Gated(Staged):
    """Gate and magnitude share the encoder's directions. The encoder's bias is the gate's.

    r_mag  [width] log of the magnitude's scale
    b_mag  [width] the magnitude's bias
    """

    settings = frozenset({"sparsity", "sparsity_warmup", "target_l0"})

    def __init__(self, config: SparseCoderConfig) -> None:
        super().__init__(config)
        self.r_mag = nn.Parameter(torch.zeros(config.width))
        self.b_mag = nn.Parameter(torch.zeros(config.width))
        self.sparsity = Sparsity(config, 0.1 * math.sqrt(config.columns))

    def select(self, pre: Tensor) -> SparseCodes:
        return positive(pre)

    def infer(self, pre: Tensor) -> SparseCodes:
        return positive(pre)

    def values(self, z: Tensor, pairs: SparseCodes, bias: Tensor) -> Tensor:
        scale, gate_bias, own_bias = (per_latent(p, pairs) for p in (self.r_mag.exp(), bias, self.b_mag))
        magnitude = scale * (z - gate_bias) + own_bias
        return torch.where(z > 0, magnitude.relu(), 0)

    def losses(self, z: Tensor, values: Tensor, pairs: SparseCodes, decoder: Decoder) -> tuple[Losses, Tensor]:
        gate = z.relu()
        loss, error = decoder.squared_error(values, pairs)
        through_gate, _ = decoder.frozen().squared_error(gate, pairs)
        return {
            "reconstruction": loss,
            "sparsity": self.sparsity(gate.sum(), values, len(pairs)),
            "gate": through_gate,
        }, error

    def initialize(self, pre: Tensor, bias: Tensor) -> None:
        bias -= start_threshold(pre, self.sparsity.start)

    def after_step(self, bias: Tensor) -> None:
        self.sparsity.after_step()

    def raise_thresholds(self, rise: Tensor, value: Tensor, bias: Tensor) -> None:
        bias -= rise * value
