"""Map: the documents in two dimensions; what a lasso catches is listed, and what sets it apart."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from hourglass.errors import InputError
from hourglass.studio import look
from hourglass.studio.session import Session, Ways, told
from hourglass.uses.explore.find import strengths

DOCUMENTS = 12
CONCEPTS = 12
GROUPS = len(look.GROUP_COLOURS)
SNIPPET = 90

LASSO = """
() => {
  // Plotly says what was selected to the page alone: the box that Python reads is told.
  const hear = () => {
    const plot = document.querySelector('#atlas .js-plotly-plot');
    if (!plot || !plot.on || plot.dataset.heard) return;
    plot.dataset.heard = 'yes';
    plot.on('plotly_selected', caught => {
      const box = document.querySelector('#caught textarea, #caught input');
      if (!box) return;
      const points = caught ? caught.points.map(point => point.customdata[0]) : [];
      const set = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(box), 'value').set;
      set.call(box, JSON.stringify(points));
      box.dispatchEvent(new Event('input', {bubbles: true}));
    });
  };
  setInterval(hear, 500);
}
"""


def build(session: Session, ways: Ways) -> None:
    places = pd.read_parquet(session.workspace.folder / "map.parquet")
    if not len(places):
        look.panel(look.page(look.hint("Too few documents for a map.")))
        return
    positions = places["position"].to_numpy()
    points = _points(session, places)
    few = f" {len(places):,} of them, drawn at random." if len(places) < len(session.workspace) else ""
    look.panel(
        look.page(
            look.hint(
                f"A point is a document; neighbours say similar things.{few} Draw around some to see what they are."
            )
        )
    )
    with gr.Row():
        columns = list(session.groupings)
        by = gr.Dropdown(columns, value=columns[0] if columns else None, label="Colour by group", min_width=180)
        concept = gr.Dropdown(
            [("none", -1), *session.names[:400]], value=-1, label="or by how strongly a concept fires", min_width=240
        )
    first = columns[0] if columns else None
    plot = gr.Plot(_coloured(session, points, first, -1), show_label=False, elem_id="atlas")
    caught = gr.Textbox(elem_id="caught", visible="hidden")
    told_of = look.panel()

    def coloured(column: str | None, feature: int) -> go.Figure:
        return _coloured(session, points, column, feature)

    def described(numbers: str) -> str:
        inside = np.zeros(len(positions), bool)
        for number in json.loads(numbers or "[]"):
            if not (isinstance(number, int) and 0 <= number < len(positions)):
                raise InputError("the map has changed; draw again")
            inside[number] = True
        if not inside.any():
            return ""
        shown = positions[inside]
        parts = [f"<h2>{inside.sum():,} documents</h2>"]
        apart = _apart(session, positions, inside)
        if apart:
            parts += [
                look.hint("What sets them apart: share of them that have a concept, and of all others on the map.")
            ]
            parts += [look.table(["Concept", "these", "others"], apart, numbers=(1, 2))]
        parts += [f"<h3>Some of them</h3>{session.documents(shown[:DOCUMENTS])}"]
        return look.page(*parts)

    for part in (by, concept):
        part.change(told(coloured), [by, concept], plot)
    caught.input(told(described), caught, told_of)
    ways.lead_from(told_of)


def _points(session: Session, places: pd.DataFrame) -> pd.DataFrame:
    """A row a point: x, y, position, snippet (HTML)."""
    rows = session.workspace.rows(places["position"].tolist(), [session.workspace.text_column])
    texts = (" ".join((text or "")[: 4 * SNIPPET].split())[:SNIPPET] for text in rows.column(0).to_pylist())
    return places.assign(snippet=[look.escape(text) for text in texts])


def _coloured(session: Session, points: pd.DataFrame, by: str | None, feature: int) -> go.Figure:
    plot = look.figure(height=560, dragmode="lasso")
    size = float(np.clip(160 / np.sqrt(len(points)), 4, 9))
    positions = points["position"].to_numpy()

    def draw(rows: Any, marker: dict[str, Any], name: str = "") -> None:
        part = points.iloc[rows]
        plot.add_scattergl(
            x=part["x"],
            y=part["y"],
            mode="markers",
            name=look.escape(name),
            marker={"size": size, "opacity": 0.8, **marker},
            customdata=list(zip(map(int, rows), part["snippet"])),
            hovertemplate="%{customdata[1]}<extra>" + look.escape(name) + "</extra>",
            selected={"marker": {"opacity": 1}},
            unselected={"marker": {"opacity": 0.15}},
        )

    if feature >= 0:
        strong = np.asarray(strengths(session.workspace, [feature]).todense()).ravel()[positions]
        order = np.argsort(strong, kind="stable")
        shade = {"color": np.clip(strong[order], 0, 1), "colorscale": look.RAMP, "cmin": 0, "cmax": 1}
        draw(order, {**shade, "showscale": True, "colorbar": {"title": "strength", "thickness": 10}})
    elif by:
        groups = session.groups(by)[positions]
        largest = [str(g) for g in session.groupings[by].index[:GROUPS]]
        for group, colour in zip(largest, look.GROUP_COLOURS):
            draw(np.flatnonzero(groups == group), {"color": colour}, group)
        others = np.flatnonzero(~np.isin(groups.astype(str), largest))
        if len(others):
            draw(others, {"color": look.OTHER}, "others")
        plot.update_layout(showlegend=True, legend={"orientation": "h", "y": -0.02})
    else:
        draw(np.arange(len(points)), {"color": look.ACCENT})
    plot.update_xaxes(visible=False)
    plot.update_yaxes(visible=False, scaleanchor="x")
    return plot


def _apart(session: Session, positions: Any, inside: Any) -> list[list[str]]:
    """Of the most telling concepts, those more frequent in the selection than on the rest of the map."""
    features = [feature for _, feature in session.names[:400]]
    if not features or inside.all():
        return []
    present = (strengths(session.workspace, features)[positions] > 0.5).astype(np.float32)
    here = np.asarray(present[np.flatnonzero(inside)].mean(axis=0)).ravel()
    there = np.asarray(present[np.flatnonzero(~inside)].mean(axis=0)).ravel()
    best = np.argsort(there - here, kind="stable")[:CONCEPTS]
    return [
        [look.concept(features[i], session.names[i][0]), look.percent(here[i]), look.percent(there[i])]
        for i in best
        if here[i] > there[i]
    ]
