"""Whether a vector of a text, read through a language model's head, names the text's own tokens.

Nie et al. 2024, *A Text is Worth Several Tokens* (arXiv 2406.17378): of good encoders it does, of a raw language model it
does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Alignment:
    """From 0 to 1, over the texts that have a token.

    hit       share of the texts of which one of the k best tokens is in the text
    local     mean share of a text's T distinct tokens that are among its T best
    across    share of the distinct tokens of all texts that are among the T best of some text that has them
    """

    hit: float
    local: float
    across: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def alignment(parts: Iterable[tuple[Array, Sequence[Array]]], k: int = 10) -> Alignment:
    """Of texts some at a time: their scores [n, V], and the distinct tokens of each. A token with score -inf is never among the best."""
    hits: list[bool] = []
    shares: list[float] = []
    known: set[int] = set()
    matched: set[int] = set()
    for scores, texts in parts:
        for row, tokens in zip(scores, texts, strict=True):
            if not len(tokens):
                continue
            most = max(k, len(tokens))
            best = np.argpartition(-row, min(most, len(row) - 1))[:most]
            best = best[np.argsort(-row[best], kind="stable")]
            best = best[np.isfinite(row[best])]
            own = set(tokens.tolist())
            named = own.intersection(best[: len(own)].tolist())
            hits.append(not own.isdisjoint(best[:k].tolist()))
            shares.append(len(named) / len(own))
            known |= own
            matched |= named
    if not hits:
        return Alignment(np.nan, np.nan, np.nan)
    return Alignment(float(np.mean(hits)), float(np.mean(shares)), len(matched) / len(known))
