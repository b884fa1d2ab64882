"""A map of the documents: neighbours say similar things. What is inside a lasso is listed, and described by its concepts."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

import gradio as gr
import numpy as np
import pandas as pd

from hourglass.studio.corpus import Corpus
from hourglass.studio.figures import figure, text_of
from hourglass.studio.shell import EACH, LATEST, Shell, told
from hourglass.studio.views import colour, send, view
from hourglass.uses.explore.overview import strongest
from hourglass.uses.explore.scores import LEVEL, feature_counts, strengths

Array = np.ndarray[Any, Any]

GROUPS, CONCEPTS, ROWS, DOCUMENTS = 12, 60, 12, 10


def build(shell: Shell, tab: gr.Tab) -> None:
    corpus = shell.corpus
    places = (
        pd.read_parquet(corpus.workspace.folder / "map.parquet")
        if (corpus.workspace.folder / "map.parquet").is_file()
        else None
    )
    gr.HTML(
        view(
            "head",
            "A map of the documents",
            "A point is a document; neighbours say similar things. Draw around some to see what they have in common; click one to read it.",
        )
    )
    if places is None or not len(places):
        gr.HTML(view("message", "This workspace has no map: there are too few documents.", "empty"))
        return
    if len(places) < len(corpus):
        gr.HTML(view("message", f"{len(places):,} of {len(corpus):,} documents, drawn at random."))
    best = strongest(corpus.workspace.features).head(CONCEPTS)
    colours = [
        *((f"by {column}", f"column:{column}") for column in corpus.groupings),
        *((str(label), f"concept:{feature}") for feature, label in best["label"].items()),
    ]
    with gr.Row():
        with gr.Column(scale=7, min_width=320):
            by = gr.Dropdown(colours, value=colours[0][1] if colours else None, label="Colour", elem_id="map-colour")
            points = shell.figure("Map of the documents")
        with gr.Column(scale=4, min_width=300):
            chosen = shell.html(view("message", "Nothing is selected yet."), elem_id="map-selection")

    @told()
    def described(event: gr.EventData) -> str:
        positions = np.array(sorted({corpus.check_position(p) for p in event.documents}), np.int64)
        return selection(corpus, positions) if len(positions) else view("message", "Nothing is selected yet.")

    points.click(described, None, chosen, show_progress="minimal", **EACH)
    by.input(lambda by: drawn(corpus, places, by), by, points, show_progress="hidden", **LATEST)
    tab.select(lambda by: drawn(corpus, places, by), [by], [points], **LATEST)


def drawn(corpus: Corpus, places: pd.DataFrame, by: str | None) -> str:
    """The points, coloured by the groups of a column or by how strong a concept is."""
    import plotly.graph_objects as go

    positions = places["position"].to_numpy()
    documents = corpus.documents(positions)
    hover = [
        f"<b>{text_of(d.id)}</b>{' · ' + text_of(d.group) if d.group else ''}<br>{'<br>'.join(wrap(text_of(d.text[:160]), 48))}"
        for d in documents
    ]
    messages = [send(document=int(p)) for p in positions]
    size = float(np.clip(160 / np.sqrt(len(positions)), 4, 9))

    def points(rows: Array, name: str, marker: dict[str, Any]) -> Any:
        return go.Scattergl(
            x=places["x"].to_numpy()[rows],
            y=places["y"].to_numpy()[rows],
            mode="markers",
            name=text_of(name),
            marker={"size": size, "opacity": 0.85, **marker},
            hovertext=[hover[i] for i in rows],
            hoverinfo="text",
            customdata=[messages[i] for i in rows],
            unselected={"marker": {"opacity": 0.15}},
        )

    kind, _, what = (by or "").partition(":")
    if kind == "concept":
        strength = np.clip(corpus.strength(int(what))[positions], 0, 1)
        rows = np.argsort(strength, kind="stable")  # the strong on top
        marker = {
            "color": strength[rows],
            "colorscale": [[0, "var(--track)"], [0.3, "var(--faint)"], [1, "var(--down)"]],
            "cmin": 0,
            "cmax": 1,
        }
        return figure([points(rows, corpus.label(int(what)), marker)], "lasso")
    if kind != "column":
        return figure([points(np.arange(len(positions)), "", {"color": colour(0)})], "lasso")
    of, names = corpus.column(what)[positions], corpus.groupings[what][:GROUPS]
    rest = ~np.isin(of.astype(str), names)
    traces = [points(np.flatnonzero(rest), "others", {"color": colour(-1)})] * bool(rest.any())
    traces += [points(np.flatnonzero(of == name), name, {"color": colour(i)}) for i, name in enumerate(names)]
    return figure(traces, "lasso", legend=True)


def selection(corpus: Corpus, positions: Array) -> str:
    """What the documents at these positions have more often than the corpus, and some of them."""
    table = corpus.workspace.features
    here = feature_counts(corpus.workspace, positions) / len(positions)
    everywhere = table["documents"].to_numpy() / len(corpus)
    # Each concept's part of the relative entropy between the selection and the corpus.
    gain = here * np.log(np.maximum(here, 1e-9) / np.maximum(everywhere, 1e-9))
    gain = np.where(table["label"].notna(), gain * (1 - table["common"].to_numpy()), -1)
    names = table.loc[np.argsort(-gain, kind="stable"), "label"].dropna()
    best = [int(f) for f in names[~names.duplicated()].index[:ROWS] if here[f] > everywhere[f] + 0.02]
    rows = [(f, corpus.label(f), float(here[f]), float(everywhere[f])) for f in best]
    # Those first that have most of what the selection has.
    typical = (
        np.asarray((strengths(corpus.workspace, best)[positions] > LEVEL).sum(1)).ravel()
        if best
        else np.zeros(len(positions))
    )
    positions = positions[np.argsort(-typical, kind="stable")]
    return view("selection", len(positions), len(corpus), rows, corpus.documents(positions[:DOCUMENTS]))
