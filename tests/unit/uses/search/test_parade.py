"""PARADE: what each way of aggregating says, that padding has no voice, and that it learns which passage matters."""

import numpy as np
import pytest
import torch
from corpora import Corpus, Counts

from encoders import WIDTH, WORDS, make_pair
from hourglass.errors import ConfigError, SourceError
from hourglass.training import TrainConfig, fit
from hourglass.uses.finetune import Pair
from hourglass.uses.search.parade import Parade, ParadeConfig
from hourglass.uses.search.passages import ByText
from hourglass.uses.search.stages import Query

AGGREGATES = ("avg", "max", "attn", "transformer")
SMALL = {"max_tokens": 48, "size": 4, "stride": 4, "most": 4, "heads": 4}


def made(aggregate="avg", **more):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Parade(ParadeConfig(aggregate=aggregate, **{**SMALL, **more}), make_pair("bert")).eval()


def long(*words):
    return " ".join(words)


LONG = long(*WORDS[:10])


@pytest.mark.parametrize("aggregate", AGGREGATES)
@torch.no_grad()
def test_a_document_is_what_its_passages_say(aggregate):
    model = made(aggregate)
    parts = [long(*WORDS[0:4]), long(*WORDS[4:8]), long(*WORDS[8:10])]
    firsts = []
    for part in parts:
        batch = model.tokens(["red bird"], [part])
        firsts.append(model.encoder(batch["ids"], batch["mask"], batch["types"])[0, 0])
    states = torch.stack(firsts)
    if aggregate == "avg":
        expected = states.mean(0)
    elif aggregate == "max":
        expected = states.amax(0)
    elif aggregate == "attn":
        expected = (states @ model.voice.weight[0]).softmax(0) @ states
    else:
        expected = model.over(torch.cat([model.first[None], states])[None])[0, 0]
    # A longer and an empty neighbour bring padding; the score is the same alone and among them.
    scores = model.score_texts(Query("q", "red bird"), [LONG, long(*WORDS), ""])
    assert scores[0] == pytest.approx(float(model.linear(expected)), abs=1e-5)
    assert np.isfinite(scores).all()
    assert scores[1] == pytest.approx(float(model.score_texts(Query("q", "red bird"), [long(*WORDS)])[0]), abs=1e-5)


def test_a_transformer_without_positions_does_not_heed_the_order_of_passages():
    model = made("transformer")
    swapped = long(*WORDS[4:8], *WORDS[0:4])
    first, second = model.score_texts(Query("q", "red"), [long(*WORDS[0:8]), swapped])
    assert first == pytest.approx(second, abs=1e-5)


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_it_learns_and_comes_back_from_its_folder(aggregate, tmp_path):
    random = np.random.default_rng(0)

    def document(word):
        others = random.choice([w for w in WORDS if w not in ("red", "blue")], 11).tolist()
        others[random.integers(11)] = word
        return long(*others)

    pairs = [Pair("red", document("red"), (document("blue"),)) for _ in range(64)]
    model = made(aggregate, dropout=0.0)
    settings = TrainConfig(steps=60, batch_size=16, lr=3e-3, log_every=1)
    fit(model, pairs, settings, out=tmp_path, progress=False)
    held_out = [(document("red"), document("blue")) for _ in range(20)]
    again = Parade.from_pretrained(tmp_path / "model")
    won = 0
    for own, other in held_out:
        scores = model.score_texts(Query("q", "red"), [own, other])
        assert scores == pytest.approx(again.score_texts(Query("q", "red"), [own, other]), abs=1e-5)
        won += scores[0] > scores[1]
    assert won >= 16


@torch.no_grad()
def test_a_teacher_is_learned_from():
    model = made("avg", distillation=1.0)
    batch = model.collate([Pair("red", LONG, ("blue bird",), (3.0, 1.0))])
    losses = model.loss(batch)
    flat = {name: tensor.flatten(0, 1) for name, tensor in batch.items() if name != "teacher"}
    scores = model.linear(model.encode(flat))[:, 0]
    wanted = torch.tensor([3.0, 1.0]).softmax(0)
    assert float(losses["ranking"]) == pytest.approx(float(-scores.log_softmax(0)[0]), abs=1e-5)
    assert float(losses["distillation"]) == pytest.approx(
        float((wanted * (wanted.log() - scores.log_softmax(0))).sum()), abs=1e-5
    )
    with pytest.raises(SourceError, match="expected a teacher's score"):
        model.collate([Pair("red", LONG, ("blue",))])


def test_what_was_found_is_scored_again_as_a_whole():
    corpus = Corpus({"a": LONG, "b": "red", "c": ""})
    model = made()
    found = (Counts(corpus) >> ByText(corpus, model.score_texts)).run([Query("q", "red")])[0]
    expected = model.score_texts(Query("q", "red"), [LONG, "red", ""])
    assert dict(zip(found.rows.tolist(), found.scores.tolist())) == pytest.approx(dict(enumerate(expected.tolist())))
    with pytest.raises(ConfigError, match="begin with a stage that retrieves"):
        ByText(corpus, model.score_texts).run([Query("q", "red")])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"aggregate": "mean"}, "no aggregate 'mean'"),
        ({"heads": 5, "aggregate": "transformer"}, f"heads 5: do not divide the encoder's width, {WIDTH}"),
        ({"stride": 9}, "stride"),
        ({"middle": "odd"}, "no middle 'odd'"),
        ({"negatives": 0}, "negatives 0"),
        ({"distillation": -1.0}, "distillation -1"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings, said):
    with pytest.raises(ConfigError, match=said):
        made(**{"aggregate": "avg", **settings})
    with pytest.raises(SourceError, match="0 negatives; expected 1"):
        made().collate([Pair("red", LONG)])
