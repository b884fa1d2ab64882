"""What models of a weight for each term share: terms to the tokens that speak for them, a text's terms to its
weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hourglass.errors import SourceError
from hourglass.uses.finetune.head import NO_TOKEN, Head, first_tokens, in_batches
from hourglass.uses.search.term_weights.rows import Spans, Terms, word_spans
from hourglass.waist import Batch

Stretch = tuple[int, int]
"""First and past-last character."""


class TermHead(Head):
    """A head with a number for each term, read at the first token of it; `first_only`: and of a term's first
    occurrence."""

    first_only: ClassVar[bool]

    def numbers(self, batch: Batch) -> Tensor:
        """[n, terms] of the terms whose places are "first"; of NO_TOKEN anything."""
        raise NotImplementedError

    def encode(self, batch: Batch) -> Tensor:
        """[n, terms, d] states of the first tokens of terms; of a term without one, that of the first token of all."""
        at = batch["first"].clamp(min=0)
        states = self.states(batch)
        return states.gather(1, at[..., None].expand(*at.shape, states.shape[-1]))

    def weigh(self, texts: Sequence[str], spans: Spans = word_spans) -> list[Terms]:
        """Weights above 0 of each text's terms, by `spans`; the largest where a term is there several times.

        What is beyond `max_tokens` has no weight: `by_passages` reads long documents whole.
        """
        made: list[Terms] = []
        with self.reading() as device:
            for part in in_batches(texts):
                found = [self.occurrences(text, spans) for text in part]
                inputs = self.located(part, [[(a, b) for a, b, _ in each] for each in found])
                numbers = self.numbers({name: tensor.to(device) for name, tensor in inputs.items()}).float().cpu()
                for each, row, first in zip(found, numbers.tolist(), inputs["first"].tolist()):
                    weights: Terms = {}
                    for (_, _, term), number, place in zip(each, row, first):
                        if place != NO_TOKEN and number > 0:
                            weights[term] = max(number, weights.get(term, 0.0))
                    made.append(weights)
        return made

    def occurrences(self, text: str, spans: Spans) -> list[tuple[int, int, str]]:
        """The terms of a text that are read."""
        found = list(spans(text))
        if not self.first_only:
            return found
        firsts: dict[str, tuple[int, int, str]] = {}
        for each in found:
            firsts.setdefault(each[2], each)
        return list(firsts.values())

    def located(self, texts: Sequence[str], stretches: Sequence[Sequence[Stretch]]) -> dict[str, Tensor]:
        """Tokens of the texts, and "first" [n, terms], the place of the first token of each stretch of a text;
        NO_TOKEN of what is cut off, and of padding."""
        if not len(texts):
            raise SourceError("an empty batch: expected at least one example")
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise SourceError(f"example {i}: expected a text, found {type(text).__name__}")
        made = self.tokenizer(
            list(texts),
            truncation=True,
            max_length=self.config.max_tokens,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            return_token_type_ids=True,
        )
        first = [
            first_tokens([a for a, _ in of], [b for _, b in of], offsets, special)
            for of, offsets, special in zip(stretches, made["offset_mapping"], made["special_tokens_mask"])
        ]
        return {
            **self.padded(made["input_ids"], made["token_type_ids"]),
            "first": padded_rows([torch.tensor(row, dtype=torch.int64) for row in first]),
        }


def padded_rows(rows: Sequence[Tensor], value: float = NO_TOKEN) -> Tensor:
    """[n, longest] of rows."""
    return pad_sequence(list(rows), batch_first=True, padding_value=value)
