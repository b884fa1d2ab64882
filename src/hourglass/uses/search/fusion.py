"""Several rankings become one: by ranks, or by scores brought to one scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, final, get_args

import numpy as np

from hourglass.errors import ConfigError, nearest
from hourglass.uses.search.stages import Array, Found, Ranking, Stage

Scale = Literal["minmax", "z"]


@final
class ReciprocalRank(Stage):
    """Sum over the rankings of weight / (constant + rank); Cormack, Clarke and Büttcher 2009.

    weights  one for each ranking; all alike by default
    """

    def __init__(self, constant: float = 60.0, weights: Sequence[float] = ()) -> None:
        if not constant >= 0:
            raise ConfigError(f"constant {constant}: expected 0 or more")
        self.name, self._constant, self._weights = "rrf", constant, tuple(weights)

    def advance(self, found: Sequence[Found]) -> list[Found]:
        return [
            _fused(each, self._weights, [1 / (self._constant + 1 + np.arange(len(r))) for r in each.rankings])
            for each in found
        ]


@final
class Interpolated(Stage):
    """Weighted sum of the scores, each ranking's brought to one scale for each query; what a ranking lacks has its least.

    scale    "minmax": from 0 to 1; "z": less their mean, over their standard deviation
    weights  one for each ranking; all alike by default
    """

    def __init__(self, *weights: float, scale: Scale = "minmax") -> None:
        if scale not in get_args(Scale):
            raise ConfigError(f"no scale {scale!r}{nearest(str(scale), get_args(Scale))}")
        self.name, self._scale, self._weights = "mix", scale, weights

    def advance(self, found: Sequence[Found]) -> list[Found]:
        made = []
        for each in found:
            scores = [_scaled(r.scores, self._scale) for r in each.rankings]
            made.append(_fused(each, self._weights, scores, absent=[float(s.min(initial=0)) for s in scores]))
        return made


def _scaled(scores: Array, scale: Scale) -> Array:
    scores = scores.astype(np.float64)
    if not len(scores):
        return scores
    low, width = (scores.min(), np.ptp(scores)) if scale == "minmax" else (scores.mean(), scores.std())
    return (scores - low) / width if width else np.zeros_like(scores)


def _fused(
    found: Found, weights: Sequence[float], votes: Sequence[Array], absent: Sequence[float] | None = None
) -> Found:
    weights = weights or [1.0] * len(votes)
    if not votes:
        raise ConfigError("nothing to fuse; begin with stages that retrieve, as in (bm25 | dense) >> rrf")
    if len(weights) != len(votes):
        raise ConfigError(f"{len(weights)} weights for {len(votes)} rankings; expected one for each")
    rows, where = np.unique(np.concatenate([r.rows for r in found.rankings]), return_inverse=True)
    least = absent or [0.0] * len(votes)
    summed = np.full(len(rows), float(np.dot(weights, least)))
    borders = np.cumsum([0, *map(len, votes)])
    for start, weight, vote, floor in zip(borders, weights, votes, least):
        summed[where[start : start + len(vote)]] += weight * (vote - floor)  # a ranking has a document once
    return replace(found, rankings=(Ranking.of(rows, summed),))
