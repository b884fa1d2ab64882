"""Text2Token: targets by brute force, the loss against torch's, stages that go on after a stop, arms, what others open."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

import hourglass as hg
from causal_models import make_readers
from hourglass.adapters.tokenizers import train_tokenizer
from hourglass.errors import ConfigError, FolderError, MissingExtra, SourceError
from hourglass.nn.text_model import TextModel
from hourglass.systems import text2token_parts as parts
from hourglass.systems.text2token import Text2Token, Text2TokenConfig
from hourglass.testing import SYSTEM_CHECKS, tiny_examples
from hourglass.training import TrainConfig, fit
from hourglass.uses.explore.labels import FUNCTION_WORDS
from hourglass.uses.probe import retrieval
from hourglass.uses.probe.encoders import dense_vectors

TEXTS = list(tiny_examples(Text2Token))
WORDS = train_tokenizer(TEXTS, 160, "wordpiece")


def made(tokenizer=WORDS, **settings):
    torch.manual_seed(0)
    return Text2Token(Text2TokenConfig.preset("tiny", **settings), tokenizer)


def counted(**settings):
    model = made(**settings).eval()
    model.count(TEXTS)
    return model


def batch_of(model, examples):
    return {name: tensor.clone() for name, tensor in model.collate(examples).items()}


# What tokens are --------------------------------------------------------------------------------------


def test_what_can_be_a_target():
    model = made(max_df=0.4)
    model.count(TEXTS)
    pieces = WORDS.convert_ids_to_tokens(list(range(len(WORDS))))
    bags = [set(WORDS(text, add_special_tokens=False)["input_ids"]) for text in TEXTS]
    kept = model.kept()
    for i, piece in enumerate(pieces):
        df = sum(i in bag for bag in bags)
        expected = (
            i not in WORDS.all_special_ids
            and any(c.isalpha() for c in piece)
            and piece not in FUNCTION_WORDS
            and df <= 0.4 * len(TEXTS)
        )
        assert kept[i] == expected, piece
        assert int(model.having[i]) == df
    assert int(model.documents) == len(TEXTS)
    assert model.words.inside[WORDS.convert_tokens_to_ids("##e")]
    assert not model.named()[model.words.inside].any()
    assert made(stop_words=False).words.content[WORDS.convert_tokens_to_ids("the")]


def test_variants_of_a_word_and_pieces_inside_of_words():
    texts = ["Paper beats rock.", "rock and paper", "(paper) Rock, the paperweight!"] * 3
    tokenizer = train_tokenizer(texts, 300, "bpe")
    model = made(tokenizer, max_df=1.0)
    number = tokenizer.convert_tokens_to_ids
    assert number("Ġpaper") != tokenizer.unk_token_id
    variants = {model.words.variants[number(piece)] for piece in ("Ġpaper", "paper") if number(piece) is not None}
    assert len(variants) == 1
    assert model.words.content[number("Ġpaper")]
    assert not model.words.content[number("e")]  # inside of words
    assert made(tokenizer, word_starts=False).words.content[number("e")]
    parts_of_letters = [number(piece) for piece in ("Ã", "©", "ä")]  # of é, and of 东
    assert len({model.words.variants[i] for i in parts_of_letters}) == 3
    assert not model.words.content[parts_of_letters].any()
    # At the beginning of a text, or after a bracket, there is no space; the word is the same.
    terms, real = model.terms(model.tokens(["paper", "(paper"]))
    assert number("Ġpaper") in terms[0][real[0]]
    assert number("Ġpaper") in terms[1][real[1]]
    model.count(texts)
    assert int(model.having[model.words.variants[number("Ġpaper")]]) == 9


# Targets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["tfidf", "binary", "uniform"])
@pytest.mark.parametrize(("temperature", "terms"), [(1.0, None), (2.0, 3)])
def test_words_of_the_text_by_brute_force(weights, temperature, terms):
    model = counted(weights=weights, temperature=temperature, terms=terms, max_df=0.5)
    bags = [Counter(WORDS(text, add_special_tokens=False)["input_ids"]) for text in TEXTS]
    kept = model.kept()
    some = [*TEXTS[:20], "sings sings sings"]
    batch = model.collate(some)
    for text, ids, shares in zip(some, batch["targets"].tolist(), batch["shares"].tolist()):
        wanted = {}
        for i, tf in Counter(WORDS(text, add_special_tokens=False)["input_ids"]).items():
            idf = math.log(len(TEXTS) / (1 + sum(i in bag for bag in bags)))
            weight = {"tfidf": tf * idf, "binary": idf, "uniform": 1}[weights]
            if kept[i] and weight > 0:
                wanted[i] = weight ** (1 / temperature)
        wanted = dict(sorted(wanted.items(), key=lambda item: (-item[1], item[0]))[:terms])
        total = sum(wanted.values())
        found = {i: share for i, share in zip(ids, shares) if share > 0}
        assert found == pytest.approx({i: weight / total for i, weight in wanted.items()}, rel=1e-5)


def test_the_loss_is_torchs_divergence_over_the_whole_vocabulary():
    model = counted(max_df=0.5)
    batch = model.collate([*TEXTS[:9], "the", ""])  # the last two have no target
    with torch.no_grad():
        found = float(model.loss(batch)["kl"])
        said = model.logits(model.encode(batch)).log_softmax(1)
    target = torch.zeros_like(said).scatter_add_(1, batch["targets"], batch["shares"])
    some = target.sum(1) > 0
    assert int(some.sum()) == 9
    assert found == pytest.approx(float(F.kl_div(said[some], target[some], reduction="batchmean")), rel=1e-5)


def test_pooled_first_then_the_head():
    model = counted()
    batch = model.collate(TEXTS[:3])
    with torch.no_grad():
        pooled = model.encode(batch)
        states = model.network.model(
            input_ids=batch["ids"],
            attention_mask=torch.where(batch["mask"], 0.0, torch.finfo(torch.float32).min)[:, None, None].expand(
                -1, 1, batch["ids"].shape[1], -1
            ),
        ).last_hidden_state
        by_hand = torch.stack([row[mask].mean(0) for row, mask in zip(states, batch["mask"])])
    assert float((pooled - by_hand).abs().max()) < 1e-5
    assert torch.equal(model.logits(pooled), model.network.lm_head(pooled))


@pytest.mark.parametrize("pooling", ["mean", "weightedmean", "lasttoken"])
def test_causal_and_bidirectional(pooling):
    later = ["red hats wait", "red hats sing"]
    for attention, sees in (("causal", False), ("bidirectional", True)):
        model = counted(attention=attention, pooling=pooling)
        batch = model.collate(later)
        with torch.no_grad():
            states = model.states(batch["ids"], batch["mask"])
            alone = model.encode(model.collate(later[:1]))
            beside = model.encode(model.collate([later[0], " ".join(TEXTS[:3])]))
        assert (not torch.allclose(states[0, 1], states[1, 1], atol=1e-6)) == sees
        assert float((alone[0] - beside[0]).abs().max()) < 1e-5


@pytest.mark.parametrize("background", ["mean", "component"])
def test_what_all_texts_have_in_common_is_taken_away(background, tmp_path):
    model = counted(background=background, derived=5, max_df=1.0)
    kept = np.flatnonzero(model.named())
    vectors = torch.from_numpy(dense_vectors(model, TEXTS))
    # Every vector names one token above all, which says nothing of a text.
    with torch.no_grad():
        model.network.lm_head.weight[kept[0]] = 50 * vectors.mean(0) / vectors.mean(0).norm()
    raw = counted(background="none", derived=5, max_df=1.0)
    raw.network = model.network
    with torch.no_grad():
        ids = torch.cat([i for i, _ in parts.named(model, TEXTS, 5)])
        raw_ids = torch.cat([i for i, _ in parts.named(raw, TEXTS, 5)])
    assert bool((raw_ids[:, 0] == kept[0]).all())
    assert float((ids[:, 0] == kept[0]).float().mean()) < 0.7
    assert len(ids[:, 0].unique()) > 1


def test_derived_targets_by_hand_and_on_disk(tmp_path):
    model = counted(stages=("derived",), derived=6, tau=0.5, max_df=0.5)
    store = model.derive(TEXTS, tmp_path / "targets")
    with torch.no_grad():
        said = model.logits(torch.from_numpy(dense_vectors(model, TEXTS)))
        said = (said - said.mean(0)).masked_fill(torch.from_numpy(~model.named()), -torch.inf)
    best = said.topk(6, dim=1)
    shares = (best.values / 0.5).softmax(1)
    for i, example in enumerate(store):
        assert example.text == TEXTS[i]
        assert example.ids.dtype == np.int32
        assert example.shares.dtype == np.float16
        assert example.ids.tolist() == best.indices[i].tolist()
        assert example.shares.astype(float) == pytest.approx(shares[i].numpy(), abs=1e-3)
    again = model.derive(TEXTS, tmp_path / "targets")  # what is there is taken
    other = model.derive(TEXTS, tmp_path / "other")
    assert again.digest == store.digest == other.digest
    assert sorted(path.name for path in (tmp_path / "targets").iterdir()) == ["ids.i32", "shares.f16", "targets.json"]
    assert (tmp_path / "targets" / "ids.i32").stat().st_size == 4 * 6 * len(TEXTS)
    with pytest.raises(FolderError, match="holds targets made with"):
        counted(tau=1.0).derive(TEXTS, tmp_path / "targets")
    with pytest.raises(SourceError, match="texts without derived targets"):
        model.loss(model.collate(TEXTS[:2]))
    batch = model.collate(store[:4])
    assert batch["shares"].sum(1).tolist() == pytest.approx([1] * 4)


@pytest.mark.parametrize("share", [0.5, 0.25, 0.99, 1.0])
def test_the_edges_of_the_heads_spectrum_are_projected_out(share, tmp_path):
    model = counted(background="unembedding-svd", spectrum=share, max_df=1.0)
    vectors = torch.from_numpy(dense_vectors(model, TEXTS[:7]))
    matrix = model.network.lm_head.weight.detach().double().numpy()
    right = np.linalg.svd(matrix, full_matrices=False)[2]
    number = round(32 * share)
    edges = np.delete(right, np.arange(number) + (32 - number) // 2, axis=0)
    without = vectors.double().numpy()
    for direction in edges:  # one by one
        without = without - np.outer(without @ direction, direction)
    with torch.no_grad():
        found = parts.take_away(model, vectors)(vectors).double().numpy()
        assert np.abs(found - without @ matrix.T).max() < 1e-5
        assert torch.equal(model.logits(vectors), model.network.lm_head(vectors))  # nothing is left behind
    middle = parts.middle_of_spectrum(model.network.lm_head.weight, share)
    assert middle.shape == (number, 32)
    short = vectors.numpy() @ middle.numpy().T
    assert np.abs(short @ short.T - without @ without.T).max() < 1e-4


def test_the_edges_of_a_head_with_a_layer_before_its_matrix(tmp_path):
    make_readers(tmp_path)
    settings = {"stages": ("mntp", "derived"), "max_tokens": 40, "max_df": 1.0, "background": "unembedding-svd"}
    model = Text2Token.from_checkpoint(str(tmp_path / "bert"), **settings).eval()
    vectors = torch.from_numpy(dense_vectors(model, TEXTS[:7]))
    matrix = model.network.get_output_embeddings()
    middle = parts.middle_of_spectrum(matrix.weight).detach()
    with torch.no_grad():
        rows = model.network.cls.predictions.transform(vectors)
        expected = (rows @ middle.T @ middle) @ matrix.weight.T + matrix.bias
        assert float((parts.take_away(model, vectors)(vectors) - expected).abs().max()) < 1e-5


# Prompts ----------------------------------------------------------------------------------------------

PROMPTS = ('This text: "{text}" means in one word:', "{text} is about")


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_prompt_is_read_as_a_decoder_reads_it(causal_folder, name, attention):
    from transformers import AutoModel, AutoTokenizer

    model = Text2Token.from_checkpoint(
        str(causal_folder / name), max_tokens=80, stages=("in_text",), attention=attention
    )
    tokenizer, theirs = (kind.from_pretrained(causal_folder / name) for kind in (AutoTokenizer, AutoModel))
    texts = ["red hats", TEXTS[3], "", "a"]
    for prompt in PROMPTS:
        found = model.train().prompted(texts, prompt)
        assert model.training
        for text, vector in zip(texts, found):
            ids = tokenizer(prompt.replace("{text}", text), return_tensors="pt", add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                last = theirs.eval()(input_ids=torch.tensor([[*model._frame[0], *ids[0].tolist()]])).last_hidden_state[
                    0, -1
                ]
            assert np.abs(vector - last.numpy()).max() < 1e-5
    assert model.prompted([], PROMPTS[0]).shape == (0, model.width)


def test_a_masked_language_model_says_the_next_word_at_a_mask(tmp_path):
    from transformers import AutoModel, AutoTokenizer

    network = {**Text2TokenConfig.presets["tiny"]["network"], "model_type": "bert"}
    made(network=network, prompts=PROMPTS[1:]).save_pretrained(tmp_path / "model")
    model = Text2Token.from_pretrained(str(tmp_path / "model"))
    tokenizer, theirs = (kind.from_pretrained(tmp_path / "model") for kind in (AutoTokenizer, AutoModel))
    texts = ["red hats", "", "a hat"]
    for text, vector in zip(texts, model.prompted(texts, PROMPTS[1])):
        given = tokenizer(f"{text} is about {tokenizer.mask_token}", return_tensors="pt")
        where = given["input_ids"][0].tolist().index(tokenizer.mask_token_id)
        with torch.no_grad():
            assert np.abs(vector - theirs.eval()(**given).last_hidden_state[0, where].numpy()).max() < 1e-5
    make_readers(tmp_path)
    with pytest.raises(ConfigError, match="says the next word at a mask token, and its tokenizer has none"):
        Text2Token.from_checkpoint(str(tmp_path / "bert"), stages=("mntp",), max_tokens=40, prompts=PROMPTS[1:])


def test_the_text_is_cut_and_never_the_prompt():
    model = made(max_tokens=32)
    long = " ".join(TEXTS)
    whole = model._backend.encode(long, add_special_tokens=False).ids
    for prompt in ("so {text} is", "{text} is about", "so {text}"):
        before, after = (model._backend.encode(part, add_special_tokens=False).ids for part in prompt.split("{text}"))
        short, cut = model._in_prompt(["red", long], prompt)
        ids = cut[len(model._frame[0]) :]
        assert len(short) < len(cut) <= 32
        assert len(cut) > 28
        assert ids[: len(before)] == before
        assert ids[len(ids) - len(after) :] == after
        inner = ids[len(before) : len(ids) - len(after)]
        assert inner == whole[: len(inner)]
    with pytest.raises(ConfigError, match=r"takes \d+ of the \d+ tokens that there are; shorten it"):
        model.prompted(["red"], "{text}" + " so" * 40)
    with pytest.raises(ConfigError, match=r"takes \d+ of the \d+ tokens that there are"):
        made(max_tokens=32, prompts=["{text}" + " so" * 40])
    for wrong in ("in one word:", "{text} and {text}", "{txt}"):
        with pytest.raises(ConfigError, match="expected the place of the text once"):
            made(prompts=[wrong])


@pytest.mark.parametrize("background", ["mean", "none", "component"])
def test_logits_of_several_prompts_are_averaged(background, tmp_path):
    prompts = ("so {text} is", "{text} and")
    model = counted(stages=("derived",), prompts=prompts, derived=6, max_df=0.5, background=background)
    store = model.derive(TEXTS, tmp_path / "targets")
    said = 0
    for prompt in prompts:
        vectors = torch.from_numpy(model.prompted(TEXTS, prompt))
        if background == "component":
            first = torch.linalg.svd(vectors, full_matrices=False)[2][0]
            vectors = vectors - torch.outer(vectors @ first, first)
        with torch.no_grad():
            said = said + model.logits(vectors) / 2
    said = said - said.mean(0) if background == "mean" else said
    best = said.masked_fill(torch.from_numpy(~model.named()), -torch.inf).topk(6, dim=1)
    for i, example in enumerate(store):
        assert example.shares.astype(float) == pytest.approx(best.values[i].softmax(0).numpy(), abs=1e-3)
    assert np.mean([e.ids[0] == i for e, i in zip(store, best.indices[:, 0].tolist())]) > 0.95
    with pytest.raises(FolderError, match="holds targets made with"):
        counted(derived=6, max_df=0.5, background=background).derive(TEXTS, tmp_path / "targets")


def test_prompts_are_an_arm_of_the_command(letters, tmp_path):
    result = learn(letters, tmp_path / "run", prompts=["so {text} is"], background="unembedding-svd", max_tokens=64)
    assert result.model.config.prompts == ("so {text} is",)
    assert Text2Token.from_pretrained(str(tmp_path / "run" / "model")).config == result.model.config


def test_a_derived_target_is_learned_from_the_beginning_that_it_is_of(tmp_path):
    long = [" ".join(TEXTS[i : i + 12]) for i in range(6)]
    model = made(stages=("mixed",), max_df=1.0)
    assert model.training
    model.count(TEXTS)
    store = model.derive(long, tmp_path / "targets")
    beginning = model.beginnings(long).ids
    assert torch.equal(model.train().collate(store[:6])["ids"], beginning)
    model.begin("in_text")
    assert not torch.equal(model.collate(long)["ids"], beginning)


def test_mixed_targets(tmp_path):
    model = counted(stages=("mixed",), mix=0.3, derived=6, max_df=0.5)
    store = model.derive(TEXTS, tmp_path / "targets")
    dense = {}
    for stage in ("in_text", "derived", "mixed"):
        model.begin(stage)
        batch = model.collate(store[:8])
        dense[stage] = torch.zeros(8, len(WORDS)).scatter_add_(1, batch["targets"], batch["shares"])
        ids = [row[share > 0].tolist() for row, share in zip(batch["targets"], batch["shares"])]
        assert all(len(set(row)) == len(row) for row in ids)
    expected = 0.3 * dense["in_text"] + 0.7 * dense["derived"]
    assert torch.allclose(dense["mixed"], expected, atol=1e-6)


# Stages -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "loss", "head"),
    [
        ({"stages": ("clm",)}, "nll", True),
        ({"stages": ("mntp",)}, "nll", True),
        ({"stages": ("simcse",)}, "contrastive", False),
        ({"stages": ("in_text",), "weights": "uniform"}, "kl", True),
        ({"stages": ("in_text",), "attention": "causal", "pooling": "lasttoken"}, "kl", True),
        ({"stages": ("in_text",), "train_head": False}, "kl", False),
    ],
)
def test_arms_learn(settings, loss, head):
    model = made(**settings)
    before = {name: p.clone() for name, p in model.named_parameters()}
    config = TrainConfig(steps=60, batch_size=8, lr=5e-3, log_every=1)
    curve = [record[loss] for record in fit(model, TEXTS, config, progress=False).history]
    assert np.mean(curve[-10:]) < np.mean(curve[:10])
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == set(before) - (set() if head else {"network.lm_head.weight"})


def test_a_frozen_head_that_is_the_embedding_too():
    network = {**Text2TokenConfig.presets["tiny"]["network"], "tie_word_embeddings": True}
    model = made(network=network, stages=("in_text", "simcse"), train_head=False)
    matrix = model.network.get_input_embeddings().weight
    assert not matrix.requires_grad
    model.begin("simcse")
    assert matrix.requires_grad


def test_next_and_hidden_tokens_are_what_transformers_says():
    model, both_ways = (made(stages=("clm",), attention=a).eval() for a in ("causal", "bidirectional"))
    batch = model.collate(TEXTS[:5])
    with torch.no_grad():
        labels = batch["ids"].masked_fill(~batch["mask"], -100)
        theirs = model.network(input_ids=batch["ids"], attention_mask=batch["mask"].long(), labels=labels).loss
        assert float(model.loss(batch)["nll"]) == pytest.approx(float(theirs), rel=1e-5)
        assert float(both_ways.loss(batch)["nll"]) == pytest.approx(float(theirs), rel=1e-5)
    model = made(stages=("mntp",)).eval()
    batch = model.collate(TEXTS)
    hidden = batch["hidden"]
    assert bool((batch["read"][hidden] == WORDS.mask_token_id).all())
    assert torch.equal(batch["read"][~hidden], batch["ids"][~hidden])
    assert abs(float(hidden.sum() / (batch["words"] >= 0).sum()) - 0.2) < 0.05
    with torch.no_grad():
        said = model.network.lm_head(model.states(batch["read"], batch["mask"], "bidirectional"))
        expected = F.cross_entropy(said[:, :-1][hidden[:, 1:]], batch["ids"][:, 1:][hidden[:, 1:]])
        assert float(model.loss(batch)["nll"]) == pytest.approx(float(expected), rel=1e-5)


def test_two_passes_differ_by_dropout_and_the_rate_is_given_back():
    model = made(stages=("simcse", "in_text"), dropout=0.4)
    rates = {module.attention_dropout for module in model.network.modules() if hasattr(module, "attention_dropout")}
    assert rates == {0.4}
    batch = model.collate(TEXTS[:6])
    first, second = (float(model.train().loss(batch)["contrastive"].detach()) for _ in range(2))
    assert first != second
    model.begin("in_text")
    rates = {module.attention_dropout for module in model.network.modules() if hasattr(module, "attention_dropout")}
    assert rates == {0.0}


def test_a_masked_language_model(tmp_path):
    make_readers(tmp_path)
    with pytest.raises(ConfigError, match="no language head to name tokens by"):
        Text2Token.from_checkpoint(str(tmp_path / "bert"))
    model = Text2Token.from_checkpoint(str(tmp_path / "bert"), stages=("mntp", "in_text"), max_tokens=40, max_df=1.0)
    assert type(model.network).__name__ == "BertForMaskedLM"
    batch = model.eval().collate(TEXTS[:6])
    with torch.no_grad():
        said = model.network(input_ids=batch["read"], attention_mask=batch["mask"].long()).logits
        expected = F.cross_entropy(said[batch["hidden"]], batch["ids"][batch["hidden"]])
        assert float(model.loss(batch)["nll"]) == pytest.approx(float(expected), rel=1e-5)
    with pytest.raises(ConfigError, match="BertForMaskedLM: reads both ways, whatever its settings say; set attention"):
        Text2Token.from_checkpoint(str(tmp_path / "bert"), stages=("mntp",), max_tokens=40, attention="causal")
    causal = Text2Token.from_checkpoint(str(tmp_path / "bert"), stages=("clm",), max_tokens=40).eval()
    first, second = causal.collate(["red hats wait"]), causal.collate(["red hats sing"])
    with torch.no_grad():
        states = [causal.states(batch["ids"], batch["mask"], "causal") for batch in (first, second)]
    assert torch.allclose(states[0][:, :9], states[1][:, :9], atol=1e-6)
    with pytest.raises(FolderError, match="no network with a language head"):
        Text2Token.from_checkpoint(str(tmp_path / "t5"))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_any_decoder(causal_folder, name):
    model = Text2Token.from_checkpoint(str(causal_folder / name), max_tokens=40, max_df=1.0, stages=("in_text",))
    result = fit(model, TEXTS, TrainConfig(steps=20, batch_size=8, lr=1e-3, log_every=1), progress=False)
    assert result.history[-1]["kl"] < result.history[0]["kl"]
    assert bool(torch.isfinite(model.encode(model.collate(["", "a"]))).all())


@pytest.mark.parametrize(
    ("name", "attention"),
    [("llama", "bidirectional"), ("gpt2", "bidirectional"), ("gpt2", "causal"), ("bert", "bidirectional")],
)
def test_others_read_as_it_was_learned(causal_folder, tmp_path, name, attention):
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel

    make_readers(tmp_path)
    folder = causal_folder / name if name != "bert" else tmp_path / name
    settings = {"stages": ("mntp", "in_text"), "max_tokens": 40, "attention": attention}
    model = Text2Token.from_checkpoint(str(folder), **settings).eval()
    assert model.tokenizer.padding_side == "right"
    model.count([text for text in TEXTS for _ in range(2)] + ["x"] * 2000)
    model.save_pretrained(tmp_path / "model")
    batch = model.collate(TEXTS[:5])
    with torch.no_grad():
        ours = model.encode(batch)
        own = AutoModel.from_pretrained(tmp_path / "model")(input_ids=batch["ids"], attention_mask=batch["mask"].long())
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(TEXTS[:5])
    assert np.abs(ours.numpy() - theirs).max() < 1e-5
    assert float((model.pool(own.last_hidden_state, batch["mask"]) - ours).abs().max()) < 1e-5
    again = Text2Token.from_pretrained(str(tmp_path / "model"))
    with torch.no_grad():
        assert torch.equal(again.encode(again.collate(TEXTS[:5])), ours)


@pytest.mark.parametrize("check", SYSTEM_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("stage", ["clm", "mntp"])
def test_the_contract_in_other_stages(check, stage, monkeypatch):
    tiny = {**Text2TokenConfig.presets["tiny"], "stages": (stage,)}
    monkeypatch.setattr(Text2TokenConfig, "presets", {**Text2TokenConfig.presets, "tiny": tiny})
    check(Text2Token)


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    path = tmp_path_factory.mktemp("letters") / "letters.jsonl"
    path.write_text("".join(json.dumps({"body": text}) + "\n" for text in TEXTS))
    return path


STAGES = {"stages": ["clm", "in_text", "mixed"], "shares": [0.5, 0.25, 0.25], "max_df": 0.6}


def learn(letters, out, **more):
    train = {"steps": 12, "batch_size": 8, "save_every": 2}
    settings = {**STAGES, **more}
    return hg.fit(
        "text2token",
        letters,
        out=out,
        text="body",
        preset="tiny",
        vocabulary=300,
        train=train,
        progress=False,
        **settings,
    )


def test_stages_go_on_where_they_stopped(letters, tmp_path, monkeypatch):
    whole = learn(letters, tmp_path / "whole")
    assert whole.steps == 12
    assert {path.name for path in (tmp_path / "whole").iterdir() if path.is_dir()} == {
        *("corpus", "tokenizer", "stage-1-clm", "stage-2-in_text", "targets-3", "targets-3-held-out"),
        *("checkpoint", "model"),
    }
    weights = whole.model.state_dict()
    loss = Text2Token.loss
    for stop in (5, 9, 13):  # held-out texts count as well
        calls = iter(range(100))

        def stops(self, batch, calls=calls, stop=stop):
            if next(calls) == stop:
                raise KeyboardInterrupt
            return loss(self, batch)

        monkeypatch.setattr(Text2Token, "loss", stops)
        out = tmp_path / f"cut-{stop}"
        with pytest.raises(KeyboardInterrupt):
            learn(letters, out)
        monkeypatch.setattr(Text2Token, "loss", loss)
        again = learn(letters, out).model
        assert again.config == whole.model.config
        assert all(torch.equal(weights[name], tensor) for name, tensor in again.state_dict().items())
    saved = Text2Token.from_pretrained(str(tmp_path / "whole" / "model"))
    assert saved.config.targets == json.loads((tmp_path / "whole" / "targets-3" / "targets.json").read_text())["digest"]
    assert int(saved.documents) == len(TEXTS) - len(TEXTS) // 20
    assert "12 of 8 pieces" in (tmp_path / "whole" / "model" / "README.md").read_text()


def test_the_teacher_can_be_the_model_as_it_began(letters, tmp_path):
    learn(letters, tmp_path / "start", teacher="start")
    assert (tmp_path / "start" / "targets").is_dir()
    with pytest.raises(ConfigError, match="steps 12: expected enough for each of 3 stages"):
        learn(letters, tmp_path / "few", shares=[0.98, 0.01, 0.01])


def test_the_teacher_can_be_a_moving_average(letters, tmp_path):
    run = tmp_path / "run"
    learn(letters, run, teacher="ema", ema=0.6)
    digest = json.loads((run / "targets-3" / "targets.json").read_text())["digest"]
    decays = [
        json.loads((run / stage / "checkpoint" / "state.json").read_text())["identity"]["train"]["ema"]
        for stage in ("stage-1-clm", "stage-2-in_text", "")
    ]
    assert decays == [None, 0.6, None]
    # The average by hand: that of the weights which the trainer kept beside those that it had reached.
    average = load_file(run / "stage-2-in_text" / "checkpoint" / "training.safetensors")
    teacher = Text2Token.from_pretrained(str(run / "model"))
    teacher.load_state_dict(load_file(run / "stage-2-in_text" / "checkpoint" / "model.safetensors"))
    corpus = [json.loads(line)["body"] for line in letters.read_text().splitlines()]
    learned = corpus[len(corpus) // 20 :]
    assert teacher.derive(learned, tmp_path / "last").digest != digest
    for name, parameter in teacher.named_parameters():
        parameter.data.copy_(average[f"ema.{name}"])
    assert teacher.derive(learned, tmp_path / "average").digest == digest
    # A call after a stop goes on with the same targets.
    shutil.rmtree(run / "targets-3")
    for part in ("checkpoint", "model"):
        shutil.rmtree(run / part)
    learn(letters, run, teacher="ema", ema=0.6)
    assert json.loads((run / "targets-3" / "targets.json").read_text())["digest"] == digest
    with pytest.raises(ConfigError, match="teacher 'ema': expected a stage before 'mixed'"):
        made(stages=("mixed",), teacher="ema")
    with pytest.raises(ConfigError, match="ema 1"):
        made(ema=1.0)


# Beside the network -----------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "weightedmean", "lasttoken"])
def test_others_open_the_folder(pooling, tmp_path):
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

    model = counted(attention="causal", pooling=pooling)
    model.save_pretrained(tmp_path / "model")
    with torch.no_grad():
        ours = model.encode(model.collate(TEXTS[:5]))
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(TEXTS[:5])
    assert np.abs(ours.numpy() - theirs).max() < 1e-5
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    given = tokenizer(TEXTS[:5], padding=True, return_tensors="pt")
    given = {name: given[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        states = AutoModel.from_pretrained(tmp_path / "model")(**given).last_hidden_state
        assert float((model.pool(states, given["attention_mask"].bool()) - ours).abs().max()) < 1e-5
    head = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert torch.equal(head.lm_head.weight, model.network.lm_head.weight)


def test_what_a_vector_says(tmp_path):
    model = made(stages=("in_text",), max_df=0.5)
    fit(model, TEXTS, TrainConfig(steps=150, batch_size=16, lr=5e-3), progress=False)
    vectors = dense_vectors(model, TEXTS)
    said = model.explain(vectors, 5)
    named = np.mean([any(word in text.lower() for word, _ in words) for text, words in zip(TEXTS, said)])
    assert named > 0.9
    weights = [weight for _, weight in said[0]]
    assert weights == sorted(weights, reverse=True)
    rows = model.sparse(vectors, 5)
    assert rows.shape == (len(TEXTS), len(WORDS))
    assert np.diff(rows.indptr).max() <= 5
    assert rows.sum(1).max() <= 1 + 1e-5
    assert not rows[:, WORDS.all_special_ids].nnz
    difference = vectors[:12].mean(0) - vectors[12:24].mean(0)
    assert len(model.explain(difference, 3)[0]) == 3
    raw = made(stages=("in_text",), max_df=0.5)
    before, after = parts.report(raw, TEXTS), parts.report(model, TEXTS)
    assert after["content_local"] > before["content_local"] + 0.3
    assert after["local"] > before["local"]
    assert 1 < after["effective_rank"] < 32
    assert -1 <= after["mean_cosine"] <= 1
    found = parts.spectral_report(raw, model, TEXTS, times=(0, 1))
    assert found.shifted[0] == parts.aligned(raw, TEXTS, dense_vectors(raw, TEXTS))
    assert found.variation.components.shape == (32, 32)


def test_the_sparse_export_finds():
    from hourglass.data.judged import Judged

    model = made(stages=("in_text",), max_df=0.5)
    fit(model, TEXTS, TrainConfig(steps=100, batch_size=16, lr=5e-3), progress=False)
    judged = Judged({str(i): t for i, t in enumerate(TEXTS)}, {"q": TEXTS[7]}, {"q": {"7": 1}})
    found = retrieval(lambda texts: model.sparse(dense_vectors(model, texts)), judged, similarity="dot")
    assert found.values["mrr@10"][0] > 0


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_lora_is_merged(causal_folder, tmp_path, name):
    pytest.importorskip("peft")
    model = Text2Token.from_checkpoint(str(causal_folder / name), lora=4, max_tokens=48, max_df=1.0)
    before = {name: p.clone() for name, p in model.named_parameters()}
    fit(model, TEXTS, TrainConfig(steps=8, batch_size=8, lr=1e-2), progress=False)
    moved = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    assert moved
    assert all("lora_" in name for name in moved)
    model.save_pretrained(tmp_path / "model")
    again = Text2Token.from_pretrained(str(tmp_path / "model"))
    assert again.config.lora == 0
    assert torch.equal(again.having, model.having)
    with torch.no_grad():
        ours, theirs = (m.encode(m.collate(TEXTS[:4])) for m in (model, again))
    assert float((ours - theirs).abs().max()) < 1e-5


def test_lora_without_its_part(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(MissingExtra, match=r"hourglass-ai\[lora\]"):
        made(lora=4)


def test_what_does_not_fit(tmp_path):
    with pytest.raises(ConfigError, match="no stage 'intext'"):
        made(stages=("intext",))
    with pytest.raises(ConfigError, match="expected a positive number for each of 1 stages"):
        made(stages=("in_text",), shares=(0.5, 0.5))
    with pytest.raises(ConfigError, match="no background 'men'"):
        made(background="men")
    with pytest.raises(ConfigError, match="max_df 0"):
        made(max_df=0.0)
    with pytest.raises(ConfigError, match="tau 0"):
        made(tau=0.0)
    with pytest.raises(SourceError, match=r"8 texts: the filters leave no token as a target; raise max_df \(0.1\)"):
        made(max_df=0.1).count(["hello"] * 8)
    with pytest.raises(SourceError, match="the filters leave no token"):
        fit(made(max_df=0.1), ["the", "of", "..."], TrainConfig(steps=2, batch_size=2), progress=False)
    with pytest.raises(SourceError, match="the filters leave no token"):
        made().count(["", " "])
    tokenizer = train_tokenizer(TEXTS, 300, "bpe")
    tokenizer.mask_token = None
    assert made(tokenizer, stages=("mntp",))._blank == tokenizer.convert_tokens_to_ids("_")


def test_other_systems_learn_in_one_lesson():
    lessons = list(TextModel.lessons(None, ["a"], [], Path("x"), 7))
    assert [(lesson.name, lesson.steps, lesson.texts) for lesson in lessons] == [("", 7, ["a"])]
