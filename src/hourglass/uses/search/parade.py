"""PARADE: a long document scored as a whole, from what an encoder says of the query with each of its passages.

Li, Yates, MacAvaney, He and Sun 2020 (arXiv 2008.09093). In: a query and documents. Out: a score of each document.

    c_i = the first state of [query, passage i], one for each passage; a document's is
    "avg"          their mean
    "max"          the largest in each dimension
    "attn"         their mean by softmax(c_i . w), w learned
    "transformer"  the first state of two layers over [e, c_1 .. c_n], e learned, without positions of passages
    score = linear(document's); loss: cross-entropy of a query's own document among it and its negatives

    model = Parade(ParadeConfig(aggregate="transformer"), (network, tokenizer))
    fit(model, pairs, TrainConfig(...), out="tuned")              # `uses.finetune.Pair`s with mined negatives
    search = bm25 % 100 >> ByText(index, model.score_texts)

Differences from the paper: its variant with a convolution is left out; the encoder is not tuned on MS MARCO first, begin with one that
is; a pair that is too long loses tokens of the passage alone; a small model is distilled (PARADE-KD) over the group, by KL as it comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from hourglass.errors import ConfigError, nearest
from hourglass.uses.finetune.encoder import Source
from hourglass.uses.finetune.head import Array
from hourglass.uses.finetune.ranking import RankingConfig, RankingHead
from hourglass.uses.search.passages import Middle, passages
from hourglass.uses.search.stages import Query
from hourglass.waist import Batch

Aggregate = Literal["avg", "max", "attn", "transformer"]


@dataclass(frozen=True, kw_only=True)
class ParadeConfig(RankingConfig):
    """aggregate     of the passages' states
    size, stride  of passages, in words
    most          passages of a document that are read: the first, the last, and some between
    middle        which: evenly spaced, or "random" ones, as in the paper
    layers, heads of "transformer"
    """

    aggregate: Aggregate = "transformer"
    size: int = 150
    stride: int = 100
    most: int = 16
    middle: Middle = "even"
    layers: int = 2
    heads: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.aggregate not in get_args(Aggregate):
            raise ConfigError(f"no aggregate {self.aggregate!r}{nearest(self.aggregate, get_args(Aggregate))}")
        passages("", self.size, self.stride, most=self.most, middle=self.middle)
        if min(self.layers, self.heads) < 1:
            raise ConfigError(f"layers {self.layers}, heads {self.heads}: expected 1 or more")


class Parade(RankingHead):
    """Examples: `Pair`, a query with its document and negatives."""

    Config = ParadeConfig
    documents_at_once = 8

    config: ParadeConfig

    def __init__(self, config: ParadeConfig, source: Source) -> None:
        super().__init__(config, source)
        width = self.encoder.width
        if config.aggregate == "attn":
            self.voice = nn.Linear(width, 1, bias=False)
        elif config.aggregate == "transformer":
            if width % config.heads:
                raise ConfigError(f"heads {config.heads}: do not divide the encoder's width, {width}")
            self.first = nn.Parameter(0.02 * torch.randn(width))
            layer = nn.TransformerEncoderLayer(width, config.heads, 4 * width, config.dropout, "gelu", batch_first=True)
            self.over = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.linear = nn.Linear(width, 1)

    def score(self, batch: Batch) -> Tensor:
        made: Tensor = self.linear(self.encode(batch))[:, 0]
        return made

    def encode(self, batch: Batch) -> Tensor:
        """[n, d] of queries with documents: tokens [n, passages, L] to one state of each."""
        there = batch["there"]
        read = {name: batch[name][there] for name in ("ids", "mask", "types")}
        told = self.states(read)[:, 0]
        states = told.new_zeros(*there.shape, told.shape[1])
        states[there] = told
        out = ~there[..., None]
        if self.config.aggregate == "avg":
            return states.sum(1) / there.sum(1, keepdim=True)
        if self.config.aggregate == "max":
            return states.masked_fill(out, -10_000).amax(1)
        if self.config.aggregate == "attn":
            weights = self.voice(states).masked_fill(out, -10_000).softmax(1)
            return (weights * states).sum(1)
        first = self.first.expand(len(states), 1, -1)
        silent = torch.cat([there.new_zeros(len(there), 1), ~there], 1)
        made: Tensor = self.over(torch.cat([first, states], 1), src_key_padding_mask=silent)[:, 0]
        return made

    def score_texts(self, query: Query, texts: Sequence[str]) -> Array:
        """[n] float32 scores of documents for a query, a `TextScorer`; of one with more than `most` passages, a part is read."""
        return self.scored(query.text, texts)

    def pairs(self, queries: Sequence[str], documents: Sequence[str]) -> Batch:
        """ids, mask, types [n, passages, L] and there [n, passages] of each query with the passages of its document.

        there: bool, a passage, not padding
        """
        config = self.config
        split = partial(passages, size=config.size, stride=config.stride, most=config.most, middle=config.middle)
        cut = [[part.text for part in split(text)] or [""] for text in documents]
        counts = torch.tensor([len(parts) for parts in cut])
        there = torch.arange(int(counts.max())) < counts[:, None]
        asked = [query for query, parts in zip(queries, cut) for _ in parts]
        tokens = self.tokens(asked, [part for parts in cut for part in parts])
        batch = {"there": there}
        for name, tensor in tokens.items():
            batch[name] = tensor.new_zeros(*there.shape, tensor.shape[1])
            batch[name][there] = tensor
        return batch
