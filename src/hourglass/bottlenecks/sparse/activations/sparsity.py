"""The price of an active latent: its warm-up, and how it and the thresholds are led to a wanted number of them."""

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

    The price alone is slow where latents have thresholds: they move by a learning rate that falls to 0 before the price has
    led them there, and no price makes rows use more latents than they need. So `after_step` says by how much all of
    them are to move together, a share (`gain`) of what would mend the last batch. The gate of gated needs it not.
    """

    steps: Tensor
    log_factor: Tensor
    log_ratio: Tensor
    rate, lead, memory, mercy, gain = 0.02, 1.0, 0.9, 3.0, 0.1
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
        self._paid: list[Tensor] = []

    def forward(self, cost: Tensor, values: Tensor, rows: int) -> Tensor:
        """The loss. `cost` is summed over the batch of so many rows, `values` [nnz] are its activations."""
        if self.training:
            self._active.append(values.detach().count_nonzero().to(self.log_factor.dtype) / rows)
            self._paid.append(cost.detach().to(self.log_factor.dtype) / rows)
        risen = ((self.steps + 1) / (self.warmup + 1)).clamp(max=1)
        led = (self.log_factor + self.lead * self.log_ratio).exp()
        return cost * (risen * led * (self.weight / rows)).to(cost.dtype)

    def after_step(self) -> tuple[Tensor, Tensor]:
        """(rise, paid): the log by which thresholds are to rise, and what `cost` was for an active latent on average."""
        active, paid = (mean_of_step(measured, self.log_factor) for measured in (self._active, self._paid))
        self._active.clear()
        self._paid.clear()
        still = self.log_factor.new_zeros(())
        if active is None or paid is None:
            return still, still
        self.steps += 1
        if self.target is None or self.steps <= self.warmup:
            return still, still
        ratio = (active / self.target).log().clamp(-1, 1)
        self.log_ratio.lerp_(ratio, 1 - self.memory)
        # The running mean decides which way it goes: noise of single batches would weigh more downwards.
        step = torch.where(self.log_ratio > 0, self.rate, self.mercy * self.rate) * ratio
        self.log_factor.add_(step).clamp_(-self.bound, self.bound)
        return self.gain * ratio, torch.where(active > 0, paid / active, 0)


def start_threshold(pre: Tensor, active: float) -> Tensor:
    """The scalar that `active` latents of a row of `pre` [n, width] reach on average, at least a little above 0."""
    reached = largest_of_batch(pre, max(1, round(active * len(pre)))).values
    return reached.min() if len(reached) else pre.new_tensor(1e-3)
