"""Answers that were paid for, in one SQLite file: a kill at any moment leaves every answer written before it."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from hourglass.errors import FolderError
from hourglass.storage.atomic import disk_errors

_AT_ONCE = 500  # keys of one query: SQLite takes at most 999 in old versions


class Answers:
    """A value for each key. The file is made when the first answer comes, and holds no question, only its hash."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @staticmethod
    def key(question: Any) -> str:
        """The hash of a question: any value of JSON."""
        written = json.dumps(question, ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(written.encode("utf-8", "surrogatepass")).hexdigest()

    def get(self, keys: Sequence[str]) -> dict[str, Any]:
        """The answers that there are."""
        found: dict[str, Any] = {}
        if not self.path.exists():
            return found
        with self._open() as database:
            for start in range(0, len(keys), _AT_ONCE):
                some = keys[start : start + _AT_ONCE]
                marks = ", ".join("?" * len(some))
                rows = database.execute(f"SELECT key, value FROM answers WHERE key IN ({marks})", some)
                found.update((key, json.loads(value)) for key, value in rows)
        return found

    def put(self, key: str, value: Any) -> None:
        """Keep an answer; it is on disk when the call returns."""
        with self._open() as database:
            database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(value)))
            database.commit()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with disk_errors(self.path), closing(sqlite3.connect(self.path, timeout=60)) as database:
                database.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
                yield database
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise FolderError(f"{self.path}: the disk is full; what was there before is intact") from None
            raise FolderError(
                f"{self.path}: cannot be used as a store of answers ({error}); move it away and run again"
            ) from None
