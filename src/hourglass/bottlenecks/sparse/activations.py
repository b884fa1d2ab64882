"""The seam between the kinds of sparse autoencoder: which pre-activations survive.

A kind is one subclass of `Activation`; the encoder, the decoder and their gradients do not know which.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.bottlenecks.sparse.selection import at_least, largest_of_batch, largest_per_row


class Activation(nn.Module, ABC):
    """Chooses the active latents. What it learns beside the weights are its buffers."""

    @abstractmethod
    def select(self, pre: Tensor) -> SparseCodes:
        """Active latents of `pre` [n, width] for training; may look at the whole batch."""

    @abstractmethod
    def infer(self, pre: Tensor) -> SparseCodes:
        """Active latents of `pre` [n, width] for use; a row never depends on its neighbours."""

    def after_step(self) -> None:
        """Take over what `select` has measured since the last step."""


class TopK(Activation):
    """The k largest of each row, through a ReLU (Gao et al. 2024)."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def select(self, pre: Tensor) -> SparseCodes:
        return largest_per_row(pre, self.k)

    def infer(self, pre: Tensor) -> SparseCodes:
        return largest_per_row(pre, self.k)


class BatchTopK(Activation):
    """The k * n largest of a batch of n rows (Bussmann et al. 2024): easy rows get fewer latents, hard ones more.

    For use, a threshold stands in for the batch: the running mean (rate 0.01) of the smallest activation
    that survived in training. Until one has been measured it is negative, and rows are treated as in TopK.
    """

    threshold: Tensor
    rate = 0.01

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k
        self.register_buffer("threshold", torch.tensor(-1.0))
        self._smallest: list[Tensor] = []

    def select(self, pre: Tensor) -> SparseCodes:
        codes = largest_of_batch(pre, self.k * len(pre))
        if len(codes.values):
            self._smallest.append(codes.values.min().to(self.threshold.dtype))
        return codes

    def infer(self, pre: Tensor) -> SparseCodes:
        if self.threshold < 0:
            return largest_per_row(pre, self.k)
        return at_least(pre, self.threshold)

    def after_step(self) -> None:
        measured = self.threshold.new_tensor([0.0, float(len(self._smallest))])
        if self._smallest:
            measured[0] = torch.stack(self._smallest).sum()
        self._smallest.clear()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(measured)
        if measured[1] == 0:
            return
        smallest = measured[0] / measured[1]
        if self.threshold < 0:
            self.threshold.copy_(smallest)
        else:
            self.threshold.lerp_(smallest, self.rate)
