"""Weights of long documents out of those of their passages: HDCT (Dai and Callan 2020)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from hourglass.errors import ConfigError, nearest
from hourglass.uses.search.passages import passages
from hourglass.uses.search.term_weights.rows import Terms

Fold = Literal["mean", "sum", "max", "decay"]


def folded(rows: Sequence[Mapping[str, float]], fold: Fold = "decay") -> Terms:
    """A document's weights of those of its passages, in the order of the text; a passage without a term has 0 of it.

    "mean", "sum", "max"    over all passages
    "decay"                 sum of weight / place over the sum of 1 / place, 1 for the first passage: what comes first
                            counts most
    """
    if fold not in get_args(Fold):
        raise ConfigError(f"no fold {fold!r}{nearest(str(fold), get_args(Fold))}")
    places = 1 / (1 + np.arange(len(rows)))
    each = {"mean": np.full(len(rows), 1 / max(1, len(rows))), "decay": places / max(1.0, places.sum())}
    shares = each.get(fold, np.ones(len(rows))).tolist()
    made: defaultdict[str, float] = defaultdict(float)
    for row, share in zip(rows, shares):
        for term, weight in row.items():
            made[term] = max(made[term], weight) if fold == "max" else made[term] + share * weight
    return dict(made)


def by_passages(
    weigh: Callable[[Sequence[str]], Sequence[Mapping[str, float]]],
    texts: Sequence[str],
    fold: Fold = "decay",
    *,
    size: int = 100,
    stride: int | None = None,
    most: int | None = None,
) -> list[Terms]:
    """Weights of documents of any length: `weigh` reads windows of `size` words, one every `stride` (as many as `size`
    by default), at most `most` of a document. A text without words has none."""
    folded([], fold)  # a fold that there is not is refused before anything is read
    cut = [[part.text for part in passages(text, size, stride or size, most=most)] for text in texts]
    flat = [part for parts in cut for part in parts]
    rows = iter(weigh(flat) if flat else ())
    return [folded([next(rows) for _ in parts], fold) for parts in cut]
