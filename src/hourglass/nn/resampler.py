"""A sequence of any length to a fixed number of vectors, and back (a Perceiver resampler, and its mirror image).

Both are made of one block: a stream of queries sees another sequence and itself at once, in one softmax, with keys and values
of each by a projection of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hourglass.adapters.attending import attend
from hourglass.nn.blocks import RMSNorm, join_heads, split_heads


class FeedForward(nn.Sequential):
    """LayerNorm, four times as wide, GELU, dropout, and back; from `width` numbers to `out` (as many)."""

    def __init__(self, width: int, out: int | None = None, dropout: float = 0.1) -> None:
        inner = 4 * width
        super().__init__(
            nn.LayerNorm(width),
            nn.Linear(width, inner),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(inner, width if out is None else out),
        )


class ResamplerBlock(nn.Module):
    """stream <- stream + attention(stream; other, stream), then stream <- stream + feed(stream). Queries and keys of a head are
    normed (RMS). With `gated` both additions are multiplied by 1 + a m + b, scalars a and b that are learned from 0 on."""

    def __init__(self, width: int, heads: int, dropout: float = 0.1, gated: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.of_stream, self.of_other = RMSNorm(width), RMSNorm(width)
        self.q = nn.Linear(width, width, bias=False)
        self.kv_stream = nn.Linear(width, 2 * width, bias=False)
        self.kv_other = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.of_q, self.of_k = RMSNorm(width // heads), RMSNorm(width // heads)
        self.feed = FeedForward(width, dropout=dropout)
        self.gates = nn.Parameter(torch.zeros(2, 2)) if gated else None

    def forward(
        self, stream: Tensor, other: Tensor, other_mask: Tensor | None = None, gate: Tensor | None = None
    ) -> Tensor:
        """stream [n, Q, d]; other [n, S, d]; other_mask [n, S] bool, true for what is seen; gate [n, Q], the m above."""
        attended = self._scaled(self._attention(stream, other, other_mask), 0, gate)
        stream = stream + attended
        return stream + self._scaled(self.feed(stream), 1, gate)

    def _attention(self, stream: Tensor, other: Tensor, other_mask: Tensor | None) -> Tensor:
        own, theirs = self.of_stream(stream), self.of_other(other)
        both = torch.cat([self.kv_other(theirs), self.kv_stream(own)], 1)
        q, k, v = (split_heads(x, self.heads) for x in (self.q(own), *both.chunk(2, dim=-1)))
        sees = None
        if other_mask is not None:  # the stream sees all of itself
            sees = F.pad(other_mask, (0, stream.shape[1]), value=True)[:, None, None]
        made: Tensor = self.out(join_heads(attend(self.of_q(q), self.of_k(k), v, sees)))
        return made

    def _scaled(self, x: Tensor, part: int, gate: Tensor | None) -> Tensor:
        if self.gates is None or gate is None:
            return x
        a, b = self.gates[part]
        return x * (1 + a * gate.to(x.dtype) + b)[..., None]


class Resampler(nn.Module):
    """[n, S, d] of any length -> [n, latents, d]: learned queries look at the sequence, layer after layer."""

    def __init__(self, width: int, heads: int, layers: int, latents: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.queries = nn.Parameter(0.02 * torch.randn(latents, width))
        self.of_queries = RMSNorm(width)
        self.blocks = nn.ModuleList(ResamplerBlock(width, heads, dropout) for _ in range(layers))
        self.norm = RMSNorm(width, eps=1e-5)

    def forward(self, sequence: Tensor, mask: Tensor) -> Tensor:
        """mask [n, S] bool, true for what is seen."""
        stream = self.of_queries(self.queries).expand(len(sequence), -1, -1)
        for block in self.blocks:
            stream = block(stream, sequence, mask)
        made: Tensor = self.norm(stream)
        return made


class ParallelDecoder(nn.Module):
    """The roles swapped: a stream of places [n, L, d], all at once and without an order of writing, looks at [n, latents, d]."""

    def __init__(self, width: int, heads: int, layers: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResamplerBlock(width, heads, dropout, gated=True) for _ in range(layers))

    def forward(self, stream: Tensor, latents: Tensor, blank: Tensor) -> Tensor:
        """blank [n, L] bool, true where the place holds no token yet."""
        for block in self.blocks:
            stream = block(stream, latents, gate=blank)
        return stream
