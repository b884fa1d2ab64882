"""How much of the data a reconstruction keeps, and how many latents it takes."""

from __future__ import annotations

import torch
from torch import Tensor


def fvu(x: Tensor, restored: Tensor) -> float:
    """Fraction of variance unexplained of rows x [n, d]: squared error over squared distance from the mean row.

    0 is perfect, 1 is no better than the mean; NaN when all rows are equal.
    """
    x, restored = x.double(), restored.double()
    error = (x - restored).square().sum()
    return float(error / (x - x.mean(0)).square().sum())


def l0(codes: Tensor) -> float:
    """Mean number of active latents in a row of dense codes [n, width]."""
    return float((codes != 0).sum(1).double().mean())


def density(codes: Tensor) -> Tensor:
    """[width] share of the rows of codes [n, width] in which each latent is active; 0 is a dead one."""
    return (codes != 0).double().mean(0).to(torch.float32)
