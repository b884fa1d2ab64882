"""Measures of generated texts, by hand and against the packages that define them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hourglass.errors import MissingExtra, SourceError
from hourglass.metrics import generation as g

CORPUS = ["the cat sat on the mat", "the dog sat on the cat", "a dog ran"]


def test_diversity_by_hand():
    texts = ["a b c d", "a b c e"]
    # Bigrams ab bc cd ab bc ce: 4 of 6; abc bcd abc bce: 3 of 4; abcd abce: 2 of 2.
    assert g.diversity(texts) == pytest.approx(4 / 6 * 3 / 4)
    assert g.diversity(["a b c d"] * 10) == pytest.approx(1e-3)
    assert g.diversity(["a b"]) == 0.0
    assert g.words("It's 3.5!") == ["it", "'", "s", "3", ".", "5", "!"]


def test_copies_are_found():
    assert g.memorisation(["the cat sat on"], CORPUS) == 1.0
    assert g.memorisation(["the cat sat on a dog"], CORPUS) == pytest.approx(1 / 3)
    assert g.memorisation(["short"], CORPUS) == 0.0


def test_witten_bell_by_hand():
    model = g.WittenBell(["a b", "a c"], order=2)
    # Known: a, b, c, end; with "unknown" five alike.
    unigrams = 6  # a b end a c end: four kinds
    p_b = (1 + 4 / 5) / (unigrams + 4)
    assert model.probability("b", ["a"]) == pytest.approx((1 + 2 * p_b) / (2 + 2))
    assert model.probability("b", ["never"]) == pytest.approx(p_b)
    assert model.probability("zz", ["never"]) == pytest.approx((4 / 5) / (unigrams + 4))
    log = sum(math.log(model.probability(w, [h])) for h, w in (("<begin>", "a"), ("a", "b"), ("b", "<end>")))
    assert model.perplexities(["a b"])[0] == pytest.approx(math.exp(-log / 3))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([*"abcz", "<begin>"]), max_size=5), st.integers(1, 4))
def test_probabilities_of_all_words_are_one(before, order):
    model = g.WittenBell(["a b c a", "b b c", "c"], order=order)
    assert sum(model.probability(word, before) for word in (*"abc", "<end>", "unseen")) == pytest.approx(1)


def test_a_short_history_counts_whole():
    model = g.WittenBell(["a b c d e"] * 3, order=4)
    assert model.probability("c", ["a", "b"]) > 0.9
    assert model.probability("c", ["x", "y", "a", "b"]) == pytest.approx(model.probability("c", ["a", "b"]), abs=0.1)
    assert g.WittenBell(["a b"], order=1).probability("a", ["b"]) == pytest.approx((1 + 3 * (1 / 4)) / (3 + 3))


def test_what_was_learned_from_is_less_of_a_surprise():
    model = g.WittenBell(CORPUS)
    seen, odd = model.perplexities(["the cat sat on the mat", "mat the on sat cat the"])
    assert seen < odd / 2
    with pytest.raises(SourceError, match="no word in the texts"):
        g.WittenBell(["", " "])


def test_the_mean_without_its_ends():
    assert g.trimmed_mean(np.array([1.0] * 18 + [1000.0, -1000.0])) == 1.0
    assert g.trimmed_mean(np.array([1.0, 3.0])) == 2.0


def test_perplexity_by_a_model(causal_folder):
    from hourglass.adapters.pretrained import load_network

    folder = str(causal_folder / "gpt2")
    tokenizer, network = load_network(folder, "causal")
    found = g.model_perplexities(["some words", ""], folder)
    ids = tokenizer("some words", add_special_tokens=False)["input_ids"]
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    whole = torch.tensor([[first, *ids]])
    with torch.no_grad():
        logs = network.eval()(input_ids=whole).logits[0, :-1].log_softmax(-1)
    expected = math.exp(-float(logs[torch.arange(len(ids)), torch.tensor(ids)].mean()))
    assert found[0] == pytest.approx(expected, rel=1e-4)
    assert math.isnan(found[1])


def test_bleu_is_sacrebleus():
    pytest.importorskip("sacrebleu")
    assert g.bleu(CORPUS, CORPUS) == pytest.approx(1)
    assert 0 < g.bleu(CORPUS, [CORPUS[0], CORPUS[1], "the dog ran off"]) < 1
    with pytest.raises(SourceError, match="2 wanted texts, 1 written"):
        g.bleu(["a", "b"], ["a"])


@pytest.mark.filterwarnings("ignore")
def test_mauve_tells_what_is_alike():
    pytest.importorskip("mauve")
    random = np.random.default_rng(0)
    real, like, other = random.normal(size=(3, 200, 8))
    assert g.mauve(like, real, seeds=(0,)).value > g.mauve(other + 4, real, seeds=(0,)).value + 0.3


def test_an_extra_that_is_not_there(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "mauve", None)
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(MissingExtra, match=r"hourglass-ai\[generation\]"):
        g.mauve(np.zeros((2, 2)), np.zeros((2, 2)))
    with pytest.raises(MissingExtra, match=r"hourglass-ai\[generation\]"):
        g.bleu(["a"], ["a"])
