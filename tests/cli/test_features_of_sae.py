"""`hourglass features` of a bare autoencoder: what somebody who has just trained one types."""

import json

import pytest
from test_verbs import documented, fails, keys_of, run

import hourglass as hg
from causal_models import make_readers, random_sae
from corpus import documents, write_csv
from hourglass.adapters.saelens import write_saelens


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_csv(tmp_path_factory.mktemp("texts") / "texts.csv", documents(60))


def trained(source, folder, model, *options):
    where = ("--text", "body", "--model", model, "--layer", 2, "--out", folder)
    run("fit", "sae", source, *where, "--width", 64, "--k", 4, "--steps", 20, *options)
    return folder


def test_the_features_of_a_causal_model(source, causal_folder, tmp_path):
    sae = trained(source, tmp_path / "sae", causal_folder / "gpt2")
    table = json.loads(run("features", sae, "--source", source, "--text", "body", "--top", 99, "--json"))
    assert len(table) == 64 and keys_of(table) <= documented("features DIR")
    densities = [row["density"] for row in table]
    assert densities == sorted(densities, reverse=True) and sum(densities) == pytest.approx(4, rel=0.05)
    densest = table[0]["feature"]
    card = json.loads(run("features", sae, densest, "--json"))
    assert keys_of(card) <= documented("features DIR N") | documented("features DIR")
    assert len(card["logits"]) == 20
    workspace = hg.open(sae / "explored")
    tokens = sum(shard["tokens"] for shard in workspace.shards)
    assert sum(card["histogram"]) == pytest.approx(card["density"] * tokens, rel=1e-6)
    assert max(e["value"] for e in card["examples"]) == pytest.approx(card["max"], rel=1e-3)
    printed = run("features", sae, densest)
    assert "of tokens" in printed and "activations 0 " in printed and "«" in printed and "makes likelier" in printed
    assert "makes likelier" not in run("features", sae, densest, "--no-logits")
    assert "tokens" in run("features", sae)


def test_the_features_of_an_encoder_have_no_logits(source, tmp_path, capsys, monkeypatch):
    models = make_readers(tmp_path / "models")
    sae = trained(source, tmp_path / "sae", models / "bert", "--site", "mlp")
    card = json.loads(run("features", sae, 3, "--source", source, "--text", "body", "--json"))
    assert "logits" not in card
    assert hg.open(sae / "explored").settings["site"] == "mlp"
    capsys.readouterr()  # of the libraries that made the model
    code, line = fails(capsys, monkeypatch, "features", sae, 3, "--logits")
    assert code == 2 and "is an encoder" in line


def test_a_source_is_read_once_and_another_takes_its_place(source, causal_folder, tmp_path):
    sae = trained(source, tmp_path / "sae", causal_folder / "llama")
    place = sae / "explored" / "features.parquet"
    read = []
    for options in ([], [], ["--limit", 30], []):
        run("features", sae, "--source", source, "--text", "body", *options)
        read.append((place.stat().st_ino, len(hg.open(sae / "explored"))))
    assert read[0] == read[1] and [number for _, number in read] == [60, 60, 30, 60]


def test_an_autoencoder_of_another_library(source, causal_folder, tmp_path, capsys, monkeypatch):
    write_saelens(random_sae(), tmp_path / "theirs")
    call = ("features", tmp_path / "theirs", "--source", source, "--text", "body")
    code, line = fails(capsys, monkeypatch, *call)
    assert code == 2 and "name the model and the layer (--model, --layer)" in line
    run(*call, "--model", causal_folder / "gpt2", "--layer", 2)
    assert "Feature 3" in run("features", tmp_path / "theirs", 3)


def test_every_mistake_is_one_line_and_leaves_nothing(source, causal_folder, explored, tmp_path, capsys, monkeypatch):
    sae = trained(source, tmp_path / "sae", causal_folder / "gpt2")
    for arguments, said in [
        ((sae,), f"hourglass features {sae} --source SOURCE"),
        ((sae, 3), "have not been looked at yet"),
        ((sae, "--limit", 5), "--limit belongs to --source"),
        ((sae, "--source", tmp_path / "missing.csv"), "no such file"),
        ((explored, "--source", source), "--source is for an autoencoder"),
        ((tmp_path,), "no workspace and no sparse autoencoder"),
    ]:
        code, line = fails(capsys, monkeypatch, "features", *arguments)
        assert code == 2 and said in line, line
        assert not (sae / "explored").exists()
