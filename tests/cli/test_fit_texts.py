"""fit of a system on texts, and encode, as a user calls them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from hourglass.cli import app
from hourglass.errors import ConfigError, FolderError, InputError
from hourglass.testing import tiny_examples

TEXTS = list(tiny_examples(type("Texts", (), {"modality": "text", "__name__": "Texts"})))


def call(*arguments):
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "letters.jsonl"
    path.write_text("".join(json.dumps({"id": f"t{i}", "body": text}) + "\n" for i, text in enumerate(TEXTS)))
    return path


@pytest.fixture(scope="module")
def run(corpus):
    out = corpus.parent / "run"
    call(
        *("fit", "dupmae", corpus, "--text", "body", "--out", out, "--preset", "tiny"),
        *("--steps", 6, "--batch-size", 8, "--vocabulary", 200, "--set", "max_tokens=32"),
    )
    return out


def test_the_folder_of_a_run(run):
    from sentence_transformers import SentenceTransformer

    assert SentenceTransformer(str(run / "model"), device="cpu").encode(TEXTS[:2]).shape == (2, 32)
    card = (run / "model" / "README.md").read_text()
    assert "6 of 8 pieces" in card
    assert "letters.jsonl" in card


def test_encode(run, corpus, tmp_path):
    from hourglass import api

    said = json.loads(
        call("encode", run / "model", corpus, "--text", "body", "--out", tmp_path / "v.parquet", "--json")
    )
    assert said["documents"] == len(TEXTS)
    assert said["width"] == 32
    table = pq.read_table(tmp_path / "v.parquet")
    assert table.column("_id").to_pylist()[:2] == ["t0", "t1"]
    model = api.load(run / "model")
    ours = model.encode(model.collate(TEXTS)).detach().numpy()
    assert np.abs(np.array(table.column("vector").to_pylist()) - ours).max() < 1e-5
    with pytest.raises(FolderError, match=r"v\.parquet: exists"):
        api.encode(str(run / "model"), corpus, str(tmp_path / "v.parquet"))
    with pytest.raises(ConfigError, match=r"ends in \.parquet"):
        api.encode(str(run / "model"), corpus, str(tmp_path / "v.csv"))
    with pytest.raises(FolderError, match="no model that can be read"):
        api.encode(str(tmp_path / "nothing"), corpus, str(tmp_path / "w.parquet"))


def test_long_texts_are_read_to_their_end(run):
    from hourglass.uses.vectors import Encoder

    encoder = Encoder(str(run / "model"))
    beginning = " ".join(TEXTS[:20])
    vectors = encoder([beginning + " and this", beginning + " or that, 40 euros", "short"])
    assert encoder.windowed == 2
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-6
    lengths = np.linalg.norm(Encoder("minilm")([beginning * 5, "short"]), axis=1)
    assert np.abs(lengths - 1).max() < 1e-5


def test_goes_on_where_it_stopped(corpus, tmp_path, monkeypatch):
    from hourglass import api
    from hourglass.systems.dupmae import DupMAE

    def learn(out):
        train = {"steps": 8, "batch_size": 8, "save_every": 2}
        return api.fit(
            "dupmae", corpus, out=out, text="body", preset="tiny", vocabulary=200, train=train, progress=False
        )

    whole = learn(tmp_path / "whole").model.state_dict()
    calls = iter(range(100))
    loss = DupMAE.loss

    def stops(self, batch):
        if next(calls) == 5:
            raise KeyboardInterrupt
        return loss(self, batch)

    monkeypatch.setattr(DupMAE, "loss", stops)
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "cut")
    monkeypatch.setattr(DupMAE, "loss", loss)
    again = learn(tmp_path / "cut").model.state_dict()
    assert all(np.array_equal(whole[name], again[name]) for name in whole)
    with pytest.raises(FolderError, match="holds a finished model"):
        learn(tmp_path / "cut")


def test_what_does_not_fit(corpus, tmp_path):
    def refused(*arguments):
        with pytest.raises(InputError) as error:
            CliRunner().invoke(app, ["fit", *map(str, arguments), "--out", str(tmp_path / "x")], catch_exceptions=False)
        return str(error.value)

    assert "no system 'dupmea' to fit (did you mean 'dupmae'?)" in refused("dupmea", corpus)
    assert "--k is not for dupmae" in refused("dupmae", corpus, "--k", 3)
    assert "--init is not for sae" in refused("sae", corpus, "--init", "minilm")
    assert "expected name=value" in refused("dupmae", corpus, "--set", "objective")
    assert "DupMAEConfig has no setting 'objektive'" in refused("dupmae", corpus, "--set", "objektive=mlm")
    assert "max_tokens 'long': expected int" in refused("dupmae", corpus, "--set", "max_tokens=long")
    assert "no preset 'huge'" in refused("dupmae", corpus, "--preset", "huge")
    assert "a vocabulary of 3: expected" in refused("dupmae", corpus, "--text", "body", "--vocabulary", 3)
    assert "no column 'bodi'" in refused("dupmae", corpus, "--text", "bodi", "--preset", "tiny")
    assert not (tmp_path / "x" / "model").exists()


def test_shares_are_of_the_steps_of_the_run(corpus, tmp_path):
    call(
        *("fit", "clm_mlm", corpus, "--text", "body", "--out", tmp_path / "run", "--preset", "tiny", "--steps", 8),
        *("--batch-size", 4, "--vocabulary", 300, "--set", 'phases=[["clm", 0.25], ["mlm", 0.75]]'),
    )
    assert json.loads((tmp_path / "run" / "model" / "config.json").read_text())["hourglass"]["steps"] == 8
    assert "| objectives | clm up to step 2, mlm up to step 8 |" in (tmp_path / "run/model/README.md").read_text()
    with pytest.raises(InputError, match=r"no objective 'mml' \(did you mean 'mlm'\?\)"):
        call("fit", "clm_mlm", corpus, "--text", "body", "--out", tmp_path / "no", "--set", 'phases=[["mml", 1]]')


def test_weights_of_words(run, corpus, tmp_path):
    from sentence_transformers import SparseEncoder

    from hourglass import api
    from hourglass.uses.finetune import Retriever, RetrieverConfig

    model = api.load(run / "model")
    tuned = Retriever(RetrieverConfig.preset("dupmae", max_tokens=32, reduced=4, k=6), model)
    tuned.save_pretrained(tmp_path / "tuned")
    model.save_sparse(tmp_path / "sparse", k=9)
    all_weights = model.lexical(model.collate(TEXTS), None).detach().numpy()
    tokens = model.tokenizer.convert_ids_to_tokens(range(all_weights.shape[1]))
    for folder, k in ((run / "model", 384), (tmp_path / "tuned", 6), (tmp_path / "sparse", 9)):
        to = tmp_path / f"{folder.name}.parquet"
        said = json.loads(call("encode", folder, corpus, "--text", "body", "--out", to, "--sparse", "--json"))
        rows = pq.read_table(to).to_pylist()
        assert said["documents"] == len(rows) == len(TEXTS)
        assert said["weights"] == pytest.approx(np.mean([len(row["tokens"]) for row in rows]))
        for row, weights in zip(rows, all_weights):
            order = np.argsort(-weights, kind="stable")[:k]
            kept = [i for i in order if weights[i] > 0]
            assert np.abs(np.array(row["weights"]) - weights[kept]).max() < 1e-5
            given = {tokens[i]: weights[i] for i in kept}
            assert all(
                given.get(token, 0) == pytest.approx(w, abs=1e-5) for token, w in zip(row["tokens"], row["weights"])
            )
    assert "6 words each" in call(
        *("encode", tmp_path / "tuned", corpus, "--text", "body", "--out", to, "--sparse", "--force")
    )
    assert SparseEncoder(str(tmp_path / "sparse"), device="cpu").max_active_dims == 9
    with pytest.raises(ConfigError, match="minilm: has no weights of words"):
        api.encode("minilm", corpus, str(tmp_path / "x.parquet"), sparse=True)
    tuned.lexical().save_pretrained(tmp_path / "lexical")
    with pytest.raises(ConfigError, match="has weights of words and no vector; write them with --sparse"):
        api.encode(str(tmp_path / "lexical"), corpus, str(tmp_path / "x.parquet"))
    assert api.encode(str(tmp_path / "tuned"), corpus, str(tmp_path / "d.parquet"))["width"] == 4
    Retriever(RetrieverConfig(max_tokens=32), model).save_pretrained(tmp_path / "dense")
    with pytest.raises(ConfigError, match="representation 'dense'"):
        api.encode(str(tmp_path / "dense"), corpus, str(tmp_path / "x.parquet"), sparse=True)


@pytest.mark.parametrize("network", ["llama", "bert"])
def test_words_that_a_vector_names(network, corpus, tmp_path):
    from hourglass import api
    from hourglass.adapters.tokenizers import train_tokenizer
    from hourglass.systems.text2token import Text2Token, Text2TokenConfig
    from hourglass.uses.probe.encoders import dense_vectors

    settings = {
        "model_type": network,
        **{"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64},
    }
    config = Text2TokenConfig.preset("tiny", network=settings, max_df=0.5)
    model = Text2Token(config, train_tokenizer(TEXTS, 300, "wordpiece")).eval()
    model.count(TEXTS)
    model.save_pretrained(tmp_path / "model")
    to = tmp_path / "words.parquet"
    said = json.loads(call("encode", tmp_path / "model", corpus, "--text", "body", "--out", to, "--sparse", "--json"))
    rows = pq.read_table(to).to_pylist()
    expected = model.sparse(dense_vectors(model, TEXTS)).toarray()
    tokens = model.tokenizer.convert_ids_to_tokens(range(expected.shape[1]))
    assert said["documents"] == len(rows) == len(TEXTS)
    assert said["width"] == expected.shape[1]
    for row, weights in zip(rows, expected):
        assert row["weights"] == sorted(row["weights"], reverse=True)
        assert dict(zip(row["tokens"], row["weights"])) == pytest.approx(
            {tokens[i]: weights[i] for i in np.flatnonzero(weights)}, abs=1e-6
        )
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps({"body": " ".join(TEXTS[:20])}) + "\n")
    made = api.encode(str(tmp_path / "model"), str(long), str(tmp_path / "l.parquet"), sparse=True, text="body")
    assert made["windowed"] == 1
    assert made["weights"] <= 64


def test_the_weight_of_a_word_is_the_largest_of_any_window(run):
    from hourglass.uses.vectors import Weigher

    weigher = Weigher(str(run / "model"))
    long = " ".join(TEXTS[:20])
    rows = weigher([long, "short", long + " and this"])
    assert weigher.windowed == 2
    pieces, owners, _ = weigher._windows([long])
    assert len(pieces) > 2 and set(owners) == {0}
    apart = weigher(pieces).toarray()
    assert np.abs(rows[0].toarray()[0] - apart.max(0)).max() < 1e-6


def test_packed_rows_and_the_checkpoint_before_the_decay(corpus, tmp_path):
    def learn(out, *more):
        return call(
            *("fit", "clm_mlm", corpus, "--text", "body", "--out", out, "--preset", "tiny", "--vocabulary", 300),
            *("--set", "packed=true", "--set", "apart=true", "--batch-size", 4, *more),
        )

    run = tmp_path / "run"
    learn(run, "--steps", 20, "--keep-before-decay")
    assert {path.name for path in run.iterdir()} >= {"rows", "rows-held-out", "before-decay", "model"}
    assert "rows of 48 tokens" in (run / "model" / "README.md").read_text()
    kept = run / "before-decay"
    assert json.loads((kept / "checkpoint" / "state.json").read_text())["run"]["step"] == 18
    longer = tmp_path / "longer"
    shutil.copytree(kept, longer)
    learn(kept, "--steps", 20)
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (run, kept))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert "30 steps" in learn(longer, "--steps", 30, "--set", "steps=20")
    with pytest.raises(ConfigError, match="expected schedule 'wsd'"):
        CliRunner().invoke(
            app,
            ["fit", "dupmae", str(corpus), "--out", str(tmp_path / "x"), "--keep-before-decay"],
            catch_exceptions=False,
        )


def test_codes_from_nothing_but_the_texts(corpus, tmp_path):
    from hourglass import api
    from hourglass.metrics.codes import pack
    from hourglass.uses.probe.encoders import dense_vectors

    arguments = (
        "fit",
        "binary_paragraph_vector",
        corpus,
        "--text",
        "body",
        "--out",
        tmp_path / "run",
        "--preset",
        "tiny",
    )
    said = json.loads(call(*arguments, "--steps", 20, "--set", "bits=12", "--json"))
    assert said["held_out"]["words"] > 0
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "| code | 12 bits |" in card
    assert "library_name: hourglass" in card
    more = tmp_path / "more.jsonl"
    more.write_text("".join(json.dumps({"body": text}) + "\n" for text in [*TEXTS, "zzzz", TEXTS[0]]))
    made = api.encode(str(tmp_path / "run" / "model"), str(more), str(tmp_path / "c.parquet"), text="body")
    assert made == {"documents": len(TEXTS) + 2, "width": 12, "windowed": 0}
    table = pq.read_table(tmp_path / "c.parquet")
    codes = table.column("code").to_pylist()
    assert codes[-2] is None
    assert codes[-1] == codes[0]
    model = api.load(tmp_path / "run" / "model")
    vectors = dense_vectors(model, TEXTS)
    assert np.array_equal(np.stack(table.column("vector").to_pylist()[: len(TEXTS)]).astype("float32"), vectors)
    assert codes[: len(TEXTS)] == [code.tobytes() for code in pack(vectors >= 0)]
    with pytest.raises(FolderError, match="finished model"):
        call(*arguments)
    with pytest.raises(ConfigError, match="from scratch alone"):
        api.fit("binary_paragraph_vector", TEXTS, out=tmp_path / "other", init="minilm")


def test_a_system_that_writes_learns_in_two_stages_around_a_causal_model(corpus, causal_folder, tmp_path):
    import hourglass as hg

    out = tmp_path / "run"
    arguments = ("fit", "sentencevae", corpus, "--text", "body", "--out", out, "--init", causal_folder / "gpt2")
    said = json.loads(
        call(
            *arguments,
            *("--steps", 4, "--batch-size", 4, "--set", "max_tokens=24", "--set", "max_sentences=4"),
            *("--set", "first_stage=1", "--set", "first_batch=8", "--json"),
        )
    )
    assert said["steps"] == 4 and "sentence" in said["held_out"]
    second = tmp_path / "second"
    call(
        *("fit", "sentencevae", corpus, "--text", "body", "--out", second, "--init", out / "model"),
        *("--steps", 3, "--batch-size", 4),
    )
    model = hg.load(second / "model")
    (text,) = model.generate(["Nobody sings."], max_sentences=2, stop=False)
    assert text.startswith(" ") and "".join(model.stream("Nobody sings.", max_sentences=2, stop=False)) == text


def test_a_model_that_does_not_write_is_refused(corpus, tmp_path):
    from causal_models import make_readers

    folder = make_readers(tmp_path)
    result = CliRunner().invoke(
        app,
        [
            "fit",
            "sentencevae",
            str(corpus),
            "--text",
            "body",
            "--out",
            str(tmp_path / "o"),
            "--init",
            str(folder / "bert"),
        ],
    )
    assert isinstance(result.exception, ConfigError)
    assert "its architecture is 'bert'; expected one of gpt2, llama, mistral, opt, qwen2" in str(result.exception)
