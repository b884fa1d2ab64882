"""Progress bars for the stages of whatever takes a while."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from hourglass.training.progress import LogLines

Report = Callable[[str, int, int | None], None]
"""What a stage is called, how many of its units are done, and of how many (None: unknown)."""


class Progress:
    """A bar a stage on standard error; where that is no terminal, a line now and then; nothing when not `shown`, but for what a
    function in its place is told."""

    def __init__(self, shown: bool | Report) -> None:
        self._report = shown if callable(shown) else None
        self.shown = shown is True and sys.stderr.isatty()
        self._lines = LogLines(shown is True)
        self._bars = RichProgress(
            TextColumn("{task.description:<16}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not self.shown,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def start(self, what: str, total: int | None, unit: str = "") -> TaskID:
        """Begin a stage of `total` units (None: length unknown)."""
        self._bars.start()
        if self._report is not None:
            self._report(what, 0, total)
        return self._bars.add_task(what, total=total, unit=unit)

    def counting(self, what: str, total: int | None, unit: str = "") -> Callable[[int], None]:
        """Begin a stage when its first units come."""
        begun: list[TaskID] = []

        def count(units: int) -> None:
            if not begun:
                begun.append(self.start(what, total, unit))
            self.advance(begun[0], units)

        return count

    def advance(self, task: TaskID, units: int) -> None:
        self._bars.advance(task, units)
        stage = self._bars.tasks[self._bars.task_ids.index(task)]
        total = None if stage.total is None else int(stage.total)
        self._lines.say(stage.description, int(stage.completed), total, stage.fields["unit"])
        if self._report is not None:
            self._report(stage.description, int(stage.completed), total)

    def say(self, line: str) -> None:
        """A line above the bars."""
        if self.shown:
            self._bars.console.print(line, markup=False, highlight=False)

    def pause(self) -> None:
        """Leave the terminal to somebody else until the next stage begins."""
        self._bars.stop()
