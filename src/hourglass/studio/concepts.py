"""Concepts: search them, and see what one stands for."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np
import pandas as pd

from hourglass.studio import look
from hourglass.studio.session import Session, Ways, told
from hourglass.uses.explore.find import strengths
from hourglass.uses.explore.overview import telling

ROWS = 40
"""Concepts of a page of the list."""
DOCUMENTS = 8
ORDERS = {
    "Most telling first": lambda table: telling(table),
    "Most common first": lambda table: table["frequency"],
    "Rarest first": lambda table: -table["frequency"],
    "Best named first": lambda table: table["score"],
}


def build(session: Session, ways: Ways) -> None:
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            search = gr.Textbox(label="Search names", placeholder="a word of the name, or a number")
            with gr.Row():
                order = gr.Dropdown(list(ORDERS), value=next(iter(ORDERS)), label="Order", min_width=150)
                unnamed = gr.Checkbox(label="Also without a name", min_width=120)
            place = gr.State(0)
            listed = look.panel(_list(session, "", next(iter(ORDERS)), False, 0))
            with gr.Row():
                back = gr.Button("Back", size="sm")
                on = gr.Button("More", size="sm")
        with gr.Column(scale=3, min_width=320):
            card = look.panel(look.page(look.hint("Choose a concept on the left, or anywhere else in the studio.")))
    asked = [search, order, unnamed]

    def fresh(text: str, by: str, all_of_them: bool) -> tuple[str, int]:
        return _list(session, text, by, all_of_them, 0), 0

    def moved(step: int) -> Any:
        def move(text: str, by: str, all_of_them: bool, at: int) -> tuple[str, int]:
            last = max(0, len(_table(session, text, by, all_of_them)) - 1) // ROWS
            at = min(max(at + step, 0), last)
            return _list(session, text, by, all_of_them, at), at

        return told(move)

    for part in asked:
        part.change(told(fresh), asked, [listed, place], show_progress="hidden")
    back.click(moved(-1), [*asked, place], [listed, place], show_progress="hidden")
    on.click(moved(1), [*asked, place], [listed, place], show_progress="hidden")
    ways.lead_from(listed)
    ways.lead_from(card)
    ways.concept.change(told(lambda feature: _card(session, feature)), ways.concept, card)


def _table(session: Session, text: str, order: str, unnamed: bool) -> pd.DataFrame:
    table = session.workspace.features
    if not unnamed:
        table = table[table["label"].notna()]
    if text.strip():
        holds = table["label"].fillna("").str.contains(text.strip(), case=False, regex=False)
        table = table[holds | (table.index.astype(str) == text.strip())]
    return table.loc[ORDERS[order](table).sort_values(ascending=False, kind="stable").index]


def _list(session: Session, text: str, order: str, unnamed: bool, place: int) -> str:
    table = _table(session, text, order, unnamed)
    shown = table.iloc[place * ROWS : (place + 1) * ROWS]
    if not len(shown):
        return look.page(look.hint("No concept holds that."))
    most = max(float(table["frequency"].max()), 1e-9)
    rows = [
        (look.concept(f, row.label, 60), row.frequency / most, look.percent(row.frequency))
        for f, row in zip(shown.index.tolist(), shown.itertuples())
    ]
    count = f"{place * ROWS + 1:,} to {place * ROWS + len(shown):,} of {len(table):,}; bars: share of the documents"
    return look.page(look.hint(count), look.bars(rows))


def _card(session: Session, feature: int | None) -> str:
    if feature is None:
        return look.page()
    workspace = session.workspace
    row = workspace.features.loc[feature]
    strength = strengths(workspace, [feature])
    strong = np.asarray(strength.todense()).ravel()
    score = f"name right {look.percent(row['score'])} of the time" if row["score"] == row["score"] else "not scored"
    density = f", active on {100 * row['density']:.2g} % of tokens" if "density" in row else ""
    parts = [
        f'<p class="eyebrow">Concept {feature}</p><h2>{look.escape(look.name(feature, row["label"], 300))}</h2>',
        look.hint(
            f"In {row['documents']:,} documents ({look.percent(row['frequency'])}){density}; {score}. "
            "A document has it when its strongest token passes half of the concept's 90th percentile."
        ),
    ]
    if "histogram" in row and sum(row["histogram"]):
        counts = np.sqrt(np.asarray(row["histogram"], float))
        columns = "".join(f'<i style="height:{100 * c / counts.max():.0f}%"></i>' for c in counts)
        parts += [
            f'<div class="columns" role="img" aria-label="Histogram of activations">{columns}</div>',
            look.hint(f"How strongly it fires, from 0 to {row['max']:.3g}; heights are square roots of counts."),
        ]
    for column, sizes in list(session.groupings.items())[:2]:
        groups, present = session.groups(column), strong > 0.5
        shares = {g: float(present[groups == g].mean()) for g in sizes.index[:12]}
        most = max(*shares.values(), 1e-9)
        parts += [f"<h3>Share of the documents by {look.escape(column)}</h3>"]
        parts += [
            look.bars([(look.escape(g), s / most, look.percent(s)) for g, s in shares.items()], look.GROUP_COLOURS)
        ]
    examples = workspace.examples[workspace.examples["feature"] == feature]
    if len(examples):
        parts += ["<h3>Where it fires</h3>"]
        parts += [look.quote(zip(e.pieces, e.strengths)) for e in examples.itertuples()]
    best = np.argsort(-strong, kind="stable")[:DOCUMENTS]
    best = best[strong[best] > 0]
    parts += ["<h3>The documents that have it most</h3>", session.documents(best)]
    return look.page(*parts)
