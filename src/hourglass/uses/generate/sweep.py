"""How many latents a text needs: to be copied, and to be drawn, which are not the same number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from hourglass.metrics.generation import WittenBell, diversity, memorisation, trimmed_mean


class Generating(Protocol):
    """A model that copies texts and draws new ones."""

    def accuracy(self, texts: Sequence[str]) -> float: ...

    def generate(self, n: int | None = None, *, steps: int = 200, seed: int = 0) -> list[str]: ...


def sweep_latents(
    numbers: Sequence[int],
    learn: Callable[[int], Generating],
    learned: Sequence[str],
    held_out: Sequence[str],
    *,
    n: int = 500,
    steps: int = 100,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """A row for each number of latents: {"latents", "accuracy" (tokens of held-out texts that come back), and of `n` drawn texts
    "perplexity" (of a word, by a 4-gram model of the texts learned from), "diversity", "memorisation"}. The last row, "latents"
    None, is of as many held-out texts themselves.

    learn  makes a trained model, as `lambda n: hg.fit("cosmos", source, out=f"run-{n}", latents=n).model`
    """
    ngrams = WittenBell(learned)

    def of_texts(texts: Sequence[str]) -> dict[str, Any]:
        there = [text for text in texts if text.strip()]
        return {
            "perplexity": trimmed_mean(ngrams.perplexities(there)) if there else float(np.nan),
            "diversity": diversity(texts),
            "memorisation": memorisation(texts, learned),
        }

    rows = []
    for number in numbers:
        model = learn(number)
        written = model.generate(n, steps=steps, seed=seed)
        rows.append({"latents": number, "accuracy": model.accuracy(held_out), **of_texts(written)})
    return [*rows, {"latents": None, "accuracy": 1.0, **of_texts(held_out[:n])}]
