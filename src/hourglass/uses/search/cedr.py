"""CEDR: a document scored by how softly its words match the query's, as an encoder reads them together; and KNRM without one.

MacAvaney, Yates, Cohan and Goharian 2019 (arXiv 1904.07094); kernel pooling: Xiong, Dai, Callan, Liu and Power 2017 (KNRM, arXiv
1706.06613). In: a query and documents. Out: a score of each document.

    M_ij    = cos(e_i, e_j), e_i of the query's tokens, e_j of the document's
    K_k(i)  = sum_j exp(-(M_ij - mu_k)^2 / (2 sigma_k^2))
    phi_k   = sum_i log max(K_k(i), 1e-6)
    mu      = 1.0 (sigma 0.001: the same word), 0.9, 0.7 .. -0.9 (sigma 0.1)
    score   = linear([phi of each layer's states; the first state])

e are the states of [query, document] before the first layer and after each. A document that is longer than the network is read in
parts of equal length, each with the query: the document's tokens are those of all parts, the query's those of the first, and the
first state is the mean of the parts' (as in the paper). The loss is the cross-entropy of a query's own document among it and its
negatives.

    model = Cedr(CedrConfig(), (network, tokenizer))
    fit(model, pairs, TrainConfig(...), out="tuned")              # `uses.finetune.Pair`s with mined negatives
    search = bm25 % 100 >> ByText(index, model.score_texts)

CedrConfig.preset("knrm") is KNRM: e are the network's own vectors of the tokens, which see no neighbour, and there is no first state.

Differences from the papers: pieces of words in place of words, so that a rare word matches by its parts; one learning rate for all; of CEDR's three heads
(PACRR, KNRM, DRMM) the one that has no bins and no cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hourglass.errors import ConfigError
from hourglass.uses.finetune.encoder import Source
from hourglass.uses.finetune.head import Array
from hourglass.uses.finetune.ranking import RankingConfig, RankingHead
from hourglass.uses.search.stages import Query
from hourglass.waist import Batch

MEANS = (1.0, 0.9, 0.7, 0.5, 0.3, 0.1, -0.1, -0.3, -0.5, -0.7, -0.9)
WIDTHS = (0.001, *(10 * [0.1]))


def kernels(query: Tensor, document: Tensor, asked: Tensor, there: Tensor) -> Tensor:
    """[n, 11] phi, as above, of states [n, q, d] and [n, l, d]; `asked` [n, q] and `there` [n, l] bool say which are tokens."""
    mu, sigma = (query.new_tensor(values) for values in (MEANS, WIDTHS))
    cosines = nn.functional.normalize(query, dim=-1) @ nn.functional.normalize(document, dim=-1).transpose(1, 2)
    near = torch.exp(-((cosines[..., None] - mu) ** 2) / (2 * sigma**2))
    summed = near.masked_fill(~there[:, None, :, None], 0).sum(2)
    return summed.clamp(min=1e-6).log().masked_fill(~asked[..., None], 0).sum(1)


@dataclass(frozen=True, kw_only=True)
class CedrConfig(RankingConfig):
    """contextual    the states of every layer match; False: the tokens' own vectors alone
    first         the first state counts as well
    query_tokens  of a query that are read
    most          parts of a document that are read, the first ones
    """

    contextual: bool = True
    first: bool = True
    query_tokens: int = 32
    most: int = 4

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"knrm": {"contextual": False, "first": False}}

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.query_tokens, self.most) < 1:
            raise ConfigError(f"query_tokens {self.query_tokens}, most {self.most}: expected 1 or more")
        if self.query_tokens > self.max_tokens // 2:
            raise ConfigError(
                f"query_tokens {self.query_tokens}: expected up to half of max_tokens, {self.max_tokens}, to leave room for documents"
            )


class Cedr(RankingHead):
    """Examples: `Pair`, a query with its document and negatives."""

    Config = CedrConfig
    documents_at_once = 8

    config: CedrConfig

    def __init__(self, config: CedrConfig, source: Source) -> None:
        super().__init__(config, source)
        layers = 1 + self.network_config.get_text_config().num_hidden_layers if config.contextual else 1
        self.linear = nn.Linear(layers * len(MEANS) + config.first * self.encoder.width, 1)

    def score(self, batch: Batch) -> Tensor:
        made: Tensor = self.linear(self.encode(batch))[:, 0]
        return made

    def encode(self, batch: Batch) -> Tensor:
        """[n, 11 x layers (+ d)] phi of each layer, and the first state where it counts, of what `pairs` has made."""
        there, asked, told = batch["there"], batch["asked"], batch["told"]
        read = {name: batch[name][there] for name in ("ids", "mask", "types")}
        contextual = self.config.contextual
        states = self.encoder.layers(**read) if contextual or self.config.first else ()
        matched = states if contextual else (self.encoder.words(read["ids"]),)
        place, real = _gathered(asked[:, 0])
        made = []
        for layer in matched:
            whole = layer.new_zeros(*there.shape, *layer.shape[1:])
            whole[there] = layer
            query = whole[:, 0].gather(1, place[..., None].expand(-1, -1, layer.shape[-1]))
            made.append(kernels(query, whole.flatten(1, 2), real, told.flatten(1, 2)))
        if self.config.first:
            firsts = states[-1].new_zeros(*there.shape, self.encoder.width)
            firsts[there] = self.dropout(states[-1][:, 0])
            made.append(firsts.sum(1) / there.sum(1, keepdim=True))
        return torch.cat(made, 1)

    def score_texts(self, query: Query, texts: Sequence[str]) -> Array:
        """[n] float32 scores of documents for a query, a `TextScorer`; of one with more than `most` parts, the first are read."""
        return self.scored(query.text, texts)

    def pairs(self, queries: Sequence[str], documents: Sequence[str]) -> Batch:
        """ids, mask, types [n, parts, L] of each query with the parts of its document.

        there  [n, parts] bool: a part, not padding
        asked  [n, parts, L] bool: a token of the query; told: of the document
        """
        made = self.tokenizer(
            [self._shortened(query) for query in queries],
            list(documents),
            truncation="only_second",
            max_length=self.config.max_tokens,
            return_token_type_ids=True,
            return_overflowing_tokens=True,
        )
        parts: list[list[int]] = [[] for _ in queries]
        for row, example in enumerate(made["overflow_to_sample_mapping"]):
            if len(parts[example]) < self.config.most:
                parts[example].append(row)
        rows = [row for some in parts for row in some]
        tokens = self.padded([made["input_ids"][row] for row in rows], [made["token_type_ids"][row] for row in rows])
        there = torch.arange(max(map(len, parts))) < torch.tensor([len(some) for some in parts])[:, None]
        length = tokens["ids"].shape[1]
        for name, side in (("asked", 0), ("told", 1)):
            tokens[name] = torch.zeros(len(rows), length, dtype=torch.bool)
            for i, row in enumerate(rows):
                sides = made.sequence_ids(row)
                tokens[name][i, : len(sides)] = torch.tensor([one == side for one in sides])
        batch = {"there": there}
        for name, tensor in tokens.items():
            batch[name] = tensor.new_zeros(*there.shape, length)
            batch[name][there] = tensor
        return batch

    def _shortened(self, query: str) -> str:
        spans = self.tokenizer(query, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        most = self.config.query_tokens
        return query[: spans[most - 1][1]] if len(spans) > most else query


def _gathered(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """(places [n, q] of what is chosen in [n, L], in order, which of them are any) as wide as the row with the most."""
    most = max(1, int(chosen.sum(1).max()))
    place = (~chosen).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
    return place, chosen.gather(1, place)
