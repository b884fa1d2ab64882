"""Corpora with queries and judgements of relevance: folders as BEIR has them, and qrels of TREC.

    judged = read_beir("scifact")                       # corpus.jsonl, queries.jsonl, qrels/test.tsv
    judged = Judged(corpus, queries, read_qrels("qrels.txt"))

A line that cannot be read is an error, not left out: a measure of a part of a set is not that of the set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Judgements of TREC (query, anything, document, grade) or of BEIR (query, document, grade under a header).

    Raises SourceError with file and line.
    """
    place = Place.of(str(path))
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
