"""Dialogues and texts as numbered documents, whatever they are kept in; repeated ones left out where that is wanted.

    documents = open_dialogues("chats.jsonl", unique=True)       # column "messages", "conversations" or "conversation"
    for number, turns in documents:                              # turns: [{"role": "user", "content": "Hello"}, ...]
        ...
    documents.report.lines()                                     # rows that were left out, and why

Turns are {"role", "content"} or ShareGPT's {"from", "value"}, whose "human" and "gpt" are the user and the assistant.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hourglass.adapters.chat_templates import Dialogue, Document
from hourglass.data.repeats import Repeats
from hourglass.data.report import ReadReport
from hourglass.data.sources import TextSource, open_texts, read_rows
from hourglass.errors import SourceError, nearest

COLUMNS = ("messages", "conversations", "conversation")
"""Columns taken for the dialogue without being told, the first that is there."""

_ROLES = {"human": "user", "gpt": "assistant"}
_UNIQUE = 20


class Documents:
    """Documents with the numbers of their rows (rising, from 1), read anew by each iteration where the source allows it.

    name    as the user wrote it
    report  rows that were left out in the last iteration
    """

    def __init__(self, name: str, read: Callable[[ReadReport], Iterator[tuple[int, Document]]]) -> None:
        self.name = name
        self.report = ReadReport(name)
        self._read = read

    def __iter__(self) -> Iterator[tuple[int, Document]]:
        """Raises SourceError when nothing is left."""
        self.report = ReadReport(self.name)
        found = False
        for document in self._read(self.report):
            found = True
            yield document
        if not found:
            why = "; ".join(line.split(": ", 1)[-1] for line in self.report.lines())
            raise SourceError(f"{self.name}: no document that can be read{f'; {why}' if why else ''}")


def open_dialogues(
    source: Any, *, column: str | None = None, limit: int | None = None, unique: bool = False
) -> Documents:
    """Open a source of dialogues.

    source  a path (jsonl, json, parquet, arrow, csv with JSON in the column), a Hub data set "owner/name" or
            "owner/name:split", a table, or a list of dialogues (lists of turns) or of rows
    column  that holds the dialogue; default: the first of COLUMNS that is there
    limit   stop after so many dialogues
    unique  leave out a dialogue that shares any 20 words in a row with one before it that was kept: see `Repeats`

    Rows that hold no dialogue are left out and counted by what is wrong with them. Raises SourceError, in one line, for a
    source that cannot be read or has no such column.
    """
    if limit is not None and limit < 1:
        raise SourceError(f"a limit of {limit} leaves no dialogue")
    if isinstance(source, Sequence) and not isinstance(source, str):
        source = [{COLUMNS[0]: row} if isinstance(row, Sequence) else row for row in source]
    name, begin = read_rows(source)

    def read(report: ReadReport) -> Iterator[tuple[int, Document]]:
        repeats = Repeats(_UNIQUE) if unique else None
        kept = 0
        where = column
        for number, row, remark in begin():
            report.rows += 1
            if row is None:
                report.skip(number, str(remark))
                continue
            where = where or next((name for name in COLUMNS if name in row), None)
            if where is None or (where not in row and number == 1):
                raise SourceError(
                    f"{name}: no column {where or COLUMNS[0]!r} with dialogues{nearest(where or COLUMNS[0], map(str, row))}"
                )
            turns, wrong = as_turns(row.get(where))
            if wrong is None and repeats is not None and not repeats.is_new([turn["content"] for turn in turns]):
                wrong = f"that share {_UNIQUE} words in a row with one before"
            if wrong is not None:
                report.skip(number, wrong)
                continue
            yield number, turns
            kept += 1
            if kept == limit:
                return

    return Documents(name, read)


def text_documents(source: Any, *, text: str | None = None, limit: int | None = None) -> Documents:
    """Plain texts of any source that `open_texts` opens, as documents; a TextSource can be read once only."""
    first: list[TextSource] = [source if isinstance(source, TextSource) else open_texts(source, text=text)]
    name = first[0].name

    def read(report: ReadReport) -> Iterator[tuple[int, Document]]:
        opened = first.pop() if first else open_texts(source, text=text)
        if limit is not None:
            opened = opened.limited(limit)
        opened.report = report
        for batch in opened.batches():
            yield from zip(batch.column("_row").to_pylist(), batch.column(opened.text_column).to_pylist())

    return Documents(name, read)


def plain(document: Document) -> str:
    """What the turns of a dialogue say, a line break between them; a text as it is."""
    return document if isinstance(document, str) else "\n".join(turn["content"] for turn in document)


def as_turns(value: Any) -> tuple[Dialogue, str | None]:
    """(turns {"role", "content"} of a dialogue as it was kept, None), or (nothing, what is wrong with it)."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (json.JSONDecodeError, RecursionError):
            return [], "with a text that is not JSON for a dialogue"
    if not isinstance(value, Sequence) or isinstance(value, str):
        return [], f"with a {type(value).__name__} for a dialogue where a list of turns was expected"
    turns = []
    for turn in value:
        if not isinstance(turn, Mapping):
            return [], f"with a {type(turn).__name__} for a turn where role and content were expected"
        role = turn.get("role", turn.get("from"))
        content = turn.get("content", turn.get("value"))
        if not isinstance(role, str) or not isinstance(content, str):
            lacking, found = ("role", role) if not isinstance(role, str) else ("content", content)
            return [], f"with a turn whose {lacking} is a {type(found).__name__} where a text was expected"
        turns.append({"role": _ROLES.get(role, role), "content": content.replace("\0", "")})
    if not any(turn["content"].strip() for turn in turns):
        return [], "with a dialogue in which nothing is said"
    return turns, None
