"""Noise on documents: what a denoising autoencoder of text is asked to undo.

Lewis et al., 2019 (arXiv 1910.13461); the rules that the paper leaves open are those of its authors' code (fairseq).
A document is an array of token ids [n] without the special tokens around it, which are therefore never touched. Every
function is pure: a new array of ids comes back, randomness comes from the generator alone. For noise that is drawn anew
in every epoch and does not depend on the batch, give it `numpy.random.default_rng((seed, epoch, index))`.

    noise = NOISES["infill+shuffle"]
    source = noise(ids, generator, mask_id=4, ends=sentence_ends(ids == full_stop))     # the target is `ids`

Differences from the authors' code: random tokens are ordinary ones, where theirs can be <pad> or </s>; the number of
masks to insert is a share of the document's own tokens, without the two special ones; a last sentence of one token is a
sentence, where theirs stays in its place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.random import Generator
from scipy.stats import poisson

from hourglass.errors import ConfigError

Ids = np.ndarray
"""[n] integers."""

SENTENCE_BREAKS: Mapping[str, re.Pattern[str]] = {
    "text": re.compile(r"[.!?][\"'”’)\]]*(?=\s)"),
    "newline": re.compile(r"\n+"),
}
"""Where a sentence ends in a text, by the name of the rule: past the match."""


# The five of the paper, and insertion --------------------------------------------------------------------


def mask_tokens(ids: Ids, share: float, generator: Generator, *, mask_id: int, starts: Ids | None = None) -> Ids:
    """Token masking: ceil(share * n) tokens, or words where `starts` says where they begin, become one mask each."""
    return replace_spans(ids, _ones(ids, share, starts), generator, mask_id=mask_id, starts=starts)


def delete_tokens(ids: Ids, share: float, generator: Generator, *, starts: Ids | None = None) -> Ids:
    """Token deletion: ceil(share * n) tokens (or words) are gone; which, the model must find out."""
    return replace_spans(ids, _ones(ids, share, starts), generator, mask_id=-1, starts=starts, replace_length=0)


def infill(
    ids: Ids,
    share: float,
    generator: Generator,
    *,
    mask_id: int,
    mean: float = 3.0,
    starts: Ids | None = None,
    replace_length: Literal[-1, 0, 1] = 1,
    random_share: float = 0.0,
    random_ids: Ids | None = None,
) -> Ids:
    """Text infilling: spans of Poisson(mean) words, ceil(share * words) words in all, become one mask each.

    A span of length 0 is a mask with nothing under it. The other arguments are those of `replace_spans`.
    """
    lengths = poisson_spans(_budget(ids, share, starts), mean, generator)
    options: dict[str, Any] = {"mask_id": mask_id, "random_share": random_share, "random_ids": random_ids}
    covered = replace_spans(
        ids, lengths[lengths > 0], generator, starts=starts, replace_length=replace_length, **options
    )
    return insert_masks(covered, int((lengths == 0).sum()), generator, **options)


def permute_sentences(ids: Ids, ends: Ids, generator: Generator, share: float = 1.0) -> Ids:
    """Sentence permutation: ceil(share * sentences) of them change places. `ends` as from `sentence_ends`."""
    return ids[sentence_order(ends, generator, share)]


def rotate(ids: Ids, generator: Generator) -> Ids:
    """Document rotation: a token is picked uniformly, the document begins there and what stood before comes last."""
    return np.roll(ids, -int(generator.integers(len(ids)))) if len(ids) else ids.copy()


def insert_masks(
    ids: Ids,
    count: int,
    generator: Generator,
    *,
    mask_id: int,
    random_share: float = 0.0,
    random_ids: Ids | None = None,
) -> Ids:
    """Insertion: `count` masks at random places; ceil(random_share * count) of them are tokens of `random_ids` instead."""
    if count == 0:
        return ids.copy()
    places = generator.permutation(len(ids) + count)[:count]
    kept = np.ones(len(ids) + count, bool)
    kept[places] = False
    noised = np.full(len(kept), mask_id, ids.dtype)
    noised[kept] = ids
    if random_share > 0:
        odd = places[: math.ceil(count * random_share)]
        noised[odd] = _random_tokens(random_ids, len(odd), generator)
    return noised


# What they are made of -----------------------------------------------------------------------------------


def poisson_spans(budget: int, mean: float, generator: Generator) -> np.ndarray:
    """Lengths of spans, Poisson(mean) each, zeros too, whose sum is `budget`: the last is cut to what is left."""
    if budget == 0:
        return np.empty(0, np.int64)
    lengths = _poisson(mean, budget, generator)
    total = lengths.cumsum()
    while total[-1] < budget:
        lengths = np.concatenate([lengths, _poisson(mean, budget, generator)])
        total = lengths.cumsum()
    last = int(np.searchsorted(total, budget))
    lengths[last] -= total[last] - budget
    return lengths[: last + 1]


def replace_spans(
    ids: Ids,
    lengths: Ids,
    generator: Generator,
    *,
    mask_id: int,
    starts: Ids | None = None,
    replace_length: Literal[-1, 0, 1] = 1,
    random_share: float = 0.0,
    random_ids: Ids | None = None,
) -> Ids:
    """Spans of `lengths` words, from words drawn without replacement, become masks.

    lengths         [s] integers > 0; at most as many as there are words
    starts          [n] bool, where a word begins; None: every token is a word. Tokens before the first start stay
    replace_length  1: one mask for each span; 0: none, the span is gone; -1: one for each token
    random_share    how often a span shows tokens of `random_ids` in place of masks

    A span ends with the document. Two spans may overlap, and then cover fewer words than they have together; a mask that
    stands inside another span is gone with it.
    """
    size = len(ids)
    first = np.arange(size) if starts is None else np.flatnonzero(starts)
    words = generator.permutation(len(first))[: len(lengths)]
    heads = first[words]
    ends = np.append(first, size)[np.minimum(words + lengths, len(first))]
    tails = _between(heads + 1, ends, size)
    if replace_length == 0:
        tails[heads] = True
        return ids[~tails]
    noised = ids.copy()
    noised[heads] = mask_id
    if replace_length == -1:
        noised[tails] = mask_id
    if random_share > 0:
        odd = generator.random(len(heads)) < random_share
        places = _between(heads[odd], ends[odd], size) if replace_length == -1 else heads[odd]
        noised[places] = _random_tokens(random_ids, len(noised[places]), generator)
    return noised if replace_length == -1 else noised[~tails]


def sentence_ends(full_stops: np.ndarray) -> np.ndarray:
    """Where sentences end, past their last token: at a full stop that follows none, and with the document.

    full_stops  [n] bool, for example `ids == 13` with GPT-2's tokens, or `table[ids]` for several of them
    """
    follows = full_stops[1:] & ~full_stops[:-1]
    ends = np.flatnonzero(follows) + 2
    if len(full_stops) and full_stops[0]:
        ends = np.concatenate([[1], ends])
    return _closed(ends, len(full_stops))


def sentence_ends_in_text(text: str, first_characters: np.ndarray, rule: str) -> np.ndarray:
    """Where sentences end, past their last token, as the text shows it and not the tokens.

    first_characters  [n] where each token begins in `text`
    rule              a key of `SENTENCE_BREAKS`: "text" (. ! ? before white space) or "newline"
    """
    breaks = [found.end() for found in SENTENCE_BREAKS[rule].finditer(text)]
    ends = np.unique(np.searchsorted(first_characters, breaks))
    return _closed(ends[ends > 0], len(first_characters))


def sentence_order(ends: Ids, generator: Generator, share: float = 1.0) -> np.ndarray:
    """The permutation of tokens [n] that moves ceil(share * sentences) sentences to each other's places, as indices."""
    begins = np.concatenate([[0], ends[:-1]])
    order = np.arange(len(ends))
    moved = generator.permutation(len(ends))[: math.ceil(len(ends) * share)]
    order[moved] = generator.permutation(moved)
    lengths = (ends - begins)[order]
    shift = begins[order] - (lengths.cumsum() - lengths)
    return np.arange(int(lengths.sum())) + np.repeat(shift, lengths)


# All of them in their order --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What is done to a document, in this order: sentences permuted, words masked, masks inserted, document rotated.

    permute         share of the sentences that change places
    mask            share of the words (tokens, where not `whole_words`) that are masked
    mean            spans have Poisson(mean) words; None: one word each
    whole_words     spans are of words; otherwise of tokens
    replace_length  1: one mask for each span; 0: none, it is deleted; -1: one for each of its tokens
    mask_random     how often random tokens stand in place of masks
    insert          masks that are inserted, as a share of the tokens
    rotate          how often the document is rotated

    Raises ConfigError for a value that cannot be.
    """

    permute: float = 0.0
    mask: float = 0.0
    mean: float | None = 3.0
    whole_words: bool = True
    replace_length: Literal[-1, 0, 1] = 1
    mask_random: float = 0.0
    insert: float = 0.0
    rotate: float = 0.0

    def __post_init__(self) -> None:
        for name in ("permute", "mask", "mask_random", "insert", "rotate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} {getattr(self, name)!r}: expected a share, from 0 to 1")
        if self.mean is not None and not 0 < self.mean <= 100:
            raise ConfigError(f"mean {self.mean!r}: expected a length of spans above 0 and up to 100, or None")
        if self.replace_length not in (-1, 0, 1):
            raise ConfigError(f"replace_length {self.replace_length!r}: expected -1, 0 or 1")

    def __call__(
        self,
        ids: Ids,
        generator: Generator,
        *,
        mask_id: int,
        random_ids: Ids | None = None,
        starts: Ids | None = None,
        ends: Ids | None = None,
    ) -> Ids:
        """A noised copy of a document.

        mask_id     of the mask token
        random_ids  tokens to draw from, where `mask_random` asks for them
        starts      [n] bool, where a word begins, where `whole_words` is asked for; None: every token is a word
        ends        where sentences end, past their last token, where `permute` asks for it; None: one sentence
        """
        starts = starts if self.whole_words else None
        if self.permute > 0 and ends is not None:
            order = sentence_order(ends, generator, self.permute)
            ids, starts = ids[order], None if starts is None else starts[order]
        options: dict[str, Any] = {"mask_id": mask_id, "random_share": self.mask_random, "random_ids": random_ids}
        spans: dict[str, Any] = {"starts": starts, "replace_length": self.replace_length, **options}
        if self.mask > 0 and self.mean is not None:
            ids = infill(ids, self.mask, generator, mean=self.mean, **spans)
        elif self.mask > 0:
            ids = replace_spans(ids, _ones(ids, self.mask, starts), generator, **spans)
        if self.insert > 0:
            ids = insert_masks(ids, math.ceil(len(ids) * self.insert), generator, **options)
        if self.rotate > 0 and generator.random() < self.rotate:
            ids = rotate(ids, generator)
        return ids


NOISES: Mapping[str, Noise] = {
    "mask": Noise(mask=0.3, mean=None, whole_words=False),
    "delete": Noise(mask=0.3, mean=None, whole_words=False, replace_length=0),
    "infill": Noise(mask=0.3),
    "shuffle": Noise(permute=1.0),
    "rotate": Noise(rotate=1.0),
    "infill+shuffle": Noise(mask=0.3, permute=1.0),
}
"""The noises that the paper compares; the last is that of its large model."""


def _budget(ids: Ids, share: float, starts: Ids | None) -> int:
    return math.ceil((len(ids) if starts is None else int(starts.sum())) * share)


def _ones(ids: Ids, share: float, starts: Ids | None) -> np.ndarray:
    return np.ones(_budget(ids, share, starts), np.int64)


def _between(begins: Ids, ends: Ids, size: int) -> np.ndarray:
    """[size] bool: the tokens that are in one of the spans begins : ends."""
    changes = np.bincount(begins, minlength=size + 1) - np.bincount(ends, minlength=size + 1)
    return changes.cumsum()[:size] > 0


def _closed(ends: np.ndarray, size: int) -> np.ndarray:
    """The ends of sentences with that of the document, where it is not among them."""
    return np.append(ends, size) if size and (len(ends) == 0 or ends[-1] != size) else ends


def _random_tokens(random_ids: Ids | None, count: int, generator: Generator) -> np.ndarray:
    if random_ids is None:
        raise ConfigError("mask_random: random tokens are asked for; give the ids to draw from (random_ids)")
    return random_ids[generator.integers(len(random_ids), size=count)]


def _poisson(mean: float, count: int, generator: Generator) -> np.ndarray:
    return np.searchsorted(_poisson_table(mean), generator.random(count), side="right")


@lru_cache
def _poisson_table(mean: float) -> np.ndarray:
    """Cumulative probabilities of 0, 1, ... up to the first beyond the mean that is rarer than 1e-7; its own is left out."""
    rare = 1 + int(mean)
    while poisson.pmf(rare, mean) >= 1e-7:
        rare += 1
    below = poisson.pmf(np.arange(rare + 1), mean)
    return (below.cumsum() / below.sum())[:-1]
