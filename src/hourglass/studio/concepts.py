"""Every concept that has a name: how common it is, how strongly it fires, where, and in which documents most."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np

from hourglass.studio.corpus import Corpus
from hourglass.studio.shell import EACH, LATEST, Shell, told
from hourglass.studio.views import percent, view
from hourglass.uses.explore.scores import LEVEL

ROWS, EXAMPLES, DOCUMENTS = 30, 8, 12
ORDERS = [
    ("Most telling first", "telling"),
    ("Most common first", "common"),
    ("Rarest first", "rare"),
    ("By name", "name"),
]


def build(shell: Shell, tab: gr.Tab) -> None:
    corpus = shell.corpus
    gr.HTML(
        view("head", "Concepts", "What the model notices again and again in this corpus, by a name that was tested.")
    )
    with gr.Row():
        with gr.Column(scale=4, min_width=300):
            search = gr.Textbox("", placeholder="Search names, or a number", show_label=False, elem_id="concept-search")
            order = gr.Dropdown(ORDERS, value="telling", show_label=False, elem_id="concept-order")
            start = gr.State(0)
            rows = shell.html(elem_id="concept-list")
        with gr.Column(scale=7, min_width=320):
            sheet = shell.html(elem_id="concept-sheet")

    @told()
    def listed(search: str, order: str, start: int, chosen: int | None) -> str:
        table = corpus.named(search, order)
        start = min(max(0, start), max(0, len(table) - 1))
        shown = table.iloc[start : start + ROWS].reset_index()
        return view("concepts", list(shown.itertuples()), start, len(table), chosen)

    def clicked(chosen: int | None, event: gr.EventData) -> tuple[Any, Any]:
        sent = event._data
        return (corpus.check(sent["pick"]), gr.skip()) if "pick" in sent else (gr.skip(), int(sent["start"]))

    def opened(search: str, order: str, chosen: int | None) -> tuple[str, Any]:
        table = corpus.named(search, order)
        first = int(table.index[0]) if chosen is None and len(table) else gr.skip()
        return listed(search, order, 0, chosen), first

    asked = [search, order, start, shell.concept]
    quiet = {"show_progress": "hidden", **LATEST}
    rows.click(clicked, shell.concept, [shell.concept, start], show_progress="hidden", **EACH)
    gr.on([search.change, order.change], lambda: 0, None, start, **quiet).then(listed, asked, rows, **quiet)
    start.change(listed, asked, rows, **quiet)
    shell.concept.change(listed, asked, rows, **quiet)
    shell.concept.change(told()(lambda chosen: sheet_of(corpus, chosen)), shell.concept, sheet, **LATEST)
    tab.select(opened, [search, order, shell.concept], [rows, shell.concept], **quiet)


def sheet_of(corpus: Corpus, feature: int | None) -> str:
    """All of one concept."""
    if feature is None:
        return ""
    feature = corpus.check(feature)
    row, strength = corpus.workspace.features.iloc[feature], corpus.strength(feature)
    facts = [
        (percent(row["frequency"]), "of documents have it"),
        *([(percent(row["density"]), "of tokens fire")] if "density" in row else []),
        (f"{int(row['documents']):,}", "documents"),
        *([(percent(row["score"]), "of contexts its name guesses right")] if row["score"] == row["score"] else []),
    ]
    by, shares, groups = corpus.by, [], []
    if by:
        groups = corpus.groupings.get(by, [])[:8]
        column = corpus.column(by)
        shares = [float((strength[column == group] > LEVEL).mean()) for group in groups]
    examples = corpus.workspace.examples
    examples = examples[examples["feature"] == feature].head(EXAMPLES)
    shown = [
        {"document": e.document, "pieces": list(zip(e.pieces, map(float, e.strengths)))} for e in examples.itertuples()
    ]
    best = np.argsort(-strength, kind="stable")[:DOCUMENTS]
    best = best[strength[best] > 0]
    documents = corpus.documents(best, [f"{strength[p]:.1f} × usual" for p in best])
    return view("concept", feature, corpus.label(feature), facts, bars(row), shares, groups, by or "", shown, documents)


def bars(row: Any) -> list[tuple[float, str]]:
    """Heights in percent, on a scale of logarithms, and what each bar says."""
    counts = np.asarray(row.get("histogram", ()), np.float64)
    if not counts.sum():
        return []
    height, step = 100 * np.log1p(counts) / np.log1p(counts.max()), row["max"] / len(counts)
    return [
        (float(h), f"{int(c):,} tokens between {i * step:.2g} and {(i + 1) * step:.2g}")
        for i, (h, c) in enumerate(zip(height, counts))
    ]
