"""`hourglass fit sae`: every kind over every shape of model, from the command line to codes and back."""

import json

import pytest
from test_verbs import fails, run

import hourglass as hg
from causal_models import make_readers
from corpus import documents, write_csv
from hourglass.adapters.saelens import write_saelens
from hourglass.adapters.saes import load_sae
from hourglass.bottlenecks.sparse.activations import ACTIVATIONS


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
