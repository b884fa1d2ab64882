"""hourglass studio"""

from __future__ import annotations

from typing import Annotated

import typer

from hourglass.cli.output import out


def studio(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A workspace, or a search index or its URL.")],
    with_: Annotated[
        str | None,
        typer.Option(
            "--with",
            metavar="DIR",
            help="A workspace of another text of the same documents (matched by id): what goes together in the two.",
            show_default=False,
        ),
    ] = None,
    index: Annotated[
        str | None, typer.Option(metavar="DIR", help="A search index, beside the workspace.", show_default=False)
    ] = None,
    pipeline: Annotated[
        list[str] | None,
        typer.Option(
            help="A pipeline with which the search page begins, three at most, side by side; the page opens no model but the "
            "index's own and those named here.",
            show_default="that of the index",
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="Port it listens on; 0 for any that is free.")] = 7860,
    host: Annotated[
        str, typer.Option(help="Address it listens on: this machine alone, unless another is given.")
    ] = "127.0.0.1",
) -> None:
    """Look at a workspace, or search an index, in the browser."""
    from hourglass.studio.app import Studio

    opened = Studio(folder, other=with_, index=index, pipelines=pipeline or (), host=host, port=port)
    out.print(f"Studio: {opened.address}  (Ctrl-C ends it)", markup=False, soft_wrap=True)
    opened.run()
