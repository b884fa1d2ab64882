"""hourglass encode"""

from __future__ import annotations

from typing import Annotated

import typer

from hourglass.cli.options import AsJson
from hourglass.cli.output import out, print_json


def encode(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="'minilm', the folder of a trained model or of sentence-transformers, or a Hub id."
        ),
    ],
    source: Annotated[str, typer.Argument(help="Texts, as for explore.")],
    to: Annotated[str, typer.Option("--out", help="A path or URL that ends in .parquet.")],
    sparse: Annotated[
        bool,
        typer.Option(
            "--sparse",
            help="Weights of words in place of vectors, by a masked language model (a dupmae), a text2token, a retriever with a lexical part, or a SparseEncoder.",
        ),
    ] = False,
    dtype: Annotated[
        str, typer.Option(help="To compute vectors in: float32, bfloat16, or auto, which is faster where it can be.")
    ] = "float32",
    text: Annotated[str | None, typer.Option(help="Column that holds the text (guessed where it is plain).")] = None,
    id: Annotated[str | None, typer.Option(help="Column that names a document (default: id, else the row).")] = None,
    limit: Annotated[int | None, typer.Option(help="Read at most so many texts.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a vector for each text (and its code, of a model that has one), or weights of its words, into one table; texts longer than the model are read in windows."""
    from hourglass import api

    made = api.encode(
        model,
        source,
        to,
        sparse=sparse,
        dtype=dtype,  # type: ignore[arg-type]  # checked there
        text=text,
        id=id,
        limit=limit,
        force=force,
    )
    if as_json:
        print_json({"model": model, "to": to, **made})
        return
    longer = f" ({made['windowed']:,} in windows)" if made["windowed"] else ""
    each = f"{made['weights']:.0f} words" if sparse else f"{made['width']} numbers"
    out.print(
        f"{made['documents']:,} texts{longer}, {each} each, written to {to}",
        markup=False,
        soft_wrap=True,
    )
