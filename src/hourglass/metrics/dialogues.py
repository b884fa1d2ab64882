"""How well an autoencoder restores the states of whole dialogues, and of their template tokens above all.

    found = measure_dialogues(sae, read_flow(reader, documents, Flow()))
    found["special"]["mse"], found["special"]["log2_mse"], found["special_after_first"]["fvu"]

The error of a token is the mean over its columns, that of a dialogue the mean over its tokens, and `mse` the mean over
dialogues: a long dialogue counts as much as a short one. On template tokens alone this is the MSE_st of Li et al.,
"Training superior sparse autoencoders for instruct models" (2025), whose tables print the log2 of both. The first token
of a dialogue, which often has a state like no other, stands apart.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor

from hourglass.adapters.dialogues import TokenRows
from hourglass.errors import SourceError
from hourglass.metrics.autoencoders import Coder
from hourglass.metrics.reconstruction import RunningFvu

PARTS = ("all", "special", "content", "first", "after_first", "special_after_first")
"""Which tokens: all; the template's, and all others; those at position 0, all others, and the template's among them."""


def measure_dialogues(
    sae: Coder, batches: Iterable[TokenRows], special: Collection[int] | None = None
) -> dict[str, Any]:
    """Errors of an autoencoder on dialogues, as values for JSON.

    batches  dialogues that were read whole; the tokens of one may lie in several batches
    special  token numbers that count as special (the paper lists a few for each model); None: as the batches say

    variance   mean over columns of the variance of all tokens, in the units of the states, squared
    and by each of PARTS
        dialogues, tokens  that have such tokens, and those
        mse                see above; mse_of_variance: divided by `variance`
        log2_mse           log2 of it, as the paper prints; log2_mse_of_variance likewise
        fvu                fraction of variance unexplained over these tokens, each counting alike, around their own mean;
                           null where all states are equal, as first tokens of a causal model are
        l0                 active latents of a token, on average

    Null where there is no such token (a log2 also of 0). Memory is that of a batch and two numbers a dialogue. Raises
    SourceError when there is no token at all.
    """
    listed = None if special is None else torch.tensor(sorted(special))
    sums = {part: _Sums() for part in PARTS}
    for batch in batches:
        x = batch.states.detach().float()
        codes = sae.codes(x)
        restored = sae.decode(codes).to(x.device)
        active = codes.offsets.diff()
        marked = batch.special if listed is None else torch.isin(batch.ids, listed.to(batch.ids))
        first = batch.positions == 0
        chosen = (torch.ones_like(first), marked, ~marked, first, ~first, marked & ~first)
        for part, keep in zip(PARTS, chosen, strict=True):
            sums[part].add(x[keep], restored[keep], batch.documents[keep], active[keep])
    everything = sums["all"].kept
    if not everything.rows:
        raise SourceError("no token to measure on: expected at least one dialogue")
    variance = everything.variance / everything.rows / sums["all"].columns
    return {"variance": variance, **{part: found.to_dict(variance) for part, found in sums.items()}}


class _Sums:
    """What has been seen of one part of the tokens."""

    def __init__(self) -> None:
        self.kept, self.active, self.columns = RunningFvu(), 0, 1
        self.of_dialogue: dict[int, tuple[float, int]] = {}  # sum of the errors of its tokens, and their number

    def add(self, x: Tensor, restored: Tensor, dialogue: Tensor, active: Tensor) -> None:
        if not len(x):
            return
        self.columns = x.shape[1]
        self.kept.add(x, restored)
        self.active += int(active.sum())
        error = (x.double() - restored.double()).square().mean(1)
        ids, where, tokens = dialogue.unique(return_inverse=True, return_counts=True)
        errors = torch.zeros(len(ids), dtype=torch.float64, device=x.device).index_add_(0, where, error)
        for i, e, t in zip(ids.tolist(), errors.tolist(), tokens.tolist(), strict=True):
            before = self.of_dialogue.get(i, (0.0, 0))
            self.of_dialogue[i] = (before[0] + e, before[1] + t)

    def to_dict(self, variance: float) -> dict[str, Any]:
        means = [error / tokens for error, tokens in self.of_dialogue.values()]
        mse = math.fsum(means) / len(means) if means else None
        scaled = mse / variance if mse is not None and variance > 0 else None
        return {
            "dialogues": len(means),
            "tokens": self.kept.rows,
            "mse": mse,
            "log2_mse": _log2(mse),
            "mse_of_variance": scaled,
            "log2_mse_of_variance": _log2(scaled),
            "fvu": self.kept.fvu,
            "l0": self.active / self.kept.rows if self.kept.rows else None,
        }


def _log2(value: float | None) -> float | None:
    return math.log2(value) if value else None
