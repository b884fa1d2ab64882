"""Documents with queries added: what is drawn, what is kept, and that a stop costs little."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForMaskedLM, BartForConditionalGeneration

from encoders import WORDS, make_pair
from hourglass.data import open_texts
from hourglass.errors import ConfigError, FolderError, SourceError
from hourglass.systems.bart_parts import TuneConfig, Writer
from hourglass.training import TrainConfig, fit
from hourglass.uses.search import document_expansion
from hourglass.uses.search.document_expansion import QueryWriter, expand, likely_tokens

TEXTS = [f"{word} {WORDS[i - 1]} {WORDS[i - 2]}" for i, word in enumerate(WORDS[:7])]


@pytest.fixture(scope="module")
def bart():
    body, tokenizer = make_pair("bart")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BartForConditionalGeneration(body.config).eval(), tokenizer


@pytest.fixture
def writer(bart):
    return QueryWriter(bart, max_tokens=6, longest=32)


@pytest.fixture(autouse=True)
def parts_of_two(monkeypatch):
    monkeypatch.setattr(document_expansion, "_PART", 2)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text(
        "".join(json.dumps({"id": f"d{i}", "text": t, "year": 2000 + i}) + "\n" for i, t in enumerate(TEXTS))
    )
    return str(path)


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_is_drawn_hangs_on_text_and_seed_alone(bart, writer):
    first = writer.write(TEXTS[0], 5)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert writer.write(TEXTS[0], 5) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert writer.write(TEXTS[1], 5) != first
    assert QueryWriter(bart, max_tokens=6, longest=32, seed=1).write(TEXTS[0], 5) != first
    assert len(set(first)) > 1


def test_each_text_is_followed_by_its_queries(writer, source, tmp_path):
    done = expand(source, str(tmp_path / "more.jsonl"), writer, number=3, progress=False)
    rows = read(tmp_path / "more.jsonl")
    assert [row["id"] for row in rows] == [f"d{i}" for i in range(len(TEXTS))]
    assert [row["year"] for row in rows] == [2000 + i for i in range(len(TEXTS))]
    for row, text in zip(rows, TEXTS):
        assert row["queries"] == writer.write(text, 3)
        assert row["text"] == " ".join([text, *row["queries"]])
    count = sum(len(row["queries"]) for row in rows)
    assert done == {"documents": len(TEXTS), "queries": count, "kept": count, "threshold": None}
    assert not (tmp_path / "more.jsonl.parts").exists()


def test_parquet_holds_the_same_and_is_a_source_again(writer, source, tmp_path):
    for name in ("more.jsonl", "more.parquet"):
        expand(source, str(tmp_path / name), writer, number=2, progress=False)
    assert pq.read_table(tmp_path / "more.parquet").to_pylist() == read(tmp_path / "more.jsonl")
    texts = open_texts(str(tmp_path / "more.parquet"), text="text")
    (batch,) = texts.batches()
    assert batch.column("_id").to_pylist() == [f"d{i}" for i in range(len(TEXTS))]


def test_a_stop_costs_the_part_that_was_being_written(writer, source, tmp_path):
    whole, stopped = tmp_path / "whole.jsonl", tmp_path / "stopped.jsonl"
    expand(source, str(whole), writer, number=2, progress=False)
    asked = []

    def score(query, texts):
        asked.append(texts[0])
        if len(asked) == 11:
            raise KeyboardInterrupt
        return np.zeros(1)

    with pytest.raises(KeyboardInterrupt):
        expand(source, str(stopped), writer, number=2, score=score, progress=False)
    assert not stopped.exists()
    kept = sorted(path.name for path in (tmp_path / "stopped.jsonl.parts").glob("*.parquet"))
    assert kept == ["000000.parquet", "000001.parquet"]
    asked.clear()
    expand(source, str(stopped), writer, number=2, score=score, progress=False)
    assert set(asked) == set(TEXTS[4:])
    assert stopped.read_bytes() == whole.read_bytes()


def test_parts_of_other_settings_or_texts_are_refused(writer, source, tmp_path):
    def stop(query, texts):
        if texts[0] == TEXTS[5]:
            raise KeyboardInterrupt
        return np.zeros(1)

    to = str(tmp_path / "more.jsonl")
    with pytest.raises(KeyboardInterrupt):
        expand(source, to, writer, number=2, score=stop, progress=False)
    with pytest.raises(FolderError, match="holds queries with number 2, now 3"):
        expand(source, to, writer, number=3, score=stop, progress=False)
    path = tmp_path / "texts.jsonl"
    path.write_text(path.read_text().replace("d1", "e1"))
    with pytest.raises(FolderError, match="is of other texts than the source has now"):
        expand(source, to, writer, number=2, score=stop, progress=False)


def test_queries_below_the_percentile_of_all_are_dropped(writer, source, tmp_path):
    def score(query, texts):
        return np.array([float(len(query.text))])

    plain, some = tmp_path / "plain.jsonl", tmp_path / "some.jsonl"
    expand(source, str(plain), writer, number=4, progress=False)
    done = expand(source, str(some), writer, number=4, score=score, percentile=70, progress=False)
    lengths = [len(query) for row in read(plain) for query in row["queries"]]
    assert done["threshold"] == pytest.approx(np.percentile(lengths, 70))
    for every, row in zip(read(plain), read(some)):
        assert row["queries"] == [query for query in every["queries"] if len(query) >= done["threshold"]]
    assert done["kept"] == sum(length >= done["threshold"] for length in lengths) < done["queries"]


def test_long_documents_have_queries_for_each_passage(writer, tmp_path):
    text = " ".join(WORDS[:7])
    (tmp_path / "long.jsonl").write_text(json.dumps({"text": text}) + "\n")
    expand(str(tmp_path / "long.jsonl"), str(tmp_path / "more.jsonl"), writer, number=2, size=3, progress=False)
    (row,) = read(tmp_path / "more.jsonl")
    parts = [" ".join(words) for words in (WORDS[:3], WORDS[3:6], WORDS[6:7])]
    assert row["queries"] == [query for part in parts for query in writer.write(part, 2)]


def test_what_does_not_fit_is_named(writer, source, tmp_path):
    with pytest.raises(ConfigError, match=r"expected a path that ends in \.jsonl or \.parquet"):
        expand(source, str(tmp_path / "more.csv"), writer)
    with pytest.raises(ConfigError, match="number 0"):
        expand(source, str(tmp_path / "more.jsonl"), writer, number=0)
    with pytest.raises(ConfigError, match="top_k 0"):
        QueryWriter(make_pair("bart"), top_k=0)
    with pytest.raises(ConfigError, match="BertModel reads and does not write"):
        QueryWriter(make_pair("bert"))
    (tmp_path / "there.jsonl").write_text("")
    with pytest.raises(FolderError, match="exists; choose another place"):
        expand(source, str(tmp_path / "there.jsonl"), writer)
    (tmp_path / "taken.jsonl").write_text(json.dumps({"text": "red", "queries": "x"}) + "\n")
    with pytest.raises(SourceError, match="column 'queries': is what is made here"):
        expand(str(tmp_path / "taken.jsonl"), str(tmp_path / "more.jsonl"), writer, text="text", progress=False)
    with pytest.raises(SourceError, match="expected a finite number"):
        expand(
            source, str(tmp_path / "m.jsonl"), writer, number=1, score=lambda q, t: np.array([np.nan]), progress=False
        )


def test_the_folder_of_a_tuned_writer_asks_what_it_learned(bart, tmp_path):
    network, tokenizer = bart
    with torch.random.fork_rng():
        torch.manual_seed(0)
        task = Writer(
            TuneConfig(max_tokens=16, label_smoothing=0.0),
            tokenizer,
            BartForConditionalGeneration(network.config),
        )
        pairs = [(text, text.split()[0]) for text in TEXTS]
        settings = TrainConfig(steps=100, batch_size=7, lr=5e-3, warmup=0.1)
        fit(task, pairs, settings, out=tmp_path / "run", progress=False)
    writer = QueryWriter(str(tmp_path / "run" / "model"), top_k=2, max_tokens=6)
    asked = {query for _, query in pairs}
    assert np.mean([query in asked for text in TEXTS for query in writer.write(text, 4)]) > 0.9


def test_likely_tokens_are_the_best_words_that_the_text_lacks():
    body, tokenizer = make_pair("bert")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = AutoModelForMaskedLM.from_config(body.config).eval()
    (found,) = likely_tokens((network, tokenizer), ["red stone"], most=5)
    with torch.no_grad():
        logits = network(**tokenizer("red stone", return_tensors="pt")).logits[0, 0]
    names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    there = set(tokenizer("red stone")["input_ids"])
    words = [
        names[i]
        for i in logits.argsort(descending=True).tolist()
        if i not in there and names[i].isalnum() and len(names[i]) > 1
    ]
    assert found == words[:5]
    with pytest.raises(ConfigError, match="no head over its vocabulary"):
        likely_tokens((body, tokenizer), ["red"])
