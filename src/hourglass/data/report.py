"""What a reader has to say about a source: rows read, rows that could not be, and why."""

from __future__ import annotations

from collections import Counter

FIRST = 5
"""Rows named for one kind of trouble."""


class ReadReport:
    """Counts rows and trouble while a source is read.

    rows     rows of the source passed so far, good or bad
    counts   rows by kind of trouble
    skipped  (row, why) of the first rows of each kind that were left out
    limit    documents after which reading stopped, where a limit stopped it
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows = 0
        self.counts: Counter[str] = Counter()
        self.skipped: list[tuple[int, str]] = []
        self.limit: int | None = None
        self._first: dict[str, list[int]] = {}
        self._left_out: set[str] = set()

    def skip(self, row: int, why: str) -> None:
        """Row `row` is left out."""
        self._left_out.add(why)
        self._add(row, why)
        if self.counts[why] <= FIRST:
            self.skipped.append((row, why))

    def note(self, row: int, what: str) -> None:
        """Row `row` is kept, but not quite as it was."""
        self._add(row, what)

    def lines(self) -> list[str]:
        """A line for each kind of trouble, and one where a limit left the rest unread."""
        out = []
        if self.limit is not None:
            out.append(
                f"{self.name}: the first {self.limit:,} documents were read (limit); sample draws from all of them"
            )
        for what, count in self.counts.items():
            rows = ", ".join(f"{row:,}" for row in self._first[what])
            more = ", ..." if count > FIRST else ""
            verb = ("was skipped" if count == 1 else "were skipped") + ": " if what in self._left_out else ""
            noun = "row" if count == 1 else "rows"
            out.append(f"{self.name}: {count:,} {noun} {verb}{what} ({noun} {rows}{more})")
        return out

    def _add(self, row: int, what: str) -> None:
        self.counts[what] += 1
        first = self._first.setdefault(what, [])
        if len(first) < FIRST:
            first.append(row)
