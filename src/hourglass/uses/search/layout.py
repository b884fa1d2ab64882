"""What lies where in the folder of an index, who may write to it, and what is said when it cannot be read."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout

from hourglass.errors import FolderError, HourglassError, MissingExtra
from hourglass.storage.atomic import read_json
from hourglass.uses.search.stages import Array

FORMAT = 1
MANIFEST, TABLE = "index.json", "documents.lance"
HASHER, CODEC = "hasher.safetensors", "codec.safetensors"
LEARNED = (HASHER, CODEC)
"""Files of what an index has learned of its own documents when it was made."""
OWN = ("_id", "text", "vector", "tokens", "weights", "code", "token_ids", "token_centroids", "token_rests")
"""Columns that are ours, not the source's."""


def is_index(folder: Path) -> bool:
    return (Path(folder) / MANIFEST).is_file()


def open_table(uri: str, folder: Path | str) -> Any:
    """The Lance data set of an index."""
    lance = import_lance()
    try:
        return lance.dataset(uri)
    except (OSError, ValueError) as error:
        raise unreadable(folder, error) from None


def import_lance() -> Any:
    try:
        import lance
    except ImportError:
        raise MissingExtra("a search index", "search") from None
    return lance


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keep other writers out; FolderError where there is one."""
    try:
        with FileLock(folder / ".lock", blocking=False):
            yield
    except Timeout:
        raise FolderError(f"{folder}: another process is writing to it; wait for it to end") from None


@contextmanager
def exclusive(folder: Path) -> Iterator[bool]:
    """Whether nobody reads; who begins to waits meanwhile."""
    descriptor = os.open(folder / MANIFEST, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def rows_of_lists(column: pa.Array) -> Array:
    """[n, d] float32 of a column of lists of equal length."""
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1).astype(np.float32)


def read_manifest(folder: Path) -> dict[str, Any]:
    return checked(read_json(folder / MANIFEST), folder)


def checked(manifest: Any, folder: Path | str) -> dict[str, Any]:
    """What an index.json holds; FolderError for one of another format."""
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise FolderError(f"{folder}: an index of format {found}, expected {FORMAT}; make it again")
    return dict(manifest)


def is_damage(error: Exception) -> bool:
    """Whether Lance says that a file is at fault, not what was asked."""
    return "LanceError(IO)" in str(error) or "Generic" in str(error) or "Not found" in str(error)


def unreadable(folder: Path | str, error: Exception) -> Exception:
    if isinstance(error, HourglassError):
        return error
    if any(words in str(error).lower() for words in ("conflict", "concurrent writers")):
        return FolderError(
            f"{folder}: another process wrote to it at the same time; nothing was changed, give the command again"
        )
    return FolderError(f"{folder}: a file of the index is missing or damaged ({reason(error)}); make the index again")


def reason(error: Exception) -> str:
    """Lance's own words, without the places of its code."""
    line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    line = re.sub(r",? ?/(?:home|rustc)/\S+", "", line)
    return re.sub(r"^(?:Invalid user input: )+", "", line).strip().rstrip(".,;")[:240]
