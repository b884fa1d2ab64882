"""CLM then MLM: who sees whom, what is predicted from where, when it switches, what the folder opens with."""

from __future__ import annotations

import itertools
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from hourglass.errors import ConfigError, FolderError, SourceError
from hourglass.systems.clm_mlm import CLMMLM, OBJECTIVES, CLMMLMConfig
from hourglass.testing import tiny_examples
from hourglass.training import TrainConfig, fit
from hourglass.training.callbacks import Callback
from hourglass.training.schedules import factor

TEXTS = list(tiny_examples(CLMMLM))
HALVES = (("clm", 0.5), ("mlm", 0.5))


def made(*objectives, **settings):
    torch.manual_seed(0)
    if objectives:
        settings["phases"] = [(name, 1 / len(objectives)) for name in objectives]
    return CLMMLM(CLMMLMConfig.preset("tiny", **settings))


def logits(model, batch):
    kind = OBJECTIVES[model.config.phases[0][0]]
    return model.network.lm_head(model._states(batch, kind))


# Who sees whom ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_a_token_changes(name):
    model = made(name).eval()
    batch = dict(model.collate(TEXTS[:4]))
    place = 6
    other = batch["read"].clone()
    other[:, place] = (other[:, place] + 7) % 250 + 10
    # A prefix of three tokens, so that the place is behind it.
    batch["prefix"] = (torch.arange(other.shape[1]) < 3).expand_as(batch["prefix"])
    kind = OBJECTIVES[name]
    with torch.no_grad():
        change = (model._states(batch, kind) - model._states({**batch, "read": other}, kind)).abs().amax(-1)
    assert bool((change[:, place:][batch["mask"][:, place:]] > 0).all())
    assert bool((change[:, :place] == 0).all()) == (kind.attention != "own")


def test_all_of_a_prefix_sees_itself():
    model = made("prefix").eval()
    batch = dict(model.collate(TEXTS[:4]))
    batch["prefix"] = (torch.arange(batch["read"].shape[1]) < 8).expand_as(batch["prefix"])
    other = batch["read"].clone()
    other[:, 6] = (other[:, 6] + 7) % 250 + 10
    kind = OBJECTIVES["prefix"]
    with torch.no_grad():
        change = (model._states(batch, kind) - model._states({**batch, "read": other}, kind)).abs().amax(-1)
    assert bool((change[batch["mask"]] > 0).all())


def test_the_latent_is_read_in_both_directions_whatever_was_learned():
    first, second = (made(name).eval() for name in ("clm", "mlm"))
    with torch.no_grad():
        assert torch.equal(first.encode(first.collate(TEXTS[:4])), second.encode(second.collate(TEXTS[:4])))


# What is predicted --------------------------------------------------------------------------------


def test_the_loss_of_clm_is_that_of_every_next_token():
    model = made("clm").eval()
    batch = model.collate(TEXTS[:5])
    assert torch.equal(batch["read"], batch["ids"])
    labels = batch["ids"].masked_fill(~batch["mask"], -100)
    with torch.no_grad():
        expected = F.cross_entropy(logits(model, batch)[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        assert float(model.loss(batch)["clm"]) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("name", ["mlm", "mlm_causal"])
def test_the_loss_of_mlm_is_that_of_hidden_tokens_at_their_place(name):
    model = made(name).eval()
    batch = model.collate(TEXTS[:5])
    hidden = batch["wanted"]
    assert bool((batch["read"][hidden] == model.tokenizer.mask_token_id).all())
    assert torch.equal(batch["read"][~hidden], batch["ids"][~hidden])
    labels = batch["ids"].masked_fill(~hidden, -100)
    with torch.no_grad():
        expected = F.cross_entropy(logits(model, batch).flatten(0, 1), labels.flatten())
        assert float(model.loss(batch)[name]) == pytest.approx(float(expected), rel=1e-5)
        # What stands where nothing is predicted does not matter.
        others = torch.where(hidden, batch["ids"], torch.randint_like(batch["ids"], 10, 200))
        assert torch.equal(model.loss({**batch, "ids": others})[name], model.loss(batch)[name])


def test_the_loss_of_mntp_is_that_of_hidden_tokens_from_the_place_before():
    model = made("mntp").eval()
    batch = model.collate(TEXTS[:5])
    labels = batch["ids"].masked_fill(~batch["wanted"], -100)
    with torch.no_grad():
        expected = F.cross_entropy(logits(model, batch)[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        assert float(model.loss(batch)["mntp"]) == pytest.approx(float(expected), rel=1e-5)


def test_a_prefix_is_no_target():
    model = made("prefix")
    torch.manual_seed(1)
    batch = model.collate(TEXTS)
    assert torch.equal(batch["wanted"], batch["mask"] & ~batch["prefix"])
    sizes = batch["prefix"].sum(1)
    assert int(sizes.min()) >= 1
    assert len(set(sizes.tolist())) > 10
    assert bool(batch["wanted"].any(1).float().mean() > 0.9)


@pytest.mark.parametrize("ratio", [0.2, 0.5, 1.0])
def test_tokens_are_hidden_one_by_one_and_special_ones_never(ratio):
    model = made("mlm", ratio=ratio)
    batch = model.collate(TEXTS * 20)
    ordinary = ~torch.isin(batch["ids"], torch.tensor(model.tokenizer.all_special_ids))
    assert not batch["wanted"][~ordinary].any()
    assert abs(float(batch["wanted"][ordinary].float().mean()) - ratio) < 0.01


def test_what_stands_in_place_of_hidden_tokens():
    model = made("mlm", masked=0.5, random=0.3)
    batch = model.collate(TEXTS * 20)
    read, hidden = batch["read"], batch["wanted"]
    assert abs(float((read[hidden] == model.tokenizer.mask_token_id).float().mean()) - 0.5) < 0.03
    assert abs(float((read[hidden] == batch["ids"][hidden]).float().mean()) - 0.2) < 0.03


@pytest.mark.parametrize("name", OBJECTIVES)
def test_parts_of_a_batch_have_their_share(name):
    model = made(name).eval()
    batch = model.collate([*TEXTS[:6], "a b", "One longer text, so that the halves predict other numbers of tokens."])
    with torch.no_grad():
        parts = [model.loss({k: t[half] for k, t in batch.items()})[name] for half in (slice(4), slice(4, 8))]
        assert float(sum(parts)) / 2 == pytest.approx(float(model.loss(batch)[name]), rel=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_learns(name):
    model = made(name)
    result = fit(model, TEXTS, TrainConfig(steps=60, batch_size=8, lr=3e-3, log_every=1), progress=False)
    curve = [record[name] for record in result.history]
    assert np.mean(curve[-5:]) < 0.8 * np.mean(curve[:5])


# Phases -------------------------------------------------------------------------------------------


def test_a_schedule_and_its_corners():
    config = CLMMLMConfig(phases=(("clm", 0.25), ("mlm", 0.75)), steps=1000)
    assert config.ends() == [250, 1000]
    assert [config.objective(made) for made in (0, 249, 250, 999, 1000)] == ["clm", "clm", "mlm", "mlm", "mlm"]
    config = CLMMLMConfig(phases=(("clm", 10), ("mlm", 1), ("clm", 4)), steps=7)
    assert config.ends() == [10, 11, 15]
    assert [config.objective(made) for made in (9, 10, 11, 500)] == ["clm", "mlm", "clm", "clm"]
    third = CLMMLMConfig(phases=(("mlm", 1 / 3),) * 3, steps=10)
    assert third.ends() == [3, 7, 10]


def test_the_learning_rate_of_the_paper():
    config = TrainConfig(**CLMMLM.recipes["paper"])
    rates = [factor(step, config) for step in (1, 1000, 2000, 2001, 40_000, 40_001, 40_002, 42_000)]
    assert rates == pytest.approx([1 / 2000, 0.5, 1, 1, 1, 1, 1 - 1 / 2000, 1 / 2000])
    # The switch at a quarter is before the decay.
    assert factor(CLMMLMConfig.preset("paper").ends()[0], config) == 1


class Watched(Callback):
    """What was learned in each step, and the weights at the beginning of each phase."""

    def __init__(self, model):
        self.model, self.seen = model, []

    def on_step(self, step, record):
        self.seen.append(next(name for name in OBJECTIVES if name in record))


def test_phases_of_a_run():
    model = made(phases=[["clm", 3], ["mlm", 2], ["clm", 1], ["mntp", 1]])
    watched = Watched(model)
    fit(model, TEXTS, TrainConfig(steps=9, batch_size=8, log_every=1), callbacks=[watched], progress=False)
    assert [(k, len(list(g))) for k, g in itertools.groupby(watched.seen)] == [
        ("clm", 3),
        ("mlm", 2),
        ("clm", 1),
        ("mntp", 3),
    ]
    again = Watched(model)
    fit(model, TEXTS, TrainConfig(steps=4, batch_size=8, log_every=1), callbacks=[again], progress=False)
    assert again.seen == ["clm", "clm", "clm", "mlm"]  # a new run of a trained model begins at the beginning


def test_nothing_but_mask_and_targets_changes_at_the_switch():
    model = made("clm", "mlm", steps=4).eval()
    before = dict(model.named_parameters())
    held = {name: parameter.detach().clone() for name, parameter in before.items()}
    clm = model.collate(TEXTS[:4])
    model.steps_made.fill_(2)
    mlm = model.collate(TEXTS[:4])
    assert torch.equal(clm["ids"], mlm["ids"])
    assert not torch.equal(mlm["read"], mlm["ids"])
    assert [set(model.loss(batch)) for batch in (clm, mlm)] == [{"clm"}, {"mlm"}]
    after = dict(model.named_parameters())
    assert all(after[name] is before[name] and torch.equal(after[name], held[name]) for name in held)


def test_arms_see_the_same_texts():
    seen = []
    for name in ("clm", "mlm"):
        model = made(name, max_tokens=16)
        ids = []
        collate = model.collate
        model.collate = lambda examples, collate=collate, ids=ids: (
            ids.append(collate(examples)["ids"]) or collate(examples)
        )
        fit(model, TEXTS, TrainConfig(steps=3, batch_size=8), progress=False)
        seen.append(ids)
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


@pytest.mark.parametrize("stop", [2, 4, 6])
def test_a_run_goes_on_in_either_phase_and_at_the_switch(stop, tmp_path, monkeypatch):
    settings = {"phases": HALVES, "steps": 8}
    train = TrainConfig(steps=8, batch_size=8, save_every=2, schedule="wsd", warmup=0.1, decay=0.2, log_every=1)
    whole = fit(made(**settings), TEXTS, train, progress=False)
    stopped(monkeypatch, stop + 1, lambda: fit(made(**settings), TEXTS, train, out=tmp_path, progress=False))
    again = fit(made(**settings), TEXTS, train, out=tmp_path, progress=False)
    assert same_weights(whole.model, again.model)
    assert again.model.spent() == whole.model.spent()
    curve = [{k: v for k, v in record.items() if k != "examples_per_s"} for record in whole.history]
    assert curve == [{k: v for k, v in record.items() if k != "examples_per_s"} for record in again.history]


def stopped(monkeypatch, after, run):
    """Calls `run`, which is killed in the step after `after` losses."""
    loss, calls = CLMMLM.loss, iter(range(1000))

    def stops(self, batch):
        if next(calls) == after:
            raise KeyboardInterrupt
        return loss(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(CLMMLM, "loss", stops)
        with pytest.raises(KeyboardInterrupt):
            run()


def same_weights(first, second):
    one, other = first.state_dict(), second.state_dict()
    return all(torch.equal(one[name], other[name]) for name in one)


def test_the_checkpoint_before_the_decay_is_gone_on_from(tmp_path):
    train = TrainConfig(
        steps=8, batch_size=8, schedule="wsd", warmup=0.25, decay=0.25, keep_before_decay=True, log_every=1
    )
    whole = fit(made(phases=HALVES, steps=8), TEXTS, train, out=tmp_path / "run", progress=False)
    kept = tmp_path / "run" / "before-decay"
    assert [path.name for path in kept.iterdir()] == ["checkpoint"]
    shutil.copytree(kept, tmp_path / "longer")
    again = fit(made(phases=HALVES, steps=8), TEXTS, train, out=kept, progress=False)
    assert same_weights(whole.model, again.model)
    # More steps at the constant rate, and the decay after them.
    longer = fit(made(phases=HALVES, steps=8), TEXTS, replace(train, steps=12), out=tmp_path / "longer", progress=False)
    assert longer.history[:6] == whole.history[:6]
    assert [record["lr"] for record in longer.history] == pytest.approx(
        [0.0005, *[0.001] * 9, 0.001 * 2 / 3, 0.001 / 3]
    )
    assert [record["step"] for record in longer.history if "clm" in record] == [1, 2, 3, 4]
    with pytest.raises(FolderError, match="between warm-up and decay"):
        fit(made(phases=HALVES, steps=8), TEXTS, replace(train, steps=12), out=tmp_path / "run", progress=False)


class Moments(Callback):
    """The steps that AdamW has averaged over, after each step."""

    def __init__(self, model):
        self.model, self.seen = model, []

    def on_save(self, step, folder):
        state = load_file(folder / "training.safetensors")
        self.seen.append(int(next(value for name, value in state.items() if name.endswith(".step"))))


@pytest.mark.parametrize("anew", [False, True])
def test_adamw_forgets_at_a_switch_where_it_is_told_to(anew, tmp_path):
    model = made(phases=[["clm", 2], ["mlm", 3], ["clm", 3]], reset_optimizer_at_switch=anew)
    watched = Moments(model)
    train = TrainConfig(steps=7, batch_size=8, save_every=1)
    fit(model, TEXTS, train, out=tmp_path, callbacks=[watched], progress=False)
    assert watched.seen == ([1, 2, 1, 2, 3, 1, 2] if anew else [1, 2, 3, 4, 5, 6, 7])


@pytest.mark.parametrize("stop", [3, 4, 5])
def test_a_run_that_forgets_goes_on_on_either_side_of_the_switch(stop, tmp_path, monkeypatch):
    settings = {"phases": HALVES, "steps": 8, "reset_optimizer_at_switch": True}
    train = TrainConfig(steps=8, batch_size=8, save_every=1)
    whole = fit(made(**settings), TEXTS, train, progress=False)
    stopped(monkeypatch, stop, lambda: fit(made(**settings), TEXTS, train, out=tmp_path, progress=False))
    assert same_weights(whole.model, fit(made(**settings), TEXTS, train, out=tmp_path, progress=False).model)
    kept = fit(made(**{**settings, "reset_optimizer_at_switch": False}), TEXTS, train, progress=False)
    assert not same_weights(whole.model, kept.model)


def taught(model, out, steps, **train):
    """All lessons of a model, as `hourglass fit` makes them."""
    config = TrainConfig(batch_size=4, save_every=1, schedule="wsd", warmup=0.0, decay=0.5, log_every=1, **train)
    return [
        fit(model, lesson.texts, replace(config, steps=lesson.steps), out=out / lesson.name, progress=False)
        for lesson in model.lessons(TEXTS, TEXTS[:3], out, steps)
    ]


@pytest.mark.parametrize("stop", [2, 4, 6])
def test_each_phase_a_training_of_its_own(stop, tmp_path, monkeypatch):
    settings = {"phases": HALVES, "steps": 8, "decay_before_switch": True}
    first, second = taught(made(**settings), tmp_path / "whole", 8)
    rates = [record["lr"] for record in first.history]
    assert rates == [record["lr"] for record in second.history] == pytest.approx([0.001, 0.001, 0.001, 0.0005])
    assert ["clm" in record for record in first.history] == [True] * 4
    assert ["mlm" in record for record in second.history] == [True] * 4
    assert second.model.spent()["steps"] == 8
    assert (tmp_path / "whole" / "phase-1-clm" / "model").exists()
    stopped(monkeypatch, stop, lambda: taught(made(**settings), tmp_path / "cut", 8))
    again = taught(made(**settings), tmp_path / "cut", 8)[-1].model
    assert same_weights(second.model, again)
    assert again.spent() == second.model.spent()
    with pytest.raises(ConfigError, match=r"steps 4: expected enough for each of 2 phases, which end at \[4\]"):
        taught(made(**settings), tmp_path / "short", 4)


# Packed rows --------------------------------------------------------------------------------------


def alone(model, row, kind):
    """[L, d] the states of each text of a row, read by itself."""
    begins = np.flatnonzero(row.begins | (np.arange(len(row.ids)) == 0))
    parts = np.split(np.arange(len(row.ids)), begins[1:])
    ids = [torch.from_numpy(row.ids[part])[None] for part in parts]
    return torch.cat([model.states(one, torch.ones_like(one, dtype=torch.bool), kind.attention)[0] for one in ids])


@pytest.mark.parametrize("name", ["clm", "mlm", "mntp"])
def test_texts_kept_apart_have_the_states_of_each_alone(name, tmp_path):
    model = made(name, packed=True, apart=True).eval()
    rows = model.pack(TEXTS, tmp_path / "rows")
    batch = dict(model.collate(rows[:3]))
    assert int(batch["texts"].max()) >= 1
    batch["read"] = batch["ids"]
    kind = OBJECTIVES[name]
    with torch.no_grad():
        states = model._states(batch, kind)
        for row, found in zip(rows[:3], states, strict=True):
            torch.testing.assert_close(found, alone(model, row, kind), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_a_token_of_a_packed_row_changes(name, apart, tmp_path):
    model = made(name, packed=True, apart=apart).eval()
    row = model.pack(TEXTS, tmp_path / "rows")[1]
    batch = dict(model.collate([row]))
    batch["prefix"] = torch.zeros_like(batch["prefix"])
    of = torch.from_numpy(np.cumsum(row.begins))
    assert len(of.unique()) > 1
    place = int(np.flatnonzero(row.begins[1:])[0]) - 2  # within the first text
    other = batch["read"].clone()
    other[:, place] = (other[:, place] + 7) % 250 + 10
    kind = OBJECTIVES[name]
    with torch.no_grad():
        change = (model._states(batch, kind) - model._states({**batch, "read": other}, kind)).abs().amax(-1)[0]
    at = torch.arange(len(of))
    sees = (at >= place) if kind.attention != "own" else torch.ones_like(at, dtype=torch.bool)
    if apart:
        sees = sees & (of == of[place])
    assert torch.equal(change > 0, sees)


def test_what_is_predicted_of_packed_rows(tmp_path):
    for apart in (False, True):
        model = made("clm", packed=True, apart=apart)
        rows = model.pack(TEXTS, tmp_path / "rows")
        row = rows[2]
        wanted = model.collate([row])["wanted"][0].numpy()
        first = row.begins.copy() if apart else np.zeros_like(row.begins)
        first[0] = True
        assert (wanted == (row.real & ~first)).all()
    model = made("mlm", packed=True, ratio=1.0)
    batch = model.collate(rows[:4])
    assert torch.equal(batch["wanted"], ~torch.isin(batch["ids"], torch.tensor(model.tokenizer.all_special_ids)))
    # The beginning of each text, where each is by itself.
    model = made("prefix", packed=True, apart=True)
    batch = model.collate(rows[:4])
    begins = torch.from_numpy(np.stack([row.begins for row in rows[:4]]))
    assert bool(batch["prefix"][begins].all())
    assert torch.equal(batch["wanted"], batch["mask"] & ~batch["prefix"])


@pytest.mark.parametrize("stop", [2, 5])
def test_a_run_on_packed_rows_counts_and_goes_on(stop, tmp_path, monkeypatch):
    settings = {"phases": HALVES, "steps": 8, "packed": True, "max_tokens": 32, "ratio": 1.0}
    whole = taught(made(**settings), tmp_path / "whole", 8)[-1].model
    # Two special tokens of each text are not hidden; all but the first of a row is a target of CLM.
    spent = whole.spent()
    assert spent["tokens"] == 8 * 4 * 32
    assert 4 * 4 * 31 + 4 * 4 * 32 * 0.8 < spent["predicted"] < 4 * 4 * 31 + 4 * 4 * 32
    stopped(monkeypatch, stop, lambda: taught(made(**settings), tmp_path / "cut", 8))
    again = taught(made(**settings), tmp_path / "cut", 8)[-1].model
    assert same_weights(whole, again)
    assert again.spent() == spent


def test_arms_see_the_same_rows(tmp_path):
    seen = []
    for name in ("clm", "mlm"):
        model, ids = made(name, packed=True), []
        rows = model.pack(TEXTS, tmp_path / name)
        loss = model.loss
        model.loss = lambda batch, loss=loss, ids=ids: (ids.append(batch["ids"]), loss(batch))[1]
        fit(model, rows, TrainConfig(steps=3, batch_size=8), progress=False)
        seen.append(ids)
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


def test_a_packed_model_reads_texts_and_learns_from_rows():
    model = made("mlm", packed=True)
    with pytest.raises(SourceError, match="learns from rows: make them by its pack"):
        model.collate(TEXTS[:4])
    plain = made("mlm").eval()
    model.eval()
    with torch.no_grad():
        assert torch.equal(model.encode(model.collate(TEXTS[:4])), plain.encode(plain.collate(TEXTS[:4])))
    with pytest.raises(ConfigError, match="set packed to true"):
        made("mlm", apart=True)
    assert all(CLMMLMConfig.preset(name).packed == name.startswith("paper") for name in CLMMLMConfig.presets)


# What it cost -------------------------------------------------------------------------------------


def test_what_a_run_took():
    texts = [f"{i % 10}" * 6 for i in range(8)]  # eight tokens each, frame included
    spent = {}
    for name in ("clm", "mlm"):
        model = made(name, ratio=1.0)
        fit(model, texts, TrainConfig(steps=3, batch_size=4, accumulate=2), eval_data=texts, progress=False)
        spent[name] = model.spent()
    assert spent["clm"].items() >= {"steps": 3, "tokens": 3 * 4 * 8, "predicted": 3 * 4 * 7}.items()
    assert spent["mlm"].items() >= {"steps": 3, "tokens": 3 * 4 * 8, "predicted": 3 * 4 * 6}.items()
    weights = 2 * (4 * 32 * 32 + 3 * 32 * 64)
    head = 32 * len(model.tokenizer)
    expected = 6 * (weights * 96 + 2 * 2 * 32 * 3 * 4 * 64 + head * 84)
    assert spent["clm"]["flops"] == expected
    assert model.card_rows()["tokens read, predicted"] == "96, 72"


def test_flops_are_those_that_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    model = made("clm").eval()
    model.network.set_attn_implementation("eager")  # the fused one of CPUs is not counted
    batch = model.collate(TEXTS[:4])
    with FlopCounterMode(display=False) as counter:
        model.states(batch["read"], batch["mask"])
    model.after_step(1)
    head = 6 * model.network.lm_head.weight.numel() * model.spent()["predicted"]
    assert model.spent()["flops"] - head == 3 * counter.get_total_flops()


# The folder ---------------------------------------------------------------------------------------


def test_others_open_the_folder(tmp_path):
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

    model = fit(made("clm", "mlm", steps=4), TEXTS, TrainConfig(steps=4, batch_size=8), progress=False).model
    model.save_pretrained(tmp_path / "model")
    with torch.no_grad():
        ours = model.encode(model.collate(TEXTS[:5])).numpy()
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(TEXTS[:5])
    assert np.abs(ours - theirs).max() < 1e-5
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    given = tokenizer(TEXTS[:5], padding=True, truncation=True, max_length=48, return_tensors="pt")
    mask = given["attention_mask"]
    network = AutoModel.from_pretrained(tmp_path / "model")
    assert type(network).__name__ == "EuroBertModel"
    with torch.no_grad():
        states = network(input_ids=given["input_ids"], attention_mask=mask).last_hidden_state
    assert np.abs(((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).numpy() - ours).max() < 1e-5
    head = AutoModelForMaskedLM.from_pretrained(tmp_path / "model")
    assert head.config.mask_token_id == tokenizer.mask_token_id
    assert torch.equal(head.lm_head.weight, model.network.lm_head.weight)
    again = CLMMLM.from_pretrained(tmp_path / "model")
    assert again.spent() == model.spent()


def test_a_checkpoint_goes_on_with_mlm_unless_told_otherwise(tmp_path):
    made("clm").save_pretrained(tmp_path / "model")
    model = CLMMLM.from_checkpoint(str(tmp_path / "model"), max_tokens=32)
    assert model.config.phases == (("mlm", 1.0),)
    assert model.config.network["hidden_size"] == 32
    detour = CLMMLM.from_checkpoint(str(tmp_path / "model"), phases=[["clm", 0.5], ["mlm", 0.5]])
    assert set(detour.loss(detour.collate(TEXTS[:4]))) == {"clm"}


def test_a_bert_learns_the_next_token_too(tmp_path):
    network = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    made("mlm", network=network).save_pretrained(tmp_path / "model")
    model = CLMMLM.from_checkpoint(str(tmp_path / "model"), phases=[["clm", 0.5], ["mlm", 0.5]], steps=60)
    result = fit(model, TEXTS, TrainConfig(steps=60, batch_size=8, lr=3e-3, log_every=1), progress=False)
    assert result.history[20]["clm"] < result.history[0]["clm"]
    assert result.history[-1]["mlm"] < result.history[30]["mlm"]


def test_a_decoder_becomes_an_encoder_with_a_mask_token(causal_folder, tmp_path):
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModelForCausalLM

    model = CLMMLM.from_checkpoint(str(causal_folder / "llama"), phases=[["mntp", 1.0]]).eval()
    assert model.tokenizer.mask_token == "<mask>"
    decoder = AutoModelForCausalLM.from_pretrained(causal_folder / "llama").eval()
    known = len(decoder.get_input_embeddings().weight)
    assert torch.equal(model.network.get_input_embeddings().weight[:known], decoder.get_input_embeddings().weight)
    # Under CLM's mask it is still the decoder that it was.
    causal = CLMMLM.from_checkpoint(str(causal_folder / "llama"), phases=[["clm", 1.0]]).eval()
    batch = causal.collate(TEXTS[:3])
    labels = batch["ids"].masked_fill(~batch["mask"], -100)
    with torch.no_grad():
        given = decoder(input_ids=batch["ids"], attention_mask=batch["mask"].long()).logits[:, :-1]
        expected = F.cross_entropy(given.flatten(0, 1), labels[:, 1:].flatten())
        ours = causal.loss(batch)["clm"]
    assert float(ours) == pytest.approx(float(expected), abs=0.05)  # the new token takes a little of each
    fit(model, TEXTS, TrainConfig(steps=3, batch_size=8), progress=False)
    model.save_pretrained(tmp_path / "model")
    with torch.no_grad():
        vectors = model.encode(model.collate(TEXTS[:3])).numpy()
    assert np.abs(SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(TEXTS[:3]) - vectors).max() < 1e-5


def test_a_new_mask_token_takes_a_row_that_no_token_has(causal_folder, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    decoder = AutoModelForCausalLM.from_pretrained(causal_folder / "llama")
    decoder.resize_token_embeddings(300)
    tokenizer = AutoTokenizer.from_pretrained(causal_folder / "llama")
    for part in (decoder, tokenizer):
        part.save_pretrained(tmp_path / "llama")
    model = CLMMLM.from_checkpoint(str(tmp_path / "llama"))
    assert len(model.network.get_input_embeddings().weight) == 300
    assert model.network.config.mask_token_id == model.tokenizer.mask_token_id == len(tokenizer)
    assert bool((model.collate(TEXTS)["read"] == len(tokenizer)).any())


# What does not fit --------------------------------------------------------------------------------


def test_a_batch_in_which_nothing_can_be_hidden():
    model = made("mlm")
    loss = model.loss(model.collate(["", ""]))["mlm"]
    assert float(loss.detach()) == 0
    result = fit(model, [""] * 4, TrainConfig(steps=2, batch_size=4, log_every=1), progress=False)
    assert all(record["mlm"] == 0 for record in result.history)
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    assert math.isfinite(float(made("clm").loss(made("clm").collate(["", "x"]))["clm"].detach()))


def test_a_tokenizer_without_a_mask_token():
    tokenizer = made().tokenizer
    tokenizer.mask_token = None
    with pytest.raises(ConfigError, match=r"no mask token, and clm_mlm hides tokens behind one"):
        CLMMLM(
            CLMMLMConfig.preset(
                "tiny", phases=[["clm", 1.0]], network={**CLMMLMConfig.presets["tiny"]["network"], "mask_token_id": 4}
            ),
            tokenizer,
        )


def test_decoders_of_another_kind(causal_folder):
    with pytest.raises(ConfigError, match="no architecture of transformers reads its weights in both directions"):
        CLMMLM.from_checkpoint(str(causal_folder / "gpt2"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"phases": [["mml", 1.0]]}, r"no objective 'mml' \(did you mean 'mlm'\?\)"),
        ({"phases": [["clm", 0.25], ["mlm", 0.5]]}, "expected shares that are 1 together, not 0.75"),
        ({"phases": [["clm", 0.25], ["mlm", 3000]]}, "whole numbers of steps"),
        ({"phases": [["clm", 10], ["mlm", math.inf]]}, "whole numbers of steps"),
        ({"phases": [["clm", 0], ["mlm", 1]]}, "lengths above 0"),
        ({"phases": ["mlm"]}, "phase 'mlm': expected an objective and its length"),
        ({"phases": []}, "expected one or more"),
        ({"phases": [["mlm", "all"]]}, "expected an objective and its length"),
        ({"ratio": 0.0}, "ratio 0.0: expected a share above 0"),
        ({"masked": 0.8, "random": 0.3}, "at most 1 together"),
        ({"steps": 0}, "steps 0: expected 1 or more"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ConfigError, match=message):
        CLMMLMConfig.preset("tiny", **settings)


def test_bad_texts():
    with pytest.raises(SourceError, match="example 1: expected a text"):
        made().collate(["a", 3])
