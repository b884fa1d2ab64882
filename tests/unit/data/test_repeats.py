"""Runs of words that were there before, against sets of tuples."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hourglass.data.repeats import Repeats
from hourglass.errors import ConfigError


def brute_force(samples, n):
    seen, kept = set(), []
    for turns in samples:
        runs = {tuple(words[i : i + n]) for words in map(str.split, turns) for i in range(len(words) - n + 1)}
        kept.append(not runs & seen)
        if kept[-1]:
            seen |= runs
    return kept


word = st.sampled_from(["a", "b", "ab", "é", "\u3000", "\ud800", "c\nd"])
turn = st.lists(word, max_size=12).map(" ".join)


@settings(deadline=None)  # the first call compiles
@given(samples=st.lists(st.lists(turn, max_size=3), max_size=12), n=st.integers(1, 5))
def test_what_is_kept_is_what_sets_of_words_keep(samples, n):
    repeats = Repeats(n)
    assert [repeats.is_new(turns) for turns in samples] == brute_force(samples, n)


def test_many_runs_make_room():
    samples = [[" ".join(str((i * 7919 + j) % 20_000) for j in range(60))] for i in range(400)]
    repeats = Repeats(20)
    assert [repeats.is_new(turns) for turns in samples] == brute_force(samples, 20)
    with pytest.raises(ConfigError, match="n 0"):
        Repeats(0)
