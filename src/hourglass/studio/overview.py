"""Overview: the corpus at a glance."""

from __future__ import annotations

import numpy as np

from hourglass.studio import look
from hourglass.studio.session import Session, Ways
from hourglass.uses.explore.overview import strongest

CARDS = 24
GROUPS = 16


def build(session: Session, ways: Ways) -> None:
    ways.lead_from(look.panel(_page(session)))


def _page(session: Session) -> str:
    workspace = session.workspace
    features = workspace.features
    named = int(features["label"].notna().sum())
    figures = [
        (f"{len(workspace):,}", "documents"),
        (f"{int(session.tokens.sum()):,}", "tokens"),
        (f"{float(np.median(session.tokens)):,.0f}", "tokens in the median document"),
        (f"{named:,}", "concepts with a name"),
    ]
    told = "".join(f"<div><b>{value}</b><span>{what}</span></div>" for value, what in figures)
    source = look.escape(workspace.manifest["sources"][0]["name"])
    trouble = [line for entry in workspace.manifest["sources"] for line in entry["trouble"]]
    parts = [f'<p class="eyebrow">Corpus</p><h1>{source}</h1><div class="figures">{told}</div>', look.notes(trouble)]
    if session.groupings:
        column, sizes = next(iter(session.groupings.items()))
        rows = [(look.escape(g), n / sizes.iloc[0], f"{n:,}") for g, n in sizes.head(GROUPS).items()]
        more = f" The {GROUPS} largest of {len(sizes):,}." if len(sizes) > GROUPS else ""
        parts += [f"<h2>Groups of {look.escape(column)}</h2>", look.hint(more) if more else ""]
        parts += [look.bars(rows, look.GROUP_COLOURS)]
    best = strongest(features).head(CARDS)
    if len(best):
        parts += ["<h2>What is in it</h2>", look.hint("The concepts that tell most documents apart. Choose one.")]
        first = workspace.examples[workspace.examples["feature"].isin(best.index)].groupby("feature").head(1)
        example = {row.feature: list(zip(row.pieces, row.strengths)) for row in first.itertuples()}
        cards = (
            f'<div class="card" data-concept="{feature}" tabindex="0"><h3>{look.escape(look.name(feature, row.label))}</h3>'
            f'<div class="bars" style="grid-template-columns:1fr auto;margin:0"><span class="bar">'
            f'<i style="width:{max(1, 100 * row.frequency):.0f}%"></i></span>'
            f'<span class="count">{look.percent(row.frequency)} of documents</span></div>'
            f"{look.quote(_short(example.get(feature, [])))}</div>"
            for feature, row in zip(best.index.tolist(), best.itertuples())
        )
        parts += [f'<div class="cards">{"".join(cards)}</div>']
    else:
        parts += [look.hint("No concept could be named: there are too few documents, or they share no words.")]
    return look.page(*parts)


def _short(pieces: list[tuple[str, float]], length: int = 220) -> list[tuple[str, float]]:
    """The beginning of a passage, from shortly before what is marked."""
    kept: list[tuple[str, float]] = []
    room = length
    seen = False
    for text, strength in pieces:
        seen |= strength > 0
        if not seen:
            text = text[-60:]
        kept.append((text[:room], strength))
        room -= len(text) if seen else 0
        if room <= 0:
            break
    return kept
