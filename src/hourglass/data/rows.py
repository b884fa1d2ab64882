"""The readers of each format: every one yields rows.

A row is (its number as a person would count it, a dict of columns or None, what is wrong or None): a dict with a
remark is kept, None with a remark is left out.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hourglass.data import decode
from hourglass.errors import MissingExtra, SourceError
from hourglass.storage.places import Place

Row = tuple[int, dict[str, Any] | None, str | None]

_LONGEST_RECORD = 64 * 2**20
csv.field_size_limit(min(sys.maxsize, 2**31 - 1))


class _Unclosed(Exception):
    """A quote was opened and not closed."""


def delimited(lines: Iterable[tuple[str, bool]], name: str, delimiter: str | None = None) -> Iterator[Row]:
    """Rows of a csv or tsv; the row number is the line on which the row begins (the header is line 1).

    A quote that is never closed does not swallow the rest of the file: its line is read as plain text, or left out
    when it has the wrong number of fields then, and reading goes on with the next line.
    """
    source = _Lines(lines)
    first = source.peek()
    if first is None:
        raise SourceError(f"{name}: the file is empty; expected a header line and rows")
    delimiter = delimiter or max(",;\t|", key=first.count)
    header = _record(source, delimiter)
    if len(set(header)) < len(header) or not all(column.strip() for column in header):
        raise SourceError(f"{name}: line 1: expected a header of distinct column names, found {header[:8]}")
    while source.peek() is not None:
        line = source.number + 1
        remark = None
        try:
            fields = _record(source, delimiter)
        except _Unclosed:
            fields = source.first_as_text(delimiter)
            remark = "a quote that is never closed, read as plain text"
        except csv.Error as error:
            yield line, None, f"not readable as csv ({error})"
            continue
        if not fields:  # a blank line
            continue
        if len(fields) != len(header):
            yield line, None, remark or f"with {len(fields)} fields where the header has {len(header)}"
            continue
        yield line, dict(zip(header, fields)), remark or source.remark


class _Lines:
    """Physical lines with the power to go back to the beginning of a record."""

    def __init__(self, lines: Iterable[tuple[str, bool]]) -> None:
        self._lines = iter(lines)
        self._waiting: deque[tuple[str, bool]] = deque()
        self._taken: list[tuple[str, bool]] = []
        self.number = 0

    def peek(self) -> str | None:
        if not self._waiting:
            line = next(self._lines, None)
            if line is None:
                return None
            self._waiting.append(line)
        return self._waiting[0][0]

    def begin(self) -> Iterator[str]:
        """The lines of one record, as the csv reader asks for them."""
        self._taken = []
        size = 0
        while True:
            if self.peek() is None or size > _LONGEST_RECORD:
                if self._taken:
                    raise _Unclosed
                return
            line = self._waiting.popleft()
            self._taken.append(line)
            self.number += 1
            size += len(line[0])
            yield line[0]

    def first_as_text(self, delimiter: str) -> list[str]:
        """Give back all but the first line of the record, and read that one without quotes."""
        first, *rest = self._taken
        self._waiting.extendleft(reversed(rest))
        self.number -= len(rest)
        self._taken = [first]
        return next(csv.reader([first[0]], delimiter=delimiter, quoting=csv.QUOTE_NONE), [])

    @property
    def remark(self) -> str | None:
        return None if all(utf8 for _, utf8 in self._taken) else decode.NOT_UTF8


def _record(source: _Lines, delimiter: str) -> list[str]:
    return next(csv.reader(source.begin(), delimiter=delimiter), [])


def json_lines(lines: Iterable[tuple[str, bool]]) -> Iterator[Row]:
    """Rows of a file with a JSON object on each line."""
    for number, (line, utf8) in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            yield number, None, f"not valid JSON ({getattr(error, 'msg', error)})"
            continue
        if not isinstance(value, dict):
            yield number, None, f"a JSON {type(value).__name__} where an object was expected"
            continue
        yield number, value, None if utf8 else decode.NOT_UTF8


def json_array(raw: bytes, name: str) -> Iterator[Row]:
    """Rows of a file that is one JSON array of objects; it is read whole (use .jsonl for files that do not fit)."""
    content, utf8 = decode.whole(raw)
    try:
        values = json.loads(content)
    except json.JSONDecodeError as error:
        raise SourceError(f"{name}: line {error.lineno}: not valid JSON ({error.msg})") from None
    if not isinstance(values, list):
        raise SourceError(f"{name}: a JSON {type(values).__name__}; expected an array of objects, or one object a line")
    for number, value in enumerate(values, 1):
        if isinstance(value, dict):
            yield number, value, None if utf8 else decode.NOT_UTF8
        else:
            yield number, None, f"a JSON {type(value).__name__} where an object was expected"


def plain_lines(lines: Iterable[tuple[str, bool]]) -> Iterator[Row]:
    """A text a line."""
    for number, (line, utf8) in enumerate(lines, 1):
        yield number, {"text": line.rstrip("\r\n")}, None if utf8 else decode.NOT_UTF8


def text_files(texts: Iterable[Place], folder: str) -> Iterator[Row]:
    """A text a file."""
    for number, place in enumerate(texts, 1):
        name = place.name.removeprefix(folder.rstrip("/") + "/")
        try:
            with place.open() as stream:
                content, utf8 = decode.whole(stream.read())
        except (OSError, SourceError) as error:
            yield number, None, f"{name} cannot be read ({str(error).removeprefix(f'{place}: ')})"
            continue
        yield number, {"file": name, "text": content}, None if utf8 else decode.NOT_UTF8


def arrow_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[Row]:
    """Rows of Arrow record batches; a list of floating-point numbers is a NumPy array in the memory of its batch."""
    number = 0
    for batch in batches:
        vectors = {}
        for place, field in enumerate(batch.schema):
            parts = _vectors(batch.column(place))
            if parts is not None:
                vectors[field.name] = parts
                batch = batch.set_column(place, field.name, pa.nulls(len(batch)))
        for place, row in enumerate(batch.to_pylist()):
            number += 1
            row.update((name, parts[place]) for name, parts in vectors.items())
            yield number, row, None


def _vectors(column: pa.Array) -> list[np.ndarray[Any, Any] | None] | None:
    """The lists of a column of lists of floating-point numbers; None for a column of another kind, or with holes in a list."""
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return None
    if not pa.types.is_floating(kind.value_type) or column.values.null_count:
        return None
    numbers = column.values.to_numpy(zero_copy_only=False)
    if pa.types.is_fixed_size_list(kind):
        ends = (column.offset + np.arange(len(column) + 1)) * kind.list_size
    else:
        ends = column.offsets.to_numpy()
    there = column.is_valid().to_pylist()
    return [numbers[a:b] if valid else None for a, b, valid in zip(ends[:-1].tolist(), ends[1:].tolist(), there)]


def parquet(stream: BinaryIO, name: str) -> Iterator[Row]:
    """Rows of a parquet file."""
    try:
        file = pq.ParquetFile(stream)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{name}: not a parquet file ({str(error).splitlines()[0]})") from None
    return arrow_batches(file.iter_batches(1024))


def arrow_file(stream: BinaryIO, name: str) -> Iterator[Row]:
    """Rows of an Arrow IPC (feather) file, one of its batches in memory at a time."""
    try:
        file = pa.ipc.open_file(stream)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{name}: not an Arrow file ({str(error).splitlines()[0]})") from None
    whole = (file.get_batch(number) for number in range(file.num_record_batches))
    return arrow_batches(part for batch in whole for part in pa.table(batch).to_batches(max_chunksize=1024))


def lance(place: Place) -> Iterator[Row]:
    """Rows of a Lance data set: a folder, or a URL of a store that Lance itself reaches (s3, gs, az)."""
    try:
        import lance as library
    except ImportError:
        raise MissingExtra("a Lance data set", "lance") from None
    try:
        data = library.dataset(place.path if place.is_local else place.name)
    except (OSError, ValueError) as error:
        raise SourceError(f"{place}: not a Lance data set ({str(error).splitlines()[0].split(', /')[0]})") from None
    return arrow_batches(data.to_batches(batch_size=1024))


def dicts(items: Iterable[Any]) -> Iterator[Row]:
    """Rows of an iterable of dicts or of texts."""
    for number, item in enumerate(items, 1):
        if isinstance(item, str):
            yield number, {"text": item}, None
        elif isinstance(item, dict):
            yield number, item, None
        else:
            yield number, None, f"a {type(item).__name__} where a text or a dict was expected"
