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
is; a pair that is too long loses tokens of the passage alone; distillation of a small model (PARADE-KD) is by KL over the group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from hourglass.errors import ConfigError, SourceError, nearest
from hourglass.uses.finetune.encoder import Source
from hourglass.uses.finetune.head import Array, Head, HeadConfig
from hourglass.uses.finetune.retriever import Pair
from hourglass.uses.search.passages import passages
from hourglass.uses.search.stages import Query
from hourglass.waist import Batch, Losses

_DOCUMENTS_AT_ONCE = 8
Aggregate = Literal["avg", "max", "attn", "transformer"]


@dataclass(frozen=True, kw_only=True)
class ParadeConfig(HeadConfig):
    """aggregate     of the passages' states
    size, stride  of passages, in words
    most          passages of a document that are read: the first, the last, and some evenly spaced between
    layers, heads of "transformer"
    negatives     hard negatives of each example that are read
    distillation  weight of the KL to a teacher's scores, beside the loss; 0: none
    """

    max_tokens: int = 256
    aggregate: Aggregate = "transformer"
    size: int = 150
    stride: int = 100
    most: int = 16
    layers: int = 2
    heads: int = 12
    negatives: int = 1
    distillation: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.aggregate not in get_args(Aggregate):
            raise ConfigError(f"no aggregate {self.aggregate!r}{nearest(self.aggregate, get_args(Aggregate))}")
        passages("", self.size, self.stride, most=self.most)
        if min(self.layers, self.heads, self.negatives) < 1:
            raise ConfigError(
                f"layers {self.layers}, heads {self.heads}, negatives {self.negatives}: expected 1 or more"
            )
        if self.distillation < 0:
            raise ConfigError(f"distillation {self.distillation}: expected a weight, 0 or more")


class Parade(Head):
    """Examples: `Pair`, a query with its document and negatives."""

    Config = ParadeConfig
    modality = "pairs of texts"

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

    def collate(self, examples: Sequence[Pair]) -> Batch:
        """Tokens [n, 1 + negatives, passages, L] of each query with the passages of its documents, its own document first.

        "there" [n, 1 + negatives, passages] bool: a passage, not padding. Raises SourceError for an example with too few
        negatives, or without a teacher's scores where they are learned from.
        """
        wanted = self.config.negatives
        asked: list[str] = []
        documents: list[str] = []
        for i, example in enumerate(examples):
            if not isinstance(example, Pair):
                raise SourceError(f"example {i}: expected a Pair, found {type(example).__name__}")
            if len(example.negatives) < wanted:
                raise SourceError(
                    f"example {i}: {len(example.negatives)} negatives; expected {wanted} or more: mine them"
                )
            asked += [example.query] * (1 + wanted)
            documents += [example.document, *example.negatives[:wanted]]
        batch = {
            name: tensor.unflatten(0, (len(examples), 1 + wanted))
            for name, tensor in self._cut(asked, documents).items()
        }
        if self.config.distillation > 0:
            for i, example in enumerate(examples):
                if example.teacher is None or len(example.teacher) != 1 + len(example.negatives):
                    raise SourceError(
                        f"example {i}: expected a teacher's score of the document and of each of {len(example.negatives)} negatives"
                    )
            batch["teacher"] = torch.tensor([e.teacher[: 1 + wanted] for e in examples if e.teacher is not None])
        return batch

    def loss(self, batch: Batch) -> Losses:
        flat = {name: batch[name].flatten(0, 1) for name in ("ids", "mask", "types", "there")}
        scores = self.linear(self.encode(flat))[:, 0].unflatten(0, batch["ids"].shape[:2])
        losses = {
            "ranking": nn.functional.cross_entropy(
                scores, torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
            )
        }
        if self.config.distillation > 0:
            divergence = nn.functional.kl_div(scores.log_softmax(1), batch["teacher"].softmax(1), reduction="batchmean")
            losses["distillation"] = self.config.distillation * divergence
        return losses

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
        order = np.argsort([len(text) for text in texts], kind="stable")
        made = np.empty(len(texts), np.float32)
        with self.reading() as device:
            for start in range(0, len(order), _DOCUMENTS_AT_ONCE):
                some = order[start : start + _DOCUMENTS_AT_ONCE]
                batch = self._cut([query.text] * len(some), [texts[i] for i in some])
                state = self.encode({name: tensor.to(device) for name, tensor in batch.items()})
                made[some] = self.linear(state)[:, 0].float().cpu().numpy()
        return made

    def _cut(self, queries: Sequence[str], documents: Sequence[str]) -> Batch:
        """ids, mask, types [n, passages, L] and there [n, passages] of each query with the passages of its document."""
        config = self.config
        cut = [
            [part.text for part in passages(text, config.size, config.stride, most=config.most)] or [""]
            for text in documents
        ]
        counts = torch.tensor([len(parts) for parts in cut])
        there = torch.arange(int(counts.max())) < counts[:, None]
        asked = [query for query, parts in zip(queries, cut) for _ in parts]
        tokens = self.tokens(asked, [part for parts in cut for part in parts])
        batch = {"there": there}
        for name, tensor in tokens.items():
            batch[name] = tensor.new_zeros(*there.shape, tensor.shape[1])
            batch[name][there] = tensor
        return batch
