"""Find: documents that have a property; the concepts it is found by can be edited, and the ranking follows."""

from __future__ import annotations

import gradio as gr
import pandas as pd

from hourglass.errors import InputError
from hourglass.studio import look
from hourglass.studio.session import Session, Ways, told
from hourglass.uses.explore.find import Found

TOP = 20
CARRIERS = 3


def build(session: Session, ways: Ways) -> None:
    workspace = session.workspace
    with gr.Row(elem_classes="asks"):
        query = gr.Textbox(label="Find documents that …", placeholder="polite refusals", scale=4, min_width=220)
        fuse = gr.CheckboxGroup(
            [("vectors", "dense"), ("words", "words")], value=["dense", "words"], label="Also rank by", min_width=170
        )
        go = gr.Button("Find", variant="primary", scale=1, min_width=90)
    asked = gr.State("")
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            table = gr.Dataframe(
                _empty(),
                headers=["feature", "name", "weight"],
                datatype=["number", "str", "number"],
                interactive=True,
                label="Found by these concepts: change a weight, delete a row, or add one by its number",
                column_widths=["22%", "53%", "25%"],
                wrap=True,
            )
            add = gr.Dropdown(session.names, value=None, label="Add a concept by name", filterable=True)
            again = gr.Button("Rank again")
        with gr.Column(scale=3, min_width=320):
            listed = look.panel(
                look.page(
                    look.hint(
                        "A query becomes a few concepts; their ranking is fused with that by vectors and by words."
                    )
                )
            )

    def first(text: str, rivals: list[str]) -> tuple[str, pd.DataFrame, str]:
        if not text.strip():
            raise InputError("nothing to look for: write what the documents should have")
        found = workspace.find(text, top=TOP, fuse=rivals)
        return (
            text,
            found.features[["feature", "label", "weight"]].set_axis(["feature", "name", "weight"], axis=1),
            _page(session, found),
        )

    def added(rows: pd.DataFrame, feature: int | None) -> pd.DataFrame:
        if feature is None or feature in _weights(rows):
            return rows
        weight = max(_weights(rows).values(), default=1.0)
        more = pd.DataFrame([[feature, str(workspace.features["label"].iloc[feature]), weight]], columns=rows.columns)
        return pd.concat([rows.dropna(how="all"), more], ignore_index=True)

    def ranked(text: str, rows: pd.DataFrame, rivals: list[str]) -> str:
        weights = _weights(rows)
        if not text:
            if not weights:
                raise InputError("nothing to rank by: find something first, or add a concept")
            return _page(session, workspace.find(features=weights, top=TOP))
        before = workspace.find(text, top=TOP, fuse=rivals).features["feature"].astype(int).tolist()
        gone = [feature for feature in before if feature not in weights]
        return _page(session, workspace.find(text, features=weights, without=gone, top=TOP, fuse=rivals))

    for event in (go.click, query.submit):
        event(told(first), [query, fuse], [asked, table, listed])
    add.input(told(added), [table, add], table)
    again.click(told(ranked), [asked, table, fuse], listed)
    ways.lead_from(listed)


def _empty() -> pd.DataFrame:
    return pd.DataFrame(
        {"feature": pd.Series(dtype="Int64"), "name": pd.Series(dtype=str), "weight": pd.Series(dtype=float)}
    )


def _weights(rows: pd.DataFrame) -> dict[int, float]:
    """What the table says; InputError names a cell that is no number."""
    weights = {}
    for row in rows.itertuples(index=False):
        if row[0] in (None, "") or pd.isna(row[0]):
            continue
        try:
            feature, weight = int(row[0]), float(row[2])
        except (TypeError, ValueError):
            raise InputError(f"row {row[0]!r}, {row[2]!r}: expected a feature's number and a weight") from None
        weights[feature] = 0.0 if pd.isna(weight) else weight
    return weights


def _page(session: Session, found: Found) -> str:
    documents = found.documents
    labels = session.workspace.features["label"]
    if not len(documents):
        return look.page(look.hint("No document has any of it."))
    parts = []
    if found.overlap is not None:
        parts.append(look.hint(f"Overlap with the ranking before the edits: {found.overlap:.2f} (1: the same)."))
    rows = documents.to_dict(orient="records")

    def beside(i: int) -> str:
        row = rows[i]
        tags = [f"#{i + 1}"]
        before = row.get("rank_before")
        if before is not None and before == before and int(before) != i + 1:
            tags.append(f"was #{int(before)}")
        why = "".join(
            f' <a tabindex="0" class="tag" data-concept="{c["feature"]}">'
            f"{look.escape(look.name(c['feature'], labels.iloc[c['feature']], 34))}</a>"
            for c in row["carried"][:CARRIERS]
        )
        return "".join(map(look.tag, tags)) + why

    parts.append(session.documents(documents["position"], beside))
    return look.page(*parts)
