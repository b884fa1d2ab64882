"""Bad input: one clear line, and nothing else is lost."""

import time

import pyarrow as pa
import pytest

from hourglass.data import open_texts
from hourglass.errors import SourceError


def read(path, **options):
    opened = open_texts(path, **options)
    return pa.Table.from_batches(list(opened.batches())), opened.report.lines()


@pytest.mark.parametrize(
    ("name", "content", "options", "said"),
    [
        ("a.csv", b"text,n\nx,1\n", {"text": "txt"}, r"a\.csv: no column 'txt' \(did you mean 'text'"),
        ("a.csv", b"text,n\nx,1\n", {"id": "key"}, r"no column 'key' \(there are: n, text\)"),
        ("a.csv", b"text,n\nx,1\n", {"require": ["label"]}, r"no column 'label'"),
        ("a.csv", b"", {}, r"a\.csv: the file is empty"),
        ("a.csv", b"text,n\n", {}, r"a\.csv: no row that can be read; expected at least one text"),
        ("a.csv", b"text,n\n,1\n  ,2\n", {}, r"no document with text in column 'text'; 2 rows were skipped"),
        ("a.csv", b"text,text\nx,1\n", {}, r"line 1: expected a header of distinct column names"),
        ("a.jsonl", b"{broken\n", {}, r"no row that can be read \(not valid JSON"),
        ("a.json", b'[{"text": "x"}', {}, r"a\.json: line 1: not valid JSON"),
        ("a.parquet", b"not parquet", {}, r"a\.parquet: not a parquet file"),
        ("a.xlsx", b"x", {}, r"a\.xlsx: not a kind of file that is read; expected \.csv"),
    ],
)
def test_one_line_that_says_what_to_do(tmp_path, name, content, options, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=said) as error:
        read(tmp_path / name, **options)
    assert "\n" not in str(error.value)


def test_a_missing_file_names_its_neighbour(tmp_path):
    (tmp_path / "reviews.csv").write_text("text\nx\n")
    with pytest.raises(SourceError, match=r"review\.csv: no such file \(did you mean 'reviews\.csv'\?\)"):
        open_texts(str(tmp_path / "review.csv"))


def test_bad_rows_are_skipped_counted_and_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(
        b'id,text,label\n1,"two\nlines",a\n2,,b\n3,caf\xe9,a\n3,again,a\n4,too,many,fields\n5,"never closed,b\n6,last,a\n'
    )
    table, lines = read(path)
    assert table["text"].to_pylist() == ["two\nlines", "café", "again", '"never closed', "last"]
    assert table["_id"].to_pylist() == ["1", "3", "3#2", "5", "6"]
    assert lines == [
        f"{path}: 1 row was skipped: without text in column 'text' (row 4)",
        f"{path}: 1 row not in UTF-8, read as windows-1252 (row 5)",
        f"{path}: 1 row with an id that was there before, told apart by #2, #3, ... (row 6)",
        f"{path}: 1 row was skipped: with 4 fields where the header has 3 (row 7)",
        f"{path}: 1 row a quote that is never closed, read as plain text (row 8)",
    ]


def test_mixed_encodings_lose_no_row(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"text": "grün"}\n'.encode() + '{"text": "grün"}\n'.encode("cp1252") + b'{"text": "\x00nul"}\n')
    table, _ = read(path)
    assert table["text"].to_pylist() == ["grün", "grün", "nul"]
    (tmp_path / "u.csv").write_text("text,n\ngrün,1\n", encoding="utf-16")
    assert read(tmp_path / "u.csv")[0]["text"].to_pylist() == ["grün"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "txt"])
def test_a_50_mb_line_is_read(tmp_path, kind):
    text = "lorem ipsum " * 4_400_000
    content = {
        "csv": f'text,n\n"{text}",1\nshort,2\n',
        "jsonl": f'{{"text": "{text}"}}\n{{"text": "short"}}\n',
        "txt": text + "\nshort\n",
    }
    path = tmp_path / f"a.{kind}"
    path.write_text(content[kind])
    started = time.process_time()
    table, lines = read(path, text="text")
    assert [len(t) for t in table["text"].to_pylist()] == [len(text), 5]
    assert lines == []
    assert time.process_time() - started < 10


def test_an_unclosed_quote_at_the_end_of_many_lines_costs_one_row(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('text,n\n"open,1\n' + "".join(f"row {i},{i}\n" for i in range(5000)))
    table, lines = read(path, text="text")
    assert table.num_rows == 5001
    assert "never closed" in lines[0]


def test_many_rows_with_one_id_stay_apart():
    table = pa.Table.from_batches(list(open_texts([{"id": "x", "text": f"t{i}"} for i in range(3000)]).batches()))
    assert len(set(table["_id"].to_pylist())) == 3000


def test_no_source_at_all():
    with pytest.raises(SourceError, match="a int is no source of texts"):
        open_texts(3)
    with pytest.raises(SourceError, match="leaves no document"):
        open_texts(["a"]).limited(0)
