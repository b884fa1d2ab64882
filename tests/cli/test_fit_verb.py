"""`hourglass fit sae`: every kind over every shape of model, from the command line to codes and back."""

import json

import pytest
from test_verbs import fails, run

import hourglass as hg
from causal_models import make_readers
from corpus import documents, write_csv
from hourglass.adapters.saelens import write_saelens
from hourglass.adapters.saes import load_sae
from hourglass.bottlenecks.sparse import Crosscoder, SparseAutoencoder, Transcoder
from hourglass.bottlenecks.sparse.activations import ACTIVATIONS
from hourglass.errors import FolderError
from hourglass.training import TrainConfig
from hourglass.uses import coders


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_csv(tmp_path_factory.mktemp("texts") / "texts.csv", documents(40))


def fit(source, out, *options):
    return run("fit", "sae", source, "--text", "body", "--out", out, "--width", 64, "--steps", 20, *options)


@pytest.fixture(scope="module")
def models_folder(causal_folder):
    """Beside the causal models one that fills in and one that translates."""
    return make_readers(causal_folder)


@pytest.mark.parametrize("variant", ACTIVATIONS)
@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "t5"])
def test_every_variant_over_every_shape_of_model(source, models_folder, tmp_path, name, variant):
    few = ["--k", 4] if "k" in ACTIVATIONS[variant].settings else ["--target-l0", 6]
    model = ["--model", models_folder / name, "--layer", 2]
    found = json.loads(fit(source, tmp_path / "sae", *model, "--variant", variant, *few, "--json"))
    assert found["activation"] == variant and found["layer"] == 2 and found["steps"] == 20
    assert 0 < found["fvu"] < 1.5 and found["l0"] > 0
    sae = load_sae(tmp_path / "sae")
    assert (sae.config.activation, sae.config.width) == (variant, 64)
    assert not (tmp_path / "sae" / "states").exists()


def test_an_autoencoder_knows_what_it_reads(source, causal_folder, tmp_path):
    printed = fit(source, tmp_path / "sae", "--model", causal_folder / "gpt2", "--layer", 2, "--k", 4)
    assert "variance unexplained" in printed and str(tmp_path / "sae" / "model") in printed
    steered = hg.steer(tmp_path / "sae", "one two", feature=3, alphas=[4.0], max_tokens=4)
    assert steered.layer == 2 and steered.model == str(causal_folder / "gpt2")


def test_mistakes_are_one_line_and_leave_nothing(source, causal_folder, tmp_path, capsys, monkeypatch):
    model = ["--model", causal_folder / "gpt2", "--text", "body"]
    for options, said in [
        (["--variant", "topkk"], "no activation 'topkk' (did you mean 'topk'?)"),
        (["--k", 99, "--width", 64], "k 99 is larger than width 64"),
        (["--layer", 9], "the model has 3 blocks"),
        (["--variant", "relu", "--k", 4], "activation 'relu' has no k"),
        (["--layer", 1, "--site", "mpl"], "did you mean 'mlp'?"),
    ]:
        code, line = fails(capsys, monkeypatch, "fit", "sae", source, "--out", tmp_path / "o", *model, *options)
        assert code == 2 and said in line
        assert not (tmp_path / "o").exists()
    code, line = fails(capsys, monkeypatch, "fit", "saes", source, "--out", tmp_path / "o")
    assert code == 2 and "no system 'saes' to fit (did you mean 'sae'?)" in line


def test_a_finished_autoencoder_is_not_overwritten(source, causal_folder, tmp_path, capsys, monkeypatch):
    model = ["--model", causal_folder / "gpt2", "--layer", 1, "--k", 4]
    fit(source, tmp_path / "sae", *model)
    code, line = fails(capsys, monkeypatch, "fit", "sae", source, "--out", tmp_path / "sae", *model)
    assert code == 2 and "holds a finished autoencoder" in line


def test_an_exploration_with_a_ready_autoencoder(source, causal_folder, tmp_path, capsys, monkeypatch):
    fit(source, tmp_path / "sae", "--model", causal_folder / "gpt2", "--layer", 2, "--site", "mlp", "--k", 4)
    found = json.loads(
        run("explore", source, "--text", "body", "--sae", tmp_path / "sae", "--out", tmp_path / "ws", "--json")
    )
    assert (found["features"], found["learning"]["steps"]) == (64, 0)
    ws = hg.open(tmp_path / "ws")
    assert (ws.settings["encoder"], ws.settings["layer"], ws.settings["site"]) == (
        str(causal_folder / "gpt2"),
        2,
        "mlp",
    )
    assert all(
        (a == b).all() for a, b in zip(ws.sae.state_dict().values(), load_sae(tmp_path / "sae").state_dict().values())
    )
    assert hg.open(tmp_path / "ws").embed(["one more text"], progress=False) == 1
    write_saelens(load_sae(tmp_path / "sae"), tmp_path / "theirs")
    place = ["--encoder", causal_folder / "gpt2", "--layer", 2, "--site", "mlp"]
    run("explore", source, "--text", "body", "--sae", tmp_path / "theirs", *place, "--out", tmp_path / "ws2")
    again, first = hg.open(tmp_path / "ws2").codes, hg.open(tmp_path / "ws").codes[:40]
    assert ((again > 0) != (first > 0)).nnz <= 0.01 * first.nnz  # ours chooses in bfloat16 where it can
    call = ["explore", source, "--text", "body", "--sae", tmp_path / "sae", "--encoder", "minilm", "--layer", 2]
    code, line = fails(capsys, monkeypatch, *call, "--out", tmp_path / "other")
    assert code == 2 and "reads states of 32 numbers, those of minilm have 384" in line


def test_one_pass_for_several_layers_and_sites(source, causal_folder, tmp_path):
    places = ["--layer", 1, "--layer", 3, "--site", "residual", "--site", "mlp"]
    model = ["--model", causal_folder / "gpt2", "--k", 4]
    found = json.loads(fit(source, tmp_path / "out", *model, *places, "--json"))["autoencoders"]
    assert [(one["layer"], one["site"]) for one in found] == [(1, "residual"), (1, "mlp"), (3, "residual"), (3, "mlp")]
    assert [one["model_folder"] for one in found][3] == str(tmp_path / "out" / "layer-3-mlp" / "model")
    assert len({one["tokens"] for one in found}) == 1 and not (tmp_path / "out" / "states").exists()
    steered = hg.steer(tmp_path / "out" / "layer-3-residual", "one two", feature=3, alphas=[4.0], max_tokens=4)
    assert steered.layer == 3
    alone = json.loads(fit(source, tmp_path / "alone", *model, "--layer", 3, "--json"))
    assert alone["fvu"] == pytest.approx(found[2]["fvu"], rel=0.05)


def test_several_widths_and_k_of_the_same_states(source, causal_folder, tmp_path, capsys, monkeypatch):
    call = ["fit", "sae", source, "--text", "body", "--model", causal_folder / "gpt2", "--layer", 2, "--steps", 5]
    sizes = ["--width", 64, "--width", 96, "--k", 4, "--k", 8]
    found = json.loads(run(*call, "--out", tmp_path / "out", *sizes, "--json"))["autoencoders"]
    assert [one["width"] for one in found] == [64, 64, 96, 96]
    assert [load_sae(one["model_folder"]).config.k for one in found] == [4, 8, 4, 8]
    assert (tmp_path / "out" / "width-96-k-8" / "model").is_dir()
    code, line = fails(capsys, monkeypatch, *call, "--out", tmp_path / "o", "--width", 64, "--width", 64)
    assert code == 2 and "the same twice: width-64, width-64" in line


def test_several_go_on_where_they_stopped(source, causal_folder, tmp_path, monkeypatch):
    call = {"text": "body", "model": str(causal_folder / "gpt2"), "layer": [1, 2], "width": 64, "k": 4, "steps": 10}
    hg.fit_sae(source, out=tmp_path / "whole", **call)
    measured = coders.measure
    monkeypatch.setattr(coders, "measure", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        hg.fit_sae(source, out=tmp_path / "r", **call)  # trained, not measured
    monkeypatch.setattr(coders, "measure", measured)
    hg.fit_sae(source, out=tmp_path / "r", **call)
    for name in ("layer-1-residual", "layer-2-residual"):
        for file in ("model.safetensors", "reader.json"):
            assert (tmp_path / "r" / name / "model" / file).read_bytes() == (
                tmp_path / "whole" / name / "model" / file
            ).read_bytes()
    with pytest.raises(FolderError, match="holds a finished autoencoder"):
        hg.fit_sae(source, out=tmp_path / "r", **call)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "t5"])
@pytest.mark.parametrize("variant", ACTIVATIONS)
def test_a_transcoder_of_the_feed_forward_part(source, models_folder, tmp_path, name, variant):
    few = ["--k", 4] if "k" in ACTIVATIONS[variant].settings else ["--target-l0", 6]
    place = ["--model", models_folder / name, "--layer", 2, "--site", "mlp_in", "--target", "mlp"]
    skip = ["--skip"] if variant in ("topk", "gated") else []
    found = json.loads(fit(source, tmp_path / "t", *place, "--variant", variant, *few, *skip, "--json"))
    assert (found["layer"], found["site"], found["target"], found["skip"]) == (2, "mlp_in", "mlp", bool(skip))
    assert 0 < found["fvu"] < 1.5 and found["l0"] > 0
    transcoder = load_sae(tmp_path / "t")
    assert isinstance(transcoder, Transcoder) and transcoder.config.activation == variant


def test_a_transcoder_is_explored_by_what_it_reads(source, causal_folder, tmp_path, capsys, monkeypatch):
    place = ["--model", causal_folder / "gpt2", "--layer", 2, "--site", "mlp_in", "--target", "mlp", "--k", 4]
    assert "Transcoder: " in fit(source, tmp_path / "t", *place)
    found = json.loads(
        run("explore", source, "--text", "body", "--sae", tmp_path / "t", "--out", tmp_path / "ws", "--json")
    )
    assert found["features"] == 64
    ws = hg.open(tmp_path / "ws")
    assert (ws.settings["layer"], ws.settings["site"]) == (2, "mlp_in") and isinstance(ws.sae, Transcoder)
    assert json.loads(run("features", tmp_path / "ws", "--unnamed", "--json"))
    assert ws.embed(["one more text"], progress=False) == 1
    for folder in (tmp_path / "t", tmp_path / "ws"):
        code, line = fails(capsys, monkeypatch, "steer", folder, "one", "--feature", 3, "--alpha", 2)
        assert code == 2 and "reads the site 'mlp_in'" in line


def test_a_crosscoder_of_layers_and_one_of_models(source, causal_folder, tmp_path, capsys, monkeypatch):
    gpt2, llama = causal_folder / "gpt2", causal_folder / "llama"
    layers = ["--model", gpt2, "--layer", 1, "--layer", 3, "--k", 4, "--cross"]
    found = json.loads(fit(source, tmp_path / "layers", *layers, "--json"))
    assert [place["layer"] for place in found["places"]] == [1, 3] and len(found["fvu_parts"]) == 2
    assert [sum(counts) for counts in found["relative_norms"]["counts"]] == [64, 64]
    crosscoder = load_sae(tmp_path / "layers")
    assert isinstance(crosscoder, Crosscoder) and crosscoder.config.parts == (32, 32)
    models = ["--model", gpt2, "--model", llama, "--layer", 2, "--variant", "batchtopk", "--k", 4, "--cross"]
    assert "Crosscoder: " in fit(source, tmp_path / "models", *models)
    described = json.loads((tmp_path / "models" / "model" / "reader.json").read_text())
    assert [place["model"] for place in described["places"]] == [str(gpt2), str(llama)]
    code, line = fails(capsys, monkeypatch, "explore", source, "--sae", tmp_path / "layers", "--out", tmp_path / "ws")
    assert code == 2 and "a crosscoder reads several places at once" in line
    code, line = fails(capsys, monkeypatch, "steer", tmp_path / "layers", "one", "--feature", 3, "--alpha", 2)
    assert code == 2 and "a crosscoder; only an autoencoder" in line


def test_plans_that_do_not_go_together_are_one_line(source, causal_folder, tmp_path, capsys, monkeypatch):
    model = ["--model", causal_folder / "gpt2", "--text", "body", "--layer", 2]
    for options, said in [
        (["--skip"], "skip belongs to a transcoder"),
        (["--cross"], "expected two places or more"),
        (["--cross", "--layer", 3, "--target", "mlp"], "a crosscoder reconstructs what it reads"),
        (["--target", "residual"], "target 'residual' is what is read, too"),
        (["--layer", 2], "the same place twice"),
        (["--model", causal_folder / "llama"], "only a crosscoder reads them together"),
        (["--layer", 9], "the model has 3 blocks"),
        (["--site", "mlp_in", "--target", "mpl"], "did you mean 'mlp'?"),
    ]:
        code, line = fails(capsys, monkeypatch, "fit", "sae", source, "--out", tmp_path / "o", *model, *options)
        assert code == 2 and said in line
        assert not (tmp_path / "o").exists()


def test_models_with_other_tokens_are_refused(source, causal_folder, tmp_path, capsys, monkeypatch):
    models = ["--model", causal_folder / "gpt2", "--model", "minilm", "--layer", 2, "--cross"]
    call = ["fit", "sae", source, "--text", "body", "--out", tmp_path / "o", "--limit", 4, *models]
    code, line = fails(capsys, monkeypatch, *call)
    assert code == 2 and "cut the texts into other tokens" in line


def test_a_stream_goes_on_bit_for_bit_and_keeps_no_states(source, causal_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(coders, "STREAMED_ROWS", 2048)
    call = {"text": "body", "model": str(causal_folder / "gpt2"), "layer": 2, "width": 64, "k": 4, "stream": True}
    whole = hg.fit_sae(source, out=tmp_path / "whole", steps=6, **call)
    assert whole["steps"] == 6 and 0 < whole["fvu"] < 1.5 and not (tmp_path / "whole" / "states").exists()
    step = TrainConfig.__init__
    every = lambda self, **settings: step(self, **{**settings, "save_every": 2})  # noqa: E731
    monkeypatch.setattr(TrainConfig, "__init__", every)
    after = SparseAutoencoder.after_step

    def stopped(self, step):
        after(self, step)
        if step == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(SparseAutoencoder, "after_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        hg.fit_sae(source, out=tmp_path / "r", steps=6, **call)
    assert sorted(path.name for path in (tmp_path / "r" / "states").iterdir()) == ["states.json"]
    monkeypatch.setattr(SparseAutoencoder, "after_step", after)
    with pytest.raises(FolderError, match="holds states with layer 2, now 1"):
        hg.fit_sae(source, out=tmp_path / "r", steps=6, **{**call, "layer": 1})
    hg.fit_sae(source, out=tmp_path / "r", steps=6, **call)
    for file in ("model.safetensors", "reader.json"):
        assert (tmp_path / "r" / "model" / file).read_bytes() == (tmp_path / "whole" / "model" / file).read_bytes()


def test_a_transcoder_from_a_stream(source, causal_folder, tmp_path, capsys, monkeypatch):
    place = ["--model", causal_folder / "gpt2", "--layer", 2, "--k", 4, "--stream"]
    found = json.loads(fit(source, tmp_path / "t", *place, "--site", "mlp_in", "--target", "mlp", "--json"))
    assert found["target"] == "mlp" and 0 < found["fvu"] < 1.5
    for more, said in (
        (["--layer", 1], "one autoencoder"),
        (["--layer", 1, "--model", "minilm", "--cross"], "one model"),
    ):
        call = ["fit", "sae", source, "--text", "body", "--out", tmp_path / "o", *place, *more]
        code, line = fails(capsys, monkeypatch, *call)
        assert code == 2 and f"stream: {said} at a time" in line
