"""AbsTopK: one latent for a direction and its opposite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from hourglass.bottlenecks.sparse.activations.seam import Activation
from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.bottlenecks.sparse.selection import largest_by_size

if TYPE_CHECKING:
    from hourglass.bottlenecks.sparse.coder import SparseCoderConfig


class AbsTopK(Activation):
    """The k of each row that are farthest from 0, with their sign."""

    settings = frozenset({"k"})
    signed = True

    def __init__(self, config: SparseCoderConfig) -> None:
        super().__init__(config)
        self.k: int = config.k  # type: ignore[assignment]  # the config sees to it

    def select(self, pre: Tensor) -> SparseCodes:
        return largest_by_size(pre, self.k)

    def infer(self, pre: Tensor) -> SparseCodes:
        return largest_by_size(pre, self.k)

    def values(self, z: Tensor, pairs: SparseCodes, bias: Tensor) -> Tensor:
        return z
