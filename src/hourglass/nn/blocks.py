"""Transformer blocks in Llama's style: RMSNorm before each part, RoPE, SwiGLU, no biases."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hourglass.adapters.attending import attend
from hourglass.nn.positions import rotated


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[n, L, d] -> [n, heads, L, d / heads]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """The inverse."""
    return x.transpose(1, 2).flatten(2)


class RMSNorm(nn.RMSNorm):
    """The same under `torch.autocast`, where torch's own warns of the weight's format and takes a far larger epsilon."""

    def __init__(self, width: int, eps: float = torch.finfo(torch.float32).eps) -> None:
        super().__init__(width, eps)

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class SwiGLU(nn.Module):
    """w3(silu(w1 x) * w2 x), four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.opened = nn.Linear(width, 8 * width, bias=False)
        self.closed = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.opened(x).chunk(2, dim=-1)
        made: Tensor = self.closed(F.silu(gate) * value)
        return made


class SelfAttention(nn.Module):
    """A sequence sees itself; with `causal` each place only itself and those before."""

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x [n, L, d]; mask [n, L] bool, true for what may be seen."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        sees = None if mask is None else mask[:, None, None, :]
        if self.causal and sees is not None:
            sees = sees & torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        seen = attend(rotated(q), rotated(k), v, sees, causal=self.causal and sees is None)
        made: Tensor = self.out(join_heads(seen))
        return made


class CrossAttention(nn.Module):
    """A sequence sees another one, of width `seen`."""

    def __init__(self, width: int, heads: int, seen: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(seen, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, other: Tensor, mask: Tensor) -> Tensor:
        """x [n, L, d]; other [n, S, seen]; mask [n, S] bool, true for what may be seen, one place of each row at least."""
        k, v = (split_heads(part, self.heads) for part in self.kv(other).chunk(2, dim=-1))
        seen = attend(split_heads(self.q(x), self.heads), k, v, mask[:, None, None])
        made: Tensor = self.out(join_heads(seen))
        return made


class Block(nn.Module):
    """x + attention(norm(x)), then the same with SwiGLU."""

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads, causal)
        self.before_attention = RMSNorm(width)
        self.feed = SwiGLU(width)
        self.before_feed = RMSNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.before_attention(x), mask)
        made: Tensor = x + self.feed(self.before_feed(x))
        return made


class Transformer(nn.Module):
    """`layers` blocks and a norm."""

    def __init__(self, width: int, heads: int, layers: int, causal: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, causal) for _ in range(layers))
        self.norm = RMSNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x [n, L, d]; mask [n, L] bool, true for what may be seen."""
        for block in self.blocks:
            x = block(x, mask)
        made: Tensor = self.norm(x)
        return made
