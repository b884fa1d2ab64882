"""ROUGE by hand, BLEU against its library, and the longest common sequence against every subsequence there is."""

from itertools import combinations

import numpy as np
import pytest

from hourglass.errors import SourceError
from hourglass.metrics.generation import bleu
from hourglass.metrics.rouge import longest_common, rouge, words


def by_trial(first, second):
    """The longest subsequence of `first` that is one of `second`."""

    def holds(part):
        left = iter(second)
        return all(word in left for word in part)

    return max(n for n in range(len(first) + 1) if any(holds(part) for part in combinations(first, n)))


def test_the_longest_common_sequence_by_trial():
    random = np.random.default_rng(0)
    for _ in range(200):
        first, second = (list(map(str, random.integers(0, 4, random.integers(0, 9)))) for _ in range(2))
        assert longest_common(first, second) == longest_common(second, first) == by_trial(first, second)


def test_long_texts_by_the_table():
    random = np.random.default_rng(1)
    first, second = (list(map(str, random.integers(0, 20, n))) for n in (300, 170))
    table = np.zeros((301, 171), int)
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            table[i + 1, j + 1] = table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
    assert longest_common(first, second) == table[-1, -1]


def test_by_hand():
    # Shared: the words police, the, gunman, which are in the same order, and the bigram "the gunman".
    found = rouge(["police killed the gunman"], ["police kill the gunman"])
    assert found["rouge1"].value == pytest.approx(3 / 4)
    assert found["rouge2"].value == pytest.approx(1 / 3)
    assert found["rougeL"].value == pytest.approx(3 / 4)
    # The example of the paper: in another order fewer are left.
    found = rouge(["police killed the gunman"], ["the gunman kill police"])
    assert found["rouge1"].value == pytest.approx(3 / 4)
    assert found["rougeL"].value == pytest.approx(2 / 4)
    # Words count as often as both have them; P = 2/5, R = 2/2.
    found = rouge(["the cat"], ["The the the the, CAT!"])
    assert found["rouge1"].value == pytest.approx(2 * (2 / 5) * 1 / (2 / 5 + 1))
    assert words("It's 3.5 naïve_words") == ["it", "s", "3", "5", "naïve", "words"]


def test_means_and_what_cannot_be_counted():
    found = rouge(["a b", "a b", "", "a"], ["a b", "c d", "a", ""])
    assert found["rouge1"].value == pytest.approx(1 / 4)
    assert found["rouge1"].n == 4
    assert found["rouge1"].low <= 1 / 4 <= found["rouge1"].high
    assert rouge(["one"], ["one"])["rouge2"].value == 0
    with pytest.raises(SourceError, match="2 wanted texts, 1 written"):
        rouge(["a", "b"], ["a"])
    with pytest.raises(SourceError, match="0 wanted texts"):
        rouge([], [])


def test_of_several_wanted_texts_the_nearest_counts():
    wanted = [["the cat sat", "a dog ran"], ["one two"]]
    found = rouge(wanted, ["a dog ran", "one two"])
    assert [estimate.value for estimate in found.values()] == [1, 1, 1]
    with pytest.raises(SourceError, match="wanted text 1: an empty list"):
        rouge([["a"], []], ["a", "b"])


def test_bleu_of_several_is_that_of_sacrebleu():
    sacrebleu = pytest.importorskip("sacrebleu")
    written = ["the cat sat on the mat", "a dog ran away at night"]
    first, second = ["the cat sat upon a mat", "a dog ran away"], ["a cat sat on the mat", "the dog ran at night"]
    expected = sacrebleu.corpus_bleu(written, [first, second]).score / 100
    assert bleu(list(zip(first, second)), written) == pytest.approx(expected)
    assert 0 < bleu([[first[0], second[0]], first[1]], written) <= expected
    assert bleu(written, written) == pytest.approx(1)
