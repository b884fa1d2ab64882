"""Which tokens of a text are hidden, and what stands in their place: pure functions on tensors of token ids.

Words are given as a number for each token, the same for all tokens of a word and -1 for what may never be hidden (special
tokens, padding), so that any tokenizer serves.
"""

from __future__ import annotations

import torch
from torch import Tensor


def choose_words(words: Tensor, ratio: float) -> Tensor:
    """Hide whole words until a share `ratio` of each row's tokens is hidden; True where a token is.

    words  [..., L] int64: the number of the word that a token belongs to, -1 for a token that stays

    Words come in random order, and one is hidden where at least half of it fits what is left of the row's budget; the first
    always is, so that no row with a word is left whole. The random numbers are torch's.
    """
    can = words >= 0
    # All tokens of a word draw the same number.
    drawn = torch.rand(*words.shape[:-1], int(words.max().clamp(min=0)) + 1, device=words.device)
    drawn = drawn.gather(-1, words.clamp(min=0)).masked_fill_(~can, 2.0)
    order = drawn.argsort(dim=-1, stable=True)
    place = torch.empty_like(order).scatter_(
        -1, order, torch.arange(words.shape[-1], device=words.device).expand_as(order)
    )
    # Tokens before the word, and of the word, in that order.
    key = drawn.gather(-1, order)
    begins = torch.ones_like(key, dtype=torch.bool)
    begins[..., 1:] = key[..., 1:] != key[..., :-1]
    places = torch.arange(words.shape[-1], device=words.device).expand_as(order)
    before = torch.where(begins, places, 0).cummax(-1).values
    ends = torch.ones_like(begins)
    ends[..., :-1] = begins[..., 1:]
    last = torch.where(ends, places, words.shape[-1]).flip(-1).cummin(-1).values.flip(-1)
    budget = ratio * can.sum(-1, keepdim=True)
    hidden = (before == 0) | ((before + last + 1) / 2 <= budget)
    return hidden.gather(-1, place) & can if ratio > 0 else torch.zeros_like(can)


def choose_tokens(words: Tensor, ratio: float) -> Tensor:
    """Hide each token that may be with probability `ratio`, by itself, and at least one in a row that has any."""
    can = words >= 0
    drawn = torch.rand(words.shape, device=words.device).masked_fill_(~can, 2.0)
    hidden = drawn < ratio
    if ratio > 0:
        hidden |= (drawn == drawn.amin(-1, keepdim=True)) & ~hidden.any(-1, keepdim=True)
    return hidden & can


def corrupt(
    ids: Tensor, hidden: Tensor, mask_id: int, vocabulary: int, *, masked: float = 0.8, random: float = 0.1
) -> Tensor:
    """The ids with hidden tokens replaced: a share `masked` by `mask_id`, a share `random` by any token; the rest stay."""
    drawn = torch.rand(ids.shape, device=ids.device)
    others = torch.randint(vocabulary, ids.shape, device=ids.device)
    replaced = torch.where(drawn < masked, mask_id, torch.where(drawn < masked + random, others, ids))
    return torch.where(hidden, replaced, ids)
