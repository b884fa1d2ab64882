"""hourglass embed"""

from __future__ import annotations

from typing import Annotated

import typer

from hourglass.cli.options import AsJson, Folder
from hourglass.cli.output import errors, out, print_json


def embed(
    folder: Folder,
    source: Annotated[str, typer.Argument(help="Documents to add, as for explore.")],
    text: Annotated[str | None, typer.Option(help="Column that holds the text (default: the workspace's).")] = None,
    id: Annotated[str | None, typer.Option(help="Column that names a document (default: the workspace's).")] = None,
    engine: Annotated[str, typer.Option(help="local, or ray: a cluster whose machines all see DIR.")] = "local",
    as_json: AsJson = False,
) -> None:
    """Add documents to a workspace without training again; goes on where it stopped after a crash."""
    from hourglass import api

    workspace = api.open(folder)
    added = workspace.embed(source, text=text, id=id, engine=engine)
    trouble = workspace.manifest["sources"][-1]["trouble"]
    if as_json:
        print_json({"workspace": str(folder), "added": added, "documents": len(workspace), "trouble": trouble})
        return
    for line in trouble:
        errors.print(line, markup=False)
    out.print(f"{added:,} documents added; {len(workspace):,} in {folder}", markup=False)
