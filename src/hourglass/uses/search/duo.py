"""duoBERT: documents compared two by two, by a network that reads the query with both.

Nogueira, Yang, Cho and Lin 2019 (arXiv 1910.14424). In: a query and documents. Out: a score of each document.

    p_ij   = probability that d_i answers q better than d_j, by a network that reads [CLS] q [SEP] d_i [SEP] d_j [SEP]
    s_i    = sum over j != i of p_ij
    loss   = -log p(d+, d-) - log(1 - p(d-, d+)), mean over a query's negatives

    model = Duo(DuoConfig(), (network, tokenizer))                # a cross-encoder, or any encoder
    fit(model, pairs, TrainConfig(...), out="tuned")              # `uses.finetune.Pair`s with mined negatives
    search = bm25 % 50 >> Compared(index, model.compare) % 10     # as text: bm25 % 50 >> duo(tuned/model) % 10

k documents are k (k - 1) readings: few can be compared. Both documents get the same room, what is longer is cut. Where the network knows
a third kind of segment, d_j is of it, else of the second, as d_i; where its tokenizer tells no kinds, all are of one. The folder is one of transformers, and one from the Hub is opened as well:
a sequence classifier of one number (its sigmoid is p) or of two (p is the softmax of the second).

Differences from the paper: of its ways to add up, the sum alone, its best.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, final

import numpy as np
import torch
from torch import Tensor, nn

from hourglass.errors import ConfigError
from hourglass.uses.finetune.encoder import Source
from hourglass.uses.finetune.head import Array, Head, HeadConfig, in_batches
from hourglass.uses.finetune.retriever import Pair, checked_pair
from hourglass.uses.finetune.scoring import frame_of, open_scoring, pieces, positions_of, save_scoring, scoring
from hourglass.uses.search.stages import Chain, Documents, First, Query, Ranking, Rescorer, Stage, parts
from hourglass.waist import Batch, Losses


@dataclass(frozen=True, kw_only=True)
class DuoConfig(HeadConfig):
    """query_tokens  of a query that are read
    negatives     hard negatives of each example that its document is compared with
    """

    max_tokens: int = 512
    query_tokens: int = 62
    negatives: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.query_tokens, self.negatives) < 1:
            raise ConfigError(f"query_tokens {self.query_tokens}, negatives {self.negatives}: expected 1 or more")
        if self.query_tokens > self.max_tokens // 2:
            raise ConfigError(
                f"query_tokens {self.query_tokens}: expected up to half of max_tokens, {self.max_tokens}, to leave room for documents"
            )


class Duo(Head):
    """Examples: `Pair`, a query with its document and negatives."""

    Config = DuoConfig
    modality = "pairs of texts"

    config: DuoConfig

    def __init__(self, config: DuoConfig, source: Source) -> None:
        super().__init__(config, scoring(source), words=True)
        self._frame = frame_of(self.tokenizer)
        network = self.encoder.network.config
        if network.num_labels not in (1, 2):
            raise ConfigError(
                f"a network of {network.num_labels} numbers: expected one, or two, of which the second is p"
            )
        first, second = self._frame.types
        self._types = (first, second, 2 if second and getattr(network, "type_vocab_size", 0) > 2 else second)
        if config.max_tokens - config.query_tokens < self._frame.size + len(self._frame.between) + 2:
            raise ConfigError(f"max_tokens {config.max_tokens}: no room for two documents")

    def collate(self, examples: Sequence[Pair]) -> Batch:
        """ids, mask, types [n, 2 x negatives, L]: the document with each negative, and the other way round; SourceError as for `Retriever`."""
        wanted = self.config.negatives
        for i, example in enumerate(examples):
            checked_pair(i, example, wanted, False)
        rows = [
            (example.query, *pair)
            for example in examples
            for negative in example.negatives[:wanted]
            for pair in ((example.document, negative), (negative, example.document))
        ]
        batch = self._tokens(*zip(*rows))
        return {name: tensor.unflatten(0, (len(examples), 2 * wanted)) for name, tensor in batch.items()}

    def loss(self, batch: Batch) -> Losses:
        odds = self.encode({name: tensor.flatten(0, 1) for name, tensor in batch.items()})
        better = torch.ones_like(odds)
        better[1::2] = 0
        return {"comparison": 2 * nn.functional.binary_cross_entropy_with_logits(odds, better)}

    def encode(self, batch: Batch) -> Tensor:
        """[n] log-odds that the first document of each row is the better one."""
        more = {"token_type_ids": batch["types"]} if self.encoder.has_types else {}
        made = self.encoder.network(input_ids=batch["ids"], attention_mask=batch["mask"].long(), **more).logits
        odds: Tensor = made[:, 0] if made.shape[1] == 1 else made[:, 1] - made[:, 0]
        return odds

    def compare(self, query: Query, texts: Sequence[str]) -> Array:
        """[n, n] float32 p_ij of texts for a query; 0 of a text with itself."""
        number = len(texts)
        made = np.zeros((number, number), np.float32)
        pairs = [(i, j) for i in range(number) for j in range(number) if i != j]
        pairs.sort(key=lambda pair: len(texts[pair[0]]) + len(texts[pair[1]]))
        with self.reading() as device:
            for some in in_batches(pairs):
                first, second = ([texts[pair[side]] for pair in some] for side in (0, 1))
                batch = self._tokens([query.text] * len(some), first, second)
                p = self.encode({name: tensor.to(device) for name, tensor in batch.items()}).sigmoid()
                made[tuple(np.array(some).T)] = p.float().cpu().numpy()
        return made

    def _tokens(self, queries: Sequence[str], first: Sequence[str], second: Sequence[str]) -> dict[str, Tensor]:
        frame, most = self._frame, self.config.max_tokens
        asked = pieces(self.tokenizer, queries, self.config.query_tokens)
        ids, types = [], []
        for query, one, other in zip(asked, pieces(self.tokenizer, first, most), pieces(self.tokenizer, second, most)):
            room = (most - len(query) - frame.size - len(frame.between)) // 2
            sides = [frame.query(query), [*one[:room], *frame.between], frame.document(other[:room])]
            ids.append([token for side in sides for token in side])
            types.append([kind for kind, side in zip(self._types, sides) for _ in side])
        return self.padded(ids, types)

    def _save_pretrained(self, save_directory: Path) -> None:
        save_scoring(self, save_directory)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **hub: Any) -> Self:
        settings, source = open_scoring(model_id, cls.system_name())
        return cls(cls.Config.from_dict(_fitting(source[0]) if settings is None else settings), source).eval()


def _fitting(network: Any) -> dict[str, Any]:
    """Settings for a network of the Hub."""
    most = positions_of(network)
    return {"max_tokens": most, "query_tokens": min(62, most // 4)}


@final
class Compared(Rescorer):
    """What has been found is compared two by two; what is beyond the first keeps its order below them.

    compare  [n, n] probabilities that text i is better than text j, for a query
    first    documents that are compared; `% k` after the stage compares k
    """

    def __init__(
        self,
        documents: Documents,
        compare: Callable[[Query, Sequence[str]], Array],
        *,
        first: int = 30,
        name: str = "duo",
    ) -> None:
        if first < 1:
            raise ConfigError(f"first {first}: expected 1 document or more")
        self.name, self._documents, self._compare, self._first = name, documents, compare, first

    def __mod__(self, k: int) -> Stage:
        cut = First(k)
        fewer = copy.copy(self)
        fewer._first = k
        return Chain([*parts(fewer, Chain), cut])

    def again(self, query: Query, ranking: Ranking) -> Ranking:
        head = ranking.first(self._first)
        scores = self._compare(query, self._documents.texts(head.rows)).sum(1)
        below = scores.min() - 1 - np.arange(len(ranking) - len(head))
        return Ranking.of(ranking.rows, np.concatenate([scores, below]))
