"""hourglass report"""

from __future__ import annotations

from typing import Annotated

import typer

from hourglass.cli.options import AsJson, Folder
from hourglass.cli.output import out, print_json


def report(
    folder: Folder,
    by: Annotated[
        str | None, typer.Option(help="Column whose groups the report compares (default: that of explore).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a workspace's report again, after embed or for other groups."""
    from hourglass import api
    from hourglass.uses.explore.overview import write_report

    path = write_report(api.open(folder), by)
    if as_json:
        print_json({"report": str(path)})
        return
    out.print(f"Report: {path}", markup=False, soft_wrap=True)
