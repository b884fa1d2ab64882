"""Noise against a slow oracle, its statistics, and what it must leave alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hourglass.bottlenecks.noising import (
    NOISES,
    Noise,
    delete_tokens,
    infill,
    insert_masks,
    mask_tokens,
    permute_sentences,
    poisson_spans,
    replace_spans,
    rotate,
    sentence_ends,
    sentence_ends_in_text,
    sentence_order,
)
from hourglass.errors import ConfigError

MASK, STOP = 4, 13
ORDINARY = np.arange(1000, 1010)

documents = st.integers(0, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(5, 40), min_size=n, max_size=n).map(lambda ids: np.array(ids, dtype=np.int64)),
        st.lists(st.booleans(), min_size=n, max_size=n).map(lambda flags: np.array(flags, dtype=bool)),
    )
)
seeds = st.integers(0, 2**32 - 1)
shares = st.floats(0, 1)


def generator(seed=0):
    return np.random.default_rng(seed)


def slow_spans(ids, flags, lengths, words, replace_length):
    """The sheet's steps 4 and 5 token by token, on a document between <s> (0) and </s> (2)."""
    source = [0, *ids, 2]
    flags = [0, *map(int, flags), 0]
    starts = [i for i, flag in enumerate(flags) if flag]
    flags[-1] = 255
    deleted = set()
    places = [starts[word] for word in words[: len(lengths)]]
    for place in places:
        if replace_length == 0:
            deleted.add(place)
        else:
            source[place] = MASK
    for place, left in zip(places, lengths):
        left -= 1
        while True:
            left -= flags[place + 1]
            if left < 0:
                break
            place += 1
            if replace_length == -1:
                source[place] = MASK
            else:
                deleted.add(place)
    assert source[0] == 0 and source[-1] == 2
    return [token for i, token in enumerate(source) if i not in deleted][1:-1]


@settings(max_examples=150, deadline=None)
@given(documents, seeds, shares, st.sampled_from([-1, 0, 1]), st.sampled_from([0.5, 3.0, 9.0]))
def test_spans_are_those_of_the_slow_algorithm(document, seed, share, replace_length, mean):
    ids, starts = document
    words = int(starts.sum())
    lengths = poisson_spans(math.ceil(words * share), mean, generator(seed))
    lengths = lengths[lengths > 0]
    drawn = generator(seed).permutation(words)
    expected = slow_spans(ids, starts, lengths, drawn, replace_length)
    noised = replace_spans(ids, lengths, generator(seed), mask_id=MASK, starts=starts, replace_length=replace_length)
    assert noised.tolist() == expected


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 300), st.sampled_from([0.2, 3.0, 40.0]), seeds)
def test_the_budget_is_exact(budget, mean, seed):
    lengths = poisson_spans(budget, mean, generator(seed))
    assert lengths.sum() == budget
    assert budget == 0 or lengths[-1] > 0


def test_span_statistics():
    lengths = np.concatenate([poisson_spans(10_000, 3.0, generator(seed))[:-1] for seed in range(5)])
    assert abs(lengths.mean() - 3) < 0.1
    assert abs((lengths == 0).mean() - math.exp(-3)) < 0.01
    assert abs(lengths.var() - 3) < 0.2


def test_share_of_masks():
    ids = np.arange(100, 10_100)
    masked = mask_tokens(ids, 0.3, generator(), mask_id=MASK)
    assert (masked == MASK).sum() == 3000
    assert (masked[masked != MASK] == ids[masked != MASK]).all()
    assert len(delete_tokens(ids, 0.3, generator())) == 7000
    gone = len(ids) - np.isin(ids, infill(ids, 0.3, generator(), mask_id=MASK)).sum()
    assert 0.2 < gone / len(ids) <= 0.3  # spans overlap here and there


def test_infilling_counts_its_masks():
    """Without overlap a document has a mask for each span, also for those of length 0."""
    ids = np.arange(100, 200)
    seed = next(s for s in range(100) if (poisson_spans(5, 3.0, generator(s)) == 0).any())
    lengths = poisson_spans(5, 3.0, generator(seed))
    noised = infill(ids, 0.05, generator(seed), mask_id=MASK)
    assert (noised == MASK).sum() == len(lengths)
    assert (noised != MASK).sum() >= 95


@settings(max_examples=60, deadline=None)
@given(documents, seeds, shares)
def test_masks_and_deletions_keep_order(document, seed, share):
    ids, starts = document
    kept = delete_tokens(ids, share, generator(seed)).tolist()
    assert len(kept) == len(ids) - math.ceil(len(ids) * share)
    assert _within(kept, ids.tolist())
    for words in (starts, None):
        noised = infill(ids, share, generator(seed), mask_id=MASK, starts=words)
        assert _within(noised[noised != MASK].tolist(), ids.tolist())


@settings(max_examples=60, deadline=None)
@given(documents, seeds, shares)
def test_permutation_and_rotation_keep_every_token(document, seed, share):
    ids, stops = document
    ends = sentence_ends(stops)
    order = sentence_order(ends, generator(seed), share)
    permuted = permute_sentences(ids, ends, generator(seed), share)
    assert permuted.tolist() == ids[order].tolist()
    assert ids[order][np.argsort(order)].tolist() == ids.tolist()
    turned = rotate(ids, generator(seed)).tolist()
    assert not turned or any(turned == [*ids[k:], *ids[:k]] for k in range(len(ids)))


@settings(max_examples=60, deadline=None)
@given(documents)
def test_sentences_end_at_a_full_stop_after_none_and_with_the_document(document):
    stops = document[1].tolist()
    expected = [i + 1 for i, stop in enumerate(stops) if (stop and not (i and stops[i - 1])) or i == len(stops) - 1]
    assert sentence_ends(np.array(stops, bool)).tolist() == expected


def test_sentences_move_whole():
    ids = np.array([20, STOP, 21, 22, STOP, 23])
    seen = {tuple(permute_sentences(ids, sentence_ends(ids == STOP), generator(seed))) for seed in range(80)}
    sentences = [(20, STOP), (21, 22, STOP), (23,)]
    assert seen == {
        (*sentences[a], *sentences[b], *sentences[c])
        for a in range(3)
        for b in range(3)
        for c in range(3)
        if len({a, b, c}) == 3
    }


def test_a_share_of_the_sentences_moves():
    ends = np.arange(1, 101)
    moved = (sentence_order(ends, generator(), 0.3) != np.arange(100)).sum()
    assert 20 <= moved <= 30
    assert (sentence_order(ends, generator(), 0.0) == np.arange(100)).all()


def test_sentences_by_the_text():
    text = 'He left. "Really?" She stayed, e.g. here'
    tokens = np.array([0, 3, 7, 9, 10, 16, 19, 23, 29, 31, 36])
    assert [text[i] for i in tokens] == list('Hl."R?Ss,eh')
    assert sentence_ends_in_text(text, tokens, "text").tolist() == [3, 6, 10, 11]
    assert sentence_ends_in_text("a\n\nb\nc", np.array([0, 3, 5]), "newline").tolist() == [1, 2, 3]
    assert sentence_ends_in_text("", np.array([], int), "text").tolist() == []


def test_a_rotation_begins_anywhere():
    ids = np.arange(5)
    firsts = np.bincount([rotate(ids, generator(seed))[0] for seed in range(2000)])
    assert (abs(firsts / 2000 - 0.2) < 0.04).all()


@settings(max_examples=60, deadline=None)
@given(documents, seeds, st.integers(0, 20), shares)
def test_insertion(document, seed, count, share):
    ids, _ = document
    noised = insert_masks(ids, count, generator(seed), mask_id=MASK, random_share=share, random_ids=ORDINARY)
    new = np.isin(noised, ORDINARY)
    assert new.sum() == math.ceil(count * share)
    assert (noised == MASK).sum() == count - new.sum()
    assert noised[~new & (noised != MASK)].tolist() == ids.tolist()


@pytest.mark.parametrize("replace_length", [1, -1])
def test_random_tokens_in_place_of_masks(replace_length):
    ids = np.arange(2000, 12_000)
    noise = Noise(mask=0.3, mask_random=0.25, replace_length=replace_length)
    noised = noise(ids, generator(), mask_id=MASK, random_ids=ORDINARY)
    odd, masks = np.isin(noised, ORDINARY).sum(), (noised == MASK).sum()
    assert abs(odd / (odd + masks) - 0.25) < 0.04
    with pytest.raises(ConfigError, match="random_ids"):
        noise(ids, generator(), mask_id=MASK)


@settings(max_examples=100, deadline=None)
@given(documents, seeds, st.sampled_from(sorted(NOISES)), st.booleans())
def test_every_noise_is_pure(document, seed, name, whole):
    ids, starts = document
    before = ids.copy()
    given_too = {"starts": starts if whole else None, "ends": sentence_ends(ids == STOP)}
    first, second = (NOISES[name](ids, generator(seed), mask_id=MASK, **given_too) for _ in range(2))
    assert first.tolist() == second.tolist()
    assert ids.tolist() == before.tolist()
    assert set(first.tolist()) <= {*ids.tolist(), MASK}


def test_the_order_is_sentences_masks_insertions_rotation():
    """Word starts move with their sentences; the rotation moves masks too."""
    ids = np.array([20, STOP, 21, STOP])
    starts = np.array([True, False, False, False])
    noise = Noise(permute=1.0, mask=1.0, mean=None)
    seen = {
        tuple(noise(ids, generator(s), mask_id=MASK, starts=starts, ends=sentence_ends(ids == STOP))) for s in range(40)
    }
    assert seen == {(MASK,), (21, STOP, MASK)}
    noise = Noise(insert=0.5, rotate=1.0)
    seen = [noise(ids, generator(s), mask_id=MASK) for s in range(200)]
    assert all((one == MASK).sum() == 2 for one in seen)
    assert len({int(one[0]) for one in seen}) == 4


def test_rotation_is_drawn():
    ids = np.arange(50)
    turned = [(Noise(rotate=0.4)(ids, generator(s), mask_id=MASK) != ids).any() for s in range(1000)]
    assert abs(np.mean(turned) - 0.4 * 0.98) < 0.05


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"mask": 1.5}, "a share"), ({"mean": 0}, "length of spans"), ({"replace_length": 2}, "-1, 0 or 1")],
)
def test_settings_that_cannot_be(wrong, message):
    with pytest.raises(ConfigError, match=message):
        Noise(**wrong)


def _within(few, many):
    rest = iter(many)
    return all(token in rest for token in few)
