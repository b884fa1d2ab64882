"""The four ways to tune a BART: what learns, what is read, and that each can learn."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, BartForConditionalGeneration

from hourglass.adapters.tokenizers import train_tokenizer
from hourglass.errors import SourceError
from hourglass.systems.bart import Bart, BartConfig
from hourglass.systems.bart_parts import (
    TUNING,
    BartForTokens,
    Classifier,
    TokenClassifier,
    Translator,
    Writer,
)
from hourglass.training import fit

BRIEF = dataclasses.replace(TUNING, steps=120, batch_size=8, lr=3e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("tuned") / "bart"
    network = {**BartConfig.presets["tiny"]["network"], "dropout": 0.0, "attention_dropout": 0.0}
    Bart(BartConfig.preset("tiny", network=network)).save_pretrained(out)
    return out


@pytest.fixture(autouse=True)
def fixed():
    torch.manual_seed(0)


def test_classes(folder, tmp_path):
    task = Classifier.from_folder(folder, classes=2, max_tokens=32)
    data = [("good, and long", 0), ("bad", 1), ("good", 0), ("bad, and longer still", 1)] * 4
    fit(task, data, BRIEF, progress=False)
    found = task.predict(["good", "bad"])
    assert found.argmax(1).tolist() == [0, 1]
    torch.testing.assert_close(found.sum(1), torch.ones(2))
    task.save_pretrained(tmp_path / "model")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    with torch.no_grad():
        logits = theirs(**task.tokenizer(["good"], return_tensors="pt")).logits
    torch.testing.assert_close(logits.softmax(1), task.predict(["good"]))


def test_the_last_end_is_classified_whatever_the_padding(folder):
    task = Classifier.from_folder(folder, classes=3).eval()
    alone = task.predict(["short"])
    torch.testing.assert_close(task.predict(["short", "a much longer text"])[:1], alone)


def test_classes_of_words(folder, tmp_path):
    task = TokenClassifier.from_folder(folder, classes=2, max_tokens=40)
    data = [(["the", "Cat", "sat"], [0, 1, 0]), (["Bob", "ran"], [1, 0]), (["a", "Dog"], [0, 1])] * 4
    batch = task.collate(data[:1])
    assert batch["labels"][batch["labels"] >= 0].tolist() == [0, 1, 0]
    assert [batch["ids"][0, i].item() for i in (1, 5, 9)] == task.tokenizer.convert_tokens_to_ids(["t", "C", "s"])
    assert (batch["labels"][0, [1, 5, 9]] >= 0).all()
    fit(task, data, BRIEF, progress=False)
    assert task.predict([["the", "Dog"], ["Bob", "sat"]]) == [[0, 1], [1, 0]]
    task.save_pretrained(tmp_path / "model")
    again = BartForTokens.from_pretrained(tmp_path / "model")
    assert torch.equal(again.classifier.weight, task.network.classifier.weight)


def test_writing(folder, tmp_path):
    task = Writer.from_folder(folder, max_tokens=40)
    data = [("about cats", "cat"), ("about dogs", "dog")] * 4
    before = task.perplexity(data)
    fit(task, data, BRIEF, progress=False)
    assert task.perplexity(data) < before
    assert task.write(["about cats", "about dogs"], beams=2, max_tokens=8) == ["cat", "dog"]
    found = task.rouge([*data[:2], ("about cats", "a cat")], beams=2, batch_size=2)
    assert found["rouge1"].value == found["rougeL"].value == pytest.approx((1 + 1 + 2 / 3) / 3)
    assert found["rouge2"].value == 0
    task.save_pretrained(tmp_path / "model")
    BartForConditionalGeneration.from_pretrained(tmp_path / "model")


def test_smoothing_is_that_of_torch(folder):
    task = Writer.from_folder(folder).eval()
    batch = task.collate([("a", "bcd"), ("efg", "h")])
    logits = task.network(input_ids=batch["ids"], attention_mask=batch["mask"], labels=batch["labels"]).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), label_smoothing=0.1)
    torch.testing.assert_close(task.loss(batch)["nll"], expected)


@pytest.fixture
def translator(folder):
    source = train_tokenizer(["blau rot blau rot"], 300, "bpe")
    return Translator.from_folder(folder, source=source, layers=1, max_tokens=32)


def test_what_learns_in_each_stage(translator):
    network = translator.network
    names = {name for name, _ in network.named_parameters()}
    of_source = {name for name in names if name.startswith("model.encoder.embed_tokens.encoder.")}
    layer = "model.encoder.layers.0.self_attn."
    expected = {f"{layer}{part}_proj.{kind}" for part in "qkv" for kind in ("weight", "bias")}
    expected |= of_source | {"model.encoder.embed_positions.weight"}
    assert of_source and expected < names
    assert {name for name, p in network.named_parameters() if p.requires_grad} == expected
    network.stage(2)
    assert all(p.requires_grad for p in network.parameters())


def test_translation(translator, folder, tmp_path):
    data = [("blau", "blue"), ("rot", "red")] * 4
    frozen = {n: p.clone() for n, p in translator.network.named_parameters() if not p.requires_grad}
    before = translator.perplexity(data)
    fit(translator, data, dataclasses.replace(BRIEF, steps=20), progress=False)
    now = dict(translator.network.named_parameters())
    assert all(torch.equal(now[name], weight) for name, weight in frozen.items())
    assert translator.perplexity(data) < before
    translator.network.stage(2)
    fit(translator, data, BRIEF, progress=False)
    assert translator.write(["blau", "rot"], beams=2, max_tokens=8) == ["blue", "red"]
    translator.save_pretrained(tmp_path / "model")
    again = Translator.from_folder(tmp_path / "model", max_tokens=32)
    assert again.write(["blau", "rot"], beams=2, max_tokens=8) == ["blue", "red"]


def test_a_new_encoder_begins_random_and_the_rest_is_the_bart(translator, folder):
    origin = BartForConditionalGeneration.from_pretrained(folder)
    ours = dict(translator.network.named_parameters())
    assert all(torch.equal(ours[name], weight) for name, weight in origin.named_parameters())
    assert translator.network.model.encoder.embed_tokens.encoder.embed_tokens.num_embeddings == len(
        translator.source_tokenizer
    )
    assert float(ours["model.encoder.embed_tokens.encoder.embed_tokens.weight"].std().detach()) == pytest.approx(
        0.02, rel=0.2
    )


def test_bad_pairs(folder):
    for cls, bad, message in (
        (Classifier, [("a", 5)], "class 5, expected a number from 0 to 1"),
        (Classifier, [], "an empty batch"),
        (Classifier, ["text"], "example 0 is a str: expected a pair"),
        (TokenClassifier, [(["a", "b"], [1])], "a list of words and a class for each"),
    ):
        with pytest.raises(SourceError, match=message):
            cls.from_folder(folder, classes=2).collate(bad)
    assert np.isfinite(Writer.from_folder(folder).perplexity([("a", "b")]))
