"""CEDR and KNRM: kernel pooling against its formula, long documents part by part, and that both learn end to end."""

import math

import numpy as np
import pytest
import torch
from corpora import Corpus, Counts
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st

from encoders import WORDS, make_pair
from hourglass.errors import ConfigError, FolderError, SourceError
from hourglass.training import TrainConfig, fit
from hourglass.uses.finetune import Pair
from hourglass.uses.search.cedr import MEANS, WIDTHS, Cedr, CedrConfig, kernels
from hourglass.uses.search.passages import ByText
from hourglass.uses.search.stages import Query

SMALL = {"max_tokens": 24, "query_tokens": 6}
KNRM = CedrConfig.presets["knrm"]
ARMS = {"cedr": {}, "knrm": KNRM, "no first": {"first": False}, "words and first": {"contextual": False}}


def made(**more):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Cedr(CedrConfig(**{**SMALL, **more}), make_pair("bert")).eval()


def brute(query, document):
    """phi of lists of vectors, one number after another."""
    phi = []
    for mu, sigma in zip(MEANS, WIDTHS):
        total = 0.0
        for q in query:
            summed = 0.0
            for d in document:
                cosine = float(np.dot(q, d) / (np.linalg.norm(q) * np.linalg.norm(d)))
                summed += math.exp(-((cosine - mu) ** 2) / (2 * sigma**2))
            total += math.log(max(summed, 1e-6))
        phi.append(total)
    return phi


@tried(deadline=None, max_examples=20)
@given(st.integers(0, 4), st.integers(0, 6), st.integers(0, 1000))
def test_kernel_pooling_is_its_formula_whatever_is_padded(asked, told, seed):
    random = np.random.default_rng(seed)
    query, document = random.standard_normal((4, 5)), random.standard_normal((6, 5))
    if asked and told:
        document[0] = query[0]  # an exact match
    there = [torch.zeros(1, 4, dtype=torch.bool), torch.zeros(1, 6, dtype=torch.bool)]
    rows = random.permutation(4)[:asked], random.permutation(6)[:told]
    for mask, chosen in zip(there, rows):
        mask[0, chosen] = True
    phi = kernels(torch.tensor(query)[None], torch.tensor(document)[None], *there)[0]
    assert phi.tolist() == pytest.approx(brute(query[rows[0]], document[rows[1]]), abs=1e-4)


@pytest.mark.parametrize("arm", ARMS)
@torch.no_grad()
def test_a_document_is_matched_layer_by_layer_and_neighbours_change_nothing(arm):
    model = made(**ARMS[arm])
    text = " ".join(WORDS[:5])
    batch = model.tokens(["red bird"], [text])
    sides = model.tokenizer(["red bird"], [text]).sequence_ids(0)
    asked, told = ([i for i, side in enumerate(sides) if side == one] for one in (0, 1))
    layers = model.encoder.layers(**batch)
    assert torch.allclose(layers[-1], model.encoder(**batch))
    matched = layers if model.config.contextual else (model.encoder.network.embeddings.word_embeddings(batch["ids"]),)
    features = [phi for layer in matched for phi in brute(layer[0, asked].numpy(), layer[0, told].numpy())]
    if model.config.first:
        features += layers[-1][0, 0].tolist()
    expected = float(model.linear(torch.tensor(features)))
    scores = model.score_texts(Query("q", "red bird"), [text, " ".join(WORDS * 2), ""])
    assert scores[0] == pytest.approx(expected, abs=1e-4)
    assert np.isfinite(scores).all()


@torch.no_grad()
def test_a_long_document_is_read_in_parts_and_its_words_are_those_of_all():
    model = made(most=3)
    words = [WORDS[i % 18] for i in range(80)]
    batch = model.pairs(["red bird"], [" ".join(words)])
    assert batch["ids"].shape[:2] == (1, 3) and batch["there"].all()
    told = [model.tokenizer.convert_ids_to_tokens(batch["ids"][0, i][batch["told"][0, i]].tolist()) for i in range(3)]
    whole = model.tokenizer.tokenize(" ".join(words))
    assert [token for part in told for token in part] == whole[: sum(map(len, told))]
    layers = [model.encoder.layers(*(batch[name][:, i] for name in ("ids", "mask", "types"))) for i in range(3)]
    features = []
    for number in range(len(layers[0])):
        query = layers[0][number][0][batch["asked"][0, 0]]
        document = torch.cat([layers[i][number][0][batch["told"][0, i]] for i in range(3)])
        features += brute(query.numpy(), document.numpy())
    features += torch.stack([layers[i][-1][0, 0] for i in range(3)]).mean(0).tolist()
    assert model.encode(batch)[0].tolist() == pytest.approx(features, abs=1e-4)


def test_a_long_query_is_cut():
    batch = made().pairs([" ".join(WORDS)], ["stone"])
    assert int(batch["asked"].sum()) <= 6 and int(batch["told"].sum()) >= 1


@pytest.mark.parametrize("arm", ["cedr", "knrm"])
def test_it_learns_end_to_end_and_comes_back_from_its_folder(arm, tmp_path):
    random = np.random.default_rng(0)

    def document(word):
        others = random.choice([w for w in WORDS if w not in ("red", "blue")], 7).tolist()
        others[random.integers(7)] = word
        return " ".join(others)

    def pair():
        own, other = random.permutation(["red", "blue"]).tolist()
        return Pair(own, document(own), (document(other),))

    model = made(dropout=0.0, **ARMS[arm])
    before = {name: tensor.clone() for name, tensor in model.encoder.named_parameters()}
    fit(
        model,
        [pair() for _ in range(64)],
        TrainConfig(steps=60, batch_size=16, lr=1e-3 if arm == "cedr" else 1e-2, log_every=1),
        out=tmp_path,
        progress=False,
    )
    moved = [name for name, tensor in model.encoder.named_parameters() if not torch.equal(tensor, before[name])]
    assert any("word_embeddings" in name for name in moved)
    assert any("layer.1" in name for name in moved) == (arm == "cedr")
    again = Cedr.from_pretrained(tmp_path / "model")
    won = 0
    for held_out in (pair() for _ in range(20)):
        texts = [held_out.document, *held_out.negatives]
        scores = model.score_texts(Query("q", held_out.query), texts)
        assert scores == pytest.approx(again.score_texts(Query("q", held_out.query), texts), abs=1e-5)
        won += scores[0] > scores[1]
    assert won >= 16


def test_gradients_are_finite_where_nothing_and_where_everything_matches():
    model = made().train()
    losses = model.loss(model.collate([Pair("red red", "red red red", ("",)), Pair("", "bird", ("stone " * 60,))]))
    losses["ranking"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert model.linear.weight.grad.abs().sum() > 0


def test_what_was_found_is_scored_again():
    corpus = Corpus({"a": " ".join(WORDS), "b": "red", "c": ""})
    model = made()
    found = (Counts(corpus) >> ByText(corpus, model.score_texts)).run([Query("q", "red")])[0]
    expected = model.score_texts(Query("q", "red"), corpus.texts(range(3)))
    assert dict(zip(found.rows.tolist(), found.scores.tolist())) == pytest.approx(dict(enumerate(expected.tolist())))


def test_settings_that_do_not_fit_are_named(tmp_path):
    for settings, said in (
        ({"query_tokens": 13}, "query_tokens 13: expected up to half of max_tokens"),
        ({"most": 0}, "most 0"),
        ({"negatives": 0}, "negatives 0"),
        ({"distillation": -1.0}, "distillation -1"),
    ):
        with pytest.raises(ConfigError, match=said):
            made(**settings)
    with pytest.raises(SourceError, match="0 negatives; expected 1"):
        made().collate([Pair("red", "stone")])
    made().save_pretrained(tmp_path / "model")
    (tmp_path / "model/model.safetensors").write_bytes(b"broken")
    with pytest.raises(FolderError, match=r"model\.safetensors: cannot be read"):
        Cedr.from_pretrained(tmp_path / "model")
