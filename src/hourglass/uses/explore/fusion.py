"""Several rankings of the same documents become one: with equal votes, or with votes that examples give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hourglass.metrics.ranking import reciprocal_rank_fusion

Array = np.ndarray[Any, Any]

DOUBT = 2
"""Examples' worth of belief that all rankings are equally good."""


def votes(unseen: Mapping[str, Array], positive: Array) -> dict[str, float]:
    """What each ranking's score counts, adding up to 1, by how far it parts examples that it has not seen.

    unseen    for each ranking the scores [n] of the examples, each from what was learned without it
    positive  [n] which of them have the property

    The distance is Cohen's d, the means' difference in standard deviations; below 0 it is none. As scores in standard
    units that are independent within a side and have normal distributions, d is the weight that parts the sides best.
    The shares are drawn to equal ones as by two more examples of each side; they are equal where no ranking parts
    them, and of fewer than two examples of a side.
    """
    equal, fewest = 1 / len(unseen), min(positive.sum(), (~positive).sum())
    apart = np.array([max(0.0, _distance(scores, positive)) for scores in unseen.values()])
    if fewest < 2 or not apart.any():
        return dict.fromkeys(unseen, equal)
    shares = (fewest * apart / apart.sum() + DOUBT * equal) / (fewest + DOUBT)
    return {name: float(share) for name, share in zip(unseen, shares)}


def fused(rankings: Mapping[str, Array], votes: Mapping[str, float] | None = None) -> Array:
    """[documents] one score of several [documents]: their sum in standard units by `votes`, or by reciprocal ranks."""
    if len(rankings) == 1:
        return next(iter(rankings.values()))
    if votes is None:
        return reciprocal_rank_fusion(list(rankings.values()))
    return np.sum([votes[name] * _standard(scores) for name, scores in rankings.items()], axis=0)


def _distance(scores: Array, positive: Array) -> float:
    has, others = scores[positive], scores[~positive]
    spread = np.sqrt((has.var() + others.var()) / 2)
    return float((has.mean() - others.mean()) / max(spread, 1e-12))


def _standard(scores: Array) -> Array:
    scores = np.asarray(scores, np.float64)
    return (scores - scores.mean()) / max(scores.std(), 1e-12)
