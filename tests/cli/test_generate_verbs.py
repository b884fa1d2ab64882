"""generate, rewrite and interpolate as a user calls them, of cosmos and of any system with methods of these names."""

import json
import re
import sys

import pytest
from typer.testing import CliRunner

import hourglass as hg
from hourglass.cli import app
from hourglass.errors import ConfigError, FolderError, InputError, MissingExtra, SourceError
from hourglass.testing import tiny_examples
from hourglass.waist import Waist, WaistConfig

TEXTS = list(tiny_examples(type("Texts", (), {"modality": "text", "__name__": "Texts"})))


def call(*arguments):
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("texts")


@pytest.fixture(scope="module")
def corpus(folder):
    path = folder / "letters.jsonl"
    path.write_text("".join(json.dumps({"body": text, "original": text.upper()}) + "\n" for text in TEXTS))
    return path


@pytest.fixture(scope="module")
def model(folder, corpus):
    """One that writes from nothing."""
    call(
        *("fit", "cosmos", corpus, "--text", "body", "--out", folder / "run", "--preset", "tiny"),
        *("--steps", 6, "--batch-size", 8, "--set", "autoencoder_steps=3"),
    )
    return folder / "run" / "model"


@pytest.fixture(scope="module")
def rewriter(folder, corpus):
    call(
        *("fit", "cosmos", corpus, "--text", "body", "--out", folder / "rewriter", "--preset", "tiny"),
        *("--steps", 6, "--batch-size", 8, "--set", "source=original"),
    )
    return folder / "rewriter" / "model"


def test_texts_from_nothing(model):
    said = json.loads(call("generate", model, "--n", 3, "--steps", 3, "--seed", 4, "--json"))
    assert said["system"] == "cosmos"
    assert said["asked"] == {"n": 3, "steps": 3, "seed": 4}
    assert [row["source"] for row in said["rows"]] == [None] * 3
    assert said["seconds"] > 0
    again = hg.generate(model, n=3, steps=3, seed=4)
    assert again.texts == [row["text"] for row in said["rows"]]
    assert call("generate", model, "--n", 2, "--steps", 2, "--solver", "dpm++").count("\n") >= 2
    with pytest.raises(ConfigError, match="guidance: this model writes from nothing"):
        call("generate", model, "--guidance", 2)
    with pytest.raises(ConfigError, match="sources: this model writes from nothing"):
        call("generate", model, "--prompt", "Dear customer,")
    with pytest.raises(
        ConfigError, match=r"cosmos has no setting 'max_sentences' of generate \(there are: guidance, n"
    ):
        call("generate", model, "--set", "max_sentences=3")
    with pytest.raises(FolderError, match=r"no trained model \(no config\.json\); name .*run/model"):
        call("generate", model.parent)
    with pytest.raises(FolderError, match="nothing: no model that can be read"):
        call("generate", model.parent / "nothing")
    with pytest.raises(InputError, match="--set x: expected name=value"):
        call("generate", model, "--set", "x")


def test_texts_from_sources(rewriter, corpus):
    said = json.loads(
        call("rewrite", rewriter, corpus, "--text", "original", "--limit", 3, "--steps", 2, "--guidance", 1.5, "--json")
    )
    assert [row["source"] for row in said["rows"]] == [text.upper() for text in TEXTS[:3]]
    two = hg.generate(rewriter, source=corpus, text="original", limit=2, n=2, steps=2)
    assert [row["source"] for row in two.rows] == [TEXTS[0].upper()] * 2 + [TEXTS[1].upper()] * 2
    assert "NOBODY" in call("rewrite", rewriter, corpus, "--text", "original", "--steps", 2)
    with pytest.raises(InputError, match="text 1 to write from is empty"):
        call("generate", rewriter, "--prompt", "a", "--prompt", " ")
    with pytest.raises(InputError, match="no text to write from"):
        hg.generate(rewriter, [])


def test_what_is_written_is_measured_against_what_is_wanted(rewriter, tmp_path):
    pytest.importorskip("sacrebleu")
    path = tmp_path / "pairs.jsonl"
    rows = [{"original": text.upper(), "body": [text, "x y z"]} for text in TEXTS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ask = ("rewrite", rewriter, path, "--text", "original", "--steps", 2, "--wanted")
    said = json.loads(call(*ask, "body", "--set", "n=2", "--json"))
    assert [row["wanted"] for row in said["rows"][:3]] == [rows[0]["body"], rows[0]["body"], rows[1]["body"]]
    assert set(said["measured"]) == {"written", "source"}
    assert said["measured"]["source"]["rougeL"] == 1  # ROUGE does not see capitals
    assert said["measured"]["source"]["bleu"] < 0.5
    assert re.search(r"the sources as they are +0\.\d+ +1\.000", call(*ask, "body"))
    with pytest.raises(SourceError, match="no column 'bodi'"):
        call(*ask, "bodi")
    path.write_text(json.dumps({"original": "A", "body": ""}) + "\n")
    with pytest.raises(InputError, match=r"pairs\.jsonl, row 1, column 'body': expected a text, or a list of texts"):
        call(*ask, "body")


def test_nothing_is_written_in_vain_where_the_measure_is_missing(rewriter, corpus, monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    monkeypatch.setattr("hourglass.api.generating.generate", lambda *_, **__: pytest.fail("wrote"))
    with pytest.raises(MissingExtra, match="generation"):
        call("rewrite", rewriter, corpus, "--text", "original", "--wanted", "body")


def test_a_model_without_sources_rewrites_nothing(model, corpus):
    with pytest.raises(ConfigError, match="cosmos: this model writes from nothing; train one that has sources"):
        call("rewrite", model, corpus, "--text", "original")


def test_the_way_between_two_texts(model):
    said = json.loads(call("interpolate", model, TEXTS[0], TEXTS[1], "--n", 4, "--json"))
    assert len(said["texts"]) == 4
    assert hg.interpolate(model, TEXTS[0], TEXTS[1], 4) == said["texts"]
    assert call("interpolate", model, TEXTS[0], TEXTS[1], "--t", 0.3, "--n", 2)
    with pytest.raises(InputError, match="the last text is empty"):
        call("interpolate", model, "a", "  ")


class Sentences(Waist):
    """A system that goes on from prompts."""

    Config = WaistConfig
    modality = "text"

    def generate(self, prompts, *, max_sentences=2, seed=0):
        return [f"{prompt}, {max_sentences} more" for prompt in prompts]

    def stream(self, prompt, *, max_sentences=2, seed=0):
        for i in range(max_sentences):
            yield f"{prompt} {i}. "


def test_any_system_with_these_methods(monkeypatch):
    monkeypatch.setattr("hourglass.api.folders.load", lambda folder: Sentences(WaistConfig()))
    assert call("generate", "x", "--prompt", "Once", "--set", "max_sentences=3") == "Once 0. Once 1. Once 2. \n"
    assert call("generate", "x", "--prompt", "a", "--prompt", "b") == "a, 2 more\nb, 2 more\n"
    said = json.loads(call("generate", "x", "--prompt", "a", "--seed", 1, "--json"))
    assert said["rows"] == [{"source": "a", "text": "a, 2 more"}]
    with pytest.raises(ConfigError, match=r"no setting 'steps' of stream \(there are: max_sentences, seed\)"):
        call("generate", "x", "--prompt", "a", "--steps", 3)
    with pytest.raises(InputError, match=r"writes from a text; give one \(--prompt\)"):
        call("generate", "x")
    with pytest.raises(InputError, match="text 0 to write from is empty"):
        call("generate", "x", "--prompt", "")
    with pytest.raises(ConfigError, match="has no way between two texts"):
        call("interpolate", "x", "a", "b")


def test_a_system_that_writes_nothing(monkeypatch):
    monkeypatch.setattr(Sentences, "generate", None)
    with pytest.raises(ConfigError, match="writes nothing; open a model of a system that has `generate`"):
        hg.generate(Sentences(WaistConfig()))
