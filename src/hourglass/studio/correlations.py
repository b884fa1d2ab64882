"""Correlations: which concepts go together in documents, as a graph."""

from __future__ import annotations

from typing import Any

import gradio as gr
import networkx as nx
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from hourglass.studio import look
from hourglass.studio.session import Session, Ways, told
from hourglass.uses.explore.correlate import Correlations
from hourglass.uses.explore.find import strengths

SHOWN = 60
"""Pairs of the graph, the strongest."""
DOCUMENTS = 6


def build(session: Session, ways: Ways) -> None:
    look.panel(
        look.page(
            look.hint(
                "Pairs of concepts that are in the same documents more often than chance, and documents of like length, explain. Near names, shared words and concepts that fire on the same tokens are left out."
            )
        )
    )
    with gr.Row(elem_classes="asks"):
        least = gr.Slider(0.1, 0.9, value=0.3, step=0.05, label="Least association (NPMI)", min_width=200)
        run = gr.Button("Look for pairs", variant="primary", min_width=140)
    plot = gr.Plot(show_label=False, visible=False)
    table = look.panel()
    held = look.panel()
    pair, rows = gr.State(None), gr.State(None)

    def looked(npmi: float) -> tuple[Any, str, Any, str]:
        found = session.workspace.correlate(min_npmi=npmi)
        pairs = found.table
        if "same_as" in pairs:
            pairs = pairs[pairs["same_as"].isna()]
        pairs = pairs.head(SHOWN).reset_index(drop=True)
        kept = list(zip(pairs["a"].astype(int).tolist(), pairs["b"].astype(int).tolist()))
        if not len(pairs):
            said = look.page(look.hint("No pair goes together so far."), look.notes(found.notes))
            return gr.Plot(visible=False), said, kept, ""
        return gr.Plot(_graph(pairs), visible=True), _table(found, pairs), kept, ""

    def opened(event: gr.EventData) -> Any:
        told_of = event._data or {}
        return int(told_of["mark"]) if "mark" in told_of else gr.skip()

    def holders(number: int | None, pairs: list[tuple[int, int]] | None) -> str:
        if number is None or not pairs or number >= len(pairs):
            return ""
        both = np.asarray(strengths(session.workspace, list(pairs[number])).todense()).min(axis=1)
        best = np.argsort(-both, kind="stable")[:DOCUMENTS]
        labels = session.workspace.features["label"]
        a, b = (look.escape(look.name(f, labels.iloc[f], 60)) for f in pairs[number])
        return look.page(
            f"<h2>{a} — {b}</h2>",
            look.hint("The documents that have both most."),
            session.documents(best[both[best] > 0]),
        )

    run.click(told(looked), least, [plot, table, rows, held])
    run.click(lambda: None, outputs=pair, show_progress="hidden")
    table.click(opened, outputs=pair, show_progress="hidden")
    pair.change(told(holders), [pair, rows], held)
    for part in (table, held):
        ways.lead_from(part)


def _graph(pairs: pd.DataFrame) -> go.Figure:
    """Concepts as points, larger the more documents have them; pairs as lines, thicker the stronger."""
    graph = nx.Graph()
    for r in pairs.itertuples():
        graph.add_node(int(r.a), label=r.label_a, share=r.frequency_a)
        graph.add_node(int(r.b), label=r.label_b, share=r.frequency_b)
        graph.add_edge(int(r.a), int(r.b), weight=float(r.npmi_matched), documents=int(r.documents))
    # Each connected part is laid out by itself and the parts are packed in rows, or they would drift apart.
    place: dict[int, Any] = {}
    left = top = row = 0.0
    for part in sorted(nx.connected_components(graph), key=len, reverse=True):
        size = np.sqrt(len(part))
        own = nx.spring_layout(graph.subgraph(sorted(part)), seed=0, weight="weight", scale=size / 2)
        if left and left + size > 1.6 * np.sqrt(len(graph)):
            left, top, row = 0.0, top - row - 0.7, 0.0
        place |= {n: xy + (left + size / 2, top - size / 2) for n, xy in own.items()}
        left, row = left + size + 0.9, max(row, size)
    plot = look.figure(height=560)
    for a, b, edge in graph.edges(data=True):
        (x0, y0), (x1, y1) = place[a], place[b]
        plot.add_scatter(
            x=[x0, x1],
            y=[y0, y1],
            mode="lines",
            line={"color": "#cfc7b6", "width": 1 + 5 * max(edge["weight"], 0)},
            hoverinfo="skip",
        )
    nodes = list(graph.nodes(data=True))
    plot.add_scatter(
        x=[place[n][0] for n, _ in nodes],
        y=[place[n][1] for n, _ in nodes],
        mode="markers+text",
        text=[look.escape(look.name(n, own["label"].split(", ")[0], 22)) for n, own in nodes],
        textposition="top center",
        textfont={"size": 12},
        marker={
            "size": [9 + 34 * float(np.sqrt(own["share"])) for _, own in nodes],
            "color": look.ACCENT,
            "opacity": 0.85,
        },
        customdata=[[look.escape(look.name(n, own["label"])), 100 * own["share"]] for n, own in nodes],
        hovertemplate="%{customdata[0]}<br>%{customdata[1]:.1f} % of the documents<extra></extra>",
    )
    plot.update_xaxes(visible=False)
    plot.update_yaxes(visible=False, scaleanchor="x")
    return plot


def _table(found: Correlations, pairs: pd.DataFrame) -> str:
    cells = [
        [
            look.concept(r.a, r.label_a, 44),
            look.concept(r.b, r.label_b, 44),
            f'<a tabindex="0" data-mark="{i}" class="tag">{r.documents:,} documents</a>',
            f"{r.expected:.1f}",
            f"{r.npmi_matched:.2f} ({r.low:.2f} … {r.high:.2f})",
            "&lt; 0.001" if r.q < 0.001 else f"{r.q:.3f}",
        ]
        for i, r in enumerate(pairs.itertuples())
    ]
    said = f"{len(found.table):,} pairs hold, among {found.tested:,} that were tested on {found.documents:,} documents."
    titles = ["One", "The other", "Have both", "By chance", "NPMI (95 %)", "q"]
    return look.page(look.hint(said), look.table(titles, cells, numbers=(2, 3, 4, 5)), look.notes(found.notes))
