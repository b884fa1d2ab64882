"""What share of an autoencoder's features is clear, by a judge who sees where each is most active.

    judged = judge_features(sae, dialogues, reader.read, tokenizer.decode, judge)
    judged.share, judged.cdf[3]

1. Of each feature the five samples with its highest activations are found, over all samples.
2. Features that are active in all five are kept, and 128 of them drawn by `seed`.
3. The judge sees, for each, the tokens around the five peaks with their activations, and gives a score from 1 to 5 and a name.

Li et al., "Training superior sparse autoencoders for instruct models" (2025): 10,000 samples, GPT-4o as the judge.

Differences from the paper
- The judge sees 20 tokens to each side of the peak, not whole samples; a feature's five contexts are of five samples.
- How many features could be drawn from stands beside the share: an autoencoder with few live features is not a better one.
- The five highest activations say nothing about the weak ones, here as there.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from hourglass.adapters.dialogues import TokenRows
from hourglass.bottlenecks.sparse.sae import SparseAutoencoder
from hourglass.errors import EndpointError, InputError, RefusalError, SourceError
from hourglass.metrics.proportions import wilson
from hourglass.uses.judge.contexts import contexts, strongest
from hourglass.uses.judge.judges import RUBRIC, Judge

FEATURES = 128
CLEAR = 4
"""The score from which a feature counts as clear."""

_AT_ONCE = 64


@dataclass(frozen=True)
class Judged:
    """What the judge said.

    samples, width, live  samples looked at, features in all, and those active in five samples
    table                 a row for each judged feature: feature, score, name, peaks (the token of each context, strongest first)
    trouble               a line for each drawn feature of which there is no judgement
    """

    samples: int
    width: int
    live: int
    table: pd.DataFrame
    trouble: tuple[str, ...]

    @property
    def share(self) -> float:
        """Share of the judged features that score 4 or 5."""
        return float((self.table["score"] >= CLEAR).mean())

    @property
    def cdf(self) -> dict[int, float]:
        """Share of the judged features that score at most 1, 2, 3, 4, 5; that at 3 is 1 - `share`."""
        return {score: float((self.table["score"] <= score).mean()) for score in sorted(RUBRIC)}

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON; low and high are the 95 % interval of the share (Wilson)."""
        low, high = wilson(np.array((self.table["score"] >= CLEAR).sum()), len(self.table))
        return {
            "samples": self.samples,
            "width": self.width,
            "live": self.live,
            "judged": len(self.table),
            "share": self.share,
            "low": float(low),
            "high": float(high),
            "cdf": {str(score): value for score, value in self.cdf.items()},
            "trouble": list(self.trouble),
            "rows": json.loads(self.table.to_json(orient="records")),
        }


def judge_features(
    sae: SparseAutoencoder,
    samples: Sequence[Any],
    read: Callable[[Sequence[Any]], TokenRows],
    token: Callable[[int], str],
    judge: Judge,
    *,
    features: int = FEATURES,
    seed: int = 0,
) -> Judged:
    """Let `judge` score features of an autoencoder on samples that it has not learned from.

    read   token states of some of the samples, numbered from 0, such as `DialogueReader.read`
    token  the text of a token number, such as a tokenizer's `decode`

    All samples are read once, and those with the contexts of drawn features once more; memory is that of a batch. What a
    judge refuses in an InputError is noted and left out. Raises SourceError when no feature is active in five samples, or
    no judgement is left; EndpointError, at the first feature, when the judge is gone.
    """
    found = strongest(sae, _batches(samples, read))
    live = found.live.nonzero().squeeze(1).numpy()
    if not len(live):
        raise SourceError(f"no feature is active in {len(found.values)} of {found.samples} samples; give more of them")
    drawn = np.sort(np.random.default_rng(seed).permutation(live)[:features]).tolist()
    wanted: dict[int, list[int]] = defaultdict(list)
    for feature in drawn:
        for sample in found.where[:, feature].tolist():
            wanted[sample].append(feature)
    again = sorted(wanted.items())
    cut = contexts(sae, _batches([samples[sample] for sample, _ in again], read), again, token)
    rows, trouble = [], []
    for feature in drawn:
        seen = [cut[feature, sample] for sample in found.where[:, feature].tolist()]
        try:
            said = judge(seen)
        except InputError as error:
            if isinstance(error, EndpointError) and not isinstance(error, RefusalError):
                raise  # gone, or out of budget: it would be so for all others, after as many tries
            trouble.append(f"feature {feature}: {error}")
            continue
        if said.score not in RUBRIC:
            trouble.append(f"feature {feature}: the judge gave {said.score!r}; expected 1 to 5")
            continue
        rows.append((feature, said.score, said.name, [context.peak for context in seen]))
    if not rows:
        raise SourceError(f"no judgement of {len(drawn)} features; the first: {trouble[0]}")
    table = pd.DataFrame(rows, columns=["feature", "score", "name", "peaks"])
    return Judged(found.samples, sae.config.width, len(live), table, tuple(trouble))


def _batches(samples: Sequence[Any], read: Callable[[Sequence[Any]], TokenRows]) -> Iterator[TokenRows]:
    """All samples, some at a time, numbered from 0."""
    for start in range(0, len(samples), _AT_ONCE):
        rows = read(samples[start : start + _AT_ONCE])
        yield replace(rows, documents=rows.documents + start)
