"""Options that several verbs take, said once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from hourglass.errors import InputError

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A workspace.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Level = Annotated[float, typer.Option(help="Presence: share of a feature's 90th percentile (0: any activation).")]
MinTokens = Annotated[int, typer.Option(help="Presence: tokens that must fire.")]
Pair = Annotated[str | None, typer.Option(help="Column that pairs documents of the groups (a prompt, say).")]
EqualLength = Annotated[bool, typer.Option("--match-length", help="Compare documents of equal length only.")]
Model = Annotated[str | None, typer.Option(help="Model of the endpoint.")]
Budget = Annotated[float | None, typer.Option(help="Most tokens; with --prices most money.")]
PerMillion = Annotated[str | None, typer.Option(help="Money for a million tokens read and written, as 0.15/0.60.")]

# Of models that write.
Steps = Annotated[int | None, typer.Option(help="Steps of a model that draws by diffusion.")]
Guidance = Annotated[
    float | None, typer.Option(help="How closely a source is kept to; 1 is as learned (of diffusion with sources).")
]
Solver = Annotated[
    str | None, typer.Option(help="Of diffusion: euler, ddim, ddpm or dpm++, which needs the fewest steps.")
]
Seed = Annotated[int | None, typer.Option(help="The same seed, the same texts.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Any other setting of the model's, as name=value; repeat.")
]


def setting(given: str) -> tuple[str, Any]:
    """name=value of --set, the value as JSON has it, else as it is written."""
    name, equals, value = given.partition("=")
    if not equals:
        raise InputError(f"--set {given}: expected name=value")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def chosen(settings: list[str] | None, **options: Any) -> dict[str, Any]:
    """The options that were given, and what --set says."""
    return {name: value for name, value in options.items() if value is not None} | dict(map(setting, settings or []))


def parsed(prices: str | None) -> Any:
    """Prices as they are given to the api."""
    from hourglass.adapters.chat_endpoint import Prices

    return Prices.parse(prices) if prices else None
