"""What a caller can watch while a model learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Record = dict[str, Any]
"""{"step", "loss", one entry for each named loss, "lr", "examples_per_s"}; of an evaluation, without the last two."""


class Callback:
    """Derive from it and define what is wanted; process 0 alone calls it."""

    def on_step(self, step: int, record: Record) -> None:
        """After every step that is recorded: each `log_every`-th and the last."""

    def on_eval(self, step: int, record: Record) -> None:
        """After an evaluation."""

    def on_save(self, step: int, folder: Path) -> None:
        """After a checkpoint is safely in `folder`."""
