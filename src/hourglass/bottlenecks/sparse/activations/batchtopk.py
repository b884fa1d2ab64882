"""BatchTopK (Bussmann et al., "BatchTopK sparse autoencoders", 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hourglass.bottlenecks.sparse.activations.seam import Activation, mean_of_step
from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.bottlenecks.sparse.selection import at_least, largest_of_batch, largest_per_row

if TYPE_CHECKING:
    from hourglass.bottlenecks.sparse.coder import SparseCoderConfig


class BatchTopK(Activation):
    """The k * n largest of a batch of n rows: easy rows get fewer latents, hard ones more.

    For use, a threshold stands in for the batch: the running mean (rate 0.01) of the smallest activation
    that survived in training. Until one has been measured it is negative, and rows are treated as in TopK.
    """

    settings = frozenset({"k"})
    threshold: Tensor
    rate = 0.01

    def __init__(self, config: SparseCoderConfig) -> None:
        super().__init__(config)
        self.k: int = config.k  # type: ignore[assignment]  # the config sees to it
        self.register_buffer("threshold", torch.tensor(-1.0))
        self._smallest: list[Tensor] = []

    def select(self, pre: Tensor) -> SparseCodes:
        codes = largest_of_batch(pre, self.k * len(pre))
        # An evaluation must not move the threshold: a run would no longer resume to the same bits.
        if self.training and len(codes.values):
            self._smallest.append(codes.values.min().to(self.threshold.dtype))
        return codes

    def infer(self, pre: Tensor) -> SparseCodes:
        if self.threshold < 0:
            return largest_per_row(pre, self.k)
        return at_least(pre, self.threshold)

    def values(self, z: Tensor, pairs: SparseCodes, bias: Tensor) -> Tensor:
        return z.relu()

    def after_step(self, bias: Tensor) -> None:
        smallest = mean_of_step(self._smallest, self.threshold)
        self._smallest.clear()
        if smallest is None:
            return
        if self.threshold < 0:
            self.threshold.copy_(smallest)
        else:
            self.threshold.lerp_(smallest, self.rate)
