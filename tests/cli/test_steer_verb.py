"""hourglass steer as a person types it."""

import json
import shutil

import pandas as pd
import pytest
from test_verbs import documented, fails, keys_of, run

import hourglass as hg
from causal_models import random_sae
from hourglass.adapters.saelens import write_saelens

PROMPT = "the keeper"


@pytest.fixture(scope="module")
def labelled(explored_causal):
    """The workspace with names for two features that fire."""
    features = pd.read_parquet(explored_causal / "features.parquet")
    strong = features.sort_values("p90").index[-2:].tolist()
    features["label"] = None
    features.loc[strong, "label"] = ["late goals", "early goals"]
    features.to_parquet(explored_causal / "features.parquet")
    return explored_causal, strong


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sae") / "saelens"
    write_saelens(random_sae(), folder)
    return folder


def test_a_workspace_knows_its_model(labelled):
    folder, (late, _) = labelled
    got = json.loads(run("steer", folder, PROMPT, "another", "--feature", "late", "--max-tokens", 5, "--json"))
    assert keys_of(got) <= documented("steer")
    assert got["edits"] == [{"feature": late, "kind": "add", "value": 1.0, "label": "late goals"}]
    p90 = hg.open(folder).features.loc[late, "p90"]
    assert [r["alpha"] / p90 for r in got["rows"]] == pytest.approx([1, 2, 4] * 2, rel=0.01)
    printed = run("steer", folder, PROMPT, "--feature", late, "--alpha", 0, "--alpha", 50, "--max-tokens", 5)
    assert "unsteered" in printed
    assert "late goals" in printed


def test_an_autoencoder_needs_model_and_layer(autoencoder, causal_folder):
    where = ("--model", causal_folder / "gpt2", "--layer", 2, "--max-tokens", 5, "--json")
    removed = json.loads(run("steer", autoencoder, PROMPT, "--feature", 3, "--feature", 4, "--remove", *where))
    assert [(e["kind"], e["value"], e["label"]) for e in removed["edits"]] == [("clamp", 0.0, None)] * 2
    assert removed["rows"][0]["alpha"] is None
    clamped = json.loads(run("steer", autoencoder, PROMPT, "--feature", 3, "--clamp", 4.5, *where))
    assert clamped["edits"][0]["value"] == 4.5
    assert "set to 4.5" in run("steer", autoencoder, PROMPT, "--feature", 3, "--clamp", 4.5, *where[:-1])


def test_every_mistake_is_one_line_and_exit_code_2(explored, labelled, autoencoder, causal_folder, capsys, monkeypatch):
    folder, (late, _) = labelled
    model = ("--model", causal_folder / "gpt2", "--layer", 2)
    cases = [
        ((explored, PROMPT, "--feature", 3), "minilm: a bert model is an encoder"),
        ((folder, PROMPT, "--feature", "goals"), "2 features have a name with 'goals'; choose one by number"),
        ((folder, PROMPT, "--feature", "weather"), "no feature has a name with 'weather'"),
        ((folder, PROMPT, "--feature", 99), "no feature 99; they go from 0 to 31"),
        ((folder, PROMPT, "--feature", late, "--alpha", 4, "--remove"), "one of the three"),
        ((folder, PROMPT, "--feature", late, "--tokens", "al"), "did you mean 'all'"),
        ((folder, PROMPT, "--feature", late, "--layer", 7), "layer 7: the model has 3 blocks"),
        ((autoencoder, PROMPT, "--feature", 3), "name the model and the layer"),
        ((autoencoder, PROMPT, "--feature", "late", *model), "an autoencoder alone has no names"),
        ((autoencoder, PROMPT, "--feature", 3, *model), "give alphas (--alpha)"),
        ((autoencoder.parent, PROMPT, "--feature", 3, *model), "no sparse autoencoder"),
    ]
    for arguments, said in cases:
        code, line = fails(capsys, monkeypatch, "steer", *arguments)
        assert code == 2, line
        assert said in line, line


def test_a_workspace_over_the_last_state_is_refused(labelled, tmp_path):
    folder, (late, _) = labelled
    copy = shutil.copytree(folder, tmp_path / "ws")
    manifest = json.loads((copy / "workspace.json").read_text())
    manifest["settings"]["layer"] = None
    (copy / "workspace.json").write_text(json.dumps(manifest))
    with pytest.raises(hg.InputError, match=r"after the final norm, .* explore again with --layer N"):
        hg.steer(copy, PROMPT, feature=late)


def test_a_card_tells_what_a_feature_says_to_the_head(labelled, explored, capsys, monkeypatch):
    folder, (late, _) = labelled
    card = json.loads(run("features", folder, late, "--logits", "--json"))
    assert keys_of(card) <= documented("features DIR N") | documented("features DIR")
    assert len(card["logits"]) == 20 and card["logits"][0]["logit"] > 0 > card["logits"][-1]["logit"]
    assert "makes likelier: " in run("features", folder, late, "--logits")
    code, line = fails(capsys, monkeypatch, "features", explored, 1, "--logits")
    assert code == 2 and "a bert model is an encoder" in line
