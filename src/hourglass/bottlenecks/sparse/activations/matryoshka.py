"""Matryoshka (Bussmann et al., "Learning multi-level features with matryoshka sparse autoencoders", 2025).

A wide dictionary splits a feature that a narrow one keeps whole. Here the first latents must reconstruct a row
without the later ones, so that the general stays in front and the special comes behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hourglass.bottlenecks.sparse.activations.batchtopk import BatchTopK
from hourglass.bottlenecks.sparse.activations.seam import Decoder, Staged
from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.waist import Losses

if TYPE_CHECKING:
    from hourglass.bottlenecks.sparse.coder import SparseCoderConfig


class Matryoshka(Staged):
    """The codes of BatchTopK; the loss is the mean over nested prefixes of the dictionary."""

    settings = frozenset({"k", "prefixes"})

    def __init__(self, config: SparseCoderConfig) -> None:
        super().__init__(config)
        self.prefixes = [max(1, round(share * config.width)) for share in config.prefixes]
        self.batch = BatchTopK(config)

    @property
    def threshold(self) -> Tensor:
        """Scalar, of the codes for use."""
        return self.batch.threshold

    def select(self, pre: Tensor) -> SparseCodes:
        return self.batch.select(pre)

    def infer(self, pre: Tensor) -> SparseCodes:
        return self.batch.infer(pre)

    def values(self, z: Tensor, pairs: SparseCodes, bias: Tensor) -> Tensor:
        return self.batch.values(z, pairs, bias)

    def losses(self, z: Tensor, values: Tensor, pairs: SparseCodes, decoder: Decoder) -> tuple[Losses, Tensor]:
        # A prefix is a copy of the batch whose codes stop there: one pass does all, and its mean is the mean over them.
        inside = [pairs.indices < prefix for prefix in self.prefixes]
        copies = SparseCodes.concatenate([pairs.where(kept) for kept in inside])
        loss, errors = decoder.repeated(len(inside)).squared_error(torch.cat([values[kept] for kept in inside]), copies)
        return {"reconstruction": loss}, errors[-len(pairs) :]

    def after_step(self, bias: Tensor) -> None:
        self.batch.after_step(bias)
