"""Bytes to text, line by line, in whatever encoding each line is."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from typing import BinaryIO, cast

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
NOT_UTF8 = "not in UTF-8, read as windows-1252"


def lines(stream: BinaryIO) -> Iterator[tuple[str, bool]]:
    """(line with its line break, whether it was UTF-8) for each line.

    A byte order mark decides for UTF-16; otherwise each line is UTF-8, or windows-1252 where it is not: one line in
    another encoding does not spoil the rest.
    """
    buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, stream))
    start = buffered.peek(4)[:4]
    if start.startswith(_UTF16):
        wrapper = io.TextIOWrapper(buffered, "utf-16", newline="")
        for line in wrapper:
            yield line.replace("\0", ""), True
        wrapper.detach()  # or it would close the stream, which is its opener's to close
        return
    for number, raw in enumerate(buffered):
        yield text(raw[3:] if number == 0 and raw.startswith(codecs.BOM_UTF8) else raw)


def text(raw: bytes) -> tuple[str, bool]:
    """(text without NUL characters, whether it was UTF-8)."""
    try:
        return raw.decode("utf-8").replace("\0", ""), True
    except UnicodeDecodeError:
        try:
            return raw.decode("windows-1252").replace("\0", ""), False
        except UnicodeDecodeError:
            return raw.decode("latin-1").replace("\0", ""), False


def whole(raw: bytes) -> tuple[str, bool]:
    """The same for the content of a whole file."""
    if raw.startswith(_UTF16):
        return raw.decode("utf-16", errors="replace").replace("\0", ""), True
    return text(raw.removeprefix(codecs.BOM_UTF8))
