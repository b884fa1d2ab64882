"""One door to texts wherever they are: `open_texts` finds the format, `TextSource` gives checked batches."""

from __future__ import annotations

import hashlib
import heapq
import json
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hourglass.data import files, rows
from hourglass.data.docstrings import docstrings
from hourglass.data.report import ReadReport
from hourglass.data.rows import Row
from hourglass.errors import SourceError, nearest
from hourglass.storage.places import Place, is_url

TEXT_NAMES = ("text", "content", "body", "document", "message", "review", "sentence", "output", "statement", "comment")
"""Columns taken for the text without being told, where there is just one of them."""

_HEAD = 200
_OURS = ("_row", "_id", "_tokens", "_features", "_strengths", "_dense")
_BATCH_BYTES = 64 * 2**20


def open_texts(
    source: Any,
    *,
    text: str | None = None,
    id: str | None = None,
    vectors: str | None = None,
    require: Sequence[str] = (),
) -> TextSource:
    """Open a source of texts.

    source   a path or URL (csv, tsv, jsonl, json, parquet, arrow, each text format also .gz; a folder of .txt, or of files
             of one of the formats; a .lance data set), "-" for standard input, "docstrings:" or "docstrings:numpy,scipy", a Hub data set
             "owner/name" or "owner/name:split", a pandas / polars / Arrow table, a data set, or a list of texts or dicts
    text     column that holds the text; guessed where it is plain
    id       column that names a document; default "id" where there is one
    vectors  column whose lists of numbers stay lists; in the others they become text
    require  further columns that must be there

    Raises SourceError in one line for what cannot be read; a standard input or table is read once only.
    """
    name, read = read_rows(source, text)
    return TextSource(name, read, text, id, require, vectors)


class TextSource:
    """A source whose columns are known. `report` fills while `batches` is read.

    name         as the user wrote it
    text_column  the column that holds the text
    id_column    the column that names a document, or None: then its row number does
    """

    def __init__(
        self,
        name: str,
        read: Callable[[], Iterator[Row]],
        text: str | None,
        id: str | None,
        require: Sequence[str],
        vectors: str | None = None,
    ) -> None:
        self.name, self._vectors = name, vectors
        self.report = ReadReport(name)
        self._limit: int | None = None
        self._sample: tuple[int, int] | None = None
        started = read()
        self._head = list(islice(started, _HEAD))
        self._rest = started
        good = [row for _, row, _ in self._head if row is not None]
        if not good:
            why = f" ({self._head[0][2]})" if self._head else ""
            raise SourceError(f"{name}: no row that can be read{why}; expected at least one text")
        self._columns = list(dict.fromkeys(chain.from_iterable(good)))
        for column in [*([text] if text else []), *([id] if id else []), *require]:
            if column not in self._columns:
                raise SourceError(f"{name}: no column {column!r}{nearest(column, map(str, self._columns))}")
        self.text_column = text or self._guess(good)
        self.id_column = id or ("id" if "id" in self._columns and self.text_column != "id" else None)

    @property
    def columns(self) -> list[str]:
        """Of the first rows."""
        return [str(column) for column in self._columns]

    def fingerprint(self) -> str:
        """Of the first rows: a source of the same name that begins otherwise is another."""
        return hashlib.sha256(repr(self._head).encode("utf-8", "surrogatepass")).hexdigest()

    def limited(self, documents: int) -> TextSource:
        """The same source, ending after so many documents."""
        if documents < 1:
            raise SourceError(f"{self.name}: a limit of {documents} leaves no document")
        self._limit = documents
        return self

    def sampled(self, documents: int, seed: int) -> TextSource:
        """The same source, with so many of its documents drawn at random, in their order.

        The source is read to its end before the first of them comes; they are in memory, the others are not.
        """
        if documents < 1:
            raise SourceError(f"{self.name}: a sample of {documents} leaves no document")
        self._sample = documents, seed
        return self

    def batches(self, rows: int = 4096, skip: int = 0) -> Iterator[pa.RecordBatch]:
        """Batches of at most `rows` documents and 64 MiB of text, with the source's columns, "_row" and "_id".

        `skip` passes over so many rows of the source, good or bad, as a reader that goes on after a stop needs. A text
        that is missing or blank is left out and counted. Ids are made unique by "#2", "#3"; 8 bytes each are kept.
        Raises SourceError when nothing is left.
        """
        batch: list[dict[str, Any]] = []
        seen: dict[int, int] = {}
        kinds: dict[str, pa.DataType] = {}
        size = documents = 0
        for number, row in self._documents(skip) if self._sample is None else self._drawn(*self._sample):
            quiet = self.report.rows <= skip
            row["_id"] = self._unique(row, number, seen, quiet)
            documents += 1
            if not quiet:
                batch.append(row)
                size += len(row[self.text_column])
            full = len(batch) == rows or size > _BATCH_BYTES
            if documents == self._limit:
                self.report.limit = documents
            if full or documents == self._limit:
                if batch:
                    yield self._to_arrow(batch, kinds)
                batch, size = [], 0
            if documents == self._limit:
                return
        if batch:
            yield self._to_arrow(batch, kinds)
        if not documents:
            trouble = "; ".join(line.split(": ", 1)[-1] for line in self.report.lines())
            raise SourceError(f"{self.name}: no document with text in column {self.text_column!r}; {trouble}")

    def _documents(self, skip: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
        """(number, row) of the rows that have a text; `report` counts all, and trouble beyond the first `skip`."""
        for number, row, remark in chain(self._head, self._rest):
            self.report.rows += 1
            row = self._checked(number, row, remark, self.report.rows <= skip)
            if row is not None:
                yield number, row

    def _drawn(self, size: int, seed: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """The same of `size` random rows: those with the largest of a random number each, the smallest on top of a heap."""
        draw = random.Random(seed)
        heap: list[tuple[float, int, int, dict[str, Any]]] = []
        for number, row in self._documents():
            entry = (draw.random(), self.report.rows, number, row)
            if len(heap) < size:
                heapq.heappush(heap, entry)
            else:
                heapq.heappushpop(heap, entry)
        end = self.report.rows
        for _, passed, number, row in sorted(heap, key=lambda entry: entry[1]):
            self.report.rows = passed
            yield number, row
        self.report.rows = end

    def _checked(
        self, number: int, row: dict[str, Any] | None, remark: str | None, quiet: bool
    ) -> dict[str, Any] | None:
        """The row with its number, or None when it is left out."""
        if row is None:
            if not quiet:
                self.report.skip(number, str(remark))
            return None
        text = row.get(self.text_column)
        if not isinstance(text, str) or not text.strip():
            if not quiet:
                kind = (
                    "without text"
                    if text is None or isinstance(text, str)
                    else f"with a {type(text).__name__} for text"
                )
                self.report.skip(number, f"{kind} in column {self.text_column!r}")
            return None
        if remark and not quiet:
            self.report.note(number, remark)
        row = {_own(column): value for column, value in row.items()}
        row[self.text_column] = text.replace("\0", "")
        row["_row"] = number
        return row

    def _unique(self, row: Mapping[str, Any], number: int, seen: dict[int, int], quiet: bool) -> str:
        given = row.get(_own(self.id_column)) if self.id_column else None
        id = unique = str(number if given is None else given)
        times = seen.get(hash(id), 0) + 1
        while hash(unique) in seen:
            times = max(times, 2)
            unique = f"{id}#{times}"
            times += 1
        seen[hash(id)] = max(times - 1, 1)
        seen[hash(unique)] = 1 if unique != id else seen[hash(id)]
        if unique != id and not quiet:
            self.report.note(number, "with an id that was there before, told apart by #2, #3, ...")
        return unique

    def _to_arrow(self, batch: list[dict[str, Any]], kinds: dict[str, pa.DataType]) -> pa.RecordBatch:
        """Columns keep the type of their first batch; a later value that does not fit becomes text or null."""
        for column in dict.fromkeys(chain.from_iterable(batch)):
            if column not in kinds:
                kinds[column] = _kind([row.get(column) for row in batch])
        arrays = []
        for column, kind in kinds.items():
            values = [row.get(column) for row in batch]
            if column == self._vectors:
                arrays.append(_lists(values))
                continue
            if pa.types.is_string(kind):
                arrays.append(pa.array([_as_text(value) for value in values], kind))
                continue
            try:
                arrays.append(pa.array(values, kind))
            except (pa.ArrowException, TypeError, ValueError, OverflowError):
                arrays.append(
                    pa.array(
                        [self._fitting(value, kind, column, row["_row"]) for value, row in zip(values, batch)], kind
                    )
                )
        return pa.RecordBatch.from_arrays(arrays, names=list(kinds))

    def _fitting(self, value: Any, kind: pa.DataType, column: str, number: int) -> Any:
        try:
            return pa.scalar(value, kind).as_py()
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            self.report.note(number, f"with a value in column {column!r} that is no {kind}, left empty")
            return None

    def _guess(self, good: Sequence[dict[str, Any]]) -> str:
        named = [column for column in self._columns if str(column).lower() in TEXT_NAMES]
        if len(named) == 1:
            return named[0]
        lengths = {
            column: sum(len(row[column]) for row in good if isinstance(row.get(column), str)) / len(good)
            for column in self._columns
            if any(isinstance(row.get(column), str) for row in good)
        }
        ordered = sorted(lengths, key=lambda column: -lengths[column])
        if len(ordered) == 1 or (len(ordered) > 1 and lengths[ordered[0]] > 2 * lengths[ordered[1]]):
            return ordered[0]
        if "text" in named:
            return "text"
        raise SourceError(
            f"{self.name}: which column holds the text? Pass --text COLUMN; there are: {', '.join(map(str, self._columns))}"
        )


# Finding the reader ---------------------------------------------------------------------------------


def read_rows(source: Any, text: str | None = None) -> tuple[str, Callable[[], Iterator[Row]]]:
    """(the source's name in messages, what begins reading its rows); SourceError for what is no source."""
    if isinstance(source, (str, Path)):
        return str(source), _named(str(source), text)
    if isinstance(source, (pa.Table, pa.RecordBatchReader)):
        batches = source.to_batches(max_chunksize=1024) if isinstance(source, pa.Table) else source
        return "the Arrow table", lambda: rows.arrow_batches(batches)
    module = type(source).__module__.split(".")[0]
    if module == "pandas":
        return "the data frame", lambda: _of_pandas(source)
    if module == "polars":
        return "the data frame", lambda: rows.arrow_batches(source.to_arrow().to_batches(max_chunksize=1024))
    if isinstance(source, Iterable) and not isinstance(source, (bytes, Mapping)):
        return "the data set" if module == "datasets" else "the list", lambda: rows.dicts(source)
    raise SourceError(f"a {type(source).__name__} is no source of texts; expected a path, a table or a list of texts")


def _of_pandas(frame: Any) -> Iterator[Row]:
    for start in range(0, len(frame), 1024):
        part = frame.iloc[start : start + 1024]
        try:
            batches = pa.Table.from_pandas(part, preserve_index=False).to_batches()
        except (pa.ArrowException, TypeError):  # a column of mixed types
            mixed = part.apply(lambda column: column.map(_as_text) if column.dtype == object else column)
            batches = pa.Table.from_pandas(mixed, preserve_index=False).to_batches()
        for number, row, remark in rows.arrow_batches(batches):
            yield start + number, row, remark


def _named(name: str, text: str | None) -> Callable[[], Iterator[Row]]:
    if name == "-":
        return lambda: _standard_input(text)
    if name.startswith("docstrings:"):
        return lambda: docstrings([p for p in name.removeprefix("docstrings:").split(",") if p])
    place = Place.of(name)
    if files.is_lance(place):
        return lambda: rows.lance(place)
    if place.is_folder():
        return lambda: files.folder(place)
    if place.is_file():
        return lambda: files.file(place)
    if is_url(name):
        raise SourceError(f"{name}: no such file")
    path = Path(place.path)
    stem = name.removeprefix("hf:")
    looks_like_path = files.format_of(place) is not None or name.startswith((".", "/", "~")) or name.count("/") > 1
    if not looks_like_path and ("/" in name or name.startswith("hf:")):
        return lambda: _hub(stem)
    there = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise SourceError(f"{name}: no such file{nearest(path.name, there) if there else ''}".split(" (there are:")[0])


def _standard_input(text: str | None) -> Iterator[Row]:
    stream = sys.stdin.buffer
    start = stream.peek(4096).lstrip()[:1] if hasattr(stream, "peek") else b""
    kind = ".jsonl" if start == b"{" else ".csv" if text else ".txt"
    yield from files.of_bytes(stream, kind, "standard input")


def _hub(name: str) -> Iterator[Row]:
    from datasets import load_dataset

    repository, _, split = name.partition(":")
    try:
        data = load_dataset(repository, split=split or "train", streaming=True)
        yield from rows.dicts(data)
    except Exception as error:  # the Hub's client raises many kinds, all of them mean: not to be had
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SourceError(
            f"{name}: no such file here, and not to be had from the Hub as a data set ({reason})"
        ) from None


# Values ---------------------------------------------------------------------------------------------


def _own(column: Any) -> str:
    """Column names as text; those that we add ourselves are kept free."""
    return f"{column}_" if column in _OURS else str(column)


def _kind(values: Sequence[Any]) -> pa.DataType:
    """Boolean, integer, float or date where all values are; everything else is text."""
    try:
        kind = pa.array(values).type
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return pa.string()
    plain = (
        pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_temporal(kind)
    )
    return kind if plain else pa.string()


def _lists(values: Sequence[Any]) -> pa.Array:
    """Lists of numbers; text where one of them is none."""
    widths = {len(value) if isinstance(value, np.ndarray) else 0 for value in values}
    if len(widths) == 1 and 0 not in widths:
        return pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(values)), widths.pop())
    values = [value.tolist() if isinstance(value, np.ndarray) else value for value in values]
    try:
        return pa.array(values, pa.list_(pa.float64()))
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return pa.array([_as_text(value) for value in values], pa.string())


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
