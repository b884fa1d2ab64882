"""What goes together across two texts of the same documents: pairs, what all of one text predicts of the other, documents alike in both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from hourglass.studio.corpus import Corpus
from hourglass.studio.shell import BAR, EACH, LATEST, Shell, stages, told
from hourglass.studio.together import DOCUMENTS, PAIRS, drawn
from hourglass.studio.views import view
from hourglass.uses.explore import Correlations
from hourglass.uses.explore.scores import LEVEL
from hourglass.uses.progress import Report

Array = np.ndarray[Any, Any]

ROWS, NAMES = 30, 4
"""Of what is predicted, and of groups, at most; names that tell what a row is about."""


@dataclass(frozen=True)
class Across:
    """What was found in two texts called `a` and `b`, as it is shown.

    rows   by part, "pairs", "predicted" and "alike", a row of its table each; "positions" are those of documents to read, the most
           typical first
    pairs  those that are shown, for their graph and their documents
    notes  what a reader has to know
    """

    a: str
    b: str
    rows: dict[str, list[dict[str, Any]]]
    pairs: Correlations
    notes: list[str]


def compared(corpus: Corpus, other: Corpus, progress: bool | Report = False, **options: Any) -> Across:
    """As `correlate` compares two texts; of what is about the same thing one row."""
    found = corpus.correlate(progress, other=other.workspace, top=PAIRS, **options)
    predicted, alike = found.predicted, found.alike_in_both
    assert predicted is not None and alike is not None
    a, b = names(corpus, other)
    pairs = found.table[found.table["same_as"].isna()]
    named = pairs[pairs["label_a"].notna() & pairs["label_b"].notna()].reset_index(drop=True)
    notes = list(found.notes)
    if len(named) < len(pairs):
        notes.append(
            f"{len(pairs) - len(named):,} more pairs have a feature without a name: `hourglass correlate` lists them."
        )
    of_items, of_groups = predicted.table[predicted.table["same_as"].isna()].head(ROWS), alike.table.head(ROWS)
    rows = {
        "pairs": named.to_dict("records"),
        "predicted": [
            {
                **row,
                "of": a if row["side"] == "a" else b,
                "name": row["label"] if isinstance(row["label"], str) else _unnamed(row),
                "speaks_for": _some(predicted.speaks_for(at)),
                "positions": row["typical"],
            }
            for at, row in zip(of_items.index, of_items.to_dict("records"))
        ],
        "alike": [
            {**row, "has_a": _some(alike.has(at, 0)), "has_b": _some(alike.has(at, 1))}
            for at, row in zip(of_groups.index, of_groups.to_dict("records"))
        ],
    }
    # Directions are large, and what is shown is kept for as long as the page is open.
    return Across(a, b, rows, replace(found, table=named, predicted=None, alike_in_both=None), notes)


def names(corpus: Corpus, other: Corpus) -> tuple[str, str]:
    """Of the two texts: those of their folders, with where these are if they are called the same."""
    a, b = (Path(each.workspace.folder).resolve() for each in (corpus, other))
    return (a.name, b.name) if a.name != b.name else (str(a), str(b))


def documents(corpus: Corpus, other: Corpus, across: Across, part: str, row: int) -> str:
    """Both texts of documents that have what a row is about."""
    line = across.rows[part][row]
    if part == "pairs":
        at = across.pairs.rows, across.pairs.other_rows
        both = np.minimum(
            *(
                of.amount(line[f"kind_{s}"], line[s], line[f"label_{s}"])[own]
                for of, s, own in zip((corpus, other), ("a", "b"), at)
            )
        )
        best = np.argsort(-both, kind="stable")[:DOCUMENTS]
        positions = at[0][best[both[best] > LEVEL]]
    else:
        positions = np.array(line["positions"][:DOCUMENTS], np.int64)
    own = corpus.documents(positions)
    others = other.documents(other.workspace.positions([document.id for document in own]))
    return view("both_texts", across, list(zip(own, others)))


def build(shell: Shell, tab: gr.Tab) -> None:
    assert shell.other is not None
    corpus, other = shell.corpus, shell.other
    a, b = names(corpus, other)
    gr.HTML(
        view(
            "head",
            "What goes together in two texts",
            f"What documents have in {a} and in {b} more often than documents of like length would have it by chance. "
            "Choose a line or a row to read both texts.",
        )
    )
    with gr.Row(elem_classes=["bar-of-controls"]):
        npmi = gr.Slider(0.1, 0.9, value=0.2, step=0.05, label="Smallest NPMI of a pair", min_width=200)
        again = gr.Button("Compare", variant="primary", min_width=140, scale=0, elem_id="compare-texts")
    shell.html(view("legend", [a, b]))
    graph = shell.figure("Graph of what goes together in two texts")
    rows = shell.html(elem_id="across")
    read = shell.html(elem_id="across-documents")
    kept = gr.State(None)

    @told(4)
    def found(npmi: float, bar: gr.Progress = BAR) -> tuple[Any, ...]:
        across = compared(corpus, other, stages(bar), min_npmi=npmi)
        first = next((part for part, lines in across.rows.items() if lines), "pairs")
        return view("across", across, first, -1), drawn(across.pairs, across=True), "", across

    @told(2)
    def picked(across: Across | None, event: gr.EventData) -> tuple[Any, ...]:
        sent = event._data
        part, row = sent.get("part", "pairs"), int(sent.get("row", -1))  # a line of the graph is a pair
        if across is None or part not in across.rows or row >= len(across.rows[part]):
            return gr.skip(), gr.skip()
        return documents(corpus, other, across, part, row) if row >= 0 else "", view("across", across, part, row)

    def at_first(across: Across | None, npmi: float, bar: gr.Progress = BAR) -> Any:
        return (gr.skip(),) * 4 if across is not None else found(npmi, bar)

    outputs = [rows, graph, read, kept]
    # In turn: what was asked for last is shown last.
    in_turn: dict[str, Any] = {"show_progress_on": rows, "concurrency_id": "across", **LATEST}
    again.click(found, npmi, outputs, **in_turn)
    for place in (rows, graph):
        place.click(picked, kept, [read, rows], show_progress="minimal", **EACH)
    tab.select(at_first, [kept, npmi], outputs, **in_turn)


def _unnamed(row: dict[str, Any]) -> str:
    return f"feature {row['feature']}" if row["kind"] == "feature" else "(no name)"


def _some(names: list[str]) -> str:
    return "; ".join(names[:NAMES]) or "nothing that has a name"
