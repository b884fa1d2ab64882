"""A column with an order, cut into bins that a person can name: numbers, dates, numbered names, or an order that is given."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any

import numpy as np
import pandas as pd

from hourglass.errors import InputError, nearest
from hourglass.uses.explore.strata import merged

Array = np.ndarray[Any, Any]

_NUMBERS = re.compile(r"\d+")


@dataclass(frozen=True)
class Bins:
    """of: [n] the bin of each document, -1 where it has none; names: what is in each bin, in rising order."""

    of: Array
    names: list[str]


def ordered_bins(
    values: Sequence[Any], most: int, smallest: int, where: str, order: Sequence[str] = (), share: float = 0.0
) -> Bins:
    """Bins of a column: one for each value, or, where more than `most` values differ, as many with about as many documents.

    values    as they were read: numbers, dates, or strings that hold numbers, ISO dates or one numbered name (v1, v2, v10)
    smallest  documents that a bin has at least: fewer go with the next bin, the last with the one before
    where     what an error says is at fault
    order     the values in their order, for strings that have none of their own; documents with other values have no bin
    share     of the documents with a value, that a bin has at least, too

    Raises InputError for values without an order, or too few that differ.
    """
    texts = np.array([_text(value) for value in values], object)
    if order:
        known = {text for text in texts if text is not None}
        for name in order:
            if name not in known:
                raise InputError(f"{where} has no value {name!r}{nearest(name, known)}")
        texts = np.array([text if text in order else None for text in texts], object)
    given = np.array([text is not None for text in texts], bool)
    if order:
        keys = np.array([order.index(text) for text in texts[given]], np.float64)
    else:
        keys = _keys([value for value, has in zip(values, given) if has], where)
    if len(np.unique(keys)) < 2:
        raise InputError(f"{where} has {'one value' if len(keys) else 'no value'}; a trend needs two or more")
    # One name for values of one key (1 and 1.0), the first that came.
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    place, smallest = inverse.ravel(), max(smallest, int(share * len(keys)))
    bins = merged(_cut(np.bincount(place), most)[place], smallest)
    if not bins.any():
        raise InputError(f"{where} cannot be cut into two bins of {smallest} documents or more; a trend needs two")
    of = np.full(len(texts), -1, np.int64)
    of[given] = bins
    shown, bin_of_value = texts[given][first], bins[first]
    bounds = [np.flatnonzero(bin_of_value == b)[[0, -1]] for b in range(int(bins.max()) + 1)]
    return Bins(of, [str(shown[a]) if a == b else f"{shown[a]} … {shown[b]}" for a, b in bounds])


def _text(value: Any) -> str | None:
    """A value as it is shown; None where there is none."""
    if isinstance(value, datetime) and value.time() == time():
        value = value.date()
    text = str(value)
    return None if value is None or text.strip().lower() in ("", "nan", "nat") else text


def _cut(counts: Array, most: int) -> Array:
    """The bin of each of the ordered values that have so many documents."""
    if len(counts) <= most:
        return np.arange(len(counts))
    middle = np.cumsum(counts) - counts / 2
    return np.minimum((middle / counts.sum() * most).astype(np.int64), most - 1)


def _keys(values: list[Any], where: str) -> Array:
    """[n] numbers that sort as the values do."""
    if all(isinstance(value, (date, datetime)) for value in values):
        return np.array([_seconds(value) for value in values], np.float64)
    if all(isinstance(value, (int, float, np.number)) for value in values):
        return np.array(values, np.float64)
    texts = [str(value).strip() for value in values]
    try:
        return np.array([float(text) for text in texts])
    except ValueError:
        pass
    try:
        return np.array([_seconds(datetime.fromisoformat(text)) for text in texts])
    except ValueError:
        pass
    # Names that differ in their numbers alone: v1, v2, v10; 2021-Q3, 2021-Q4.
    if len({_NUMBERS.sub("#", text) for text in texts}) == 1 and _NUMBERS.search(texts[0]):
        numbers = pd.DataFrame([[int(n) for n in _NUMBERS.findall(text)] for text in texts])
        return np.asarray(numbers.groupby(list(numbers.columns)).ngroup().to_numpy(), np.float64)
    example = ", ".join(repr(text) for text in sorted(set(texts))[:3])
    raise InputError(
        f"{where} holds text without an order ({example} ...): expected numbers, ISO dates or names such as v1, v2; "
        "or give the order (--order A,B,C)"
    )


def _seconds(value: date) -> float:
    if not isinstance(value, datetime):
        value = datetime.combine(value, time())
    return (value.replace(tzinfo=None) - (value.utcoffset() or _NONE) - _EPOCH).total_seconds()


_EPOCH = datetime(1970, 1, 1)
_NONE = _EPOCH - _EPOCH
