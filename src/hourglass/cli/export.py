"""hourglass export"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hourglass.cli.output import out, print_json


def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A workspace.")],
    to: Annotated[str, typer.Argument(help="A path or URL (as s3://...) that ends in .parquet or .lance.")],
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write all documents with their features and dense vectors into one table for other programs."""
    from hourglass import api

    documents = api.open(folder).export(to, force=force)
    if as_json:
        print_json({"workspace": str(folder), "to": to, "documents": documents})
        return
    out.print(f"{documents:,} documents written to {to}", markup=False, soft_wrap=True)
