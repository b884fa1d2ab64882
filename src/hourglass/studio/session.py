"""What the pages of one studio share: the workspace, its groupings, and where a click leads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any, TypeVar

import gradio as gr
import numpy as np
import pandas as pd

from hourglass.errors import HourglassError
from hourglass.studio.look import escape, found
from hourglass.uses.explore import Workspace

Array = np.ndarray[Any, Any]
Function = TypeVar("Function", bound=Callable[..., Any])

MOST_GROUPS = 60
"""Values of a column by which documents are still grouped."""


@dataclass
class Session:
    """A workspace that is being looked at. Columns are read once, when a page first needs them."""

    workspace: Workspace

    @cached_property
    def groupings(self) -> dict[str, pd.Series]:
        """Columns that group the documents, that of the exploration first: sizes of their groups, the largest first."""
        by = self.workspace.settings["by"]
        sizes = {}
        for column in sorted(self.workspace.columns, key=lambda c: c != by):
            if column.startswith("_") or column == self.workspace.text_column:
                continue
            counts = pd.Series(self.groups(column)).value_counts()
            if column == by or 2 <= len(counts) <= MOST_GROUPS:
                sizes[column] = counts
        return sizes

    def groups(self, column: str) -> Array:
        """[documents] the group of each, None where it has none."""
        return self.workspace.column(column)

    @cached_property
    def tokens(self) -> Array:
        """[documents]"""
        return np.concatenate([arrays["tokens"] for arrays in self.workspace.stored("tokens")])

    @cached_property
    def names(self) -> list[tuple[str, int]]:
        """Named features, the most telling first, as the choices of a list."""
        from hourglass.uses.explore.overview import strongest

        best = strongest(self.workspace.features)
        return [(str(label)[:90], int(feature)) for feature, label in best["label"].items()]

    def documents(self, positions: Any, beside: Callable[[int], str] = lambda i: "") -> str:
        """HTML of the documents at `positions`; `beside` gives what stands with the i-th of them."""
        positions = [int(p) for p in positions]
        if not positions:
            return ""
        rows = self.workspace.rows(positions, ["_id", self.workspace.text_column])
        listed = zip(positions, rows.column(0).to_pylist(), rows.column(1).to_pylist())
        return "".join(found(p, str(id), text or "", beside(i)) for i, (p, id, text) in enumerate(listed))


@dataclass(frozen=True)
class Ways:
    """Where a click leads: to the tab of a concept or of a document, and which."""

    tabs: gr.Tabs
    concept: gr.State
    document: gr.State

    def lead_from(self, panel: gr.HTML) -> None:
        """A click on a concept or a document in `panel` opens it."""
        panel.click(_led, outputs=[self.tabs, self.concept, self.document], show_progress="hidden")


def _led(event: gr.EventData) -> tuple[Any, Any, Any]:
    told = event._data or {}
    if "concept" in told:
        return gr.Tabs(selected="concepts"), int(told["concept"]), gr.skip()
    if "document" in told:
        return gr.Tabs(selected="document"), gr.skip(), int(told["document"])
    return gr.skip(), gr.skip(), gr.skip()


def told(function: Function) -> Function:
    """An error of ours is a line on the page, not a trace in the terminal."""

    @wraps(function)
    def wrapped(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except HourglassError as error:
            raise gr.Error(escape(str(error)), print_exception=False, title="That does not work") from None

    return wrapped  # type: ignore[return-value]
