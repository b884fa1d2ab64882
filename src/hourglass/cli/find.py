"""hourglass find"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hourglass.cli.output import one_line, print_json, print_table
from hourglass.errors import InputError


def find(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A workspace.")],
    query: Annotated[str | None, typer.Argument(help="What the documents should have, in words.")] = None,
    like: Annotated[list[str] | None, typer.Option(help="Id of a document that has it (repeat).")] = None,
    unlike: Annotated[list[str] | None, typer.Option(help="Id of a document that has it not (repeat).")] = None,
    feature: Annotated[
        list[str] | None, typer.Option(help="Feature by number, with a weight: 123 or 123=0.5 (repeat).")
    ] = None,
    k: Annotated[int, typer.Option(help="Most features that a query turns into.")] = 20,
    temperature: Annotated[float, typer.Option(help="How fast the weights fall along them.")] = 0.2,
    no_scale: Annotated[
        bool, typer.Option("--no-scale", help="Do not divide features by their 90th percentile.")
    ] = False,
    no_fuse: Annotated[
        bool, typer.Option("--no-fuse", help="Rank by features alone, without the dense vectors.")
    ] = False,
    top: Annotated[int, typer.Option(help="Number of documents.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Documents that have a property: by words, by examples, or by features."""
    from hourglass import api

    found = api.open(folder).find(
        query,
        like=like or (),
        unlike=unlike or (),
        features=_weights(feature) if feature else None,
        k=k,
        temperature=temperature,
        scale=not no_scale,
        fuse=not no_fuse,
        top=top,
    )
    if as_json:
        print_json(found.to_dict())
        return
    print_table(
        "Features used",
        ["feature ", "weight ", "name"],
        [
            (str(r.feature), f"{r.weight:.2f}", one_line(r.label or "(no name)", 80))
            for r in found.features.head(5).itertuples()
        ],
    )
    print_table(
        "Documents",
        ["rank ", "id", "text"],
        [(str(i), r.id, one_line(r.text, 100)) for i, r in enumerate(found.documents.itertuples(), 1)],
    )


def _weights(given: list[str]) -> dict[int, float]:
    weights = {}
    for item in given:
        number, _, weight = item.partition("=")
        try:
            weights[int(number)] = float(weight or 1)
        except ValueError:
            raise InputError(f"--feature {item!r}: expected a feature's number, or NUMBER=WEIGHT") from None
    return weights
