"""ReLU with an L1 penalty (Bricken et al., "Towards monosemanticity", 2023)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from hourglass.bottlenecks.sparse.activations.seam import Decoder, Staged
from hourglass.bottlenecks.sparse.activations.sparsity import Sparsity, start_threshold
from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.bottlenecks.sparse.selection import positive
from hourglass.waist import Losses

if TYPE_CHECKING:
    from hourglass.bottlenecks.sparse.coder import SparseCoderConfig


class ReLU(Staged):
    """Every latent above 0; decoder rows have norm 1, so the penalty is the sum of the values."""

    settings = frozenset({"sparsity", "sparsity_warmup", "target_l0"})

    def __init__(self, config: SparseCoderConfig) -> None:
        super().__init__(config)
        self.sparsity = Sparsity(config, 0.1 * math.sqrt(config.columns))

    def select(self, pre: Tensor) -> SparseCodes:
        return positive(pre)

    def infer(self, pre: Tensor) -> SparseCodes:
        return positive(pre)

    def values(self, z: Tensor, pairs: SparseCodes, bias: Tensor) -> Tensor:
        return z.relu()

    def losses(self, z: Tensor, values: Tensor, pairs: SparseCodes, decoder: Decoder) -> tuple[Losses, Tensor]:
        loss, error = decoder.squared_error(values, pairs)
        return {"reconstruction": loss, "sparsity": self.sparsity(values.sum(), values, len(pairs))}, error

    def initialize(self, pre: Tensor, bias: Tensor) -> None:
        bias -= start_threshold(pre, self.sparsity.start)

    def after_step(self, bias: Tensor) -> None:
        self.raise_thresholds(*self.sparsity.after_step(), bias)

    def raise_thresholds(self, rise: Tensor, value: Tensor, bias: Tensor) -> None:
        # Were values distributed exponentially, with this mean, so much would mend the number of them.
        bias -= rise * value
