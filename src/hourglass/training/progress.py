"""The progress bar of a training run."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressBar:
    """Steps, loss, examples per second and time left, on standard error; silent when nobody is watching."""

    def __init__(self, steps: int, done: int, shown: bool) -> None:
        self._shown = shown and sys.stderr.isatty()
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
        if self._shown:
            self._bar.update(self._task, advance=1, loss=loss)

    def rate(self, examples_per_s: float) -> None:
        """Show a new speed."""
        if self._shown:
            self._bar.update(self._task, rate=examples_per_s)
