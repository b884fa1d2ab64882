"""The seam between the kinds of sparse autoencoder: which pre-activations survive, as what, and at what price.

A kind is one subclass of `Activation`; the encoder, the decoder and their gradients do not know which. Where the
activations are the pre-activations that were selected and the squared error is the whole loss, encoder and decoder
are trained in one fused pass (`squared_error`). Every other kind is `Staged`: between the two passes it sees vectors
of length nnz, an entry for each stored (row, latent) pair, and whatever it computes with them in plain torch has its
gradient for free.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.bottlenecks.sparse.stages import reconstruction
from hourglass.waist import Losses

if TYPE_CHECKING:
    from hourglass.bottlenecks.sparse.coder import SparseCoderConfig


class Activation(nn.Module, ABC):
    """Chooses the active latents. What it learns are its parameters, what it measures its buffers."""

    settings: ClassVar[frozenset[str]]
    """Fields of the config that this kind reads and not every kind does."""
    signed: ClassVar[bool] = False
    """Whether activations can be negative."""

    @abstractmethod
    def __init__(self, config: SparseCoderConfig) -> None:
        super().__init__()

    @abstractmethod
    def select(self, pre: Tensor) -> SparseCodes:
        """Active latents of `pre` [n, width] for training; may look at the whole batch."""

    @abstractmethod
    def infer(self, pre: Tensor) -> SparseCodes:
        """Active latents of `pre` [n, width] for use; a row never depends on its neighbours."""

    @abstractmethod
    def values(self, z: Tensor, pairs: SparseCodes, bias: Tensor) -> Tensor:
        """Activations [nnz] of the stored pairs, 0 for a silent one.

        z      [nnz] their pre-activations, in full precision
        pairs  which they are; the values in it are those of the search
        bias   [width] of the encoder, a part of z
        """

    def after_step(self, bias: Tensor) -> None:
        """Take over what has been measured since the last step; `bias` [width] of the encoder, in place."""


class Staged(Activation):
    """A kind with parameters or penalties of its own. Its `select` also keeps silent pairs that have a gradient."""

    @abstractmethod
    def losses(self, z: Tensor, values: Tensor, pairs: SparseCodes, decoder: Decoder) -> tuple[Losses, Tensor]:
        """Named losses, and the error [n, d] that the activations `values` of `z` leave (outside the graph)."""

    def initialize(self, pre: Tensor, bias: Tensor) -> None:
        """Set what is learned from pre-activations [n, width] of a sample; `bias` [width] of the encoder, in place."""

    def raise_thresholds(self, rise: Tensor, value: Tensor, bias: Tensor) -> None:
        """Move all thresholds together, if the kind has a target, so that fewer latents are active for a rise above 0.

        rise   log of the ratio by which there are too many, or a part of it
        value  what an active latent is on average
        """


@dataclass(frozen=True)
class Decoder:
    """What turns activations into an error.

    weight    [width, d]
    bias      [d]
    target    [n, d], the rows that are to be reconstructed
    products  number format of matrix products on devices other than the CPU
    tangent   take the part of the weight's gradient along its rows out
    """

    weight: Tensor
    bias: Tensor
    target: Tensor
    products: torch.dtype
    tangent: bool

    def squared_error(self, values: Tensor, pairs: SparseCodes) -> tuple[Tensor, Tensor]:
        """Mean squared error of the decoded activations [nnz], and the error [n, d], outside the graph."""
        return reconstruction(
            values, self.weight, self.bias, self.target, pairs, tangent=self.tangent, products=self.products
        )

    def frozen(self) -> Decoder:
        """The same for activations alone: nothing else gets a gradient."""
        return replace(self, weight=self.weight.detach(), bias=self.bias.detach(), target=self.target.detach())

    def repeated(self, times: int) -> Decoder:
        """The same for `times` codes of each row, [times * n, d]."""
        return replace(self, target=self.target.repeat(times, 1))


def mean_of_step(measured: Sequence[Tensor], like: Tensor) -> Tensor | None:
    """Mean of scalars over the micro-batches of all processes, on the device of `like`; None where there are none."""
    total = like.new_tensor([0.0, float(len(measured))])
    if measured:
        total[0] = torch.stack(list(measured)).sum()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(total)
    return None if total[1] == 0 else total[0] / total[1]
