"""TopK (Gao et al., "Scaling and evaluating sparse autoencoders", 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from hourglass.bottlenecks.sparse.activations.seam import Activation
from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.bottlenecks.sparse.selection import largest_per_row

if TYPE_CHECKING:
    from hourglass.bottlenecks.sparse.coder import SparseCoderConfig


class TopK(Activation):
    """The k largest of each row, through a ReLU."""

    settings = frozenset({"k"})

    def __init__(self, config: SparseCoderConfig) -> None:
        super().__init__(config)
        self.k: int = config.k  # type: ignore[assignment]  # the config sees to it

    def select(self, pre: Tensor) -> SparseCodes:
        return largest_per_row(pre, self.k)

    def infer(self, pre: Tensor) -> SparseCodes:
        return largest_per_row(pre, self.k)

    def values(self, z: Tensor, pairs: SparseCodes, bias: Tensor) -> Tensor:
        return z.relu()
