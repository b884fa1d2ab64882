"""How groups of documents differ: what one has more often than the other, with intervals, and documents to read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np

from hourglass.errors import InputError
from hourglass.studio.corpus import Corpus
from hourglass.studio.shell import EACH, LATEST, Shell, told
from hourglass.studio.views import view
from hourglass.uses.explore.diff import REST, Difference
from hourglass.uses.explore.overview import readable
from hourglass.uses.explore.scores import LEVEL
from hourglass.uses.explore.together import Together

ROWS, DOCUMENTS = 40, 6
TOGETHER = -1
"""The "row" that asks for the documents that all rows together put furthest apart."""


def build(shell: Shell, tab: gr.Tab) -> None:
    corpus = shell.corpus
    gr.HTML(
        view(
            "head",
            "How groups differ",
            "The share of documents in which each concept or word is found, and the difference with an interval that allows for how many were looked at. At most 5 % of these rows are to be expected by chance.",
        )
    )
    columns = list(corpus.groupings)
    if not columns:
        gr.HTML(view("message", "No column of this corpus holds two groups of five documents or more.", "empty"))
        return
    groups = corpus.groupings[columns[0]]
    with gr.Row(elem_classes=["bar-of-controls"]):
        by = gr.Dropdown(columns, value=columns[0], label="Column", min_width=150)
        a = gr.Dropdown(groups, value=groups[0], label="Group", min_width=150, elem_id="group-a")
        b = gr.Dropdown(
            [REST, *groups],
            value=REST if len(groups) > 2 else groups[1],
            label="against",
            min_width=150,
            elem_id="group-b",
        )
        like_length = gr.Checkbox(label="documents of like length only", min_width=150)
        compare = gr.Button("Compare", variant="primary", min_width=120, scale=0, elem_id="compare")
    rows = shell.html(elem_id="differences")
    read = shell.html(elem_id="difference-documents")
    kept = gr.State(None)

    def choices(by: str) -> tuple[Any, Any]:
        groups = corpus.groupings[by]
        return gr.Dropdown(groups, value=groups[0]), gr.Dropdown(
            [REST, *groups], value=REST if len(groups) > 2 else groups[1]
        )

    @told(3)
    def compared(by: str, a: str, b: str, like_length: bool) -> tuple[Any, ...]:
        if a == b:
            raise InputError(f"group {a!r} does not differ from itself; choose two groups")
        found = corpus.workspace.diff(by, a, None if b == REST else b, match_length=like_length)[0]
        return table(found), "", found

    @told(2)
    def picked(found: Difference | None, event: gr.EventData) -> tuple[Any, ...]:
        row = int(event.row)
        if found is not None and found.together is not None and row == TOGETHER:
            return typical(corpus, found, found.together), table(found)
        if found is None or not 0 <= row < len(readable(found.table, ROWS)):
            return gr.skip(), gr.skip()
        return sides(corpus, found, row), table(found, row)

    def at_first(found: Difference | None, *asked: Any) -> Any:
        return (gr.skip(),) * 3 if found is not None else compared(*asked)

    asked = [by, a, b, like_length]
    by.input(choices, by, [a, b], show_progress="hidden", **LATEST)
    # In turn: what was asked for last is shown last.
    in_turn = {"concurrency_id": "differences", **LATEST}
    compare.click(compared, asked, [rows, read, kept], **in_turn)
    rows.click(picked, kept, [read, rows], show_progress="minimal", **EACH)
    tab.select(at_first, [kept, *asked], [rows, read, kept], **in_turn)


def table(found: Difference, picked: int = -1) -> str:
    rows = list(readable(found.table, ROWS).itertuples())
    reach = max([0.1, *(abs(end) for r in rows for end in (r.low, r.high))])
    given = SimpleNamespace(
        notes=found.notes,
        a=found.a,
        b=found.b,
        documents_a=found.documents[0],
        documents_b=found.documents[1],
        rows=rows,
        reach=reach,
        together=found.together.sentences(found.a, found.b) if found.together is not None else [],
    )
    return view("differences", given, picked)


def typical(corpus: Corpus, found: Difference, together: Together) -> str:
    """Documents of both groups that are furthest to either side, by all that was tested."""
    ends = ((found.a, together.typical_a), (found.b, together.typical_b))
    return view("ends", [(f"most like {name}", corpus.documents(np.array(at))) for name, at in ends])


def sides(corpus: Corpus, found: Difference, row: int) -> str:
    """Documents of both groups that have what the row is about."""
    line, groups = readable(found.table, ROWS).iloc[row], corpus.column(found.by)
    feature = None if line["kind"] == "word" else int(line["feature"])
    strength = corpus.amount(line["kind"], line["feature"], line["label"])
    known = np.array([g is not None for g in groups])
    parts = []
    for name, mine in (
        (found.a, groups == found.a),
        (found.b, known & (groups != found.a if found.b == REST else groups == found.b)),
    ):
        has = np.flatnonzero(mine & (strength > LEVEL))
        best = has[np.argsort(-strength[has], kind="stable")][:DOCUMENTS]
        parts.append((f"{name}: {len(has):,} of {int(mine.sum()):,}", corpus.documents(best)))
    return view("sides", line["label"], feature, parts)
