"""Sequence classification: which label a text, or a pair of texts, has. Pooled states, a linear layer, cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hourglass.errors import SourceError, nearest
from hourglass.metrics.classification import accuracy
from hourglass.metrics.estimates import Estimate
from hourglass.uses.finetune.encoder import Source
from hourglass.uses.finetune.head import Head, HeadConfig, Pooling, checked_pooling, in_batches, numbered
from hourglass.waist import Batch, Losses

Text = str | tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(HeadConfig):
    """labels: each once; pooling: "mean" of the token states or the first, "cls"."""

    labels: tuple[str, ...] = ("no", "yes")
    pooling: Pooling = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "labels", numbered(self.labels))
        checked_pooling(self.pooling)


class Classifier(Head):
    """Examples: (text, label), or ((first text, second text), label)."""

    Config = ClassifierConfig
    modality = "labelled texts"

    def __init__(self, config: ClassifierConfig, source: Source) -> None:
        super().__init__(config, source)
        self.linear = nn.Linear(self.encoder.width, len(config.labels))
        self._number = {label: i for i, label in enumerate(config.labels)}

    def collate(self, examples: Sequence[tuple[Text, str]]) -> Batch:
        """Tokens and the number of each label; SourceError for a label that is not in the config."""
        for i, (_, label) in enumerate(examples):
            if label not in self._number:
                raise SourceError(f"example {i}: label {label!r}{nearest(str(label), map(str, self._number))}")
        return {
            **self._inputs([text for text, _ in examples]),
            "labels": torch.tensor([self._number[label] for _, label in examples]),
        }

    def loss(self, batch: Batch) -> Losses:
        return {"classification": nn.functional.cross_entropy(self.logits(batch), batch["labels"])}

    def encode(self, batch: Batch) -> Tensor:
        """[n, d] pooled states."""
        return self.pool(self.states(batch), batch["mask"])

    def logits(self, batch: Batch) -> Tensor:
        """[n, labels]"""
        logits: Tensor = self.linear(self.encode(batch))
        return logits

    def predict(self, texts: Sequence[Text]) -> list[str]:
        """The label of each text or pair."""
        with self.reading() as device:
            said: list[int] = []
            for part in in_batches(texts):
                logits = self.logits({name: t.to(device) for name, t in self._inputs(part).items()})
                said += logits.argmax(1).tolist()
        return [self.config.labels[i] for i in said]

    def score(self, examples: Sequence[tuple[Text, str]]) -> Estimate:
        """Accuracy."""
        said = self.predict([text for text, _ in examples])
        return accuracy(np.array([label for _, label in examples]), np.array(said))

    def _inputs(self, texts: Sequence[Any]) -> dict[str, Tensor]:
        if len(texts) and isinstance(texts[0], tuple | list):
            firsts, seconds = zip(*texts)
            return self.tokens(firsts, seconds)
        return self.tokens(texts)
