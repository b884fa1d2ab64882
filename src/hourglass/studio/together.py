"""Concepts and words that go together in documents, as a graph and as a list."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import Any

import gradio as gr
import numpy as np
import pandas as pd

from hourglass.studio.corpus import Corpus
from hourglass.studio.figures import figure, text_of
from hourglass.studio.shell import BAR, EACH, LATEST, Shell, stages, told
from hourglass.studio.views import colour, send, view
from hourglass.uses.explore import Correlations
from hourglass.uses.explore.correlate import items_in
from hourglass.uses.explore.scores import LEVEL

Array = np.ndarray[Any, Any]

PAIRS, DOCUMENTS = 50, 8


def build(shell: Shell, tab: gr.Tab) -> None:
    corpus = shell.corpus
    gr.HTML(
        view(
            "head",
            "What goes together",
            "Pairs of concepts or words that are found in the same documents more often than documents of like length would have it by chance. Choose a line or a row to read documents with both.",
        )
    )
    with gr.Row(elem_classes=["bar-of-controls"]):
        npmi = gr.Slider(0.1, 0.9, value=0.3, step=0.05, label="Smallest NPMI", min_width=200)
        similar = gr.Checkbox(label="pairs with similar names too", min_width=200)
        apart = gr.Checkbox(label="leave out pairs on the same words (reads documents again)", min_width=240)
        again = gr.Button("Find pairs", variant="primary", min_width=140, scale=0, elem_id="find-pairs")
    graph = shell.figure("Graph of concepts that go together")
    rows = shell.html(elem_id="pairs")
    read = shell.html(elem_id="pair-documents")
    kept = gr.State(None)

    @told(4)
    def found(npmi: float, similar: bool, apart: bool, bar: gr.Progress = BAR) -> tuple[Any, ...]:
        options: dict[str, Any] = {"max_similarity": None} if similar else {}
        if not apart:
            options["max_same_tokens"] = None
        pairs = corpus.correlate(stages(bar), min_npmi=npmi, top=PAIRS, **options)
        # A pair about the same documents as a stronger one says nothing new.
        pairs = replace(pairs, table=pairs.table[pairs.table["same_as"].isna()].reset_index(drop=True))
        return table(pairs), drawn(pairs), "", pairs

    @told(2)
    def picked(pairs: Correlations | None, event: gr.EventData) -> tuple[Any, ...]:
        row = int(event.row)
        if pairs is None or not 0 <= row < len(pairs.table):
            return gr.skip(), gr.skip()
        return documents(corpus, pairs, row), table(pairs, row)

    def at_first(pairs: Correlations | None, npmi: float, similar: bool, apart: bool, bar: gr.Progress = BAR) -> Any:
        return (gr.skip(),) * 4 if pairs is not None else found(npmi, similar, apart, bar)

    outputs = [rows, graph, read, kept]
    # In turn: what was asked for last is shown last.
    in_turn: dict[str, Any] = {"show_progress_on": rows, "concurrency_id": "together", **LATEST}
    again.click(found, [npmi, similar, apart], outputs, **in_turn)
    for place in (rows, graph):
        place.click(picked, kept, [read, rows], show_progress="minimal", **EACH)
    tab.select(at_first, [kept, npmi, similar, apart], outputs, **in_turn)


def table(pairs: Correlations, picked: int = -1) -> str:
    return view("pairs", pairs, list(pairs.table.itertuples()), picked)


def documents(corpus: Corpus, pairs: Correlations, row: int) -> str:
    """Documents that have both of a pair, those first in which the weaker of the two is strong."""
    line = pairs.table.iloc[row]
    both = np.minimum(*(corpus.amount(line[f"kind_{s}"], line[s], line[f"label_{s}"]) for s in ("a", "b")))
    best = np.argsort(-both, kind="stable")[:DOCUMENTS]
    shown = corpus.documents(best[both[best] > LEVEL])
    numbers = [None if line[f"kind_{s}"] == "word" else int(line[s]) for s in ("a", "b")]
    return view("pair", numbers[0], line["label_a"], numbers[1], line["label_b"], shown)


def drawn(pairs: Correlations, across: bool = False) -> str:
    """A node for a concept or word, the larger the more frequent; a line for a pair, with a point to click in its middle.

    Across two texts the same word of either has a node of its own, in the colour of its text; only the first text's concepts have a
    page to lead to.
    """
    import plotly.graph_objects as go

    rows = pairs.table
    if not len(rows):
        return ""
    items = {s: [(across and s == "b", item) for item in items_in(rows, s)] for s in ("a", "b")}
    sides = pd.concat(
        [
            rows[[f"label_{s}", f"frequency_{s}"]].set_axis(["label", "frequency"], axis=1).assign(item=items[s])
            for s in ("a", "b")
        ]
    )
    nodes = sides.drop_duplicates("item").reset_index(drop=True)
    number = {item: i for i, item in enumerate(nodes["item"])}
    ends = np.array([[number[a], number[b]] for a, b in zip(items["a"], items["b"])])
    is_word = [isinstance(item, str) for _, item in nodes["item"]]
    colours = [
        colour(second) if across else "var(--faint)" if word else "var(--accent)"
        for word, (second, _) in zip(is_word, nodes["item"])
    ]
    place = spread(len(nodes), ends)
    traces = []
    for low, high, width in ((-1, 0.4, 1.2), (0.4, 0.6, 2.4), (0.6, 2, 4.2)):
        kept = ends[(rows["npmi_matched"] >= low) & (rows["npmi_matched"] < high)]
        gap = np.full(len(kept), np.nan)
        x, y = (np.column_stack([place[kept[:, 0], axis], place[kept[:, 1], axis], gap]).ravel() for axis in (0, 1))
        line = {"width": width, "color": "var(--faint)"}
        traces.append(go.Scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", opacity=0.55))
    middle = place[ends].mean(1)
    # A name stands on the side of its node on which there are no lines.
    linked = np.bincount(ends.ravel(), minlength=len(nodes))
    around = np.bincount(ends.ravel(), place[ends[:, ::-1], 1].ravel(), minlength=len(nodes)) / linked
    traces.append(
        go.Scatter(
            x=middle[:, 0],
            y=middle[:, 1],
            mode="markers",
            marker={"size": 9, "color": "var(--faint)", "opacity": 0.55},
            hovertext=[
                f"{text_of(r.label_a)}<br>with {text_of(r.label_b)}<br>{r.documents} documents, NPMI {r.npmi_matched:.2f}"
                for r in rows.itertuples()
            ],
            hoverinfo="text",
            customdata=[send(row=i) for i in range(len(rows))],
        )
    )
    traces.append(
        go.Scatter(
            x=place[:, 0],
            y=place[:, 1],
            mode="markers+text",
            marker={
                "size": 10 + 30 * np.sqrt(nodes["frequency"].clip(0, 1)),
                "color": colours,
                "line": {"width": 1.5, "color": "var(--card)"},
            },
            text=[escape(short(label)) for label in nodes["label"]],
            textposition=["bottom center" if below else "top center" for below in place[:, 1] < around],
            hovertext=[
                f"{'word: ' if word else ''}{text_of(n.label)}<br>{100 * n.frequency:.0f} % of documents"
                for word, n in zip(is_word, nodes.itertuples())
            ],
            hoverinfo="text",
            customdata=[
                None if word or second else send(concept=item) for word, (second, item) in zip(is_word, nodes["item"])
            ],
        )
    )
    return figure(traces)


def short(label: str, length: int = 22) -> str:
    """The beginning of a name, to stand beside a node."""
    first = ", ".join(label.removeprefix("topic: ").split(", ")[:2])
    return first if len(first) <= length else first[: length - 1] + "…"


def spread(number: int, ends: Array, steps: int = 300) -> Array:
    """[number, 2] places in which all push each other away, pairs pull, and a weak pull to the middle holds parts together.

    Fruchterman and Reingold (1991), with their cooling.
    """
    random = np.random.default_rng(0)
    place = random.normal(size=(number, 2))
    ideal = 1 / np.sqrt(max(number, 1))
    for step in range(steps):
        away = place[:, None] - place[None]
        distance = np.maximum(np.linalg.norm(away, axis=-1, keepdims=True), 1e-3)
        force = (away * (ideal / distance) ** 2).sum(1) - 0.6 * place
        pull = place[ends[:, 0]] - place[ends[:, 1]]
        pull = pull * np.linalg.norm(pull, axis=-1, keepdims=True) / ideal
        np.add.at(force, ends[:, 0], -pull)
        np.add.at(force, ends[:, 1], pull)
        length = np.maximum(np.linalg.norm(force, axis=-1, keepdims=True), 1e-9)
        place += force / length * np.minimum(length, 0.2 * (1 - step / steps))
    return place
