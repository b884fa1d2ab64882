"""Judged corpora: what BEIR and TREC write is read, and what cannot be is named by file and line."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hourglass.data.judged import Judged, read_beir, read_qrels, read_queries
from hourglass.errors import SourceError


@pytest.fixture
def beir(tmp_path):
    rows = [{"_id": "a", "title": "Bees", "text": "make honey"}, {"_id": "b", "title": "", "text": "no title"}]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": 7, "text": "honey?"}) + "\n")
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n7\ta\t2\n7\tgone\t1\n")
    return tmp_path


def test_a_beir_folder(beir):
    judged = read_beir(beir)
    assert judged.corpus == {"a": "Bees make honey", "b": "no title"}
    assert judged.queries == {"7": "honey?"}
    assert judged.qrels == {"7": {"a": 2, "gone": 1}}
    assert list(judged.labelled_only().corpus) == ["a"]


def test_qrels_of_trec(tmp_path):
    file = tmp_path / "qrels.txt"
    file.write_text("1 0 d1 1\n1 Q0 d2 -1\n\n2 0 d1 3\n")
    assert read_qrels(file) == {"1": {"d1": 1, "d2": -1}, "2": {"d1": 3}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 0 d1 1\n1 0 d2\n", "line 2: 3 fields; expected query, 0, document, grade"),
        ("1 0 d1 high\n", "line 1: grade 'high'; expected a whole number"),
        ("1 0 d1 1\n1 0 d1 2\n", "line 2: document 'd1' has grade 2 for query '1' and had 1 before"),
        ("q\td\tscore\n", "no judgement in it"),
        ("1 d\n", "line 1: 2 fields"),
    ],
)
def test_judgements_that_cannot_be_read(tmp_path, content, message):
    file = tmp_path / "qrels.txt"
    file.write_text(content)
    with pytest.raises(SourceError, match=message) as error:
        read_qrels(file)
    assert str(error.value).startswith(str(file))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 3: not valid JSON"),
        ('{"_id": "c"}', 'line 3: expected an object with "_id" and a text "text"'),
        ('{"_id": "a", "text": "x"}', "line 3: a second text with _id 'a'"),
    ],
)
def test_texts_that_cannot_be_read(beir, line, message):
    with (beir / "corpus.jsonl").open("r+") as file:
        content = file.read().strip()
        file.seek(0)
        file.write(f"{content}\n{line}\n")
    with pytest.raises(SourceError, match=message):
        read_beir(beir)


def test_what_is_missing_or_does_not_fit(beir):
    with pytest.raises(SourceError, match=r"qrels/dev\.tsv: no such file \(there are: test\)"):
        read_beir(beir, "dev")
    (beir / "queries.jsonl").unlink()
    with pytest.raises(SourceError, match=r"queries\.jsonl: no such file"):
        read_beir(beir)
    with pytest.raises(SourceError, match="query 'q1' is judged but has no text"):
        Judged({"a": "x"}, {"q2": "y"}, {"q1": {"a": 1}})
    with pytest.raises(SourceError, match="none of 1 documents is relevant"):
        Judged({"a": "x"}, {"q": "y"}, {"q": {"b": 1, "a": 0}})


def test_queries_of_beir_trec_and_a_table(beir):
    assert read_queries(beir / "queries.jsonl") == {"7": "honey?"}
    (beir / "topics.tsv").write_text("1\twhat is honey\n\n2\tbees\tand wasps\n")
    assert read_queries(beir / "topics.tsv") == {"1": "what is honey", "2": "bees\tand wasps"}
    pq.write_table(pa.table({"query_id": [1, 2], "text": ["honey", "bees"]}), beir / "queries.parquet")
    assert read_queries(beir / "queries.parquet") == {"1": "honey", "2": "bees"}


def test_judgements_of_a_table(tmp_path):
    file = tmp_path / "qrels.parquet"
    pq.write_table(pa.table({"query_id": ["1", "1"], "doc_id": [5, 6], "relevance": [2.0, -1.0]}), file)
    assert read_qrels(file) == {"1": {"5": 2, "6": -1}}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"query_id": ["1"], "relevance": [1]}, "no column 'doc_id'; it has query_id, relevance"),
        ({"query_id": ["1"], "doc_id": ["a"], "relevance": ["high"]}, "row 1: '1', 'a', 'high'"),
        ({"query_id": ["1", "1"], "doc_id": ["a", "a"], "relevance": [1, 2]}, "row 2: document 'a' has two grades"),
        ({"query_id": ["1", None], "doc_id": ["a", "b"], "relevance": [1, 2]}, "row 2: None, 'b', '2'"),
        ({"query_id": [["1"]], "doc_id": ["a"], "relevance": [1]}, "column 'query_id' holds list"),
        ({"query_id": pa.array([], pa.string()), "doc_id": [], "relevance": []}, "no judgement"),
    ],
)
def test_a_table_that_does_not_fit_is_named(table, message, tmp_path):
    pq.write_table(pa.table(table), tmp_path / "qrels.parquet")
    with pytest.raises(SourceError, match=message):
        read_qrels(tmp_path / "qrels.parquet")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.tsv", "1\twhat\n2 no tab\n", "line 2: expected a name and the text"),
        ("q.tsv", "1\twhat\n1\tagain\n", "line 2: a second query with the name '1'"),
        ("q.tsv", "1\t \n", "line 1: expected a name and the text"),
        ("q.tsv", "\n", "no query in it"),
        ("q.parquet", "no table", "no table that can be read"),
    ],
)
def test_queries_that_cannot_be_read_are_named(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(SourceError, match=message):
        read_queries(tmp_path / name)
    with pytest.raises(SourceError, match="no such file"):
        read_queries(tmp_path / "nowhere.tsv")
