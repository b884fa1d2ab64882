"""Hidden words: whole, as many as asked for, never what must stay."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hourglass.bottlenecks.masking import choose_tokens, choose_words, corrupt


def words_of(lengths, special=1, padding=2):
    """A row of words of such lengths, with special tokens around and padding after."""
    row = [-1] * special + [i for i, n in enumerate(lengths) for _ in range(n)] + [-1] * (special + padding)
    return torch.tensor([row])


@given(st.lists(st.integers(1, 5), min_size=1, max_size=20), st.floats(0.01, 1), st.integers(0, 1000))
def test_whole_words_within_half_a_word_of_the_budget(lengths, ratio, seed):
    torch.manual_seed(seed)
    words = words_of(lengths)
    hidden = choose_words(words, ratio)
    assert not hidden[words < 0].any()
    for number in range(len(lengths)):
        assert len(set(hidden[words == number].tolist())) == 1
    assert hidden.any()
    few = hidden[words >= 0].sum() - ratio * sum(lengths)
    assert abs(float(few)) <= max(lengths)


def test_share_of_many_texts():
    torch.manual_seed(0)
    words = words_of([1, 2, 1, 3, 1, 1, 2, 1, 1, 1, 4, 1] * 4).expand(2000, -1)
    for ratio in (0.15, 0.3, 0.5):
        share = choose_words(words, ratio)[words >= 0].float().mean()
        assert abs(float(share) - ratio) < 0.01


def test_every_word_is_as_likely():
    torch.manual_seed(0)
    words = words_of([1] * 10).expand(20_000, -1)
    share = choose_words(words, 0.3)[:, 1:11].float().mean(0)
    assert torch.allclose(share, torch.tensor(0.3), atol=0.015)


def test_rows_for_each_token_at_once():
    torch.manual_seed(0)
    words = words_of([2, 1, 3, 1])
    hidden = choose_words(words[:, None].expand(-1, 50, -1), 0.5)
    assert hidden.shape == (1, 50, words.shape[1])
    assert len({tuple(row.tolist()) for row in hidden[0]}) > 5


@pytest.mark.parametrize("choose", [choose_words, choose_tokens])
def test_nothing_to_hide(choose):
    assert not choose(torch.full((3, 4), -1), 0.3).any()
    assert not choose(words_of([1, 1]), 0.0).any()


@pytest.mark.parametrize("choose", [choose_words, choose_tokens])
def test_one_word_is_hidden(choose):
    assert choose(words_of([1]), 0.01).sum() == 1


def test_tokens_by_themselves():
    torch.manual_seed(0)
    words = words_of([50] * 20).expand(100, -1)
    hidden = choose_tokens(words, 0.4)
    assert abs(float(hidden[words >= 0].float().mean()) - 0.4) < 0.01
    assert not hidden[words < 0].any()


def test_what_stands_in_their_place():
    torch.manual_seed(0)
    ids, hidden = torch.randint(10, 1000, (100, 100)), torch.rand(100, 100) < 0.5
    made = corrupt(ids, hidden, mask_id=3, vocabulary=1000)
    assert torch.equal(made[~hidden], ids[~hidden])
    shares = (made[hidden] == 3).float().mean(), (made[hidden] == ids[hidden]).float().mean()
    assert abs(float(shares[0]) - 0.8) < 0.02
    assert abs(float(shares[1]) - 0.1) < 0.02
    assert bool((corrupt(ids, hidden, 3, 1000, masked=1.0, random=0.0)[hidden] == 3).all())
