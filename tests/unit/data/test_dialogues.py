"""Dialogues from wherever they are kept; a row that holds none is named."""

import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hourglass.data.dialogues import open_dialogues, plain, text_documents
from hourglass.errors import SourceError

CHAT = [{"role": "user", "content": "Who is there?"}, {"role": "assistant", "content": "Nobody."}]
SHARE = [{"from": "human", "value": "Who is there?"}, {"from": "gpt", "value": "Nobody."}]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_every_place_gives_the_same(tmp_path):
    rows = [{"messages": CHAT, "more": 1}, {"messages": CHAT[:1], "more": 2}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "chats.parquet")
    (tmp_path / "chats.json").write_text(json.dumps(rows))
    text = pd.DataFrame([{"messages": json.dumps(row["messages"])} for row in rows])
    text.to_csv(tmp_path / "chats.csv", index=False)
    for source in (
        write(tmp_path / "chats.jsonl", rows),
        tmp_path / "chats.parquet",
        tmp_path / "chats.json",
        tmp_path / "chats.csv",
        rows,
        [CHAT, tuple(CHAT[:1])],
        pa.Table.from_pylist(rows),
        write(tmp_path / "share.jsonl", [{"conversations": SHARE}, {"conversations": SHARE[:1]}]),
    ):
        documents = open_dialogues(source)
        assert [turns for _, turns in documents] == [CHAT, CHAT[:1]]
        assert [number for number, _ in documents] == ([2, 3] if str(source).endswith("csv") else [1, 2])


def test_rows_without_a_dialogue_are_named(tmp_path):
    rows = [
        {"conversation": CHAT},
        {"conversation": None},
        {"conversation": "[{"},
        {"conversation": ["Hello"]},
        {"conversation": [{"role": "user", "content": None}]},
        {"conversation": [{"content": "Hello"}]},
        {"conversation": [{"role": "user", "content": " "}]},
        {"conversation": []},
        {"other": 1},
        {"conversation": SHARE},
    ]
    documents = open_dialogues(write(tmp_path / "chats.jsonl", rows))
    assert [number for number, _ in documents] == [1, 10]
    assert dict(documents.report.skipped) == {
        2: "with a NoneType for a dialogue where a list of turns was expected",
        3: "with a text that is not JSON for a dialogue",
        4: "with a str for a turn where role and content were expected",
        5: "with a turn whose content is a NoneType where a text was expected",
        6: "with a turn whose role is a NoneType where a text was expected",
        7: "with a dialogue in which nothing is said",
        8: "with a dialogue in which nothing is said",
        9: "with a NoneType for a dialogue where a list of turns was expected",
    }
    assert documents.report.rows == 10


def test_a_column_and_a_limit(tmp_path):
    path = write(tmp_path / "chats.jsonl", [{"chat": CHAT}] * 5)
    assert len(list(open_dialogues(path, column="chat", limit=3))) == 3
    for options, said in [
        ({}, "no column 'messages' with dialogues \\(there are: chat\\)"),
        ({"column": "chta"}, "no column 'chta' with dialogues \\(did you mean 'chat'\\?\\)"),
        ({"limit": 0}, "a limit of 0 leaves no dialogue"),
    ]:
        with pytest.raises(SourceError, match=said):
            list(open_dialogues(path, **options))


def test_sources_without_a_dialogue():
    with pytest.raises(
        SourceError, match="the list: no document that can be read; 1 row was skipped: with a dialogue in"
    ):
        list(open_dialogues([[]]))
    with pytest.raises(SourceError, match="no such file"):
        list(open_dialogues("nowhere.jsonl"))


def test_repeated_dialogues_are_left_out():
    long = " ".join(str(number) for number in range(30))
    twice = [{"role": "user", "content": f"Look: {long}"}]
    documents = open_dialogues([[{"role": "user", "content": long}], twice, CHAT, CHAT], unique=True)
    for _ in range(2):  # each reading begins anew
        assert [number for number, _ in documents] == [1, 3, 4]
        assert documents.report.skipped == [(2, "that share 20 words in a row with one before")]


def test_texts_are_documents_too(tmp_path):
    texts = text_documents(["one", " ", "two"])
    assert list(texts) == [(1, "one"), (3, "two")]
    assert list(texts) == [(1, "one"), (3, "two")]
    assert texts.report.rows == 3
    assert list(text_documents(["one", "two"], limit=1)) == [(1, "one")]
    assert plain(CHAT) == "Who is there?\nNobody." and plain("one") == "one"
