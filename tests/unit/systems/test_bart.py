"""BART: what is read and written, the folder that others open, beam search, scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BartForConditionalGeneration

from hourglass.bottlenecks.noising import NOISES, Noise
from hourglass.errors import ConfigError, FolderError, SourceError
from hourglass.systems.bart import Bart, BartConfig
from hourglass.training import TrainConfig, fit

TEXTS = ["The cat sat. It slept. Then rain.", "One word", "A red hat, badly worn. Nobody saw.", "x"]


def make(dropout=0.1, width=32, **changes):
    torch.manual_seed(0)
    network = {
        **BartConfig.presets["tiny"]["network"],
        "dropout": dropout,
        "attention_dropout": dropout,
        "d_model": width,
    }
    return Bart(BartConfig.preset("tiny", network=network, **changes))


@pytest.fixture(scope="module")
def model():
    return make().eval()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("bart") / "model"
    model.save_pretrained(out)
    return out


def test_the_target_is_the_whole_document_shifted_right(model):
    batch = model.collate(TEXTS)
    clean = model.tokenizer(TEXTS, padding=True, return_tensors="pt")
    assert torch.equal(batch["ids"], clean["input_ids"])
    assert torch.equal(batch["mask"], clean["attention_mask"].bool())
    assert torch.equal(batch["wanted"], batch["mask"])
    assert torch.equal(batch["written"][:, 1:], batch["ids"][:, :-1])
    assert (batch["written"][:, 0] == model.network.config.decoder_start_token_id).all()
    ends = batch["read_mask"].sum(1) - 1
    assert (batch["read"][:, 0] == 0).all()
    assert (batch["read"].gather(1, ends[:, None]) == 2).all()


def test_the_loss_is_that_of_transformers(model):
    batch = model.collate(TEXTS)
    labels = batch["ids"].masked_fill(~batch["mask"], -100)
    with torch.no_grad():
        ours = model.loss(batch)["nll"]
        theirs = model.network(input_ids=batch["read"], attention_mask=batch["read_mask"], labels=labels).loss
    torch.testing.assert_close(ours, theirs)


def test_noise_is_drawn_anew(model):
    torch.manual_seed(1)
    first, second = model.collate(TEXTS)["read"], model.collate(TEXTS)["read"]
    torch.manual_seed(1)
    assert first.shape != second.shape or not torch.equal(first, second)
    assert torch.equal(model.collate(TEXTS)["read"], first)


def test_corrupted_text():
    noised, whole = make(noise="infill", sentences="text").corrupt([TEXTS[0]])[0]
    assert whole == TEXTS[0]
    assert "<mask>" in noised
    noised, _ = make(noise="shuffle", sentences="text").corrupt([TEXTS[0]], seed=1)[0]
    assert sorted(noised) == sorted(TEXTS[0])


@pytest.mark.parametrize("sentences", ["full_stop", "text"])
def test_sentences_move(sentences):
    model = make(noise="shuffle", sentences=sentences)
    parts = ["The cat sat.", " It slept.", " Then rain."]
    seen = {model.corrupt([TEXTS[0]], seed)[0][0] for seed in range(40)}
    assert seen == {a + b + c for a in parts for b in parts for c in parts if len({a, b, c}) == 3}


@pytest.mark.parametrize("objective", ["language_model", "masked", "multitask", "permuted", "masked_seq2seq"])
def test_other_objectives(objective):
    model = make(objective=objective, mask_share=0.5)
    batch = model.collate([*TEXTS, ""] if objective == "language_model" else TEXTS)
    wants, mask_id = batch["wanted"], model.tokenizer.mask_token_id
    if objective == "language_model":
        assert batch["read"].tolist() == [[0, 2]] * 5
        assert torch.equal(wants, batch["mask"])
    else:
        read = batch["read"]
        if objective == "permuted":
            assert torch.equal((read == mask_id).sum(1), wants.sum(1))
        else:
            assert torch.equal(read == mask_id, wants)
        inner = batch["mask"].sum(1) - 2
        assert wants.sum(1).tolist() == [-(-n // 2) for n in inner.tolist()]
    if objective == "masked_seq2seq":
        assert (wants.long().diff(dim=1) == 1).sum(1).le(1).all()  # one segment
        shown = batch["written"][:, 1:] != mask_id
        assert torch.equal(shown, wants[:, :-1])
    result = fit(model, TEXTS * 4, TrainConfig(steps=20, batch_size=4, log_every=1, warmup=0), progress=False)
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def test_multitask_is_masked_under_attention_of_four_kinds():
    model = make(objective="multitask", dropout=0.0, mask_share=0.5).eval()
    torch.manual_seed(0)
    batch = model.collate(TEXTS * 60)
    mask_id = model.tokenizer.mask_token_id
    assert torch.equal(batch["read"] == mask_id, batch["wanted"])
    kinds = {}
    for sees, mask in zip(batch["sees"], batch["read_mask"]):
        inner = sees[mask][:, mask]
        n = len(inner)
        known = {
            "left_to_right": torch.ones(n, n).tril().bool(),
            "right_to_left": torch.ones(n, n).triu().bool(),
            "all": torch.ones(n, n).bool(),
            "prefix": torch.ones(n, n).tril().bool() | (torch.arange(n) < (n + 1) // 2),
        }
        (kind,) = (name for name, expected in known.items() if torch.equal(inner, expected))
        kinds[kind] = kinds.get(kind, 0) + 1
        assert not sees[mask][:, ~mask].any()
    assert {name: round(6 * count / 240) for name, count in kinds.items()} == {
        **{"left_to_right": 1, "right_to_left": 1},
        **{"all": 2, "prefix": 2},
    }
    # What a text guesses does not hang on what it does not see.
    with torch.no_grad():
        before = model._guesses(batch)
        read = batch["read"].clone()
        read[:, 6] = 40
        change = (model._guesses({**batch, "read": read}) - before).abs().amax(-1)
    sees, real = batch["sees"][:, :, 6] & batch["read_mask"][:, 6:7], batch["read_mask"]
    one_layer_blind = real & ~sees
    assert float(change[one_layer_blind].max()) == 0
    assert float(change[real & sees].min()) > 0


def test_permuted_guesses_one_after_another():
    model = make(objective="permuted", dropout=0.0, mask_share=0.4).eval()
    texts = [*TEXTS, ""]
    torch.manual_seed(0)
    batch = model.collate(texts)
    length, mask_id = batch["ids"].shape[1], model.tokenizer.mask_token_id
    inner = batch["mask"].sum(1) - 2
    assert batch["wanted"].sum(1).tolist() == [-(-2 * n // 5) for n in inner.tolist()]
    assert torch.equal(batch["read"][:, :length], batch["ids"])
    with torch.no_grad():
        guesses = model._guesses(batch)
    for row in range(len(texts)):
        at = batch["wanted"][row].nonzero()[:, 0]
        # By the turn of each: how many of the tokens that are guessed it sees.
        turn = batch["sees"][row, at][:, at].sum(1)
        assert sorted(turn.tolist()) == list(range(1, len(at) + 1))
        turns = torch.zeros(length, dtype=torch.int64)
        turns[at] = turn
        for place in at.tolist():
            # The network's own pass over the text with a mask in its place, that no other token sees, and without later ones.
            ids = batch["ids"][row].clone()
            ids[place] = mask_id
            sees = (turns <= turns[:, None]) & (turns < turns[place]) & batch["mask"][row]
            with torch.no_grad():
                states = model.network.model.encoder(ids[None], attention_mask=sees[None, None]).last_hidden_state[0]
            torch.testing.assert_close(guesses[row, place], states[place], atol=1e-5, rtol=1e-4)
    assert not guesses[~batch["wanted"]].any()
    orders = {tuple(model.collate(TEXTS[:1])["sees"][0].flatten().tolist()) for _ in range(10)}
    assert len(orders) > 5
    with pytest.raises(ConfigError, match="hides tokens by attention"):
        model.corrupt(TEXTS)


def test_the_shares_are_the_papers():
    text = ["abcdefghij" * 3]
    for objective, hidden in (("masked", 5), ("multitask", 5), ("permuted", 5), ("masked_seq2seq", 15)):
        assert int(make(objective=objective).collate(text)["wanted"].sum()) == hidden
    assert float(make(objective="permuted").loss(make(objective="permuted").collate(["", ""]))["nll"].detach()) == 0


def test_nothing_to_noise():
    batch = make(objective="masked").collate(["", "a"])
    assert batch["wanted"].sum(1).tolist() == [0, 1]
    assert torch.isfinite(make().loss(make().collate([""]))["nll"])


def test_dropout_is_off_in_the_tail():
    model = make(dropout=0.5, dropout_until=3).train()
    batch = model.collate(TEXTS)
    assert model.loss(batch)["nll"] != model.loss(batch)["nll"]
    model.after_step(3)
    assert model.loss(batch)["nll"] == model.loss(batch)["nll"]
    assert model.state_dict()["steps_made"] == 3


def test_transformers_opens_the_folder(model, folder):
    theirs, tokenizer = (
        BartForConditionalGeneration.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    assert tokenizer("a <mask>")["input_ids"][2] == tokenizer.mask_token_id
    ids = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder).eval()(**ids).encoder_last_hidden_state
        logits = theirs(**ids).logits
        again = model.network(**ids).logits
        ours = model.encode(model.collate(TEXTS))
    torch.testing.assert_close(logits, again)
    mask = ids["attention_mask"][:, :, None]
    torch.testing.assert_close(ours, (states * mask).sum(1) / mask.sum(1))


def test_sentence_transformers_gives_the_same_vectors(model, folder):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    opened = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    assert len(opened[0].auto_model.decoder.layers) == 0  # nothing is written there
    theirs = opened.encode(TEXTS)
    with torch.no_grad():
        ours = model.encode(model.collate(TEXTS)).numpy()
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_a_folder_of_transformers_is_gone_on_from(tmp_path):
    origin = make()
    origin.network.config.decoder_start_token_id = 0
    origin.network.save_pretrained(tmp_path / "hub")
    origin.tokenizer.save_pretrained(tmp_path / "hub")
    model = Bart.from_checkpoint(str(tmp_path / "hub"), noise="delete", max_tokens=32)
    batch = model.collate(TEXTS)
    assert (batch["written"][:, 0] == 0).all()
    model.save_pretrained(tmp_path / "ours")
    again = Bart.from_pretrained(str(tmp_path / "ours"))
    assert again.config == model.config
    assert again.network.config.decoder_start_token_id == 0
    with pytest.raises(FolderError, match="no model that can be read"):
        Bart.from_checkpoint(str(tmp_path / "missing"))


def test_it_learns_to_fill():
    model = make(width=64, noise=Noise(mask=0.3), dropout=0.0)
    texts = ["red green blue", "one two three"]
    fit(model, texts * 8, TrainConfig(steps=250, batch_size=8, lr=3e-3), progress=False)
    assert model.fill(["red <mask> blue", "one <mask> three"], beams=2) == [[texts[0]], [texts[1]]]
    two = model.fill(["<mask> blue"], answers=2, beams=3)[0]
    assert len(two) == 2 and two[0] == texts[0]
    assert model.reconstruct(texts, beams=2) == texts
    scores = model.reconstruct_score([*texts, "blue three red"])
    assert scores[2] > 2 * scores[:2].max()
    assert (scores == model.reconstruct_score([*texts, "blue three red"])).all()


def test_generation_does_not_repeat(model, monkeypatch):
    monkeypatch.setattr(model.tokenizer, "batch_decode", lambda written, **_: written.tolist())
    (ids,) = model.generate(["aaaa"], beams=2, max_tokens=30)[0]
    triples = list(zip(ids, ids[1:], ids[2:]))
    assert len(triples) == len(set(triples)) > 10
    (ids,) = model.generate(["aaaa"], beams=2, max_tokens=30, no_repeat=0)[0]
    assert len(set(zip(ids, ids[1:], ids[2:]))) < len(ids) - 2
    with pytest.raises(ConfigError, match="at most as many as beams"):
        model.generate(["a"], answers=3, beams=2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"noise": "infil"}, "did you mean 'infill'"),
        ({"noise": {"masks": 1}}, "noise: "),
        ({"objective": "mask"}, "did you mean 'masked'"),
        ({"sentences": "stop"}, "no sentences 'stop'"),
        ({"mask_share": 0}, "above 0"),
    ],
)
def test_settings_that_cannot_be(wrong, message):
    with pytest.raises(ConfigError, match=message):
        BartConfig.preset("tiny", **wrong)


def test_bad_texts(model):
    with pytest.raises(SourceError, match="example 1: expected a text"):
        model.collate(["a", 3])
    assert BartConfig.preset("tiny", noise="delete").noise == NOISES["delete"]
