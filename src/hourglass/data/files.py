"""The rows of a file or folder, here or at a URL, by the ending of its name."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from typing import Any

from hourglass.data import decode, rows
from hourglass.data.rows import Row
from hourglass.errors import SourceError
from hourglass.storage.places import Place, reaching

FORMATS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".arrow", ".feather", ".txt")


def format_of(place: Place) -> str | None:
    """The ending that says what a file is, one of FORMATS, without the .gz of a packed one."""
    suffixes = place.suffixes
    last = suffixes[-2] if len(suffixes) > 1 and suffixes[-1] == ".gz" else suffixes[-1] if suffixes else ""
    return last if last in FORMATS else None


def is_lance(place: Place) -> bool:
    """Whether a name is that of a Lance data set, which is a folder."""
    return place.suffixes[-1:] == [".lance"]


def file(place: Place) -> Iterator[Row]:
    """Rows of a file; SourceError for one of another kind, and for one that cannot be read to its end."""
    kind = format_of(place)
    if kind is None:
        raise SourceError(
            f"{place}: not a kind of file that is read; expected {', '.join(FORMATS)}, or a folder of .txt"
        )
    if not place.is_local:
        with reaching(place.name):  # also what breaks half-way
            yield from _file(place, kind)
        return
    if place.size() == 0:
        raise SourceError(f"{place}: the file is empty")
    yield from _file(place, kind)


def _file(place: Place, kind: str) -> Iterator[Row]:
    with place.open() as stream:
        if kind == ".parquet":
            yield from rows.parquet(stream, place.name)
        elif kind in (".arrow", ".feather"):
            yield from rows.arrow_file(stream, place.name)
        elif place.suffixes[-1] == ".gz":
            with gzip.open(stream) as unpacked:
                yield from of_bytes(unpacked, kind, place.name)
        else:
            yield from of_bytes(stream, kind, place.name)


def of_bytes(stream: Any, kind: str, name: str) -> Iterator[Row]:
    """Rows of one of the text formats."""
    if kind in (".csv", ".tsv"):
        yield from rows.delimited(decode.lines(stream), name, "\t" if kind == ".tsv" else None)
    elif kind in (".jsonl", ".ndjson"):
        yield from rows.json_lines(decode.lines(stream))
    elif kind == ".txt":
        yield from rows.plain_lines(decode.lines(stream))
    else:
        raw = stream.read()
        if raw.lstrip()[:1] == b"[":
            yield from rows.json_array(raw, name)
        else:
            yield from rows.json_lines(decode.lines(io.BufferedReader(io.BytesIO(raw))))


def folder(place: Place) -> Iterator[Row]:
    """Rows of all .txt files, a text each, at any depth; where there is none, those of the files, which are of one kind."""
    texts = [inside for inside in place.inside(deep=True) if inside.suffixes[-1:] == [".txt"]]
    if texts:
        yield from rows.text_files(texts, place.name)
        return
    files = [inside for inside in place.inside() if format_of(inside) is not None]
    kinds = {format_of(inside) for inside in files}
    if len(kinds) != 1:
        found = f"{len(kinds)} kinds of files" if kinds else "none"
        raise SourceError(f"{place}: expected .txt files, or files of one kind ({', '.join(FORMATS)}); found {found}")
    number = 0
    for inside in files:
        for _, row, remark in file(inside):
            number += 1
            yield number, row, remark
