"""Options that several verbs take, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A workspace.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Level = Annotated[float, typer.Option(help="Presence: share of a feature's 90th percentile (0: any activation).")]
MinTokens = Annotated[int, typer.Option(help="Presence: tokens that must fire.")]
NoSplit = Annotated[bool, typer.Option("--no-split", help="Select and estimate on the same documents.")]
Pair = Annotated[str | None, typer.Option(help="Column that pairs documents of the groups (a prompt, say).")]
EqualLength = Annotated[bool, typer.Option("--match-length", help="Compare documents of equal length only.")]
Model = Annotated[str | None, typer.Option(help="Model of the endpoint.")]
Budget = Annotated[float | None, typer.Option(help="Most tokens; with --prices most money.")]
PerMillion = Annotated[str | None, typer.Option(help="Money for a million tokens read and written, as 0.15/0.60.")]


def parsed(prices: str | None) -> Any:
    """Prices as they are given to the api."""
    from hourglass.adapters.chat_endpoint import Prices

    return Prices.parse(prices) if prices else None
