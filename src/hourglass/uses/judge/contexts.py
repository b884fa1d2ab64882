"""Where a feature is most active: the few samples that hold its highest activations, cut out around them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hourglass.adapters.dialogues import TokenRows
from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.bottlenecks.sparse.sae import SparseAutoencoder

PER_FEATURE = 5
AROUND = 20
"""Tokens of a context to each side of its peak."""


@dataclass(frozen=True)
class Context:
    """Tokens around the place where a feature is most active in a sample, and its activation on each."""

    sample: int
    tokens: tuple[str, ...]
    values: tuple[float, ...]

    @property
    def peak(self) -> str:
        """The token on which the feature is most active."""
        return self.tokens[int(np.argmax(self.values))]


@dataclass(frozen=True)
class Strongest:
    """The samples in which each feature is most active, highest first.

    samples  how many there were
    values   [5, width] highest activation in each of the five, 0 where the feature is active in fewer
    where    [5, width] which samples
    """

    samples: int
    values: Tensor
    where: Tensor

    @property
    def live(self) -> Tensor:
        """[width] bool: active in all five."""
        return self.values[-1] > 0


def strongest(sae: SparseAutoencoder, batches: Iterable[TokenRows], per_feature: int = PER_FEATURE) -> Strongest:
    """The `per_feature` samples with the highest activations of each feature; a sample lies in one batch, whole.

    Memory is that of a batch with samples x width numbers for its maxima.
    """
    values = torch.zeros(per_feature, sae.config.width)
    where = torch.full((per_feature, sae.config.width), -1)
    samples = 0
    for batch in batches:
        ids, offsets = runs(batch.documents)
        maxima = sae.codes(batch.states).largest(offsets).float().cpu()
        # A sample that came before wins a tie: it stands first, and the sort is stable.
        values, order = torch.cat([values, maxima]).sort(dim=0, descending=True, stable=True)
        where = torch.cat([where, ids.cpu()[:, None].expand(-1, maxima.shape[1])]).gather(0, order)
        values, where = values[:per_feature], where[:per_feature]
        samples += len(ids)
    return Strongest(samples, values, where)


def contexts(
    sae: SparseAutoencoder,
    batches: Iterable[TokenRows],
    wanted: Sequence[tuple[int, list[int]]],
    token: Callable[[int], str],
    around: int = AROUND,
) -> dict[tuple[int, int], Context]:
    """Contexts by (feature, sample).

    wanted  for each dialogue of `batches`, 0, 1, 2 ...: which sample it is, and the features whose context is wanted
    token   the text of a token number
    """
    found: dict[tuple[int, int], Context] = {}
    for batch in batches:
        ids, offsets = runs(batch.documents)
        codes = sae.codes(batch.states)
        for i, first, last in zip(ids.tolist(), offsets[:-1].tolist(), offsets[1:].tolist()):
            inside = codes[first:last]
            sample, features = wanted[i]
            for feature in features:
                values = _activations(inside, feature)
                peak = int(values.argmax())
                near = slice(max(0, peak - around), peak + around + 1)
                tokens = tuple(token(number) for number in batch.ids[first:last][near].tolist())
                found[feature, sample] = Context(sample, tokens, tuple(values[near].tolist()))
    return found


def runs(dialogue: Tensor) -> tuple[Tensor, Tensor]:
    """The dialogues [n] of a batch in their order, and the offsets [n + 1] of their tokens."""
    ids, lengths = dialogue.unique_consecutive(return_counts=True)
    return ids, torch.nn.functional.pad(lengths.cumsum(0), (1, 0))


def _activations(codes: SparseCodes, feature: int) -> Tensor:
    """[len(codes)] float32"""
    here = codes.indices == feature
    values = torch.zeros(len(codes))
    values[codes.rows[here].cpu()] = codes.values[here].float().cpu()
    return values
