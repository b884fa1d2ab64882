"""Two small models that write token by token, to compare with: an autoregressive transformer, and masked diffusion.

Examples are rows of token numbers, an end token last; both learn by `training.fit` and give rows of `tokens` numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hourglass.errors import SourceError
from hourglass.nn.blocks import Transformer
from hourglass.nn.cross_entropy import linear_cross_entropy
from hourglass.nn.positions import LearnedPositions
from hourglass.waist import Batch, Losses, Waist, WaistConfig

_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class TokenConfig(WaistConfig):
    """vocabulary: number of tokens; tokens: of a text at most; pad: the token that stands for none."""

    vocabulary: int
    tokens: int
    pad: int
    width: int = 128
    heads: int = 4
    layers: int = 4


def _padded(rows: Sequence[Any], config: TokenConfig) -> Tensor:
    """[n, tokens]"""
    if not len(rows) or max(map(len, rows)) > config.tokens:
        raise SourceError(f"expected one row or more, of at most {config.tokens} tokens")
    ids = torch.full((len(rows), config.tokens), config.pad)
    for place, row in zip(ids, rows):
        place[: len(row)] = torch.as_tensor(row)
    return ids


class Autoregressive(Waist):
    """Each token from those before it."""

    Config = TokenConfig
    modality = "tokens"

    def __init__(self, config: TokenConfig) -> None:
        super().__init__(config)
        self.embed = nn.Embedding(config.vocabulary + 1, config.width)  # and a begin token
        self.network = Transformer(config.width, config.heads, config.layers, causal=True)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)

    def collate(self, examples: Sequence[Any]) -> Batch:
        """{"ids" [n, tokens], "of" [n] mean number of real tokens}"""
        ids = _padded(examples, self.config)
        real = (ids != self.config.pad).sum()
        return {"ids": ids, "of": (real / len(ids)).expand(len(ids)).clone()}

    def _states(self, ids: Tensor) -> Tensor:
        begin = torch.full((len(ids), 1), self.config.vocabulary, device=ids.device)
        states: Tensor = self.network(self.embed(torch.cat([begin, ids], 1)))
        return states

    def loss(self, batch: Batch) -> Losses:
        ids, real = batch["ids"], batch["ids"] != self.config.pad
        states = self._states(ids[:, :-1])[real]
        return {"nll": linear_cross_entropy(states, self.head.weight, None, ids[real]) / batch["of"].sum()}

    @torch.no_grad()
    def generate(self, n: int, seed: int = 0) -> list[list[int]]:
        """Drawn at temperature 1, nothing left out."""
        generator = torch.Generator().manual_seed(seed)
        made = []
        for start in range(0, n, _AT_ONCE):
            ids = torch.empty(min(_AT_ONCE, n - start), 0, dtype=torch.int64)
            for _ in range(self.config.tokens):
                shares = self.head(self._states(ids)[:, -1]).softmax(-1)
                ids = torch.cat([ids, torch.multinomial(shares, 1, generator=generator)], 1)
            made += ids.tolist()
        return made


class MaskedDiffusion(Waist):
    """Tokens behind masks, a share t of them drawn for each text, weighed by 1 / t (MDLM, Sahoo et al. 2024); written from masks
    alone in random order, one token after another (the surest first would write the commonest texts only)."""

    Config = TokenConfig
    modality = "tokens"

    def __init__(self, config: TokenConfig) -> None:
        super().__init__(config)
        self.embed = nn.Embedding(config.vocabulary + 1, config.width)  # and a mask
        # Masks are all alike, and turned by RoPE they still are: without these no place would know which it is.
        self.places = LearnedPositions(config.tokens, config.width, 1.0)
        self.network = Transformer(config.width, config.heads, config.layers)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)

    def collate(self, examples: Sequence[Any]) -> Batch:
        """{"ids" [n, tokens], "hidden" [n, tokens] bool, "t" [n] the share drawn}; padding is written too, it says the length."""
        ids = _padded(examples, self.config)
        t = torch.rand(len(ids)).clamp(min=0.02)
        return {"ids": ids, "hidden": torch.rand(ids.shape) < t[:, None], "t": t}

    def _states(self, ids: Tensor) -> Tensor:
        states: Tensor = self.network(self.places(self.embed(ids)))
        return states

    def loss(self, batch: Batch) -> Losses:
        ids, hidden = batch["ids"], batch["hidden"]
        states = self._states(ids.masked_fill(hidden, self.config.vocabulary))
        logs = self.head(states[hidden]).log_softmax(-1).gather(1, ids[hidden][:, None])[:, 0]
        weights = (1 / batch["t"])[:, None].expand_as(ids)[hidden]
        return {"nll": -(logs * weights).sum() / ids.numel()}

    @torch.no_grad()
    def generate(self, n: int, seed: int = 0) -> list[list[int]]:
        """Drawn at temperature 1, nothing left out."""
        generator = torch.Generator().manual_seed(seed)
        made = []
        for start in range(0, n, _AT_ONCE):
            ids = torch.full((min(_AT_ONCE, n - start), self.config.tokens), self.config.vocabulary)
            order = torch.rand(ids.shape, generator=generator).argsort(1)
            for place in order.split(1, dim=1):
                states = self._states(ids).gather(1, place[..., None].expand(-1, -1, self.config.width))
                shares = self.head(states[:, 0]).softmax(-1)
                ids.scatter_(1, place, torch.multinomial(shares, 1, generator=generator))
            made += ids.tolist()
        return made
