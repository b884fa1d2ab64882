"""One document, and what fires on each of its tokens."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import gradio as gr

from hourglass.errors import HourglassError
from hourglass.studio.corpus import Corpus
from hourglass.studio.shell import EACH, LATEST, Shell
from hourglass.studio.views import view

LOADING = "Loading the model that read this corpus. This happens once."


def build(shell: Shell, tab: gr.Tab) -> None:
    corpus = shell.corpus
    gr.HTML(
        view(
            "head",
            "Documents",
            "A text as the model read it. Point at a word to see what fires on it, or at a concept to see where it fires.",
        )
    )
    with gr.Row(elem_classes=["bar-of-controls"]):
        before = gr.Button("← before", min_width=130, scale=0)
        id = gr.Textbox("", placeholder="Id of a document", show_label=False, min_width=160, elem_id="document-id")
        after = gr.Button("next →", min_width=130, scale=0)
    page = shell.html(elem_id="document")

    def moved(step: int, at: int | None) -> int:
        return min(max(0, (at or 0) + step), len(corpus) - 1)

    def named(id: str) -> Any:
        try:
            return "", int(corpus.workspace.positions([(id or "").strip()])[0])
        except HourglassError as error:
            return view("message", str(error), "trouble"), gr.skip()

    quiet = {"show_progress": "hidden", **LATEST}
    before.click(lambda at: moved(-1, at), shell.document, shell.document, show_progress="hidden", **EACH)
    after.click(lambda at: moved(1, at), shell.document, shell.document, show_progress="hidden", **EACH)
    id.submit(named, id, [page, shell.document], **quiet)
    # Nothing is written back: an answer that comes late must not undo a choice made meanwhile.
    tab.select(lambda at: 0 if at is None else gr.skip(), shell.document, shell.document, **quiet)
    shell.document.change(partial(shown, corpus), shell.document, page, **LATEST)


def shown(corpus: Corpus, position: int | None) -> Iterator[str]:
    """The document, after a note while the model has yet to be loaded."""
    if position is None:
        return
    try:
        if not corpus.model_is_ready:
            yield view("message", LOADING)
        position = corpus.check_position(position)
        yield view(
            "reading", corpus.read(corpus.text(position)), corpus.fields(position), corpus.documents([position])[0].id
        )
    except HourglassError as error:
        yield view("message", str(error), "trouble")
