"""Corpora with queries and judgements of relevance: folders as BEIR has them, qrels of TREC, and tables.

    judged = read_beir("scifact")                       # corpus.jsonl, queries.jsonl, qrels/test.tsv
    judged = Judged(corpus, read_queries("topics.tsv"), read_qrels("qrels.txt"))

A line that cannot be read is an error, not left out: a measure of a part of a set is not that of the set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hourglass.data import decode
from hourglass.errors import SourceError, nearest
from hourglass.storage.places import Place

Qrels = Mapping[str, Mapping[str, int]]
"""Graded relevance by query and document; 0 or below is not relevant."""


@dataclass(frozen=True)
class Judged:
    """Documents and queries, texts by name, and graded relevance by query and document.

    Documents that were judged and are not in the corpus count as not found. Queries without a judgement are not asked.

    Raises SourceError for a judged query without a text, and where no query has a relevant document in the corpus.
    """

    corpus: Mapping[str, str]
    queries: Mapping[str, str]
    qrels: Qrels

    def __post_init__(self) -> None:
        for query in self.qrels:
            if query not in self.queries:
                raise SourceError(f"query {query!r} is judged but has no text")
        if not any(
            grade > 0 and document in self.corpus
            for judged in self.qrels.values()
            for document, grade in judged.items()
        ):
            raise SourceError(
                f"none of {len(self.corpus)} documents is relevant for any of {len(self.qrels)} judged queries; are corpus "
                "and judgements of the same set, with the same names?"
            )

    def labelled_only(self) -> Judged:
        """The same with a corpus of those documents alone that were judged for any query; values are then higher."""
        named = {document for judged in self.qrels.values() for document in judged}
        return Judged({d: text for d, text in self.corpus.items() if d in named}, self.queries, self.qrels)


def read_beir(folder: str | Path, split: str = "test") -> Judged:
    """A folder with corpus.jsonl (_id, title, text), queries.jsonl (_id, text) and qrels/SPLIT.tsv, here or at a URL.

    A document is its title and text with a space between, as in BEIR. Raises SourceError with file and line.
    """
    root = str(folder).rstrip("/")
    corpus = {
        name: f"{row.get('title') or ''} {text}".strip() for name, text, row in _texts(Place.of(f"{root}/corpus.jsonl"))
    }
    queries = {name: text for name, text, _ in _texts(Place.of(f"{root}/queries.jsonl"))}
    judgements = Place.of(f"{root}/qrels/{split}.tsv")
    if not judgements.is_file():
        splits = [Path(place.path).stem for place in Place.of(f"{root}/qrels").inside() if place.suffixes == [".tsv"]]
        raise SourceError(f"{judgements}: no such file{nearest(split, splits)}")
    return Judged(corpus, queries, read_qrels(judgements.name))


def read_queries(path: str | Path) -> dict[str, str]:
    """Texts of queries by name: of BEIR (.jsonl with _id and text), of TREC (a name, a tab, a text a line), or a .parquet table.

    Raises SourceError with file and line.
    """
    place = Place.of(str(path))
    suffix = place.suffixes[-1:]
    if suffix == [".jsonl"]:
        return {name: text for name, text, _ in _texts(place)}
    queries: dict[str, str] = {}
    if suffix == [".parquet"]:
        read = _columns(place, (_QUERY_NAMES, ("text", "query", "question", "title")))
        lines = ((f"row {number}", values) for number, values in enumerate(zip(*read), 1))
    else:
        lines = ((f"line {number}", tuple(line.split("\t", 1))) for number, line in _lines(place))
    for where, values in lines:
        if len(values) != 2 or not all(isinstance(value, str) and value.strip() for value in values):
            raise SourceError(f"{place}: {where}: expected a name and the text of a query, with a tab between")
        name, text = (value.strip() for value in values)
        if name in queries:
            raise SourceError(f"{place}: {where}: a second query with the name {name!r}")
        queries[name] = text
    if not queries:
        raise SourceError(f"{place}: no query in it")
    return queries


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Judgements of TREC (query, anything, document, grade) or of BEIR (query, document, grade under a header), or a .parquet table.

    Raises SourceError with file and line.
    """
    place = Place.of(str(path))
    if place.suffixes[-1:] == [".parquet"]:
        return _qrels_of_table(place)
    qrels: dict[str, dict[str, int]] = {}
    fields = 0
    for number, line in _lines(place):
        values = line.split("\t") if "\t" in line else line.split()
        values = [value.strip() for value in values]
        if number == 1 and len(values) == 3 and not _is_grade(values[-1]):
            fields = 3
            continue
        fields = fields or len(values)
        if len(values) != fields or fields not in (3, 4):
            expected = "query, 0, document, grade" if fields == 4 else "query, document, grade"
            raise SourceError(f"{place}: line {number}: {len(values)} fields; expected {expected}")
        query, document, grade = values[0], values[-2], values[-1]
        if not _is_grade(grade):
            raise SourceError(f"{place}: line {number}: grade {grade!r}; expected a whole number")
        judged = qrels.setdefault(query, {})
        if judged.setdefault(document, int(grade)) != int(grade):
            raise SourceError(
                f"{place}: line {number}: document {document!r} has grade {grade} for query {query!r} and had "
                f"{judged[document]} before"
            )
    if not qrels:
        raise SourceError(f"{place}: no judgement in it")
    return qrels


_QUERY_NAMES = ("query_id", "query-id", "qid", "_id", "id")
_DOCUMENT_NAMES = ("doc_id", "corpus-id", "docid", "document", "document_id")
_GRADES = ("relevance", "score", "grade", "label")


def _qrels_of_table(place: Place) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    read = _columns(place, (_QUERY_NAMES, _DOCUMENT_NAMES, _GRADES))
    for number, (query, document, grade) in enumerate(zip(*read), 1):
        if query is None or document is None or grade is None or not _is_grade(grade.removesuffix(".0")):
            raise SourceError(
                f"{place}: row {number}: {query!r}, {document!r}, {grade!r}; expected query, document and a whole number"
            )
        whole = int(grade.removesuffix(".0"))
        if qrels.setdefault(query, {}).setdefault(document, whole) != whole:
            raise SourceError(f"{place}: row {number}: document {document!r} has two grades for query {query!r}")
    if not qrels:
        raise SourceError(f"{place}: no judgement in it")
    return qrels


def _columns(place: Place, wanted: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """Of a table, for each of `wanted` the first of these names that it has, as texts."""
    if not place.is_file():
        raise SourceError(f"{place}: no such file")
    with place.open() as stream:
        try:
            table = pq.read_table(pa.PythonFile(stream))
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{place}: no table that can be read ({str(error).splitlines()[0]})") from None
    read = []
    for names in wanted:
        name = next((name for name in names if name in table.column_names), None)
        if name is None:
            raise SourceError(f"{place}: no column {names[0]!r}; it has {', '.join(table.column_names)}")
        try:
            read.append(table.column(name).cast(pa.string()).to_pylist())
        except pa.ArrowException:
            raise SourceError(
                f"{place}: column {name!r} holds {table.column(name).type}; expected texts or numbers"
            ) from None
    return read


def _texts(place: Place) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(name, text, whole row) of a file with an object on each line."""
    seen: set[str] = set()
    for number, line in _lines(place):
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise SourceError(f"{place}: line {number}: not valid JSON ({getattr(error, 'msg', error)})") from None
        if (
            not isinstance(row, dict)
            or not isinstance(row.get("text"), str)
            or not isinstance(row.get("_id"), str | int)
        ):
            raise SourceError(f'{place}: line {number}: expected an object with "_id" and a text "text"')
        name = str(row["_id"])
        if name in seen:
            raise SourceError(f"{place}: line {number}: a second text with _id {name!r}")
        seen.add(name)
        yield name, row["text"], row
    if not seen:
        raise SourceError(f"{place}: no text in it")


def _lines(place: Place) -> Iterator[tuple[int, str]]:
    """(number, line without its break) of the lines that are not blank."""
    if not place.is_file():
        raise SourceError(f"{place}: no such file")
    with place.open() as stream:
        for number, (line, _) in enumerate(decode.lines(stream), 1):
            if line.strip():
                yield number, line.rstrip("\r\n")


def _is_grade(value: str) -> bool:
    return value.lstrip("-").isdecimal()
