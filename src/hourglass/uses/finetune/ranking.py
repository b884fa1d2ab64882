"""What heads share that score documents for a query: examples are a query with a group of documents, its own among them.

ranking       cross-entropy of the query's own document among the group
distillation  what is learned of a teacher's scores of the group, as in `distillation`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor, nn

from hourglass.errors import ConfigError, nearest
from hourglass.uses.finetune.distillation import Teaching, checked_teaching, distilled
from hourglass.uses.finetune.head import Array, Head, HeadConfig
from hourglass.uses.finetune.retriever import Pair, checked_pair
from hourglass.waist import Batch, Losses


@dataclass(frozen=True, kw_only=True)
class RankingConfig(HeadConfig):
    """negatives     hard negatives of each example that are read
    objective     "group": the own document among all, a softmax; "each": every document by itself, a sigmoid, which makes the score
                  the log-odds of being relevant
    distillation  weight of the loss to a teacher's scores, beside the other; 0: none
    teaching      what is learned of the teacher, as in `hourglass.uses.finetune.distillation`
    """

    max_tokens: int = 256
    negatives: int = 1
    objective: Literal["group", "each"] = "group"
    distillation: float = 0.0
    teaching: Teaching = "kl"

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_teaching(self.teaching)
        if self.objective not in ("group", "each"):
            raise ConfigError(f"no objective {self.objective!r}{nearest(self.objective, ('group', 'each'))}")
        if self.negatives < 1:
            raise ConfigError(f"negatives {self.negatives}: expected 1 or more")
        if self.distillation < 0:
            raise ConfigError(f"distillation {self.distillation}: expected a weight, 0 or more")


class RankingHead(Head):
    """Base class: a subclass says what is read of a query with a document, and its score. Examples: `Pair`."""

    modality = "pairs of texts"
    documents_at_once = 32

    config: RankingConfig

    def pairs(self, queries: Sequence[str], documents: Sequence[str]) -> Batch:
        """Tensors [n, ...] of each query with its document, "ids" among them."""
        raise NotImplementedError

    def score(self, batch: Batch) -> Tensor:
        """[n] scores of what `pairs` has made; [n, h] of several heads that learn together, the last of which is the model's."""
        raise NotImplementedError

    @final
    def collate(self, examples: Sequence[Pair]) -> Batch:
        """What `pairs` makes [n, 1 + negatives, ...] of each query with its documents, its own first; "teacher" where one is learned from.

        Raises SourceError for an example with too few negatives, or without a teacher's scores where they are learned from.
        """
        wanted, taught = self.config.negatives, self.config.distillation > 0
        for i, example in enumerate(examples):
            checked_pair(i, example, wanted, taught)
        asked = [example.query for example in examples for _ in range(1 + wanted)]
        documents = [text for e in examples for text in (e.document, *e.negatives[:wanted])]
        shape = len(examples), 1 + wanted
        batch = {name: tensor.unflatten(0, shape) for name, tensor in self.pairs(asked, documents).items()}
        if taught:
            batch["teacher"] = torch.tensor([e.teacher[: 1 + wanted] for e in examples if e.teacher is not None])
        return batch

    @final
    def loss(self, batch: Batch) -> Losses:
        flat = {name: tensor.flatten(0, 1) for name, tensor in batch.items() if name != "teacher"}
        scores = self.score(flat).unflatten(0, batch["ids"].shape[:2])
        # Each head is one more group with the same answer.
        scores = scores if scores.ndim == 2 else scores.movedim(2, 0).flatten(0, 1)
        own = torch.zeros_like(scores)
        own[:, 0] = 1
        if self.config.objective == "group":
            losses = {"ranking": nn.functional.cross_entropy(scores, own)}
        else:
            losses = {"ranking": nn.functional.binary_cross_entropy_with_logits(scores, own)}
        if self.config.distillation > 0:
            teacher = batch["teacher"].repeat(len(scores) // len(batch["teacher"]), 1)
            losses["distillation"] = self.config.distillation * distilled(scores, teacher, self.config.teaching)
        return losses

    @final
    def scored(self, query: str, documents: Sequence[str]) -> Array:
        """[n] float32 scores of documents for a query."""
        order = np.argsort([len(text) for text in documents], kind="stable")
        made = np.empty(len(documents), np.float32)
        with self.reading() as device:
            for start in range(0, len(order), self.documents_at_once):
                some = order[start : start + self.documents_at_once]
                batch = self.pairs([query] * len(some), [documents[i] for i in some])
                score = self.score({name: tensor.to(device) for name, tensor in batch.items()})
                made[some] = score.float().cpu().numpy()
        return made
