"""A network that cleans noised latents: blocks in Llama's style that know the time, a first guess and, if asked, a source."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hourglass.nn.blocks import Block, CrossAttention, RMSNorm, Transformer
from hourglass.nn.positions import LearnedPositions
from hourglass.nn.time_embedding import TimeEmbedding

Seen = tuple[Tensor, Tensor]
"""States [n, 1 + S, width] to look at, and which of them there are [n, 1 + S] bool."""


class Denoiser(nn.Module):
    """[n, N, d] noised latents -> [n, N, d], of what its owner asks for (the clean ones, the noise, or a mix).

    latents  d
    width    of the blocks, with a projection in and out; None: d, with no projections
    source   width of the states of a source that is looked at by cross-attention, of at most `source_places`; None: none

    What goes into a block of the first half is added again to what goes into its mirror image in the second half. Time and
    the first guess are added before every block.
    """

    def __init__(
        self,
        latents: int,
        heads: int,
        layers: int,
        width: int | None = None,
        source: int | None = None,
        source_places: int = 0,
    ) -> None:
        super().__init__()
        inner = latents if width is None else width
        self.inward = nn.Identity() if width is None else nn.Linear(latents, inner)
        self.outward = nn.Identity() if width is None else nn.Linear(inner, latents)
        self.time = TimeEmbedding(inner)
        self.blocks = nn.ModuleList(Block(inner, heads) for _ in range(layers))
        self.of_time = nn.ModuleList(nn.Sequential(nn.SiLU(), nn.Linear(inner, inner)) for _ in range(layers))
        self.of_guess = nn.ModuleList(nn.Linear(latents, inner) for _ in range(layers))
        self.norm = RMSNorm(inner)
        self.source: SourceEncoder | None = None
        if source is not None:
            self.source = SourceEncoder(source, inner, heads, layers, source_places)
            self.of_source = nn.ModuleList(CrossAttention(inner, heads, inner) for _ in range(layers))

    def read(self, states: Tensor, mask: Tensor) -> Seen:
        """What is looked at of a source's states [n, S, source] with mask [n, S] bool; a row without any has no source."""
        assert self.source is not None
        return self.source(states, mask)

    def forward(self, x: Tensor, t: Tensor, guess: Tensor, seen: Seen | None = None) -> Tensor:
        """x, guess [n, N, d]; t [n]; seen: what `read` gives, None for no source."""
        if self.source is not None and seen is None:
            seen = self.source.nothing_for(len(x))
        stream, time = self.inward(x), self.time(t)[:, None]
        layers = len(self.blocks)
        kept: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            if i < layers // 2:
                kept.append(stream)
            elif i >= layers - layers // 2:
                stream = stream + kept.pop()
            stream = stream + self.of_time[i](time) + self.of_guess[i](guess)
            if seen is not None:
                stream = stream + self.of_source[i](stream, *seen)
            stream = block(stream)
        made: Tensor = self.outward(self.norm(stream))
        return made


class SourceEncoder(nn.Module):
    """States of a source text, read once more, behind one learned state that is there for every row: what there is to look at
    where no source is given."""

    def __init__(self, source: int, width: int, heads: int, layers: int, places: int) -> None:
        super().__init__()
        self.inward = nn.Linear(source, width)
        self.places = LearnedPositions(places, width)
        self.inner = Transformer(width, heads, layers)
        self.nothing = nn.Parameter(torch.randn(1, 1, width))

    def nothing_for(self, rows: int) -> Seen:
        always = torch.ones(rows, 1, dtype=torch.bool, device=self.nothing.device)
        return self.nothing.expand(rows, -1, -1), always

    def forward(self, states: Tensor, mask: Tensor) -> Seen:
        # Softmax over nothing is not a number: a row without a source sees its padding, and nobody sees what comes of it.
        read = self.inner(self.places(self.inward(states)), mask | ~mask.any(1, keepdim=True))
        nothing, always = self.nothing_for(len(states))
        return torch.cat([nothing, read], 1), torch.cat([always, mask], 1)
