"""duoBERT: what is read and added up, what is left as it was, and that comparing is learned."""

import numpy as np
import pytest
import torch
from corpora import Corpus, Counts
from crosses import typed
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

from encoders import WORDS, make_pair
from hourglass.errors import ConfigError, SourceError
from hourglass.training import TrainConfig, fit
from hourglass.uses.finetune import Pair
from hourglass.uses.search.duo import Compared, Duo, DuoConfig
from hourglass.uses.search.stages import Query

SMALL = {"max_tokens": 40, "query_tokens": 8}
TEXTS = [" ".join(WORDS[:3]), "red", " ".join(WORDS[4:9]), "bird stone"]


def cross(labels=1, kinds=2):
    network, tokenizer = make_pair("bert")
    if kinds > 1:
        typed(tokenizer)
    network.config.initializer_range = 0.4
    network.config.num_labels, network.config.type_vocab_size = labels, kinds
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = BertForSequenceClassification(network.config).eval()
    return made, tokenizer


def made(labels=1, kinds=2, **more):
    return Duo(DuoConfig(**{**SMALL, **more}), cross(labels, kinds)).eval()


@pytest.mark.parametrize(("labels", "kinds"), [(1, 2), (2, 2), (1, 3), (1, 1)])
@torch.no_grad()
def test_each_two_are_read_with_the_query(labels, kinds):
    model = made(labels, kinds)
    network, tokenizer = cross(labels, kinds)
    found = model.compare(Query("q", "red bird"), TEXTS)
    assert found.diagonal().tolist() == [0] * 4
    for i, one in enumerate(TEXTS):
        for j, other in enumerate(TEXTS):
            if i == j:
                continue
            sides = [
                [tokenizer.cls_token, *tokenizer.tokenize("red bird"), tokenizer.sep_token],
                [*tokenizer.tokenize(one), tokenizer.sep_token],
                [*tokenizer.tokenize(other), tokenizer.sep_token],
            ]
            ids = torch.tensor([tokenizer.convert_tokens_to_ids([t for side in sides for t in side])])
            types = torch.tensor([[kind for kind, side in zip((0, min(1, kinds - 1), kinds - 1), sides) for _ in side]])
            logits = network(input_ids=ids, token_type_ids=types).logits[0]
            expected = logits.sigmoid()[0] if labels == 1 else logits.softmax(0)[1]
            assert found[i, j] == pytest.approx(float(expected), abs=1e-5)
    assert np.ptp(found[found > 0]) > 0.01


def test_scores_are_sums_and_what_is_beyond_the_first_stays_below():
    corpus = Corpus({str(i): text for i, text in enumerate(["red " * 5, "red " * 4, "red " * 3, "red red", "red"])})
    wins = np.random.default_rng(0).random((5, 5)).astype(np.float32)
    np.fill_diagonal(wins, 0)
    seen = []

    def compare(query, texts):
        seen.append(len(texts))
        return wins[: len(texts), : len(texts)]

    query = [Query("q", "red")]
    found = (Counts(corpus) >> Compared(corpus, compare, first=3)).run(query)[0]
    sums = wins[:3, :3].sum(1)
    assert found.rows.tolist() == [*np.argsort(-sums).tolist(), 3, 4]
    assert found.scores[:3].tolist() == pytest.approx(np.sort(sums)[::-1].tolist())
    assert len((Counts(corpus) >> Compared(corpus, compare) % 2).run(query)[0]) == 2
    assert seen == [3, 2]
    assert (Compared(corpus, compare) % 2).name == "duo % 2"
    one = (Counts(corpus) % 1 >> Compared(corpus, compare)).run(query)[0]
    assert (one.rows.tolist(), one.scores.tolist()) == ([0], [0.0])


def test_long_texts_get_the_same_room_and_the_query_stays():
    model = made()
    words = " ".join(WORDS * 3)
    batch = model._tokens([words], [words], [words])
    assert batch["ids"].shape[1] <= 40
    ends = (batch["ids"][0] == model.tokenizer.sep_token_id).nonzero()[:, 0].tolist()
    assert ends[0] == 9 and ends[1] - ends[0] == ends[2] - ends[1]


def test_it_learns_to_compare_and_transformers_opens_its_folder(tmp_path):
    random = np.random.default_rng(0)

    def document(word):
        others = random.choice([w for w in WORDS if w not in ("red", "blue")], 4).tolist()
        others[random.integers(4)] = word
        return " ".join(others)

    pairs = [Pair("stone", document("red"), (document("blue"), document("blue"))) for _ in range(64)]
    model = Duo(DuoConfig(**SMALL, dropout=0.0, negatives=2), make_pair("bert"))
    losses = model.loss(model.collate(pairs[:4]))
    assert float(losses["comparison"].detach()) == pytest.approx(2 * np.log(2), abs=0.2)
    fit(model, pairs, TrainConfig(steps=60, batch_size=16, lr=2e-3, log_every=1), out=tmp_path, progress=False)
    again = Duo.from_pretrained(tmp_path / "model")
    assert again.config == model.config
    texts = [document(word) for word in ("blue", "red", "red", "blue")]
    p = model.compare(Query("q", "stone"), texts)
    assert p == pytest.approx(again.compare(Query("q", "stone"), texts), abs=1e-5)
    assert p[np.ix_([1, 2], [0, 3])].min() > 0.5 > p[np.ix_([0, 3], [1, 2])].max()
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert torch.equal(opened.classifier.weight, model.encoder.network.classifier.weight)


def test_the_loss_is_the_formula():
    model = made(negatives=2)
    batch = model.collate([Pair("red", "stone", ("bird", "river")), Pair("blue", "red", ("anna", "peter"))])
    assert batch["ids"].shape[:2] == (2, 4)
    expected = []
    for query, own, others in (("red", "stone", ("bird", "river")), ("blue", "red", ("anna", "peter"))):
        for other in others:
            p = model.compare(Query("q", query), [own, other])
            expected.append(-np.log(p[0, 1]) - np.log(1 - p[1, 0]))
    assert float(model.loss(batch)["comparison"].detach()) == pytest.approx(np.mean(expected), abs=1e-4)


def test_a_cross_encoder_of_others_is_opened_and_what_is_none_is_refused(tmp_path):
    network, tokenizer = cross()
    network.save_pretrained(tmp_path / "cross")
    tokenizer.save_pretrained(tmp_path / "cross")
    opened = Duo.from_pretrained(tmp_path / "cross")
    assert opened.config.max_tokens == 96
    expected = made(max_tokens=96, query_tokens=24).compare(Query("q", "red"), TEXTS)
    assert opened.compare(Query("q", "red"), TEXTS) == pytest.approx(expected, abs=1e-5)
    make_pair()[0].save_pretrained(tmp_path / "plain")
    tokenizer.save_pretrained(tmp_path / "plain")
    with pytest.raises(ConfigError, match="without a head that gives scores; name a cross-encoder, or train one"):
        Duo.from_pretrained(tmp_path / "plain")


def test_settings_that_do_not_fit_are_named():
    for settings, said in (
        ({"query_tokens": 21}, "query_tokens 21: expected up to half of max_tokens"),
        ({"negatives": 0}, "negatives 0"),
        ({"labels": 3}, "a network of 3 numbers: expected one, or two"),
        ({"max_tokens": 8, "query_tokens": 4}, "max_tokens 8: no room for two documents"),
    ):
        with pytest.raises(ConfigError, match=said):
            made(**settings)
    with pytest.raises(SourceError, match="0 negatives; expected 1"):
        made().collate([Pair("red", "stone")])
    with pytest.raises(ConfigError, match="first 0"):
        Compared(Corpus({}), lambda query, texts: np.zeros((0, 0)), first=0)
