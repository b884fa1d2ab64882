"""Self-retrieval beside the loss: by hand, without a trace in the training, and the warning where vectors collapse."""

import logging

import numpy as np
import pytest
import torch

from hourglass.systems.dupmae import DupMAE, DupMAEConfig
from hourglass.training import TrainConfig, fit
from hourglass.uses.probe import SelfRetrieval
from hourglass.uses.probe.self_retrieval import first_sentence

NAMES = ["anna", "peter", "maria", "jonas", "clara"]
TEXTS = [f"The {a} sat with {b}. It was {b} who slept and {a} who ran." for a in NAMES for b in NAMES]


def made():
    torch.manual_seed(0)
    network = {**DupMAEConfig.presets["tiny"]["network"], "hidden_dropout_prob": 0.1}
    return DupMAE(DupMAEConfig.preset("tiny", network=network))


def test_sentences_are_parted():
    assert first_sentence(TEXTS[0]) == ("The anna sat with anna.", "It was anna who slept and anna who ran.")
    assert first_sentence("So. It was e.g. a long one! Then the rest of it.") == (
        "So. It was e.g.",
        "a long one! Then the rest of it.",
    )
    for text in ("no end at all here", "One two three. Four five.", "One two three.", ""):
        assert first_sentence(text) is None


def test_the_measures_by_hand():
    model = made().eval()
    model.network.bert.embeddings.word_embeddings.weight.data.mul_(50)  # texts differ
    found = SelfRetrieval(model, [*TEXTS, "", "one more"]).measure()

    def unit(texts):
        with torch.no_grad():
            vectors = model.encode(model.collate(texts)).double().numpy()
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    assert found["spread"] == pytest.approx(1 - (unit([*TEXTS, "one more"]).mean(0) ** 2).sum(), abs=1e-6)
    firsts, rests = zip(*map(first_sentence, TEXTS))
    scores = unit(list(firsts)) @ unit(list(rests)).T
    ranks = (scores > scores.diagonal()[:, None]).sum(1) + 1
    assert found["self_retrieval"] == pytest.approx(np.where(ranks <= 10, 1 / ranks, 0).mean(), abs=0.05)  # near ties
    assert set(SelfRetrieval(model, TEXTS[:10]).measure()) == {"spread"}


def test_the_training_is_the_same_with_it(caplog):
    config = TrainConfig(steps=8, batch_size=5, lr=1e-3, eval_every=3, log_every=1)
    plain, watched = made(), made()
    without = fit(plain, TEXTS, config, eval_data=TEXTS, progress=False)
    with caplog.at_level(logging.WARNING, "hourglass"):
        result = fit(watched, TEXTS, config, eval_data=TEXTS, callbacks=[SelfRetrieval(watched, TEXTS)], progress=False)
    assert [r["loss"] for r in result.history] == [r["loss"] for r in without.history]
    assert all({"spread", "self_retrieval"} <= set(record) for record in result.evaluations)
    assert len(caplog.records) == sum(record["spread"] < 1e-4 for record in result.evaluations) > 0
    assert "step 3: all texts have about the same vector" in caplog.text
    assert watched.training is False


def test_without_texts_there_is_nothing_to_tell():
    record = {"step": 1}
    SelfRetrieval(made(), ["", "one"]).on_eval(1, record)
    assert record == {"step": 1}
