"""The time of a diffusion, a number from 0 to 1, as a vector."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def sinusoids(t: Tensor, width: int, longest: float = 10.0) -> Tensor:
    """[n, width] cosines and sines of t [n] at speeds from 1 down to 1 / longest (its period is 2 pi longest)."""
    half = width // 2
    speeds = torch.exp(-math.log(longest) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
    angles = t.float()[:, None] * speeds
    waves = torch.cat([angles.cos(), angles.sin()], 1)
    return nn.functional.pad(waves, (0, width - 2 * half))


class TimeEmbedding(nn.Module):
    """t [n] -> [n, width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.inner = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def forward(self, t: Tensor) -> Tensor:
        made: Tensor = self.inner(sinusoids(t, self.width))
        return made
