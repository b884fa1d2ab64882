"""What all pages have in common: the corpus, the way from page to page, and how a mistake is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import gradio as gr

from hourglass.errors import HourglassError
from hourglass.studio.corpus import Corpus
from hourglass.studio.views import figure_script, script, view
from hourglass.uses.progress import Report

# Gradio drops what is done while the same is still being answered, unless it is told otherwise.
EACH: dict[str, Any] = {"trigger_mode": "multiple", "api_visibility": "private"}
"""Clicks that say what was clicked, or count: each is answered, in their order."""
LATEST: dict[str, Any] = {"trigger_mode": "always_last", "api_visibility": "private"}
"""Questions: when an answer is there, the one asked meanwhile is answered too."""

BAR = gr.Progress()
"""What a page's function asks for that takes a while: gradio gives it a bar over what it will show."""


def stages(bar: gr.Progress) -> Report:
    """What tells a bar how far a stage is."""

    def report(stage: str, done: int, total: int | None) -> None:
        bar((done, total), desc=stage)

    return report


@dataclass(frozen=True)
class Shell:
    """The corpus and what leads from page to page: the tabs, the position of the document and the number of the concept shown.

    other  another text of the same documents, where there is one
    """

    corpus: Corpus
    other: Corpus | None
    tabs: gr.Tabs
    document: gr.State
    concept: gr.State

    def html(self, value: str = "", **settings: Any) -> gr.HTML:
        """A view; its links to documents and concepts lead there, other clicks come as `click` with a message."""
        made = html(value, **settings)
        self._lead(made)
        return made

    def figure(self, label: str) -> gr.HTML:
        """A place for a figure of plotly, whose value is its JSON."""
        template = f'<div class="figure" role="img" aria-label="{label}"></div>'
        made = gr.HTML("", html_template=template, js_on_load=figure_script(), elem_classes=["view"])
        self._lead(made)
        return made

    def _lead(self, made: gr.HTML) -> None:
        made.select(self._go, None, [self.tabs, self.document, self.concept], show_progress="hidden", **EACH)

    def _go(self, event: gr.EventData) -> tuple[Any, Any, Any]:
        sent = event._data
        try:
            if "concept" in sent:
                return gr.Tabs(selected="concepts"), gr.skip(), self.corpus.check(sent["concept"])
            if "id" in sent:
                position = int(self.corpus.workspace.positions([sent["id"]])[0])
            else:
                position = self.corpus.check_position(sent["document"])
        except HourglassError as error:
            raise gr.Error(str(error), print_exception=False) from None
        return gr.Tabs(selected="documents"), position, gr.skip()


def html(value: str = "", **settings: Any) -> gr.HTML:
    """A view from which nothing leads to another page; clicks come as `click` with a message."""
    return gr.HTML(value, js_on_load=script(), elem_classes=["view"], **settings)


def told(outputs: int = 1) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A page's function whose mistakes are one line in the first of its outputs; the others stay as they are."""

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def answer(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except HourglassError as error:
                line = view("message", str(error), "trouble")
                return line if outputs == 1 else (line, *[gr.skip()] * (outputs - 1))

        return answer

    return wrap
