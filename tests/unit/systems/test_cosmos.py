"""COSMOS: what is spoilt and what is not, what is frozen, two stages taken up where they stopped, texts drawn from noise."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from hourglass import api
from hourglass.errors import ConfigError, FolderError, InputError, SourceError
from hourglass.systems.cosmos import Cosmos, CosmosConfig
from hourglass.systems.cosmos_parts import FrozenEncoder, Latent, noised, roles
from hourglass.testing import tiny_examples
from hourglass.training import TrainConfig, fit
from hourglass.training.callbacks import Callback

TEXTS = list(tiny_examples(Cosmos))
PAIRS = [(text, text.upper()) for text in TEXTS]
BRIEF = TrainConfig(steps=8, batch_size=8, lr=3e-3, schedule="constant", log_every=1)


def made(**settings):
    torch.manual_seed(0)
    return Cosmos(CosmosConfig.preset("tiny", **settings))


def in_both(texts=TEXTS, **settings):
    """A model of which both stages have learned a little."""
    model = made(**settings)
    fit(model, texts, BRIEF, progress=False)
    model.begin("diffusion")
    return fit(model, texts, BRIEF, progress=False).model


@pytest.fixture(scope="module")
def trained():
    return in_both()


@pytest.fixture(scope="module")
def rewriter():
    return in_both(PAIRS, source="original")


# What is kept on disk -----------------------------------------------------------------------------


@pytest.mark.parametrize("paired", [False, True])
def test_the_frozen_encoder_reads_each_text_once(tmp_path, monkeypatch, paired):
    texts = PAIRS if paired else TEXTS
    model = made(source="original" if paired else None, autoencoder_steps=4)
    lessons = model.lessons(texts, [], tmp_path, 6)
    lesson = next(lessons)
    assert (lesson.name, lesson.steps, len(lesson.texts)) == ("autoencoder", 4, len(texts))
    whole = model.read(TEXTS)
    for kept in (
        lesson.texts[:],
        [lesson.texts[i] for i in range(len(TEXTS))],
        lesson.texts.__getitems__([*range(len(TEXTS))]),
    ):
        assert all(np.array_equal(a.ids, b.ids) and np.array_equal(a.states, b.states) for a, b in zip(kept, whole))
    kept, plain = model.collate(lesson.texts[:3]), model.collate(TEXTS[:3])
    assert torch.equal(kept["mask"], plain["mask"])
    assert torch.equal(kept["ids"][kept["mask"]], plain["ids"][plain["mask"]])
    fit(model, lesson.texts, BRIEF, progress=False)
    last = next(lessons)
    assert (last.name, last.steps) == ("", 2)
    if paired:
        model.eval()
        sources = [source for _, source in PAIRS[:3]]
        kept, plain = model.collate(last.texts[:3]), model.collate([Latent(last.texts[0].row, one) for one in sources])
        assert "source_ids" not in kept
        mask = kept["source_mask"]
        assert torch.equal(mask, plain["source_mask"])
        fresh = model.encoder.states(plain["source_ids"], mask)
        assert torch.allclose(kept["source_states"][mask], fresh[mask], atol=1e-2)
    assert not (tmp_path / "states").exists()
    monkeypatch.setattr("hourglass.systems.cosmos._MOST_BYTES", 100)
    assert next(model.lessons(texts, [], tmp_path / "large", 6)).texts[0] == TEXTS[0]
    assert not (tmp_path / "large").exists()


# The autoencoder ----------------------------------------------------------------------------------


def test_half_of_a_batch_is_masked_and_the_other_noised():
    kinds = torch.stack([roles(8, 0.5, 0.5) for _ in range(20)])
    assert (kinds == 1).sum(1).tolist() == [4] * 20
    assert (kinds == 2).sum(1).tolist() == [4] * 20
    assert len({tuple(row) for row in kinds.tolist()}) > 5
    assert sorted(roles(8, 0.25, 0.25).tolist()) == [0] * 4 + [1] * 2 + [2] * 2
    states = torch.randn(4000, 8)
    assert float(noised(states, 0.7).var()) == pytest.approx(1, abs=0.03)
    assert float((noised(states, 0.7) * states).mean()) == pytest.approx(0.7, abs=0.03)
    assert torch.equal(noised(states, 1.0), states)


def test_every_position_but_padding_can_be_left_out():
    """In the authors' code the last two rows of the masked half are spared."""
    model = made(masked_share=1.0, noised_share=0.0, token_mask=0.7).train()
    dropped = torch.zeros(8, 112, dtype=torch.bool)
    for _ in range(16):
        batch = model.collate(TEXTS[:8])
        assert not bool((batch["dropped"] & ~batch["mask"]).any())
        dropped[:, : batch["mask"].shape[1]] |= batch["dropped"]
    assert torch.equal(dropped[:, : batch["mask"].shape[1]], batch["mask"])
    assert "dropped" not in model.eval().collate(TEXTS[:8])


def test_the_loss_by_hand():
    model = made(width=24, heads=3, feature_weight=0.5, denoiser_heads=3).eval()
    model.initialize([model.collate(TEXTS)])
    batch = model.collate(TEXTS[:3])
    losses = model.loss(batch)
    with torch.no_grad():
        features = (
            model.encoder.states(batch["ids"], batch["mask"]) - model.autoencoder.feature_mean
        ) / model.autoencoder.feature_std
        latents = model.autoencoder.resampler(
            model.autoencoder.places(model.autoencoder.inward(features)), batch["mask"]
        )
        states = model.autoencoder.decoded(latents, model.encoder.blank)[:, : batch["mask"].shape[1]]
        real = batch["mask"]
        ce = F.cross_entropy(model.autoencoder.head(states)[real], batch["ids"][real])
        mse = 0.5 * F.mse_loss(model.autoencoder.outward(states)[real], features[real])
    assert float(losses["ce"].detach()) == pytest.approx(float(ce), rel=1e-5)
    assert float(losses["mse"].detach()) == pytest.approx(float(mse), rel=1e-5)
    real_features = features[real]
    assert "mse" not in made(feature_weight=0.0).loss(batch)
    everything = (
        model.encoder.states(*model.encoder.padded(TEXTS, 112)) - model.autoencoder.feature_mean
    ) / model.autoencoder.feature_std
    kept = everything[model.encoder.padded(TEXTS, 112)[1]]
    assert torch.allclose(kept.mean(0), torch.zeros(32), atol=1e-4)
    assert torch.allclose(kept.std(0), torch.ones(32), atol=1e-2)
    assert real_features.shape[1] == 32


def test_the_target_is_what_was_not_spoilt():
    """With all positions left out and all numbers of the latents at 0 the decoder knows nothing: "mse" is to the clean features."""
    model = made(masked_share=0.0, noised_share=1.0, noise_keep=0.0, dropout=0.0).train()
    model.initialize([model.collate(TEXTS)])
    batch = model.collate(TEXTS[:8])
    seen = []
    model.autoencoder.resampler.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        torch.manual_seed(1)
        first = float(model.loss(batch)["mse"])
        clean = model._features(batch)
        assert not torch.allclose(seen[0], model.autoencoder.places(clean), atol=0.1)
        # What the compressor saw was noise alone; the target does not follow it.
        torch.manual_seed(2)
        assert abs(float(model.loss(batch)["mse"]) - first) < 0.2 * first


def test_numbers_of_the_latents_are_put_to_zero_while_learning():
    model = made(latent_mask=0.4, dropout=0.0).train()
    seen = []
    model.autoencoder.decoder.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    model.loss(model.collate(TEXTS[:16]))
    zeros = seen[0] == model.autoencoder.places(torch.zeros_like(seen[0]))
    assert float(zeros.float().mean()) == pytest.approx(0.4, abs=0.03)
    model.eval().loss(model.collate(TEXTS[:16]))
    assert not bool((seen[1] == model.autoencoder.places(torch.zeros_like(seen[1]))).any())


def test_what_is_frozen_stays():
    model = made()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fit(model, TEXTS, BRIEF, progress=False)
    middle = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.begin("diffusion")
    model.train()
    assert not model.encoder.network.training
    assert not model.autoencoder.resampler.training
    assert model.diffusion.training
    fit(model, TEXTS, BRIEF, progress=False)
    after = model.state_dict()
    learned = {"encoder": (False, False), "autoencoder": (True, False), "diffusion": (False, True)}
    for part, (first, second) in learned.items():
        names = [n for n in before if n.startswith(f"{part}.") and not n.startswith("diffusion.m")]
        assert any(not torch.equal(before[n], middle[n]) for n in names) == first
        assert any(not torch.equal(middle[n], after[n]) for n in names) == second


def test_only_the_commonest_tokens_are_written():
    model = made(words=40)
    fit(model, TEXTS, BRIEF, progress=False)
    tokenizer = model.encoder.tokenizer
    assert set(tokenizer.all_special_ids) <= set(model.autoencoder.written.tolist())
    assert len(set(model.autoencoder.written.tolist())) == 40
    assert model.autoencoder.head.weight.shape == (40, 32)
    ids = torch.tensor(model.encoder.rows(TEXTS)[0])
    back = model.autoencoder.written[model.autoencoder.place[ids]]
    assert bool(((back == ids) | (back == tokenizer.unk_token_id)).all())
    assert float((back == ids).float().mean()) > 0.9
    with pytest.raises(ConfigError, match=r"words 2: the encoder has 261, 5 special"):
        made(words=2)


def test_a_text_is_learned_to_be_written_again(tmp_path):
    model = made(words=80, latent_mask=0.0, masked_share=0.0, noised_share=0.0)
    few = TEXTS[:6]
    before = model.accuracy(few)
    fit(model, few, TrainConfig(steps=120, batch_size=6, lr=5e-3, log_every=50), progress=False)
    assert before < 0.1
    assert model.accuracy(few) > 0.6
    long = " ".join(few[:4])
    parts = list(model.pieces(long))
    assert len(parts) > 1
    assert model.reconstruct([few[0], long]) == [*model.reconstruct(few[:1]), " ".join(model.reconstruct(parts))]
    # What was read before is what would be read.
    read = model.read(few[:2])
    batch = model.collate(read)
    assert torch.allclose(model.encode(batch), model.encode(model.collate(few[:2])), atol=5e-2)


def test_long_texts_are_cut_or_refused():
    model = made()
    long = " ".join(TEXTS[:20])
    pieces = list(model.pieces(long))
    assert " ".join(pieces) == long
    assert max(len(row) for row in model.encoder.rows(pieces)) <= 112
    assert sum(piece.endswith(".") for piece in pieces[:-1]) > len(pieces) / 2
    assert [len(p) for p in model.pieces("x" * 300)] == [110, 110, 80]
    assert list(model.pieces("  ")) == []
    assert list(model.pieces("short")) == ["short"]
    with pytest.raises(SourceError, match=r"example 1: \d+ tokens, and the model takes 112; cut it \(model.pieces"):
        model.collate([TEXTS[0], long])
    with pytest.raises(SourceError, match=r"and the model takes 112"):
        model.interpolate(long, "a")
    with pytest.raises(ConfigError, match=r"max_tokens 2: the encoder takes from 3 to 512"):
        made(max_tokens=2)


# The diffusion ------------------------------------------------------------------------------------


def test_statistics_are_of_the_latents_of_the_corpus(trained):
    latents = trained.latents(TEXTS)
    assert latents.shape == (len(TEXTS), 4, 32)
    assert int(trained.diffusion.measured) == len(TEXTS)
    assert torch.allclose(trained.diffusion.mean, latents.mean(0), atol=1e-4)
    assert torch.allclose(trained.diffusion.std, latents.std(0, correction=0).clamp(min=1e-2), atol=1e-4)


@pytest.mark.parametrize(("solver", "steps"), [("euler", 5), ("ddim", 4), ("ddpm", 4), ("dpm++", 3)])
def test_texts_are_drawn_and_a_seed_gives_the_same(trained, solver, steps):
    texts = trained.generate(3, steps=steps, solver=solver, seed=5)
    assert len(texts) == 3
    assert all(isinstance(text, str) for text in texts)
    assert texts == trained.generate(3, steps=steps, solver=solver, seed=5)


def test_an_interpolation_has_its_ends(trained):
    ends = trained.reconstruct([TEXTS[0], TEXTS[-1]])
    between = trained.interpolate(TEXTS[0], TEXTS[-1], 5)
    assert len(between) == 5
    assert [between[0], between[-1]] == ends
    assert len(trained.interpolate(TEXTS[0], TEXTS[-1], 3, t=0.3)) == 3


def test_a_source_is_written_from(rewriter):
    assert len(rewriter.generate(sources=["A B", "C"], steps=3, guidance=2.0)) == 2
    assert len(rewriter.generate(2, ["A B", "C"], steps=3)) == 4
    assert len(rewriter.generate(3, steps=3)) == 3  # from nothing, as drop_source lets it learn
    seen = rewriter._seen(["A B"])
    drawn = [rewriter.diffusion.sample(1, steps=3, seen=seen, guidance=g) for g in (1.0, 3.0)]
    assert not torch.equal(*drawn)
    losses = rewriter.train().loss(rewriter.collate(PAIRS[:4]))
    assert set(losses) == {"diffusion"}
    losses["diffusion"].backward()
    assert all(p.grad is not None for n, p in rewriter.named_parameters() if p.requires_grad)
    rewriter.zero_grad()
    rewriter.eval()


def test_what_cannot_be_asked_for(trained, rewriter):
    with pytest.raises(ConfigError, match="has no statistics of latents"):
        made().generate(1)
    with pytest.raises(ConfigError, match="guidance: this model writes from nothing"):
        trained.generate(1, guidance=2.0)
    with pytest.raises(ConfigError, match="sources: this model writes from nothing"):
        trained.generate(sources=["a"])
    with pytest.raises(ConfigError, match="guidance: no sources are given"):
        rewriter.generate(1, guidance=2.0)
    with pytest.raises(InputError, match="source 1 is empty"):
        rewriter.generate(sources=["a", "  "])
    with pytest.raises(InputError, match="sources: expected at least one text"):
        rewriter.generate(sources=[])
    with pytest.raises(InputError, match="n 0: expected 1 or more"):
        trained.generate(0)
    with pytest.raises(InputError, match="n 1: expected 2 or more"):
        trained.interpolate("a", "b", 1)
    with pytest.raises(SourceError, match=r"and the model takes 128"):
        rewriter.generate(sources=["x" * 300])
    with pytest.raises(ConfigError, match="no solver 'dpmpp'"):
        trained.generate(1, solver="dpmpp")


def test_another_script_is_named(rewriter, monkeypatch):
    few = in_both(words=60)
    assert len(few.interpolate(TEXTS[0], TEXTS[1], 3)) == 3
    with pytest.raises(
        InputError, match="'Жщ': none of its tokens is among those that this model has learned to write"
    ):
        few.interpolate(TEXTS[0], "Жщ")
    with monkeypatch.context() as patched:
        patched.setattr(type(rewriter.encoder), "knows", lambda self, text: text.isascii())
        with pytest.raises(
            InputError, match=r"source 1 \('Жщ'\): the tokenizer of the encoder knows none of its script"
        ):
            rewriter.generate(sources=["a", "Жщ"], steps=2)
    reader = FrozenEncoder("minilm")
    assert reader.knows("refund 😀")
    assert not reader.knows("ሰላም 😀")


def test_settings_that_do_not_fit():
    with pytest.raises(ConfigError, match="at most 1 together"):
        made(masked_share=0.8)
    with pytest.raises(ConfigError, match=r"heads 3: expected a number that parts a width of 32"):
        made(heads=3)
    with pytest.raises(ConfigError, match="latents 0"):
        made(latents=0)
    with pytest.raises(ConfigError, match="token_mask 2"):
        made(token_mask=2.0)
    with pytest.raises(ConfigError, match="no prediction 'score'"):
        made(prediction="score")


# Both, from a source of texts ---------------------------------------------------------------------


def write(folder, rows):
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def learn(path, out, train=None, **settings):
    train = {"steps": 12, "batch_size": 8, "save_every": 2, **(train or {})}
    return api.fit(
        "cosmos",
        path,
        out=out,
        text="body",
        preset="tiny",
        train=train,
        progress=False,
        autoencoder_steps=5,
        **settings,
    )


class Stopped(Exception):
    pass


@pytest.mark.parametrize("at", [3, 9])
def test_goes_on_in_either_stage(tmp_path, monkeypatch, at):
    path = write(tmp_path, [{"body": text} for text in TEXTS])
    whole = learn(path, tmp_path / "whole").model.state_dict()
    calls = iter(range(1000))
    loss = Cosmos.loss

    def stops(self, batch):
        if self.training and next(calls) == at:
            raise Stopped
        return loss(self, batch)

    monkeypatch.setattr(Cosmos, "loss", stops)
    with pytest.raises(Stopped):
        learn(path, tmp_path / "cut")
    monkeypatch.setattr(Cosmos, "loss", loss)
    again = learn(path, tmp_path / "cut").model.state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_the_folder_of_a_run(tmp_path):
    path = write(tmp_path, [{"body": text} for text in [*TEXTS, " ".join(TEXTS[:6])]])
    result = learn(path, tmp_path / "run")
    assert result.steps == 12
    assert set(result.evaluations[-1]) >= {"diffusion", "spread"}
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "| latents | 4 of 32 numbers |" in card
    assert "| token accuracy | 0." in card
    model = api.load(tmp_path / "run" / "model")
    assert model.generate(2, steps=3, seed=1) == result.model.generate(2, steps=3, seed=1)
    weights = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert not any(name.startswith("encoder.") for name in weights)
    from transformers import AutoModel

    assert AutoModel.from_pretrained(tmp_path / "run" / "model" / "encoder").config.hidden_size == 32
    # The average of the weights is what is kept.
    state = json.loads((tmp_path / "run" / "checkpoint" / "state.json").read_text())["identity"]["train"]
    assert (state["ema"], state["schedule"], state["clip"]) == (0.9, "constant", 1.0)
    (tmp_path / "run" / "model" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(FolderError, match="cannot be read"):
        api.load(tmp_path / "run" / "model")
    # The autoencoder of one corpus, the diffusion of another, whose statistics are its own.
    other = write(tmp_path, [{"body": f"Number {i} of another kind."} for i in range(60)])
    train = {"steps": 4, "batch_size": 8}
    adapted = api.fit(
        "cosmos",
        other,
        out=tmp_path / "two",
        text="body",
        init=str(tmp_path / "run/autoencoder/model"),
        train=train,
        progress=False,
    ).model
    assert torch.equal(adapted.autoencoder.head.weight, result.model.autoencoder.head.weight)
    assert not torch.allclose(adapted.diffusion.mean, result.model.diffusion.mean, atol=1e-3)
    assert int(adapted.diffusion.measured) >= 57


def test_a_diffusion_of_its_own_for_an_autoencoder_that_does_not_fit(tmp_path):
    made().save_pretrained(tmp_path / "model")
    with pytest.raises(ConfigError, match="its autoencoder has other sizes"):
        Cosmos.from_checkpoint(str(tmp_path / "model"), latents=5)
    with pytest.raises(ConfigError, match="init minilm: expected the folder of a trained cosmos"):
        Cosmos.from_checkpoint("minilm")
    path = write(tmp_path, [{"body": text} for text in TEXTS])
    with pytest.raises(ConfigError, match="steps 4: expected autoencoder_steps, 5"):
        learn(path, tmp_path / "run", {"steps": 4})
    alone = learn(path, tmp_path / "alone", {"steps": 5}).model
    assert int(alone.diffusion.measured) == 0


def test_pairs_come_from_two_columns(tmp_path):
    rows = [{"body": text, "original": text.upper()} for text in TEXTS]
    rows += [{"body": "No original."}, {"body": " ".join(TEXTS[:9]), "original": "long"}]
    result = learn(write(tmp_path, rows), tmp_path / "run", source="original")
    about = json.loads((tmp_path / "run" / "corpus" / "corpus.json").read_text())
    assert (about["documents"], about["left_out"]) == (len(rows), 2)
    assert "| left out | 2 texts |" in (tmp_path / "run" / "model" / "README.md").read_text()
    assert len(result.model.generate(sources=["NOBODY WAITS HERE."], steps=3, guidance=1.5)) == 1
    for model in (result.model, api.load(tmp_path / "run" / "model")):
        assert len(model.generate(sources=["ＷＡＩＴ 7 Ж", "12"], steps=2)) == 2
        with pytest.raises(
            InputError,
            match=r"source 1 \('Жди 7 лет'\): most of its letters are CYRILLIC; this model learned from .* LATIN$",
        ):
            model.generate(sources=["NOBODY", "Жди 7 лет"], steps=2)
    with pytest.raises(SourceError, match=r"no column 'orignal' \(did you mean 'original'"):
        learn(write(tmp_path, rows), tmp_path / "no", source="orignal")


def test_latents_are_examples():
    model = made()
    model.begin("diffusion")
    rows = model.latents(TEXTS[:4]).flatten(1).half().numpy()
    batch = model.collate([Latent(row) for row in rows])
    assert torch.allclose(model.encode(batch), torch.from_numpy(rows.astype(np.float32)))


def test_the_encoder_is_not_moved_by_a_callback():
    class Watch(Callback):
        def on_step(self, step, record):
            assert not model.encoder.network.training

    model = made()
    fit(model, TEXTS, TrainConfig(steps=2, batch_size=4, log_every=1), callbacks=[Watch()], progress=False)
