"""Every format and place, read back as it was written."""

import gzip
import io
import json
import sys

import fsspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hourglass.data import open_texts
from hourglass.errors import SourceError

ROWS = [
    {"name": "a", "body": 'says "hi",\nthen goes', "stars": 1},
    {"name": "b", "body": "naïve Ünïcode 漢字 🙂", "stars": 2},
    {"name": "c", "body": "plain words and more of them", "stars": 3},
]


def read(source, **options):
    opened = open_texts(source, **options)
    return opened, pa.Table.from_batches(list(opened.batches()))


def write(path, rows=ROWS):
    frame = pd.DataFrame(rows)
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[-1]
    if kind in ("csv", "tsv"):
        frame.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    elif kind in ("jsonl", "ndjson"):
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    elif kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        feather.write_feather(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize(
    "name",
    ["a.csv", "a.tsv", "a.csv.gz", "a.jsonl", "a.jsonl.gz", "a.ndjson", "a.json", "a.parquet", "a.arrow", "a.feather"],
)
def test_every_file_format(tmp_path, name):
    opened, table = read(write(tmp_path / name), text="body")
    assert table["body"].to_pylist() == [row["body"] for row in ROWS]
    assert [str(v) for v in table["stars"].to_pylist()] == ["1", "2", "3"]
    assert opened.report.lines() == []
    assert opened.report.rows == 3
    assert len(set(table["_id"].to_pylist())) == 3


@pytest.mark.parametrize(
    "table",
    [pd.DataFrame(ROWS), pl.DataFrame(ROWS), pa.Table.from_pylist(ROWS), ROWS],
    ids=["pandas", "polars", "arrow", "dicts"],
)
def test_every_table(table):
    _, read_back = read(table, text="body")
    assert read_back["body"].to_pylist() == [row["body"] for row in ROWS]
    assert read_back["stars"].to_pylist() == [1, 2, 3]
    assert read_back["_row"].to_pylist() == [1, 2, 3]


def test_a_hub_data_set_in_memory_and_a_list():
    from datasets import Dataset

    _, table = read(Dataset.from_list(ROWS), text="body")
    assert table.num_rows == 3
    opened, table = read(["one text", "another"])
    assert opened.text_column == "text"
    assert table["_id"].to_pylist() == ["1", "2"]


def test_a_hub_id_streams_the_split_that_is_asked_for(monkeypatch):
    import datasets

    asked = []

    def load_dataset(repository, **how):
        asked.append((repository, how))
        return datasets.IterableDataset.from_generator(lambda: iter(ROWS))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert read("people/reviews", text="body")[1].column("body").to_pylist() == [row["body"] for row in ROWS]
    read("people/reviews:test", text="body")
    assert asked == [
        ("people/reviews", {"split": "train", "streaming": True}),
        ("people/reviews", {"split": "test", "streaming": True}),
    ]


def test_a_hub_id_that_is_not_to_be_had_is_one_line():
    with pytest.raises(SourceError, match="people/reviews: no such file here, and not to be had from the Hub"):
        read("people/reviews")


def test_folders(tmp_path):
    (tmp_path / "texts" / "sub").mkdir(parents=True)
    (tmp_path / "texts" / "b.txt").write_text("second")
    (tmp_path / "texts" / "sub" / "a.txt").write_bytes("caf\xe9".encode("latin-1"))
    opened, table = read(tmp_path / "texts")
    assert table["file"].to_pylist() == ["b.txt", "sub/a.txt"]
    assert table["text"].to_pylist() == ["second", "café"]
    assert "read as windows-1252" in opened.report.lines()[0]
    (tmp_path / "parts").mkdir()
    for i in range(2):
        write(tmp_path / "parts" / f"{i}.parquet")
    _, table = read(tmp_path / "parts", text="body")
    assert table["_row"].to_pylist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("root", ["memory://sources", "file://{tmp}/sources"])
def test_files_and_folders_at_urls(tmp_path, root):
    root = root.format(tmp=tmp_path)
    files, path = fsspec.core.url_to_fs(root)
    for name in ("a.csv", "a.jsonl.gz", "a.json", "a.parquet", "a.feather", "parts/0.parquet", "parts/1.parquet"):
        content = write(tmp_path / name.rsplit("/")[-1]).read_bytes()
        files.makedirs(f"{path}/parts", exist_ok=True)
        files.pipe(f"{path}/{name}", content)
    files.pipe(f"{path}/parts/_SUCCESS", b"")
    for name in ("a.csv", "a.jsonl.gz", "a.json", "a.parquet", "a.feather"):
        opened, table = read(f"{root}/{name}", text="body")
        assert opened.name == f"{root}/{name}"
        assert table["body"].to_pylist() == [row["body"] for row in ROWS]
    assert read(f"{root}/parts", text="body")[1]["_id"].to_pylist() == ["1", "2", "3", "4", "5", "6"]
    with pytest.raises(SourceError, match=r"/none\.csv: no such file$"):
        open_texts(f"{root}/none.csv")
    with pytest.raises(SourceError, match=r"nowhere://x\.csv: cannot be reached \(Protocol not known: nowhere\)"):
        open_texts("nowhere://x.csv")


@pytest.mark.parametrize(
    ("content", "options", "texts"),
    [
        (b'{"text": "a b"}\n{"text": "c"}\n', {}, ["a b", "c"]),
        (b"body,n\nx y,1\n", {"text": "body"}, ["x y"]),
        (b"first line\n\nsecond, with comma\n", {}, ["first line", "second, with comma"]),
    ],
)
def test_standard_input_is_recognised(monkeypatch, content, options, texts):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))
    opened, table = read("-", **options)
    assert table[opened.text_column].to_pylist() == texts


def test_docstrings_are_real_picked_and_told_once():
    _, table = read("docstrings:json,csv")
    assert set(table["package"].to_pylist()) == {"json", "csv"}
    texts = table["text"].to_pylist()
    assert any("JSON" in text for text in texts)
    assert len(set(texts)) == len(texts)
    _, again = read("docstrings:json,csv")
    assert again.equals(table)


def test_the_text_column_is_guessed_only_where_it_is_plain():
    assert open_texts([{"Review": "x", "note": "y"}]).text_column == "Review"
    assert open_texts([{"q": "short", "a": "a very long answer that is clearly the text"}]).text_column == "a"
    with pytest.raises(SourceError, match=r"which column holds the text\? Pass --text COLUMN; there are: q, a"):
        open_texts([{"q": "one two", "a": "three four"}])


def test_going_on_after_a_stop_gives_the_same_documents():
    rows = [{"id": i % 7, "text": f"text {i}" if i % 5 else ""} for i in range(100)]
    whole = pa.Table.from_batches(list(open_texts(rows).batches(rows=10)))
    first = open_texts(rows)
    batches = first.batches(rows=10)
    taken = [next(batches), next(batches)]
    done = first.report.rows
    rest = list(open_texts(rows).batches(rows=10, skip=done))
    assert pa.Table.from_batches([*taken, *rest]).to_pylist() == whole.to_pylist()
    assert len(set(whole["_id"].to_pylist())) == whole.num_rows


def test_a_limit_counts_documents_not_rows():
    rows = [{"text": ""}, {"text": "a"}, {"text": "b"}, {"text": "c"}]
    assert pa.Table.from_batches(list(open_texts(rows).limited(2).batches()))["text"].to_pylist() == ["a", "b"]


def test_a_limit_says_that_the_rest_was_left_unread():
    source = open_texts(["a b", "c d", "e f"]).limited(2)
    list(source.batches())
    assert source.report.lines() == ["the list: the first 2 documents were read (limit); sample draws from all of them"]
    for whole in (open_texts(["a b"]), open_texts(["a b"]).limited(5)):
        list(whole.batches())
        assert whole.report.lines() == []


def numbers(source, **how):
    return [int(text.split()[1]) for batch in source.batches(**how) for text in batch["text"].to_pylist()]


def test_a_sample_is_of_all_rows_in_their_order_and_the_same_for_a_seed():
    rows = [{"id": i // 2, "text": f"text {i}" if i % 5 else ""} for i in range(1000)]
    found = numbers(open_texts(rows).sampled(50, seed=1))
    assert found == numbers(open_texts(iter(rows)).sampled(50, seed=1), rows=7) == sorted(set(found))
    assert len(found) == 50 and all(i % 5 for i in found)
    assert found != numbers(open_texts(rows).sampled(50, seed=2))
    assert numbers(open_texts(rows).sampled(5000, seed=1)) == [i for i in range(1000) if i % 5]
    # Every row is as likely as any other.
    often = np.zeros(20)
    for seed in range(2000):
        often[numbers(open_texts([f"text {i}" for i in range(20)]).sampled(5, seed))] += 1
    assert np.all(np.abs(often / 2000 - 0.25) < 0.05)
    with pytest.raises(SourceError, match="a sample of 0 leaves no document"):
        open_texts(rows).sampled(0, seed=1)


def test_a_sample_goes_on_after_a_stop():
    rows = [{"id": i % 7, "text": f"text {i}" if i % 5 else ""} for i in range(300)]
    whole = pa.Table.from_batches(list(open_texts(rows).sampled(60, 3).batches(rows=10)))
    first = open_texts(rows).sampled(60, 3)
    batches = first.batches(rows=10)
    taken = [next(batches), next(batches)]
    again = open_texts(rows).sampled(60, 3)
    rest = list(again.batches(rows=10, skip=first.report.rows))
    assert pa.Table.from_batches([*taken, *rest]).to_pylist() == whole.to_pylist()
    assert again.report.rows == 300
    assert again.report.counts["without text in column 'text'"] == 60


def test_batches_are_bounded_by_bytes():
    texts = ["x" * 20_000_000] * 8
    assert [batch.num_rows for batch in open_texts(texts).batches()] == [4, 4]


def test_nested_values_become_json_and_late_columns_are_kept():
    rows = [{"text": "a", "m": {"x": [1]}}, {"text": "b", "late": "z"}]
    _, table = read(rows)
    assert table["m"].to_pylist() == ['{"x": [1]}', None]
    assert table["late"].to_pylist() == [None, "z"]


field = st.text(st.characters(codec="utf-8", exclude_characters="\0\r", exclude_categories=["Cs"]), max_size=30)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(field, field), min_size=1, max_size=8))
def test_csv_and_jsonl_round_trips(tmp_path_factory, pairs):
    folder = tmp_path_factory.mktemp("round")
    kept = [(a, b) for a, b in pairs if b.strip()]
    if not kept:
        return
    frame = pd.DataFrame(pairs, columns=["other", "text"])
    frame.to_csv(folder / "a.csv", index=False, lineterminator="\n")
    (folder / "a.jsonl").write_text(
        "".join(json.dumps({"other": a, "text": b}) + "\n" for a, b in pairs), encoding="utf-8"
    )
    for name in ("a.csv", "a.jsonl"):
        _, table = read(folder / name, text="text")
        assert list(zip(table["other"].to_pylist(), table["text"].to_pylist())) == kept


def test_a_column_called_as_ours_names_documents_too():
    source = open_texts([{"_id": "a", "text": "one"}, {"_id": "b", "text": "two"}], id="_id")
    assert source.columns == ["_id", "text"]
    assert next(source.batches())["_id"].to_pylist() == ["a", "b"]


def test_a_fingerprint_is_of_the_first_rows():
    prints = [open_texts(texts).fingerprint() for texts in (["one", "two"], ["one", "two"], ["one", "three"])]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float64(), 2), pa.large_list(pa.float64())])
def test_lists_of_numbers_are_text_or_stay_lists(kind):
    table = pa.table({"text": ["a", "b", "c"], "v": pa.array([[0.5, 1.0], None, [2.0, 3.0]], kind)}).slice(0, 3)
    assert read(table)[1]["v"].to_pylist() == ["[0.5, 1.0]", None, "[2.0, 3.0]"]
    assert read(table, vectors="v")[1]["v"].to_pylist() == [[0.5, 1.0], None, [2.0, 3.0]]
    assert read(table.slice(2), vectors="v")[1]["v"].to_pylist() == [[2.0, 3.0]]
    assert read([*table.to_pylist(), {"text": "d", "v": "none"}], vectors="v")[1]["v"].to_pylist()[2:] == [
        "[2.0, 3.0]",
        "none",
    ]
