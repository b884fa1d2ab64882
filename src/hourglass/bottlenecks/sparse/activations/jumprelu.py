"""JumpReLU (Rajamanoharan et al., "Jumping ahead", 2024; the tanh penalty: Conerly et al., Anthropic, January 2025).

With H the step function and K the rectangle of width 1 and area 1, the derivatives that training uses are

    f = z H(z - theta)     df/dz = H(z - theta)     df/dtheta = -theta / bandwidth K((z - theta) / bandwidth)
    l0 = H(z - theta)      dl0/dz = 0               dl0/dtheta = -1 / bandwidth K((z - theta) / bandwidth)

so a latent's threshold learns from the pairs near it, silent or not.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hourglass.bottlenecks.sparse.activations.seam import Decoder, Staged
from hourglass.bottlenecks.sparse.activations.sparsity import Sparsity, start_threshold
from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.bottlenecks.sparse.selection import above
from hourglass.bottlenecks.sparse.stages import per_latent
from hourglass.waist import Losses

if TYPE_CHECKING:
    from hourglass.bottlenecks.sparse.coder import SparseCoderConfig


class JumpReLU(Staged):
    """A latent is its pre-activation above a learned threshold and 0 below it; the price is paid per active latent."""

    settings = frozenset({"sparsity", "sparsity_warmup", "target_l0", "penalty", "bandwidth", "steepness"})

    def __init__(self, config: SparseCoderConfig) -> None:
        super().__init__(config)
        self.penalty, self.bandwidth, self.steepness = config.penalty, config.bandwidth, config.steepness
        self.log_threshold = nn.Parameter(torch.full((config.width,), math.log(0.1)))
        self.sparsity = Sparsity(config, 0.01 * config.columns)

    @property
    def threshold(self) -> Tensor:
        """[width], positive."""
        return self.log_threshold.exp()

    def select(self, pre: Tensor) -> SparseCodes:
        return above(pre, self.threshold - self.bandwidth / 2)

    def infer(self, pre: Tensor) -> SparseCodes:
        return above(pre, 0.97 * self.threshold)  # `pre` may be rounded; `values` decides

    def values(self, z: Tensor, pairs: SparseCodes, bias: Tensor) -> Tensor:
        theta = self._thresholds(pairs)
        return torch.where(z > theta, z, 0) + theta.detach() * self._slope(z, theta)

    def losses(self, z: Tensor, values: Tensor, pairs: SparseCodes, decoder: Decoder) -> tuple[Losses, Tensor]:
        loss, error = decoder.squared_error(values, pairs)
        if self.penalty == "tanh":
            cost = torch.tanh(self.steepness * values).sum()
        else:
            theta = self._thresholds(pairs)
            cost = ((z > theta) + self._slope(z, theta)).sum()
        return {"reconstruction": loss, "sparsity": self.sparsity(cost, values, len(pairs))}, error

    def _thresholds(self, pairs: SparseCodes) -> Tensor:
        return per_latent(self.threshold, pairs)

    def _slope(self, z: Tensor, theta: Tensor) -> Tensor:
        """[nnz] of value 0 whose derivative by theta is that of H(z - theta), smoothed by the rectangle."""
        near = (z - theta).abs() < self.bandwidth / 2
        return near * (theta.detach() - theta) / self.bandwidth

    def initialize(self, pre: Tensor, bias: Tensor) -> None:
        self.log_threshold.copy_(start_threshold(pre, self.sparsity.start).log())

    def after_step(self, bias: Tensor) -> None:
        self.raise_thresholds(*self.sparsity.after_step(), bias)

    def raise_thresholds(self, rise: Tensor, value: Tensor, bias: Tensor) -> None:
        self.log_threshold.add_(rise)
