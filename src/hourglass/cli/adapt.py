"""hourglass adapt"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hourglass.cli.options import AsJson
from hourglass.cli.output import out, print_json


def adapt(
    source: Annotated[str, typer.Argument(help="Texts, as for explore.")],
    to: Annotated[Path, typer.Option("--out", help="A folder that is not there yet.")],
    encoder: Annotated[
        str, typer.Option(help="'minilm', a folder of sentence-transformers or transformers, or a Hub id.")
    ] = "minilm",
    text: Annotated[str | None, typer.Option(help="Column that holds the text (guessed where it is plain).")] = None,
    limit: Annotated[int | None, typer.Option(help="Read at most so many texts.")] = None,
    words: Annotated[int, typer.Option(help="Numbers of a vector for the words.")] = 768,
    share: Annotated[float, typer.Option(help="What the same words add to a cosine of 1.")] = 0.25,
    as_json: AsJson = False,
) -> None:
    """Make an encoder that finds more in these texts: beside its vector the words, by how rare they are here."""
    from hourglass import api

    made = api.adapt(source, to, encoder=encoder, text=text, limit=limit, words=words, share=share)
    if as_json:
        print_json({"encoder": encoder, "to": str(to), **made.to_dict()})
        return
    out.print(
        f"{encoder}, adapted to {made.documents:,} texts: {made.width} numbers a text, in {to}",
        markup=False,
        soft_wrap=True,
    )
