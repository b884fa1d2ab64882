"""Semantic textual similarity: do the cosines of pairs of sentences rank them as people do? Spearman, as in STS and MTEB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from hourglass.errors import SourceError
from hourglass.metrics.estimates import Estimate, of_statistic
from hourglass.uses.probe.encoders import Encode, dense_vectors, unit_length
from hourglass.waist import TextEncoder, Waist

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class TextSimilarity:
    """spearman: from -1 to 1, bootstrap over pairs; cosines [n]: of each pair."""

    spearman: Estimate
    cosines: Array

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON."""
        return {"spearman": self.spearman.to_dict()}


def text_similarity(
    model: TextEncoder | Waist | Encode, first: Sequence[str], second: Sequence[str], scores: Sequence[float] | Array
) -> TextSimilarity:
    """Compare pairs of texts, which people gave `scores` [n] (of any scale, higher is more alike).

    Raises SourceError for lists of different lengths, or scores that are all equal.
    """
    given = np.asarray(scores, float)
    if not len(first) == len(second) == len(given):
        raise SourceError(f"{len(first)} first texts, {len(second)} second ones, {len(given)} scores: expected as many")
    if len(np.unique(given)) < 2 or not np.isfinite(given).all():
        raise SourceError("scores: expected numbers that are not all equal")
    vectors = unit_length(dense_vectors(model, [*first, *second]))
    cosines = np.einsum("nd,nd->n", vectors[: len(first)], vectors[len(first) :])
    return TextSimilarity(of_statistic(lambda rows: _spearman(cosines[rows], given[rows]), len(given)), cosines)


def _spearman(a: Array, b: Array) -> float:
    with np.errstate(invalid="ignore"):  # a draw of equal values has no correlation
        return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])
