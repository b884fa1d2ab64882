"""The price of an active latent: its warm-up, and how it is led to a wanted number of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hourglass.bottlenecks.sparse.activations.seam import mean_of_step
from hourglass.bottlenecks.sparse.selection import largest_of_batch

if TYPE_CHECKING:
    from hourglass.bottlenecks.sparse.coder import SparseCoderConfig


class Sparsity(nn.Module):
    """Weight of a sparsity penalty, in the papers' units: against the squared error summed over columns.

    It rises linearly over the first steps. With a target it is led from then on, by the log of the ratio of active
    latents to wanted ones: the log of the weight sums the ratios up (times `rate`), and beside the sum follows their
    running mean (times `lead`), because by the sum alone it moves too late and silences latents that do not come back.
    For the same reason it falls faster than it rises (`mercy` times).
    """

    steps: Tensor
    log_factor: Tensor
    log_ratio: Tensor
    rate, lead, memory, mercy = 0.02, 1.0, 0.9, 3.0
    bound = 10.0  # of the sum, where no weight leads to the target

    def __init__(self, config: SparseCoderConfig, usual: float) -> None:
        super().__init__()
        self.weight = (usual if config.sparsity is None else config.sparsity) / config.columns
        self.warmup, self.target = config.sparsity_warmup, config.target_l0
        # Active latents per row from which training begins.
        self.start = min(config.width / 4, config.d_in / 8) if self.target is None else self.target
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("log_factor", torch.tensor(0.0))
        self.register_buffer("log_ratio", torch.tensor(0.0))
        self._active: list[Tensor] = []

    def forward(self, cost: Tensor, values: Tensor, rows: int) -> Tensor:
        """The loss. `cost` is summed over the batch of so many rows, `values` [nnz] are its activations."""
        if self.training:
            self._active.append(values.detach().count_nonzero().to(self.log_factor.dtype) / rows)
        risen = ((self.steps + 1) / (self.warmup + 1)).clamp(max=1)
        led = (self.log_factor + self.lead * self.log_ratio).exp()
        return cost * (risen * led * (self.weight / rows)).to(cost.dtype)

    def after_step(self) -> None:
        active = mean_of_step(self._active, self.log_factor)
        self._active.clear()
        if active is None:
            return
        self.steps += 1
        if self.target is not None and self.steps > self.warmup:
            ratio = (active / self.target).log().clamp(-1, 1)
            self.log_ratio.lerp_(ratio, 1 - self.memory)
            # The running mean decides which way it goes: noise of single batches would weigh more downwards.
            step = torch.where(self.log_ratio > 0, self.rate, self.mercy * self.rate) * ratio
            self.log_factor.add_(step).clamp_(-self.bound, self.bound)


def start_threshold(pre: Tensor, active: float) -> Tensor:
    """The scalar that `active` latents of a row of `pre` [n, width] reach on average, at least a little above 0."""
    reached = largest_of_batch(pre, max(1, round(active * len(pre)))).values
    return reached.min() if len(reached) else pre.new_tensor(1e-3)
