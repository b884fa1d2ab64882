"""How likely a model thinks texts are and what writing costs it, in units that models of different tokens share: bytes of text."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Likelihood:
    """nats: -log p of a stretch of text, all that is needed to write it down; tokens and bytes (UTF-8) that the stretch has."""

    nats: float
    tokens: int
    bytes: int

    @property
    def perplexity(self) -> float:
        """exp of the nats per token: compares only models that count the same tokens."""
        return math.exp(self.nats / self.tokens)

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes


@dataclass(frozen=True)
class Written:
    """What a model wrote after a prompt, and what it took.

    tokens, bytes   of what was written: words without marks of its end, UTF-8
    prompt_seconds  until the prompt was read; seconds: from there to the last token
    kv_bytes        keys and values that it held at most
    """

    tokens: int
    bytes: int
    prompt_seconds: float
    seconds: float
    kv_bytes: int

    @property
    def tokens_per_second(self) -> float:
        """The prompt's reading left out."""
        return self.tokens / self.seconds


def together(parts: Iterable[Likelihood]) -> Likelihood:
    """That of several stretches as one: every token counts the same."""
    found = list(parts)
    return Likelihood(
        math.fsum(part.nats for part in found), sum(part.tokens for part in found), sum(part.bytes for part in found)
    )


def mean_of_texts(parts: Iterable[Likelihood]) -> float:
    """exp of the mean over texts of their nats per token: every text counts the same, short ones too."""
    found = [part.nats / part.tokens for part in parts if part.tokens]
    return math.exp(math.fsum(found) / len(found))
