"""DeepImpact: what each term of a document adds to its score (Mallia et al. 2021, arXiv 2104.12016).

    impact(t, d) = relu(w2 . relu(W1 h + b1) + b2), h the state of the first token of t's first occurrence in d
    score(q, d)  = sum over the terms that q and d share of impact(t, d)
    loss         = cross-entropy of a query's document among it and its negatives

Documents are expanded first (`document_expansion`), so that they have the terms that queries will name. Queries are
not read by the model: a term of a query counts 1.

    model = DeepImpact(DeepImpactConfig(negatives=1), (network, tokenizer))
    fit(model, [impacted(pair) for pair in mined], TrainConfig(...))
    rows = quantised(model.weigh(texts))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hourglass.errors import ConfigError, SourceError
from hourglass.uses.finetune.distillation import Teaching, checked_teaching, distilled
from hourglass.uses.finetune.encoder import Source
from hourglass.uses.finetune.head import NO_TOKEN, HeadConfig
from hourglass.uses.finetune.retriever import Pair, checked_learning, checked_pair
from hourglass.uses.search.term_weights.rows import Spans, word_spans
from hourglass.uses.search.term_weights.term_head import Stretch, TermHead
from hourglass.waist import Batch, Losses


@dataclass(frozen=True)
class Impacted:
    """A query's document and its negatives, where the query's terms are first in each, and a teacher's scores of
    all."""

    documents: tuple[str, ...]
    stretches: tuple[tuple[Stretch, ...], ...]
    teacher: tuple[float, ...] | None = None


def impacted(pair: Pair, spans: Spans = word_spans) -> Impacted:
    """Of a pair with negatives."""
    wanted = {term for _, _, term in spans(pair.query)}
    documents = (pair.document, *pair.negatives)
    found = []
    for text in documents:
        firsts: dict[str, Stretch] = {}
        for start, stop, term in spans(text):
            if term in wanted:
                firsts.setdefault(term, (start, stop))
        found.append(tuple(firsts.values()))
    return Impacted(documents, tuple(found), pair.teacher)


@dataclass(frozen=True, kw_only=True)
class DeepImpactConfig(HeadConfig):
    """negatives     of each example that are read, 1 or more
    contrastive, distillation    weights of the two losses
    teaching      what is learned of the teacher, as in `hourglass.uses.finetune.distillation`
    """

    max_tokens: int = 300
    negatives: int = 1
    contrastive: float = 1.0
    distillation: float = 0.0
    teaching: Teaching = "kl"

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_teaching(self.teaching)
        if self.negatives < 1:
            raise ConfigError(f"negatives {self.negatives}: expected 1 or more; mine them")
        checked_learning(self.negatives, self.contrastive, self.distillation)


class DeepImpact(TermHead):
    """Examples: `Impacted`."""

    Config = DeepImpactConfig
    modality = "queries' terms in documents"
    first_only = True

    config: DeepImpactConfig

    def __init__(self, config: DeepImpactConfig, source: Source) -> None:
        super().__init__(config, source)
        width = self.encoder.width
        self.hidden, self.linear = nn.Linear(width, width), nn.Linear(width, 1)

    def collate(self, examples: Sequence[Impacted]) -> Batch:
        """Tokens of the documents [n, 1 + negatives, L], own one first, and "first" [n, 1 + negatives, terms];
        "teacher"."""
        config, group = self.config, 1 + self.config.negatives
        for i, example in enumerate(examples):
            if not isinstance(example, Impacted):
                raise SourceError(f"example {i}: expected an Impacted, found {type(example).__name__}")
            # The query itself is not read here.
            checked_pair(
                i,
                Pair("", example.documents[0], example.documents[1:], example.teacher),
                config.negatives,
                self._taught,
            )
        inputs = self.located(
            [text for e in examples for text in e.documents[:group]],
            [stretches for e in examples for stretches in e.stretches[:group]],
        )
        batch = {name: tensor.unflatten(0, (len(examples), group)) for name, tensor in inputs.items()}
        if self._taught:
            batch["teacher"] = torch.tensor([e.teacher[:group] for e in examples if e.teacher is not None])
        return batch

    def loss(self, batch: Batch) -> Losses:
        """{"contrastive", "distillation"}, each only where it has a weight."""
        n, group = batch["ids"].shape[:2]
        flat = {name: batch[name].flatten(0, 1) for name in ("ids", "mask", "types", "first")}
        scores = self.numbers(flat).where(flat["first"] != NO_TOKEN, 0.0).sum(1).view(n, group)
        losses = {}
        if self.config.contrastive > 0:
            own = scores.new_zeros(n, dtype=torch.int64)
            losses["contrastive"] = self.config.contrastive * nn.functional.cross_entropy(scores, own)
        if self._taught:
            taught = distilled(scores, batch["teacher"], self.config.teaching)
            losses["distillation"] = self.config.distillation * taught
        return losses

    def numbers(self, batch: Batch) -> Tensor:
        hidden = self.hidden(self.encode(batch)).relu()
        numbers: Tensor = self.linear(hidden)[..., 0].relu()
        return numbers

    @property
    def _taught(self) -> bool:
        return self.config.distillation > 0
