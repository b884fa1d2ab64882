"""Token classification: a tag for each word. A linear layer on the state of a word's first token, cross-entropy.

Words are joined by spaces and tokenised as one text, so that any tokenizer sees them as it sees text. Words beyond the longest
input are not learned from, and are tagged with the first tag, "O".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from hourglass.errors import ConfigError, SourceError, nearest
from hourglass.metrics.estimates import Estimate
from hourglass.metrics.spans import span_f1
from hourglass.uses.finetune.encoder import Source
from hourglass.uses.finetune.head import NO_TOKEN, Head, HeadConfig, first_tokens, in_batches, numbered
from hourglass.waist import Batch, Losses


@dataclass(frozen=True, kw_only=True)
class TaggerConfig(HeadConfig):
    """tags: "O" first, then those of BIO, "B-PER", "I-PER" ...; each once."""

    tags: tuple[str, ...] = ("O", "B-X", "I-X")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "tags", numbered(self.tags))
        if self.tags[0] != "O":
            raise ConfigError(f"tags begin with {self.tags[0]!r}: expected 'O', the tag of what is outside")


class Tagger(Head):
    """Examples: (words, tags), a tag for each word."""

    Config = TaggerConfig
    modality = "tagged words"
    tags = frozenset({"batch-coupled"})  # a mean over words, of which sentences have more or fewer

    def __init__(self, config: TaggerConfig, source: Source) -> None:
        super().__init__(config, source)
        self.linear = nn.Linear(self.encoder.width, len(config.tags))
        self._number = {tag: i for i, tag in enumerate(config.tags)}

    def collate(self, examples: Sequence[tuple[Sequence[str], Sequence[str]]]) -> Batch:
        """Tokens, the first token of each word [n, words], the number of its tag; SourceError for what does not fit."""
        for i, (words, tags) in enumerate(examples):
            if len(words) != len(tags):
                raise SourceError(f"example {i}: {len(tags)} tags for {len(words)} words: expected one each")
            for tag in tags:
                if tag not in self._number:
                    raise SourceError(f"example {i}: tag {tag!r}{nearest(tag, self._number)}")
        inputs = self._inputs([words for words, _ in examples])
        numbers = _padded([[self._number[tag] for tag in tags] for _, tags in examples])
        return {**inputs, "tags": numbers.where(inputs["first"] >= 0, NO_TOKEN)}

    def loss(self, batch: Batch) -> Losses:
        """The mean over the words of the batch."""
        logits = self.logits(batch).flatten(0, 1)
        summed = nn.functional.cross_entropy(logits, batch["tags"].flatten(), ignore_index=NO_TOKEN, reduction="sum")
        return {"tagging": summed / (batch["tags"] != NO_TOKEN).sum().clamp(min=1)}

    def encode(self, batch: Batch) -> Tensor:
        """[n, words, d] state of the first token of each word; of a word without one, that of the first token of all."""
        at = batch["first"].clamp(min=0)
        states = self.states(batch)
        return states.gather(1, at[..., None].expand(*at.shape, states.shape[-1]))

    def logits(self, batch: Batch) -> Tensor:
        """[n, words, tags]"""
        logits: Tensor = self.linear(self.encode(batch))
        return logits

    def predict(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """A tag for each word of each sentence."""
        said: list[list[str]] = []
        with self.reading() as device:
            for part in in_batches(sentences):
                inputs = self._inputs(part)
                logits = self.logits({name: t.to(device) for name, t in inputs.items()}).cpu()
                best = logits.argmax(-1).where(inputs["first"] >= 0, 0)
                said += [[self.config.tags[i] for i in row[: len(words)].tolist()] for words, row in zip(part, best)]
        return said

    def score(self, examples: Sequence[tuple[Sequence[str], Sequence[str]]]) -> Estimate:
        """F1 of entities."""
        return span_f1([tags for _, tags in examples], self.predict([words for words, _ in examples]))

    def _inputs(self, sentences: Sequence[Any]) -> dict[str, Tensor]:
        """Tokens, and the place of each word's first one, `NO_TOKEN` where it has none."""
        if not len(sentences):
            raise SourceError("an empty batch: expected at least one example")
        for i, words in enumerate(sentences):
            if isinstance(words, str) or not len(words) or not all(isinstance(word, str) for word in words):
                raise SourceError(f"example {i}: expected a list of words")
        made = self.tokenizer(
            [" ".join(words) for words in sentences],
            truncation=True,
            max_length=self.config.max_tokens,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            return_token_type_ids=True,
        )
        first = [
            _first_tokens(words, spans, special)
            for words, spans, special in zip(sentences, made["offset_mapping"], made["special_tokens_mask"])
        ]
        return {**self.padded(made["input_ids"], made["token_type_ids"]), "first": _padded(first)}


def _first_tokens(words: Sequence[str], spans: Sequence[tuple[int, int]], special: Sequence[int]) -> list[int]:
    """The first token that reaches into each word."""
    past = np.cumsum([len(word) + 1 for word in words]) - 1  # past the last character of each word
    return first_tokens(past - [len(word) for word in words], past, spans, special)


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=NO_TOKEN)
