"""Document, and Live: a text with what fires on each of its tokens."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import gradio as gr
import numpy as np

from hourglass.errors import InputError
from hourglass.studio import look
from hourglass.studio.session import Session, Ways, told
from hourglass.uses.explore.tokens import TokenCodes, token_codes

TOKENS = 1500
"""Tokens of a text that are shown; the rest of a longer one is not read either."""
CHARACTERS = 8 * TOKENS
CONCEPTS = 24
ON_TOKEN = 5


def build_document(session: Session, ways: Ways) -> None:
    with gr.Row(elem_classes="asks"):
        id = gr.Textbox(label="Document", placeholder="an id", scale=3, min_width=180)
        show = gr.Button("Show", scale=1, min_width=90)
        back = gr.Button("Previous", scale=1, min_width=90)
        on = gr.Button("Next", scale=1, min_width=90)
    head = look.panel(look.page(look.hint("Choose a document anywhere in the studio, or name one by its id.")))
    text = gr.State("")
    token = _view(session, text, ways)

    def opened(position: int | None) -> tuple[Any, ...]:
        if position is None:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        columns = [c for c in session.workspace.columns if c != session.workspace.text_column and c != "_row"]
        row = session.workspace.rows([position], [*columns, session.workspace.text_column]).to_pylist()[0]
        facts = "".join(
            look.tag(f"{c}: {_brief(row[c])}") for c in columns if c != "_id" and row[c] is not None and row[c] != ""
        )
        title = f'<p class="eyebrow">Document {position + 1:,} of {len(session.workspace):,}</p>'
        return row[session.workspace.text_column], row["_id"], look.page(title, f"<p>{facts}</p>"), None

    def named(id: str) -> int:
        return int(session.workspace.positions([id.strip()])[0])

    def moved(step: int) -> Any:
        return lambda at: min(max((-1 if at is None else at) + step, 0), len(session.workspace) - 1)

    ways.document.change(told(opened), ways.document, [text, id, head, token])
    for event in (show.click, id.submit):
        event(told(named), id, ways.document)
    back.click(moved(-1), ways.document, ways.document)
    on.click(moved(1), ways.document, ways.document)


def build_live(session: Session, ways: Ways) -> None:
    written = gr.Textbox(
        label="A text of yours", lines=5, placeholder="Type or paste a text and see what fires.", max_lines=14
    )
    read = gr.Button("Read it", variant="primary")
    text = gr.State("")
    token = _view(session, text, ways)

    def given(words: str) -> tuple[str, None]:
        if not words.strip():
            raise InputError("no text: type or paste one")
        return words, None

    gr.on([read.click, written.submit], told(given), written, [text, token])


def _view(session: Session, text: gr.State, ways: Ways) -> gr.State:
    """The text marked token by token, and beside it what fires in it, or on the token that was clicked."""
    chosen, token = gr.State(None), gr.State(None)
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            marked = look.panel()
        with gr.Column(scale=2, min_width=280):
            listed = look.panel()
            clear = gr.Button("Mark everything", size="sm")

    @lru_cache(maxsize=4)
    def read(words: str) -> TokenCodes:
        return token_codes(session.workspace, words)

    def show(words: str, feature: int | None, number: int | None) -> tuple[str, str]:
        if not words:
            return "", ""
        codes = read(words[:CHARACTERS])
        if not len(codes.spans):
            raise InputError("the text holds nothing that the model reads")
        return _marked(session, codes, feature, number, len(words)), _listed(session, codes, feature, number)

    def clicked(event: gr.EventData) -> tuple[Any, Any]:
        told_of = event._data or {}
        return (None, int(told_of["token"])) if "token" in told_of else (gr.skip(), gr.skip())

    def picked(event: gr.EventData) -> Any:
        told_of = event._data or {}
        return int(told_of["mark"]) if "mark" in told_of else gr.skip()

    marked.click(clicked, outputs=[chosen, token], show_progress="hidden")
    listed.click(picked, outputs=chosen, show_progress="hidden")
    clear.click(lambda: (None, None), outputs=[chosen, token], show_progress="hidden")
    gr.on(
        [text.change, chosen.change, token.change],
        told(show),
        [text, chosen, token],
        [marked, listed],
        show_progress="minimal",
    )
    ways.lead_from(listed)
    return token


def _brief(value: Any, length: int = 60) -> str:
    text = str(value)
    return text if len(text) <= length else text[: length - 1] + "…"


def _marked(session: Session, codes: TokenCodes, feature: int | None, token: int | None, length: int) -> str:
    """The text; each token is as dark as its strongest concept, or as the concept that is chosen."""
    if feature is None:
        strength = codes.codes.max(axis=1).toarray().ravel()
        strength = strength / max(float(np.quantile(strength, 0.98)), 1e-6)
    else:
        strength = codes.along(feature)
    labels = session.workspace.features["label"]
    parts = []
    for piece, number in codes.pieces():
        if number < 0:
            parts.append(look.escape(piece))
            continue
        fires = codes.of_token(number)[:ON_TOKEN]
        said = " · ".join(f"{look.name(f, labels.iloc[f], 40)} {s:.1f}" for f, s in fires)
        shade = min(1.0, float(strength[number])) * (0.85 if feature is not None else 0.45)
        style = f"--s:{shade:.2f}" if shade > 0.05 else "background:none"
        is_chosen = ' class="chosen"' if number == token else ""
        parts.append(
            f'<mark data-token="{number}"{is_chosen} style="{style}" title="{look.escape(said)}">{look.escape(piece)}</mark>'
        )
    what = "each token as its strongest concept" if feature is None else look.name(feature, labels.iloc[feature])
    cut = f" Only its beginning, of {length:,} characters." if length > len(codes.text) else ""
    return look.page(
        look.hint(f"Marked: {what}. Click a token to see what fires on it.{cut}"),
        f'<div class="text" dir="auto">{"".join(parts)}</div>',
    )


def _listed(session: Session, codes: TokenCodes, feature: int | None, token: int | None) -> str:
    labels = session.workspace.features["label"]
    if token is not None and token < len(codes.spans):
        start, stop = codes.spans[token].tolist()
        title, fires = f"On “{look.escape(codes.text[start:stop])}”", codes.of_token(token)
    else:
        title, fires = "In the whole text", codes.strongest()
    named = [(f, s) for f, s in fires if isinstance(labels.iloc[f], str)]
    unnamed = len(fires) - len(named)
    shown = named[:CONCEPTS]
    most = max([s for _, s in shown], default=1)
    rows = [
        (
            f'{look.concept(f, labels.iloc[f], 50)} <a tabindex="0" class="tag" data-mark="{f}">mark</a>',
            s / most,
            f"{s:.1f}",
        )
        for f, s in shown
    ]
    rest = f"Numbers: activation over the concept's 90th percentile. {unnamed:,} without a name are not listed."
    return look.page(f"<h3>{title}</h3>", look.bars(rows), look.hint(rest))
