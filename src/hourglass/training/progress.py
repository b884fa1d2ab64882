"""The progress bar of a training run, and the lines that a log gets where there is no terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

EVERY = 30.0
"""Seconds between two lines of a log; what takes less leaves none."""


class LogLines:
    """How far a long piece of work is, as lines on standard error that is no terminal."""

    def __init__(self, shown: bool) -> None:
        self._shown = shown and not sys.stderr.isatty()
        self._start = self._said = time.monotonic()

    def say(self, what: str, done: int, total: int | None, unit: str) -> None:
        """A line, if the last one is long enough ago."""
        now = time.monotonic()
        if self._shown and now - self._said >= EVERY:
            self._said = now
            of = "" if total is None else f" of {total:,}"
            spent = time.strftime("%H:%M:%S", time.gmtime(now - self._start))
            print(f"{what}: {done:,}{of} {unit}, {spent}".replace(" ,", ","), file=sys.stderr, flush=True)  # noqa: T201


class ProgressBar:
    """Steps, loss, examples per second and time left, on standard error; where that is no terminal, a line now and then."""

    def __init__(self, steps: int, done: int, shown: bool) -> None:
        self._shown = shown and sys.stderr.isatty()
        self._lines, self._steps, self._done = LogLines(shown), steps, done
        self._bar = Progress(
            TextColumn("Training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4g}"),
            TextColumn("{task.fields[rate]:,.0f} examples/s"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not self._shown,
        )
        self._task = self._bar.add_task("", total=steps, completed=done, loss=float("nan"), rate=0.0)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, loss: float) -> None:
        """One step further."""
        self._done += 1
        self._lines.say("training", self._done, self._steps, f"steps, loss {loss:.4g}")
        if self._shown:
            self._bar.update(self._task, advance=1, loss=loss)

    def rate(self, examples_per_s: float) -> None:
        """Show a new speed."""
        if self._shown:
            self._bar.update(self._task, rate=examples_per_s)
