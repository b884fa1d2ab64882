"""Differences: how the groups of a column differ, with intervals."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from hourglass.errors import InputError
from hourglass.studio import look
from hourglass.studio.session import Session, Ways, told
from hourglass.uses.explore.diff import Difference
from hourglass.uses.explore.find import strengths

REST = "(all others)"
ROWS = 24
DOCUMENTS = 5


def build(session: Session, ways: Ways) -> None:
    columns = list(session.groupings)
    if not columns:
        look.panel(look.page(look.hint("No column of this corpus groups its documents (2 to 60 values).")))
        return
    groups = [str(g) for g in session.groupings[columns[0]].index]
    with gr.Row(elem_classes="asks"):
        by = gr.Dropdown(columns, value=columns[0], label="Column", min_width=150)
        a = gr.Dropdown(groups, value=groups[0], label="Group", min_width=150)
        b = gr.Dropdown([*groups, REST], value=groups[1] if len(groups) == 2 else REST, label="Against", min_width=150)
        matched = gr.Checkbox(label="Documents of equal length", min_width=150)
        compare = gr.Button("Compare", variant="primary", min_width=120)
    plot = gr.Plot(show_label=False, visible=False)
    table = look.panel()
    held = look.panel()
    chosen = gr.State(None)

    def regrouped(column: str) -> tuple[Any, Any]:
        names = [str(g) for g in session.groupings[column].index]
        second = names[1] if len(names) == 2 else REST
        return gr.Dropdown(names, value=names[0]), gr.Dropdown([*names, REST], value=second)

    def compared(column: str, first: str, second: str, match: bool) -> tuple[Any, str, str]:
        if first == second:
            raise InputError(f"{first!r} is named twice; choose two groups")
        found = session.workspace.diff(column, first, None if second == REST else second, match_length=match)[0]
        rows = _rows(found)
        if not len(rows):
            return (
                gr.Plot(visible=False),
                look.page(look.hint("Nothing differs at q 0.05."), look.notes(found.notes)),
                "",
            )
        return gr.Plot(_plot(found, rows), visible=True), _table(found, rows), ""

    def opened(event: gr.EventData) -> Any:
        told_of = event._data or {}
        return int(told_of["mark"]) if "mark" in told_of else gr.skip()

    def holders(feature: int | None, column: str, first: str, second: str) -> str:
        if feature is None:
            return ""
        label = session.workspace.features["label"].iloc[feature]
        strong = np.asarray(strengths(session.workspace, [feature]).todense()).ravel()
        of = session.groups(column)
        parts = [f"<h2>{look.escape(look.name(feature, label))}</h2>"]
        for title, inside in ((first, of == first), (second, of != first if second == REST else of == second)):
            rows = np.flatnonzero(inside & (strong > 0))
            best = rows[np.argsort(-strong[rows], kind="stable")][:DOCUMENTS]
            parts += [
                f"<h3>Strongest in {look.escape(title)}</h3>",
                session.documents(best) or look.hint("None has it."),
            ]
        return look.page(*parts)

    by.change(regrouped, by, [a, b])
    compare.click(told(compared), [by, a, b, matched], [plot, table, held])
    compare.click(lambda: None, outputs=chosen, show_progress="hidden")
    table.click(opened, outputs=chosen, show_progress="hidden")
    chosen.change(told(holders), [chosen, by, a, b], held)
    for part in (table, held):
        ways.lead_from(part)


def _rows(found: Difference) -> pd.DataFrame:
    """Half concepts, half words, those with a name that stand for themselves; the most different first."""
    table = found.table[found.table["label"].notna()]
    if "same_as" in table:
        table = table[table["same_as"].isna()]
    rows = pd.concat([table[table["kind"] == kind].head(ROWS // 2) for kind in ("feature", "word")])
    return rows.loc[rows["difference"].abs().sort_values(ascending=False, kind="stable").index]


def _title(row: Any, length: int) -> str:
    return look.name(0, row.label, length) + (" (word)" if row.kind == "word" else "")


def _plot(found: Difference, rows: pd.DataFrame) -> go.Figure:
    plot = look.figure(height=60 + 24 * len(rows))
    labels = [
        f"{look.escape(_title(r, 38))}<span style='display:none'>{i}</span>" for i, r in enumerate(rows.itertuples())
    ]
    middle = 100 * rows["difference"].to_numpy()
    plot.add_scatter(
        x=middle,
        y=list(range(len(rows))),
        error_x={
            "type": "data",
            "symmetric": False,
            "array": 100 * rows["high"].to_numpy() - middle,
            "arrayminus": middle - 100 * rows["low"].to_numpy(),
            "thickness": 1.5,
            "width": 0,
        },
        mode="markers",
        marker={"size": 9, "color": [look.ACCENT if d > 0 else look.DOWN for d in middle]},
        customdata=[[look.escape(_title(r, 90)), 100 * r.frequency_a, 100 * r.frequency_b] for r in rows.itertuples()],
        hovertemplate="%{customdata[0]}<br>%{customdata[1]:.1f} % against %{customdata[2]:.1f} %<extra></extra>",
    )
    plot.add_vline(x=0, line_color=look.LINE)
    plot.update_yaxes(
        tickvals=list(range(len(rows))), ticktext=labels, autorange="reversed", automargin=True, gridcolor="#f3efe7"
    )
    title = f"points of a hundred more often in {found.b} ←   → in {found.a}"
    plot.update_xaxes(title=look.escape(title), zeroline=False, gridcolor="#f3efe7", ticksuffix=" ")
    plot.update_layout(margin={"b": 50})
    return plot


def _table(found: Difference, rows: pd.DataFrame) -> str:
    cells = []
    for r in rows.itertuples():
        if r.kind == "word":
            title, more = f"{look.escape(r.label)} {look.tag('word')}", ""
        else:
            title = look.concept(r.feature, r.label, 70)
            more = f'<a tabindex="0" class="tag" data-mark="{int(r.feature)}">documents</a>'
        interval = f"{100 * r.difference:+.0f} ({100 * r.low:+.0f} … {100 * r.high:+.0f})"
        q = "&lt; 0.001" if r.q < 0.001 else f"{r.q:.3f}"
        cells.append([title + more, look.percent(r.frequency_a), look.percent(r.frequency_b), interval, q])
    sizes = f"{found.documents[0]:,} and {found.documents[1]:,} documents"
    said = (
        f"{found.a} against {found.b}, {sizes}. Half of the documents chose these rows, the other half, which had no say, "
        "gave the numbers (where there are enough to split)."
    )
    titles = ["Concept or word", found.a, found.b, "Difference (95 %)", "q"]
    return look.page(look.hint(said), look.table(titles, cells, numbers=(1, 2, 3, 4)), look.notes(found.notes))
