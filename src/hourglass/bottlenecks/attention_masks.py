"""Which token sees which, where an objective hides by attention: masks [n, L, L], true where token i sees token j."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Sight = Literal["left_to_right", "right_to_left", "all", "prefix"]
SIGHTS: tuple[Sight, ...] = ("left_to_right", "right_to_left", "all", "prefix")
"""What is before a token and the token; what is after it and the token; all; the first half of the text and what is before."""


def sight_masks(mask: Tensor, sights: Tensor) -> Tensor:
    """[n, L, L] of texts with real tokens `mask` [n, L], each with one of `SIGHTS`, by number [n]; all see themselves, padding
    too, so that no row is empty."""
    length = mask.shape[1]
    place = torch.arange(length, device=mask.device)
    before = place <= place[:, None]
    half = (mask.sum(1) + 1) // 2
    first = (place < half[:, None])[:, None].expand(-1, length, -1)
    options = torch.stack(torch.broadcast_tensors(before, before.T, torch.ones_like(before), before | first), 1)
    seen = options[torch.arange(len(mask), device=mask.device), sights]
    return seen & mask[:, None] | torch.eye(length, dtype=torch.bool, device=mask.device)


def two_streams(turns: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The two streams of XLNet (Yang et al. 2019, arXiv 1906.08237) side by side as one sequence: the tokens of the text, then
    a query for each token that is to be guessed.

    turns  [n, L] 0 for tokens that are there from the start, 1, 2, ... for those that are guessed one after another
    mask   [n, L] bool, real tokens; the first is real and has turn 0

    Returns places [n, L + T], where in the text each stands (queries in the order of the text, those beyond a text's number 0),
    and the mask [n, L + T, L + T]: a token sees those of its turn and of earlier ones, a query those of earlier turns alone,
    and nothing sees a query.
    """
    n, length = turns.shape
    number = (turns > 0).sum(1)
    most = int(number.max())
    asked = torch.arange(most, device=turns.device) < number[:, None]
    at = (turns == 0).long().argsort(stable=True, dim=1)[:, :most].where(asked, 0)
    whole = torch.zeros(n, length + most, length + most, dtype=torch.bool, device=turns.device)
    whole[:, :length, :length] = turns[:, None] <= turns[:, :, None]
    whole[:, length:, :length] = turns[:, None] < turns.gather(1, at)[:, :, None]
    whole[:, :, :length] &= mask[:, None]
    whole[:, :, 0] = True
    return torch.cat([torch.arange(length, device=turns.device).expand(n, -1), at], 1), whole
