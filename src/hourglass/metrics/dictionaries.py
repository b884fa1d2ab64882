"""How alike two dictionaries are: what was learned and what is true, or what two seeds have learned.

A dictionary is a tensor [width, d], a direction in each row (`W_dec` of a sparse autoencoder); lengths do not matter,
signs do. Each direction of one dictionary is matched to at most one of the other, such that the sum of the cosines is
the largest there can be: without that, one direction could stand for many. All pairs of cosines are held at once, so
that 16,384 directions against as many take 2 GB and some minutes.
"""

from __future__ import annotations

from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize

SHARES = (0.7, 0.9)
"""Cosines above which a direction counts as found again."""


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """[n, m] float32 cosine of each direction of a [n, d] with each of b [m, d]; 0 for a direction of length 0."""
    return (normalize(a.detach().float(), dim=1) @ normalize(b.detach().float(), dim=1).T).clamp(-1, 1)


def match(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(rows of a, rows of b, their cosines), all [min(n, m)]: the pairs of a [n, d] and b [m, d] with the largest sum."""
    all_pairs = cosines(a, b).cpu()
    rows, columns = (torch.from_numpy(index) for index in linear_sum_assignment(all_pairs.numpy(), maximize=True))
    return rows, columns, all_pairs[rows, columns]


def mcc(learned: Tensor, true: Tensor) -> float:
    """Mean over the atoms of `true` of the cosine with the direction of `learned` they are matched to.

    1 where every atom has been found. An atom that is left over, because fewer directions were learned, counts 0.
    """
    return float(match(learned, true)[2].double().sum() / len(true))


def mean_max_cosine(learned: Tensor, true: Tensor) -> float:
    """Mean over the atoms of `true` of the largest cosine with any direction of `learned`, which may serve several."""
    return float(cosines(true, learned).amax(1).double().mean())


def stability(a: Tensor, b: Tensor) -> dict[str, Any]:
    """How much of one dictionary another has found again, say one that was trained from another seed.

    mean_cosine    mean over matched pairs, of which there are as many as the smaller dictionary has directions
    share_above    {"0.7": share of the pairs whose cosine is above 0.7, "0.9": likewise}

    Independent directions in many dimensions do not give 0: the best of many has a cosine of some tenths.
    Latents that are never active keep directions that no row has shaped; leave them out of both, `W_dec[density > 0]`.
    """
    found = match(a, b)[2].double()
    return {
        "mean_cosine": float(found.mean()),
        "share_above": {str(level): float((found > level).double().mean()) for level in SHARES},
    }
