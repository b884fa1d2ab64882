"""`hourglass index` and `hourglass search`: what they print, and one clear line for what goes wrong."""

import json
import os
import sys

import pytest
import torch
from transformers import BertForSequenceClassification

pytest.importorskip("lance")
pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

import hourglass as hg
from corpus import documents, write_csv
from encoders import make_pair
from hourglass import cli

DOCUMENTS = documents(40)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    for part in make_pair():
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_csv(tmp_path_factory.mktemp("texts") / "texts.csv", DOCUMENTS)


@pytest.fixture(scope="module")
def indexed(tmp_path_factory, source, encoder):
    folder = tmp_path_factory.mktemp("indexed") / "ix"
    hg.index(source, out=folder, encoder=str(encoder), text="body", progress=False)
    return folder


@pytest.fixture
def call(capsys, monkeypatch):
    """Run the command; (exit code, standard output, standard error)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["hourglass", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        return stop.value.code or 0, said.out, said.err

    return run


def test_an_index_is_made_and_searched(call, source, encoder, tmp_path):
    code, out, _ = call("index", source, "--text", "body", "--out", tmp_path / "ix", "--encoder", encoder, "--json")
    made = json.loads(out)
    assert code == 0
    assert made | {"index": ""} == {
        **{"index": "", "documents": 40, "written": 40, "removed": 0, "encoder": str(encoder), "width": 32},
        **{"columns": made["columns"], "old_versions_kept": None, "trouble": []},
    }
    asked = " ".join(DOCUMENTS[7]["body"].split()[:6])
    code, out, _ = call("search", tmp_path / "ix", asked, "--top", 3, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["pipeline"] == "(bm25 | dense) >> rrf"
    assert set(found["ms"]) == {"bm25", "dense", "rrf"}
    hit = found["hits"][0]
    text = next(d["body"] for i, d in enumerate(DOCUMENTS) if hit["id"] in (d.get("id"), str(i), str(i + 1)))
    assert text[hit["passage"]["start"] : hit["passage"]["stop"]] == hit["passage"]["text"]
    assert hit["marks"]
    code, out, _ = call("search", tmp_path / "ix", asked, "--pipeline", "bm25 % 5", "--top", 2)
    assert code == 0
    assert "2 of 40 documents by bm25 % 5; ms: bm25" in out


def test_why_a_document_was_found_is_told(call, indexed):
    asked = " ".join(DOCUMENTS[7]["body"].split()[:6])
    code, out, _ = call(
        "search", indexed, asked, "--top", 2, "--explain", "--pipeline", "bm25 >> rm3 >> bm25 | dense >> rrf"
    )
    assert code == 0
    assert out.startswith("after rm3 the query is: ")
    said = " ".join(out.split())
    for line in ("bm25: rank 1 of", "dense: rank ", "rrf: rank 1 of", "near: "):
        assert line in said
    code, out, _ = call("search", indexed, asked, "--top", 2, "--explain", "--pipeline", "bm25", "--json")
    hit = json.loads(out)["hits"][0]
    (place,) = hit["why"]["places"]
    assert (place["stage"], place["rank"], place["score"]) == ("bm25", 1, hit["score"])
    assert sum(term["score"] for term in place["terms"]) == pytest.approx(hit["score"], rel=1e-5)
    assert hit["why"]["near"] == [] and json.loads(out)["widened"] == []
    assert "why" not in json.loads(call("search", indexed, asked, "--json")[1])["hits"][0]


def test_an_index_holds_vectors_codes_and_tokens_in_one_table(call, source, encoder, tmp_path):
    folder = tmp_path / "ix"
    made = ("index", source, "--text", "body", "--out", folder, "--encoder", encoder)
    code, _, err = call(*made, "--code", "itq", "--bits", 24, "--tokens", encoder, "--token-bits", 4)
    assert code == 0, err
    asked = DOCUMENTS[7]["body"]
    for pipeline in (
        "hamming % 10 >> dense % 3",
        "late % 3",
        "bm25 % 10 >> late % 3",
        "late >> colbert_prf >> late % 3",
    ):
        code, out, err = call("search", folder, asked, "--pipeline", pipeline, "--json")
        assert code == 0, err
        assert json.loads(out)["hits"][0]["fields"]["id"] == DOCUMENTS[7]["id"], pipeline
    code, _, err = call(*made[:5], tmp_path / "no", "--encoder", encoder, "--code", "itq", "--bits", 33)
    assert (code, "33 bits of 32 numbers by 'itq': expected from 1 to 32" in err) == (2, True)
    code, _, err = call(*made[:5], tmp_path / "no", "--encoder", "none", "--tokens", encoder, "--token-bits", 3)
    assert (code, "bits 3: expected one of 1, 2, 4, 8" in err) == (2, True)
    assert not (tmp_path / "no").exists()


def test_an_index_is_changed(call, tmp_path, source):
    folder = tmp_path / "ix"
    assert call("index", source, "--text", "body", "--out", folder, "--encoder", "none")[0] == 0
    more = tmp_path / "more.jsonl"
    more.write_text('{"id": "x1", "body": "zebras"}\n{"id": "x2", "body": "zebu"}\n')
    assert "42 documents (2 written)" in call("index", more, "--out", folder, "--append", "--id", "id")[1]
    more.write_text('{"id": "x1", "body": "a giraffe"}\n')
    assert "42 documents (1 written)" in call("index", more, "--out", folder, "--update", "--id", "id")[1]
    assert json.loads(call("search", folder, "giraffes", "--json")[1])["hits"][0]["id"] == "x1"
    assert "41 documents (1 removed)" in call("index", "--out", folder, "--delete", "x1")[1]
    assert "40 documents (1 removed)" in call("index", "--out", folder, "--delete-where", "_id = 'x2'")[1]
    made = json.loads(call("index", "--out", folder, "--compact", "--json")[1])
    assert (made["documents"], made["old_versions_kept"]) == (40, False)


def test_what_goes_wrong_is_one_line_and_exit_code_2(call, indexed, source, encoder, tmp_path):
    lines = {
        ("search", indexed, "  "): "the query is empty",
        ("search", indexed, "red", "--pipeline", "bm26"): "no stage 'bm26' (did you mean 'bm25'?)",
        ("search", indexed, "red", "--pipeline", "bm25(k2=1)"): "settings of bm25 do not fit",
        ("search", indexed, "red", "--pipeline", "splade"): "an index without weights of words",
        ("search", indexed, "red", "--pipeline", "late"): "an index without vectors of tokens",
        ("search", indexed, "red", "--pipeline", "hamming"): "an index without binary codes",
        ("search", indexed, "red", "--pipeline", "rrf"): "nothing to fuse",
        ("search", indexed, "red", "--pipeline", "bm25 | dense"): "2 rankings side by side; fuse them first",
        ("search", indexed, "red", "--where", "yeer > 3"): "No field named yeer",
        ("search", indexed, "red", "--top", 0): "expected 1 document or more",
        ("search", tmp_path / "no", "red"): "no search index; make one",
        ("index", source, "--text", "body", "--out", indexed): "exists; choose another --out",
        ("index", "--out", indexed): "expected SOURCE",
        ("index", source, "--out", indexed, "--append", "--update"): "give one of --append",
        ("index", "--out", indexed, "--delete", "nope"): "no document 'nope'",
        ("index", tmp_path / "no.csv", "--out", tmp_path / "x"): "no such file",
        (
            "index",
            source,
            "--text",
            "body",
            "--out",
            indexed,
            "--append",
            "--encoder",
            "minilm",
        ): f"made with the encoder '{encoder}' (32 numbers), given is 'minilm' (384 numbers)",
    }
    for arguments, line in lines.items():
        code, out, err = call(*arguments)
        assert (code, out) == (2, ""), arguments
        assert line in err, arguments
        assert "Traceback" not in err
        assert len(err.strip().splitlines()) == (3 if "character" in err else 1), err


def test_a_damaged_file_is_one_line_and_exit_code_2(call, source, tmp_path):
    folder = tmp_path / "ix"
    hg.index(source, out=folder, encoder=None, text="body", progress=False)
    data = next((folder / "documents.lance/data").iterdir())
    os.truncate(data, data.stat().st_size // 2)
    code, out, err = call("search", folder, "red")
    assert (code, out) == (2, "")
    assert "a file of the index is missing or damaged" in err
    assert len(err.strip().splitlines()) == 1
    data.unlink()
    assert call("search", folder, "red")[0] == 2
    (folder / "index.json").write_text("{")
    code, _, err = call("search", folder, "red")
    assert code == 2
    assert "not valid JSON" in err


def test_a_cross_encoder_says_what_it_cuts(call, indexed, tmp_path):
    network, tokenizer = make_pair()
    network.config.num_labels = 1
    tokenizer.model_max_length = 24
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertForSequenceClassification(network.config).save_pretrained(tmp_path / "cross")
    tokenizer.save_pretrained(tmp_path / "cross")
    asked = " ".join(DOCUMENTS[7]["body"].split()[:4])
    code, out, _ = call("search", indexed, asked, "--pipeline", f'bm25 % 5 >> cross("{tmp_path / "cross"}")', "--json")
    found = json.loads(out)
    assert code == 0
    assert len(found["hits"]) == 5
    assert found["notes"] == ["cross(cross): 5 of 5 texts are longer than the 24 tokens it reads and were cut"]
    code, _, err = call("search", indexed, asked, "--pipeline", "bm25 >> cross(nope)")
    assert code == 2
    assert "nope: no cross-encoder that can be read" in err


# evaluate ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judged(tmp_path_factory, indexed):
    """Files of queries, each made of the words of one document, and judgements."""
    index = hg.open_index(indexed)
    rows = range(0, len(index), 5)
    names, texts = index.names(list(rows)), index.texts(list(rows))
    folder = tmp_path_factory.mktemp("judged")
    queries = [{"_id": f"q{i}", "text": " ".join(text.split()[:6])} for i, text in enumerate(texts)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    (folder / "qrels.txt").write_text("".join(f"q{i} 0 {name} 1\n" for i, name in enumerate(names)) + "q0 0 gone 1\n")
    return folder


def test_pipelines_are_compared_with_the_first(call, indexed, judged, tmp_path):
    arguments = ("evaluate", indexed, "--queries", judged / "queries.jsonl", "--qrels", judged / "qrels.txt")
    code, out, err = call(*arguments, "--differences", "2", "--runs", tmp_path / "runs")
    assert code == 0
    assert "bm25 | dense" in " ".join(out.split()) and "bytes a document" in " ".join(out.split())
    assert "1 judged documents are not in the index (the first: 'gone')" in " ".join(err.split())
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["1.run", "2.run", "3.run"]
    code, out, _ = call(*arguments, "--pipeline", "bm25", "--pipeline", "dense", "--measure", "p@1", "--json")
    told = json.loads(out)
    assert [one["pipeline"] for one in told["pipelines"]] == ["bm25", "dense"]
    assert told["pipelines"][0]["measures"]["p@1"]["value"] > 0.5
    assert "against_first" in told["pipelines"][1]["measures"]["p@1"]
    assert {"documents", "bm25-1.5-0.75", "dense"} <= set(told["bytes_per_document"])


def test_the_survey_is_every_pipeline_that_the_index_has_the_parts_for(call, tmp_path, source, judged):
    hg.index(source, out=tmp_path / "words", encoder=None, text="body", progress=False)
    arguments = ("evaluate", tmp_path / "words", "--queries", judged / "queries.jsonl", "--qrels", judged / "qrels.txt")
    code, out, _ = call(*arguments, "--survey", "--json")
    assert code == 0
    asked = [each["pipeline"] for each in json.loads(out)["pipelines"]]
    assert asked == ["bm25", "bm25 >> rm3 >> bm25", "bm25 >> ceqe >> bm25"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--pipeline", "bm52"), "pipeline, character 1: no stage 'bm52' (did you mean 'bm25'?)"),
        (("--measure", "ndcg"), "no measure 'ndcg'"),
        (("--queries", "nowhere.tsv"), "nowhere.tsv: no such file"),
        (("--qrels", "nowhere.tsv"), "nowhere.tsv: no such file"),
        (("--pipeline", "bm25 >> rm3"), "finds nothing by itself"),
        (("--pipeline", "rm3"), "rm3: nothing found yet to learn from"),
        (("--cross", "some/model"), "for the pipelines of --survey; add it"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(call, indexed, judged, more, said):
    files = {"--queries": judged / "queries.jsonl", "--qrels": judged / "qrels.txt"}
    files.update({more[0]: more[1]} if more[0] in files else {})
    rest = () if more[0] in files else more
    code, out, err = call("evaluate", indexed, *(part for pair in files.items() for part in pair), *rest)
    assert code == 2 and not out
    assert said in " ".join(err.split())


@pytest.mark.parametrize(
    "pipeline",
    [
        "bm25 >> rm3(first=2, terms=3) >> bm25",
        "dense >> rocchio(first=2) >> dense",
        "bm25 % 3 >> passages(size=5, stride=3)",
        "bm25 % 3 >> passages(size=5, stride=3, most=3, middle=random)",
        "bm25 % 3 >> birch(keep=0.3)",
        "bm25 >> ceqe(ENCODER, first=2) >> bm25",
    ],
)
def test_stages_of_feedback_and_passages_run_by_name(indexed, encoder, pipeline):
    found = hg.open_index(indexed).search(
        DOCUMENTS[0]["body"][:40], pipeline=pipeline.replace("ENCODER", f'"{encoder}"')
    )
    assert len(found)


def test_a_system_without_a_network_is_an_encoder_of_an_index(call, source, tmp_path):
    from hourglass import api

    run = tmp_path / "run"
    api.fit("binary_paragraph_vector", source, text="body", out=run, preset="tiny", progress=False)
    code, _, err = call(
        *("index", source, "--text", "body", "--out", tmp_path / "ix", "--encoder", run / "model", "--code", "sign")
    )
    assert code == 0, err
    code, out, _ = call("search", tmp_path / "ix", DOCUMENTS[3]["body"], "--pipeline", "hamming % 5 >> dense", "--json")
    assert json.loads(out)["hits"][0]["fields"]["id"] == DOCUMENTS[3]["id"]


@pytest.mark.parametrize(
    ("pipeline", "said"),
    [
        ("bm25 >> parade(nowhere)", "pipeline, character 9: nowhere: no PARADE that can be read"),
        ("bm25 >> duo(nowhere)", "pipeline, character 9: nowhere: no"),
        ("bm25 >> exits(nowhere)", "pipeline, character 9: nowhere: no EarlyExit that can be read"),
        ("bm25 >> cedr(nowhere)", "pipeline, character 9: nowhere: no CEDR that can be read"),
        ("bm25(k9=2)", "settings of bm25 do not fit: got an unexpected keyword argument 'k9'"),
        ("bm25(1, k1=2)", "settings of bm25 do not fit: got multiple values for argument 'k1'"),
        ("bm25 >> rm3(first=x) >> bm25", "settings of rm3 do not fit: first='x': a value of another kind is expected"),
    ],
)
def test_settings_of_a_stage_that_do_not_fit_are_said(call, indexed, pipeline, said):
    code, out, err = call("search", indexed, "red", "--pipeline", pipeline)
    assert code == 2 and not out
    assert said in " ".join(err.split())


def test_depths_are_chosen_for_a_budget_and_said(call, indexed, judged):
    spec = "within(bm25 % 20 >> dense, ms=100000) % 3"
    code, out, _ = call("search", indexed, "red", "--pipeline", spec, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["pipeline"] == "bm25 % 20 >> dense % 3"
    kept = [path for path in (indexed / "cache").iterdir() if path.name.startswith("costs-")]
    assert len(kept) == 1
    made = kept[0].stat().st_mtime_ns
    arguments = ("evaluate", indexed, "--queries", judged / "queries.jsonl", "--qrels", judged / "qrels.txt")
    code, out, _ = call(*arguments, "--pipeline", spec)
    assert code == 0
    assert f"{spec}: bm25 % 20 >> dense % 3" in " ".join(out.split()) and "cost, stage by stage" in out
    assert kept[0].stat().st_mtime_ns == made  # measured once
    told = json.loads(call(*arguments, "--pipeline", spec, "--json")[1])
    assert told["pipelines"][0]["ran"] == "bm25 % 20 >> dense % 3"
    assert 0 < told["pipelines"][0]["documents_given"]["dense"] <= 20
    assert not any(name.startswith("costs") for name in told["bytes_per_document"])
    code, _, err = call("search", indexed, "red", "--pipeline", "within(bm25 >> dense, 0)")
    assert code == 2 and "with one document each" in err
    code, _, err = call("search", indexed, "red", "--pipeline", "within(bm25, 5)")
    assert code == 2 and "no stage scores again" in err


def test_pipelines_are_tuned_on_other_queries(call, indexed, judged, tmp_path):
    index = hg.open_index(indexed)
    names, texts = index.names([1, 6, 11]), index.texts([1, 6, 11])
    dev = tmp_path / "dev.tsv", tmp_path / "dev.txt"
    dev[0].write_text("".join(f"v{i}\t{' '.join(text.split()[:5])}\n" for i, text in enumerate(texts)))
    dev[1].write_text("".join(f"v{i} 0 {name} 1\n" for i, name in enumerate(names)))
    arguments = ("evaluate", indexed, "--queries", judged / "queries.jsonl", "--qrels", judged / "qrels.txt")
    spec = "bm25(k1=[1.5, 0.5]) | dense >> mix([0.5, 1], 1)"
    code, out, _ = call(*arguments, "--pipeline", "bm25(2, 0.5)", "--pipeline", spec, "--dev", *dev)
    assert code == 0
    assert f"{spec}: 5 tried on 3 development queries" in " ".join(out.split())
    chosen = next(line for line in out.splitlines() if line.startswith("chosen: bm25(k1")).removeprefix("chosen: ")
    assert call("search", indexed, "red", "--pipeline", chosen)[0] == 0
    told = json.loads(call(*arguments, "--pipeline", spec, "--dev", *dev, "--json")[1])
    assert told["tuned"][0]["chosen"] == chosen == told["pipelines"][0]["pipeline"]
    assert len(told["tuned"][0]["tried"]) == 5
    code, out, err = call(*arguments, "--dev", judged / "queries.jsonl", judged / "qrels.txt")
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1 and "query 'q0' is among the development queries" in err
