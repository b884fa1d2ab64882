"""Retrieval: queries and documents as vectors, a query nearest to its own document. InfoNCE in the batch, with hard negatives
and distillation from a teacher where the examples have them.

    scores[i, j] = similarity(query i, document j) / temperature
    contrastive  = cross-entropy of a query's own document among all documents of the batch (van den Oord et al. 2018)
    distillation = KL(softmax(teacher's scores) || softmax(ours)) over a query's own document and its negatives

The one tower reads both sides. A document of the batch that is the same as a query's own, word for word, does not count as
wrong. A trained model is an encoder for `hourglass.uses.probe`: it has encode_query and encode_document.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from hourglass.data.judged import Judged
from hourglass.errors import ConfigError, SourceError, nearest
from hourglass.metrics.estimates import Estimate
from hourglass.uses.finetune.encoder import Source
from hourglass.uses.finetune.head import TEXTS_AT_ONCE, Head, HeadConfig, Pooling, checked_pooling
from hourglass.uses.probe.retrieval import SIMILARITIES, retrieval
from hourglass.waist import Batch, Losses

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Pair:
    """A query, its document, documents that look like it and are not, and a teacher's scores of document and negatives."""

    query: str
    document: str
    negatives: tuple[str, ...] = ()
    teacher: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class RetrieverConfig(HeadConfig):
    """pooling       "mean" of the token states, or the first, "cls"
    similarity    "cosine" or "dot", the inner product
    temperature   that scores are divided by; with "dot" 1 is usual
    negatives     hard negatives of each example that are read; the others of the batch's documents are negatives as well
    contrastive, distillation    weights of the two losses; distillation needs negatives
    """

    pooling: Pooling = "mean"
    similarity: Literal["cosine", "dot"] = "cosine"
    temperature: float = 0.05
    negatives: int = 0
    contrastive: float = 1.0
    distillation: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_pooling(self.pooling)
        if self.similarity not in SIMILARITIES:
            raise ConfigError(f"similarity {self.similarity!r}{nearest(self.similarity, SIMILARITIES)}")
        if not self.temperature > 0:
            raise ConfigError(f"temperature {self.temperature}: expected a positive number")
        if self.negatives < 0 or (self.distillation > 0 and self.negatives < 1):
            raise ConfigError(f"negatives {self.negatives}: expected 0 or more, and with distillation 1 or more")
        if min(self.contrastive, self.distillation) < 0 or not self.contrastive + self.distillation > 0:
            raise ConfigError(
                f"contrastive {self.contrastive}, distillation {self.distillation}: expected weights, 0 or more, not both 0"
            )


class Retriever(Head):
    """Examples: `Pair`."""

    Config = RetrieverConfig
    modality = "pairs of texts"
    tags = frozenset({"batch-coupled"})

    def __init__(self, config: RetrieverConfig, source: Source) -> None:
        super().__init__(config, source)

    def collate(self, examples: Sequence[Pair]) -> Batch:
        """Tokens of the queries [n, L] ("query_ids" ...) and of the documents [n, 1 + negatives, L'] ("ids" ...), own one first.

        Raises SourceError for an example with too few negatives, or without a teacher's scores where they are learned from.
        """
        wanted = self.config.negatives
        documents: list[str] = []
        for i, example in enumerate(examples):
            if not isinstance(example, Pair):
                raise SourceError(f"example {i}: expected a Pair, found {type(example).__name__}")
            if len(example.negatives) < wanted:
                raise SourceError(
                    f"example {i}: {len(example.negatives)} negatives; expected {wanted} or more: mine them"
                )
            documents += [example.document, *example.negatives[:wanted]]
        batch = {f"query_{name}": tensor for name, tensor in self.tokens([e.query for e in examples]).items()}
        for name, tensor in self.tokens(documents).items():
            batch[name] = tensor.unflatten(0, (len(examples), 1 + wanted))
        if self.config.distillation > 0:
            for i, example in enumerate(examples):
                if example.teacher is None or len(example.teacher) != 1 + len(example.negatives):
                    raise SourceError(
                        f"example {i}: expected a teacher's score of the document and of each of {len(example.negatives)} negatives"
                    )
            batch["teacher"] = torch.tensor([e.teacher[: 1 + wanted] for e in examples if e.teacher is not None])
        return batch

    def loss(self, batch: Batch) -> Losses:
        queries = self._vectors(batch["query_ids"], batch["query_mask"], batch["query_types"])
        ids, mask, types = (batch[name].flatten(0, 1) for name in ("ids", "mask", "types"))
        documents = self._vectors(ids, mask, types)
        scores = queries @ documents.T / self.config.temperature
        n, group = batch["ids"].shape[:2]
        own = torch.arange(n, device=ids.device) * group
        losses = {}
        if self.config.contrastive > 0:
            same = (ids[own][:, None] == ids[None]).all(-1)
            same[torch.arange(n), own] = False
            wrong = scores.masked_fill(same, -torch.inf)
            losses["contrastive"] = self.config.contrastive * nn.functional.cross_entropy(wrong, own)
        if self.config.distillation > 0:
            among = own[:, None] + torch.arange(group, device=ids.device)
            ours = scores.gather(1, among).log_softmax(1)
            divergence = nn.functional.kl_div(ours, batch["teacher"].softmax(1), reduction="batchmean")
            losses["distillation"] = self.config.distillation * divergence
        return losses

    def encode(self, batch: Batch) -> Tensor:
        """[n, d] of the queries; of length 1 with "cosine"."""
        return self._vectors(batch["query_ids"], batch["query_mask"], batch["query_types"])

    def encode_query(self, texts: Sequence[str]) -> Array:
        """[n, d] float32."""
        order = np.argsort([-len(text) for text in texts], kind="stable")
        parts = []
        with self.reading() as device:
            for start in range(0, len(order), TEXTS_AT_ONCE):
                batch = self.tokens([texts[i] for i in order[start : start + TEXTS_AT_ONCE]])
                parts.append(self._vectors(**{name: tensor.to(device) for name, tensor in batch.items()}).float().cpu())
        return torch.cat(parts).numpy()[np.argsort(order)]

    encode_document = encode_query

    def score(self, judged: Judged) -> Estimate:
        """nDCG@10 over the whole corpus of `judged`."""
        return retrieval(self, judged, similarity=self.config.similarity).means()["ndcg@10"]

    def _vectors(self, ids: Tensor, mask: Tensor, types: Tensor) -> Tensor:
        pooled = self.pool(self.states({"ids": ids, "mask": mask, "types": types}), mask)
        return nn.functional.normalize(pooled, dim=-1) if self.config.similarity == "cosine" else pooled
