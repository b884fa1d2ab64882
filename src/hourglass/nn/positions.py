"""Where in a sequence something stands: turned into queries and keys (RoPE), or learned and added."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def rotated(x: Tensor, theta: float = 1e4) -> Tensor:
    """RoPE (Su et al. 2021, as Llama has it): each place turns pairs of numbers by angles of its own, so that products of
    queries and keys depend on how far they are apart.

    x  [..., L, d], d even; number i is paired with number i + d / 2
    """
    length, width = x.shape[-2:]
    speeds = theta ** -(torch.arange(0, width, 2, device=x.device, dtype=torch.float32) / width)
    angles = torch.arange(length, device=x.device, dtype=torch.float32)[:, None] * speeds
    cosine, sine = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)


class LearnedPositions(nn.Module):
    """A learned vector for each place, by default scaled by width ** -0.5: [n, L, width] -> the same with places added."""

    def __init__(self, places: int, width: int, scale: float | None = None) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(places, width))
        self.scale = width**-0.5 if scale is None else scale

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.table[: x.shape[-2]]
