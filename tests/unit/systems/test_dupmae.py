"""DupMAE: what the decoder's rows see, what leaks, what the losses are, what the folder opens with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hourglass.errors import ConfigError, FolderError, SourceError
from hourglass.systems.dupmae import DupMAE, DupMAEConfig
from hourglass.testing import tiny_examples
from hourglass.training import TrainConfig, fit

TEXTS = list(tiny_examples(DupMAE))


def made(**settings):
    torch.manual_seed(0)
    return DupMAE(DupMAEConfig.preset("tiny", **settings))


@pytest.mark.parametrize("masks", [None, 256, 5])
def test_what_a_row_sees(masks):
    model = made(decoder_masks=masks)
    torch.manual_seed(1)
    batch = model.collate(TEXTS * 2)
    visible, words, mask = batch["visible"], batch["words"], batch["mask"]
    assert visible.dtype == torch.bool
    assert not visible.diagonal(dim1=1, dim2=2).any()
    assert bool(visible[:, 1:, 0].all())
    assert not (visible & ~mask[:, None]).any()
    ordinary = (words >= 0)[:, :, None] & (words >= 0)[:, None]
    off = ordinary & ~torch.eye(words.shape[1], dtype=torch.bool)
    share = visible[off].float().mean()
    assert abs(float(share) - 0.5) < 0.03
    same = off & (words[:, :, None] == words[:, None])
    other = off & ~same
    assert abs(float(visible[same].float().mean()) - float(visible[other].float().mean())) < 0.1


def test_rows_have_masks_of_their_own():
    batch = made().collate(TEXTS[:8])
    for visible, words in zip(batch["visible"], batch["words"]):
        rows = {tuple(row.tolist()) for row in visible[words >= 0]}
        assert len(rows) > 0.8 * int((words >= 0).sum())


def test_words_are_hidden_whole():
    batch = made().collate(TEXTS)
    for words, hidden in zip(batch["words"], batch["hidden"]):
        for number in range(int(words.max()) + 1):
            assert len(set(hidden[words == number].tolist())) == 1
        assert hidden.any()
    share = batch["hidden"].sum() / (batch["words"] >= 0).sum()
    assert abs(float(share) - 0.3) < 0.05


def test_a_row_knows_nothing_of_what_it_does_not_see():
    model = made().eval()
    batch = dict(model.collate(TEXTS[:8]))
    with torch.no_grad():
        sentence = model.states(batch["corrupted"], batch["mask"])[:, 0]
        before = model.decode_rows(sentence, batch)
        for place in range(1, 10):
            other = batch["ids"].clone()
            other[:, place] = (other[:, place] + 7) % 250 + 10
            change = (model.decode_rows(sentence, {**batch, "ids": other}) - before).abs().amax(-1)
            sees = batch["visible"][:, :, place]
            assert float(change[~sees].max()) < 1e-5
            assert float(change[sees].min()) > 1e-5


def test_without_the_sentence_the_loss_rises_and_with_the_token_itself_it_collapses():
    # Rows see next to nothing of the text, so that what a text is made of must come from [CLS].
    texts = [f"{letter * 4} " * 4 for letter in "abcdefgh"]
    model = made(objective="retromae", encoder_ratio=0.05, decoder_ratio=0.99)
    fit(model, texts, TrainConfig(steps=100, batch_size=8, lr=5e-3), progress=False)
    batch = dict(model.collate(texts))

    def rebuilt(sentence, given):
        rows = given["rebuilt"]
        return F.cross_entropy(model.network.cls(model.decode_rows(sentence, given)[rows]), given["ids"][rows])

    with torch.no_grad():
        sentence = model.states(batch["corrupted"], batch["mask"])[:, 0]
        usual = float(rebuilt(sentence, batch))
        assert float(rebuilt(torch.zeros_like(sentence), batch)) > usual + 0.3
        assert float(rebuilt(sentence.roll(1, 0), batch)) > usual + 0.3
    # The mask is what keeps a row from its own token: let it see it, and it learns to copy.
    open_to_all = {**batch, "visible": batch["mask"][:, None].expand(-1, batch["mask"].shape[1], -1)}
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(60):
        loss = rebuilt(sentence, open_to_all)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.5 * usual


def test_bag_of_words_by_hand():
    model = made().eval()
    batch = model.collate(TEXTS[:3])
    with torch.no_grad():
        states = model.states(batch["corrupted"], batch["mask"])
        expected = 0.0
        for i in range(3):
            ordinary = batch["words"][i] >= 0
            named = model.network.cls(states[i][ordinary]).amax(0).log_softmax(0)
            there = batch["ids"][i][ordinary]
            expected -= float(named[there.unique()].sum() / len(there)) / 3
        losses = model.loss(batch)
    assert float(losses["bow"]) == pytest.approx(0.1 * expected, rel=1e-4)


@pytest.mark.parametrize(
    ("objective", "names"),
    [
        ("mlm", {"mlm"}),
        ("retromae", {"mlm", "decoder"}),
        ("dupmae", {"mlm", "decoder", "bow"}),
        ("bow", {"mlm", "bow"}),
    ],
)
def test_arms_of_the_ablation(objective, names):
    model = made(objective=objective)
    assert set(model.loss(model.collate(TEXTS[:4]))) == names


@pytest.mark.parametrize("settings", [{"decoding": "basic"}, {"query_norm": False}, {"decoder_layers": 2}])
def test_switches_of_the_decoder(settings):
    model = made(**settings)
    result = fit(model, TEXTS, TrainConfig(steps=40, batch_size=8, lr=3e-3, log_every=1), progress=False)
    curve = [record["decoder"] for record in result.history]
    assert np.mean(curve[-5:]) < 0.9 * np.mean(curve[:5])


def test_lexical_weights():
    model = made().eval()
    batch = model.collate(TEXTS[:3])
    with torch.no_grad():
        few, all_of_them = model.lexical(batch, 5), model.lexical(batch, None)
    assert bool((few >= 0).all())
    assert bool(((few > 0).sum(1) <= 5).all())
    assert torch.equal(few.amax(1), all_of_them.amax(1))
    assert not all_of_them[:, model.tokenizer.all_special_ids].any()


def test_others_open_the_folder(tmp_path):
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

    model = made().eval()
    model.save_pretrained(tmp_path / "model")
    with torch.no_grad():
        ours = model.encode(model.collate(TEXTS[:5]))
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(TEXTS[:5])
    assert np.abs(ours.numpy() - theirs).max() < 1e-5
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    given = tokenizer(TEXTS[:5], padding=True, truncation=True, max_length=48, return_tensors="pt")
    with torch.no_grad():
        states = AutoModel.from_pretrained(tmp_path / "model")(**{k: given[k] for k in ("input_ids", "attention_mask")})
    assert float((states.last_hidden_state[:, 0] - ours).abs().max()) < 1e-5
    head = AutoModelForMaskedLM.from_pretrained(tmp_path / "model")
    assert torch.equal(
        head.cls.predictions.transform.dense.weight, model.network.cls.predictions.transform.dense.weight
    )
    again = DupMAE.from_pretrained(tmp_path / "model")
    assert torch.equal(again.decoder[0].query.weight, model.decoder[0].query.weight)


def test_the_sparse_folder_gives_the_same_weights(tmp_path):
    from sentence_transformers import SparseEncoder

    model = made().eval()
    with torch.no_grad():  # so that not all logits are above 0
        model.network.get_output_embeddings().bias.normal_()
    texts = [*TEXTS[:6], "", "x", " ".join(TEXTS)]
    model.save_sparse(tmp_path / "all")
    model.save_sparse(tmp_path / "few", k=7)
    for folder, k in (("all", None), ("few", 7)):
        encoder = SparseEncoder(str(tmp_path / folder), device="cpu")
        with torch.no_grad():
            ours = model.lexical(model.collate(texts), k)
        for theirs in (encoder.encode_document(texts), encoder.encode_query(texts)):
            assert float((theirs.to_dense() - ours).abs().max()) < 1e-5
        assert 0 < int((ours[0] > 0).sum()) < 0.9 * ours.shape[1]
        assert not ours[6].any()
    # The model itself is as it was, and its folder is not taken for the other.
    assert float(model.network.get_output_embeddings().bias.detach().min()) > -10
    with pytest.raises(FolderError, match="holds the system None"):
        DupMAE.from_pretrained(tmp_path / "all")


def test_goes_on_from_a_checkpoint(tmp_path):
    made().save_pretrained(tmp_path / "model")
    model = DupMAE.from_checkpoint(str(tmp_path / "model"), objective="mlm", max_tokens=32)
    assert model.config.max_tokens == 32
    assert model.config.network["hidden_size"] == 32


def test_long_texts_in_windows():
    model = made()
    text = " ".join(f"word{i}" for i in range(200))
    model.train()
    torch.manual_seed(0)
    starts = {model.tokenizer.decode(model.tokens([text]).ids[0][1:8]) for _ in range(20)}
    assert len(starts) > 10
    assert model.tokens([text]).ids.shape == (1, 48)
    model.eval()
    assert model.tokenizer.decode(model.tokens([text]).ids[0], skip_special_tokens=True).startswith("word0 word1")


def test_texts_without_words_and_of_one():
    model = made()
    losses = model.loss(model.collate(["", "x", " "]))
    assert all(bool(torch.isfinite(value)) for value in losses.values())
    nothing = model.loss(model.collate(["", ""]))
    assert all(float(value.detach()) == 0 for value in nothing.values())


def test_what_does_not_fit(tmp_path, causal_folder):
    with pytest.raises(ConfigError, match="objective 'mml'"):
        DupMAEConfig(objective="mml")
    with pytest.raises(ConfigError, match="encoder_ratio"):
        DupMAEConfig(encoder_ratio=1.5)
    with pytest.raises(SourceError, match="example 1: expected a text"):
        made().collate(["a", 3])
    with pytest.raises(FolderError, match="no network with a masked head"):
        DupMAE.from_checkpoint(str(causal_folder / "gpt2"))
    with pytest.raises(ConfigError, match="learned positions"):
        made(
            network={
                "model_type": "eurobert",
                "hidden_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "mask_token_id": 4,
            }
        )
    with pytest.raises(ConfigError, match="max_tokens 600: the network has 512 positions"):
        made(max_tokens=600)
