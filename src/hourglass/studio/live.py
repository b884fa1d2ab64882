"""Paste a text and see what fires."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import gradio as gr

from hourglass.errors import HourglassError
from hourglass.studio.corpus import Corpus
from hourglass.studio.documents import LOADING
from hourglass.studio.shell import LATEST, Shell
from hourglass.studio.views import view


def build(shell: Shell, tab: gr.Tab) -> None:
    gr.HTML(
        view(
            "head",
            "Live",
            "Paste any text and see what of this corpus is in it, word by word. It stays on this machine.",
        )
    )
    text = gr.Textbox(
        "", placeholder="A text of your own", lines=4, max_lines=12, show_label=False, elem_id="live-text"
    )
    with gr.Row():
        read = gr.Button("Read it", variant="primary", scale=0, min_width=140, elem_id="live-go")
    page = shell.html(elem_id="live")
    read.click(partial(answered, shell.corpus), text, page, **LATEST)


def answered(corpus: Corpus, text: str) -> Iterator[str]:
    """The text with what fires, after a note while the model has yet to be loaded."""
    try:
        if not corpus.model_is_ready:
            yield view("message", LOADING)
        yield view("reading", corpus.read(text))
    except HourglassError as error:
        yield view("message", str(error), "trouble")
