"""hourglass search"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from hourglass.cli.options import AsJson
from hourglass.cli.output import errors, out, print_json

if TYPE_CHECKING:
    from hourglass.uses.search.explain import Explanation


def search(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="An index, or its URL.")],
    query: Annotated[str, typer.Argument(help="What to search for.")],
    pipeline: Annotated[
        str | None,
        typer.Option(
            help='Stages, as "bm25 | dense >> rrf % 50 >> cross(FOLDER)".',
            show_default="bm25 | dense >> rrf; bm25 without vectors",
        ),
    ] = None,
    top: Annotated[int, typer.Option(help="Number of documents.")] = 10,
    where: Annotated[str | None, typer.Option(help='Only documents for which this holds, as "year >= 2020".')] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Also why each is there: its rank at each stage, and what carried it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Documents that answer a query, each with its best passage."""
    from hourglass import api

    index = api.open_index(folder)
    found = (index if where is None else index.where(where)).search(query, pipeline=pipeline, top=top)
    if as_json:
        print_json(found.to_dict(explain=explain))
        return
    for note in found.notes:
        errors.print(note, markup=False, soft_wrap=True)
    for stage, terms in found.widened if explain else ():
        said = ", ".join(f"{term} {weight:.2f}" for term, weight in terms.items())
        out.print(f"after {stage} the query is: {said}", markup=False, soft_wrap=True)
    for place, hit in enumerate(found.hits, 1):
        out.print(Text.assemble((f"{place:>3}  {hit.id}", "bold"), f"  {hit.score:.4f}"), soft_wrap=True)
        passage = Text(hit.passage.text)
        for start, stop in hit.marks:
            passage.stylize("bold yellow", start, stop)
        out.print(Text("     ") + Text(" ").join(passage.split()), soft_wrap=True)
        for line in _why(found.explain(place - 1)) if explain else ():
            out.print(f"     {line}", markup=False, highlight=False, soft_wrap=True, style="dim")
    spent = ", ".join(f"{name} {ms:.1f}" for name, ms in found.costs.items())
    out.print(
        f"{len(found):,} of {found.searched:,} documents by {found.pipeline}; ms: {spent}", markup=False, soft_wrap=True
    )


def _why(explanation: Explanation) -> Iterator[str]:
    """A line for each stage, and for each near sentence."""
    for place in explanation.places:
        if place.rank is None:
            yield f"{place.stage}: not among its {place.among:,}"
            continue
        terms = [f"{t.word}{f' x{t.times}' if t.times else ''} {t.score:.4f}" for t in place.terms]
        carried = f" = {' + '.join(terms)}" if terms else ""
        yield f"{place.stage}: rank {place.rank:,} of {place.among:,}, {place.score:.4f}{carried}"
    for near in explanation.near:
        yield f"near: {near.score:.4f}  {' '.join(near.text.split())}"
