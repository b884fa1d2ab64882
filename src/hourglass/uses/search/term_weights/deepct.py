"""DeepCT: how much a term of a text matters to those who look for it (Dai and Callan 2019, arXiv 1910.10687).

    recall(t, d) = share of d's queries that name t                    # what is learned, mean squared error
    y(t, d)      = w . h + b, h the state of the term's first token
    frequency    = round(100 y), or round(100 sqrt(y)), in BM25

    model = DeepCT(DeepCTConfig(), (network, tokenizer))
    fit(model, [recalled(text, its_queries) for ...], TrainConfig(lr=2e-5, batch_size=16, ...))
    rows = bm25_weights(frequencies(model.weigh(texts)), k1=10, b=0.9)

With few queries a document most targets are 0, and the error is small for a model that says 0 everywhere: leave stop
words out of `spans`, and look at `score`, the correlation, on texts that were not learned from. Differences from the
authors' code: terms are what `spans` says and not runs of word pieces, so that any tokenizer will do; only terms are
learned from, punctuation is not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from hourglass.errors import FolderError, SourceError
from hourglass.metrics.estimates import Estimate, of_rows
from hourglass.uses.finetune.encoder import Source
from hourglass.uses.finetune.head import NO_TOKEN, HeadConfig
from hourglass.uses.search.term_weights.published import longest, read_published
from hourglass.uses.search.term_weights.rows import Spans, word_spans
from hourglass.uses.search.term_weights.term_head import Stretch, TermHead, padded_rows
from hourglass.waist import Batch, Losses


@dataclass(frozen=True)
class Recalled:
    """A text, where its terms are, and the recall of each from 0 to 1."""

    text: str
    stretches: tuple[Stretch, ...]
    recall: tuple[float, ...]


def recalled(text: str, queries: Sequence[str], spans: Spans = word_spans) -> Recalled:
    """The share of `queries`, all of which look for the text, that name each of its terms; SourceError without a
    query."""
    if not len(queries):
        raise SourceError("a text without queries: expected one or more that look for it")
    named = Counter(term for query in queries for term in {term for _, _, term in spans(query)})
    found = list(spans(text))
    return Recalled(text, tuple((a, b) for a, b, _ in found), tuple(named[term] / len(queries) for _, _, term in found))


@dataclass(frozen=True, kw_only=True)
class DeepCTConfig(HeadConfig):
    """Of a head."""


class DeepCT(TermHead):
    """Examples: `Recalled`."""

    Config = DeepCTConfig
    modality = "texts with recalled terms"
    tags = frozenset({"batch-coupled"})  # a mean over terms, of which texts have more or fewer
    first_only = False

    def __init__(self, config: DeepCTConfig, source: Source) -> None:
        super().__init__(config, source)
        self.linear = nn.Linear(self.encoder.width, 1)

    @classmethod
    def published(cls, folder: str | Path, *, max_tokens: int | None = None) -> Self:
        """Of a token classifier of transformers with one label; see `read_published`. The authors' own are
        TensorFlow's."""
        found = read_published(folder, {"classifier"}, {"classifier"})
        linear = found.linears["classifier"]
        if linear.out_features != 1:
            raise FolderError(f"{folder}: gives {linear.out_features} numbers for a token; expected one")
        made = cls(cls.Config(max_tokens=longest(found, 128, max_tokens)), (found.network, found.tokenizer))
        made.linear.load_state_dict(linear.state_dict())
        return made.eval()

    def collate(self, examples: Sequence[Recalled]) -> Batch:
        """Tokens, "first" [n, terms], "recall" [n, terms]."""
        for i, example in enumerate(examples):
            if not isinstance(example, Recalled):
                raise SourceError(f"example {i}: expected a Recalled, found {type(example).__name__}")
            if len(example.stretches) != len(example.recall) or not all(0 <= y <= 1 for y in example.recall):
                raise SourceError(f"example {i}: expected a recall from 0 to 1 for each of its terms")
        inputs = self.located([e.text for e in examples], [e.stretches for e in examples])
        return {**inputs, "recall": padded_rows([torch.tensor(e.recall) for e in examples], 0.0)}

    def loss(self, batch: Batch) -> Losses:
        """{"recall"}: squared error, the mean over the terms of the batch."""
        there = batch["first"] != NO_TOKEN
        errors = (self.numbers(batch) - batch["recall"]).square().where(there, 0.0)
        return {"recall": errors.sum() / there.sum().clamp(min=1)}

    def numbers(self, batch: Batch) -> Tensor:
        numbers: Tensor = self.linear(self.encode(batch))[..., 0]
        return numbers

    def score(self, examples: Sequence[Recalled]) -> Estimate:
        """Correlation of weights with recall over the terms of a text, the mean over texts in which both vary."""
        found = []
        with self.reading() as device:
            for example in examples:
                batch = self.collate([example])
                said = self.numbers({name: tensor.to(device) for name, tensor in batch.items()}).float().cpu()[0]
                there = batch["first"][0] != NO_TOKEN
                values = said[there].numpy(), batch["recall"][0][there].numpy()
                if min((np.ptp(v) if len(v) else 0.0) for v in values) > 0:
                    found.append(np.corrcoef(*values)[0, 1])
        if not found:
            raise SourceError("no text in which weights and recall vary; give texts with queries that name some terms")
        return of_rows(np.array(found))
