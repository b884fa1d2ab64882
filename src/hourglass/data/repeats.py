"""Which samples repeat what was in one before: by runs of words, as a corpus that was put together from others needs it.

    repeats = Repeats(20)
    kept = [turns for turns in samples if repeats.is_new(turns)]

Samples are walked in the order given, and which of two alike is kept depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit

from hourglass.errors import ConfigError

Array = np.ndarray[Any, Any]

_START = 1 << 12
_BASE = np.uint64(0x9E3779B97F4A7C15)


class Repeats:
    """The runs of `n` words of all samples kept so far, as 64-bit hashes.

    Memory is 16 to 32 bytes a run: 5 GB for a million samples of 200 words. Two different runs are taken for one with a
    chance of about (runs kept) / 2^64.
    """

    def __init__(self, n: int) -> None:
        if n < 1:
            raise ConfigError(f"n {n}: expected runs of 1 word or more")
        self._n = n
        self._table, self._number = np.zeros(_START, np.uint64), 0

    def is_new(self, turns: Sequence[str]) -> bool:
        """Whether no run of a sample's turns was in a sample kept before; then the sample is kept, and its runs count.

        Words are what white space parts; a run lies within one turn. A sample without a turn of `n` words is always new.
        """
        runs = np.concatenate([np.zeros(0, np.uint64), *(_of_turn(turn, self._n) for turn in turns)])
        if _any_in(self._table, runs):
            return False
        if 2 * (self._number + len(runs)) > len(self._table):
            grown = np.zeros(_power_of_two(4 * (self._number + len(runs))), np.uint64)
            _add(grown, self._table)
            self._table = grown
        self._number += _add(self._table, runs)
        return True


def _of_turn(turn: str, n: int) -> Array:
    """[runs] the hash of each run of `n` words, none of them 0."""
    words = turn.split()
    if len(words) < n:
        return np.zeros(0, np.uint64)
    raw = np.frombuffer(" ".join(words).encode("utf-8", "surrogatepass"), np.uint8)
    runs: Array = _runs(raw, n, len(words))
    return runs


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


# Compiled; untyped as the kernels of `bottlenecks.sparse` are.


@njit(cache=True)
def _mixed(x):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The last step of splitmix64: every bit of the output depends on every bit of x."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True)
def _runs(raw, n, words):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Hashes of the runs of n words in utf-8, single spaces between words: FNV-1a of a word, a polynomial of them for a run."""
    hashes = np.empty(words, np.uint64)
    word, h = 0, np.uint64(0xCBF29CE484222325)
    for byte in raw:
        if byte == 32:
            hashes[word] = _mixed(h)
            word, h = word + 1, np.uint64(0xCBF29CE484222325)
        else:
            h = (h ^ np.uint64(byte)) * np.uint64(0x100000001B3)
    hashes[word] = _mixed(h)
    out = np.empty(words - n + 1, np.uint64)
    h, highest = np.uint64(0), np.uint64(1)
    for i in range(n):
        h, highest = h * _BASE + hashes[i], highest * _BASE
    out[0] = max(_mixed(h), np.uint64(1))
    for i in range(n, words):
        h = h * _BASE + hashes[i] - highest * hashes[i - n]
        out[i - n + 1] = max(_mixed(h), np.uint64(1))
    return out


@njit(cache=True)
def _any_in(table, hashes):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Whether the table (open addressing, 0 is free) holds any of the hashes."""
    last = np.uint64(len(table) - 1)
    for h in hashes:
        place = h & last
        while table[place] != 0:
            if table[place] == h:
                return True
            place = (place + np.uint64(1)) & last
    return False


@njit(cache=True)
def _add(table, hashes):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Put the hashes that are not 0 into the table; returns how many were not there."""
    last = np.uint64(len(table) - 1)
    new = 0
    for h in hashes:
        if h == 0:
            continue
        place = h & last
        while table[place] != 0 and table[place] != h:
            place = (place + np.uint64(1)) & last
        if table[place] == 0:
            table[place] = h
            new += 1
    return new
