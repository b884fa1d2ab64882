"""Early exit: no exit is the full model, each document leaves where the formula says, and the heads are learned."""

import itertools

import numpy as np
import pytest
import torch
from corpora import Corpus, Counts
from crosses import LAYERS, cross, saved

from encoders import WORDS, make_pair
from hourglass.errors import ConfigError
from hourglass.training import TrainConfig, fit
from hourglass.uses.finetune import Pair
from hourglass.uses.search.exits import EarlyExit, ExitConfig, Exits
from hourglass.uses.search.passages import ByText
from hourglass.uses.search.stages import Query

RANDOM = np.random.default_rng(0)
TEXTS = [" ".join(RANDOM.choice(WORDS, n)) for n in (3, 1, 12, 7, 5, 9)] + [""]
QUERY = Query("q", "red bird")


def made(kind="bert", **more):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = EarlyExit(ExitConfig(**{"max_tokens": 64, **more}), cross(kind)).eval()
        torch.manual_seed(0)
        for head in model.heads:
            torch.nn.init.normal_(head.weight, std=0.1)
            torch.nn.init.zeros_(head.bias)
    return model


def plain(kind="bert", texts=TEXTS):
    """The cross-encoder's own scores, by transformers."""
    network, tokenizer = cross(kind)
    with torch.no_grad():
        rows = [tokenizer([QUERY.text], [text], return_tensors="pt") for text in texts]
        return np.array([float(network(**row).logits) for row in rows])


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra"])
def test_without_an_exit_it_is_the_full_model(kind):
    model = made(kind)
    scores, layers = model.exiting(QUERY.text, TEXTS, 1.0)
    assert np.abs(scores - plain(kind)).max() < 1e-5
    assert layers.tolist() == [LAYERS] * len(TEXTS)
    assert np.ptp(scores) > 0.05


@pytest.mark.parametrize("exit_at", [0.5, 0.6, 0.7, 0.8])
@torch.no_grad()
def test_a_document_leaves_at_the_first_layer_that_is_sure(exit_at):
    model = made()
    model.documents_at_once = 3
    scores, layers = model.exiting(QUERY.text, TEXTS, exit_at)
    for text, score, layer in zip(TEXTS, scores, layers):
        each = model.score(model.tokens([QUERY.text], [text]))[0]
        p = each.sigmoid()
        sure = (torch.maximum(p, 1 - p) > exit_at).tolist()
        expected = next((i for i in range(LAYERS - 1) if sure[i]), LAYERS - 1)
        assert layer == expected + 1
        assert score == pytest.approx(float(each[expected]), abs=1e-5)
    assert exit_at > 0.5 or set(layers.tolist()) == {1}


def test_a_higher_threshold_reads_no_fewer_layers_and_the_stage_says_how_many():
    model = made()
    read = [model.exiting(QUERY.text, TEXTS, at)[1] for at in (0.5, 0.6, 0.7, 1.0)]
    assert len({number for each in read for number in each.tolist()}) > 2
    assert all((a <= b).all() for a, b in itertools.pairwise(read))
    corpus = Corpus(dict(zip("abcdefg", TEXTS)))
    scorer = Exits(model, 0.7)
    assert np.isnan(scorer.mean_layers)
    stage = Counts(corpus) >> ByText(corpus, scorer.score_texts, "exits", scorer.told)
    stage.run([QUERY])
    assert scorer.mean_layers == read[2].mean()
    assert stage.told() == [f"exits: {read[2].mean():.2f} of 4 layers were read of a text, in the mean"]


def pair():
    def document(word):
        others = RANDOM.choice([w for w in WORDS if w not in ("red", "blue")], 3).tolist()
        others[RANDOM.integers(3)] = word
        return " ".join(others)

    return Pair("stone", document("red"), (document("blue"),))


@pytest.mark.parametrize("frozen", [False, True])
def test_heads_learn_with_the_network_or_on_it_as_it_is(frozen, tmp_path):
    pairs = [pair() for _ in range(64)]
    model = EarlyExit(ExitConfig(max_tokens=64, dropout=0.0, frozen=frozen), cross() if frozen else make_pair("bert"))
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    fit(model, pairs, TrainConfig(steps=60, batch_size=16, lr=3e-3, log_every=1), out=tmp_path, progress=False)
    moved = {name.split(".")[0] for name, tensor in model.named_parameters() if not torch.equal(tensor, before[name])}
    assert moved == ({"heads"} if frozen else {"heads", "encoder"})
    again = EarlyExit.from_pretrained(tmp_path / "model")
    for at in (0.6, 1.0):
        for mine, its in zip(model.exiting("stone", TEXTS, at), again.exiting("stone", TEXTS, at)):
            assert mine == pytest.approx(its, abs=1e-5)
    if not frozen:
        held_out = [pair() for _ in range(20)]
        scores = [model.exiting("stone", [p.document, *p.negatives], 0.7) for p in held_out]
        assert sum(s[0] > s[1] for s, _ in scores) >= 16
        assert np.mean([layers for _, layers in scores]) < len(model.heads) + 1


@torch.no_grad()
def test_the_loss_is_the_mean_over_layers_and_documents():
    model = made(negatives=2)
    batch = model.collate([Pair("red", "stone", ("bird", "river")), Pair("blue", "red", ("anna", "peter"))])
    expected = []
    for query, texts in (("red", ("stone", "bird", "river")), ("blue", ("red", "anna", "peter"))):
        for i, text in enumerate(texts):
            p = model.score(model.tokens([query], [text]))[0].sigmoid()
            expected.append(-(p if i == 0 else 1 - p).log())
    assert float(model.loss(batch)["ranking"]) == pytest.approx(float(torch.stack(expected).mean()), abs=1e-4)


def test_what_does_not_fit_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"exit_at 0\.2: expected a share from 0\.5"):
        Exits(made(), 0.2)
    with pytest.raises(ConfigError, match="objective 'group': how sure a layer is comes of 'each'"):
        made(objective="group")
    with pytest.raises(ConfigError, match="a network of 2 numbers for a pair"):
        EarlyExit(ExitConfig(max_tokens=64), cross(labels=2))
    with pytest.raises(ConfigError, match="its layers cannot be run one by one"):
        EarlyExit(ExitConfig(max_tokens=64), make_pair("gpt2"))
    with pytest.raises(ConfigError, match="a cross-encoder without exits; train them"):
        EarlyExit.from_pretrained(saved(tmp_path / "cross"))
