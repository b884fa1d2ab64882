"""hourglass relabel"""

from __future__ import annotations

from typing import Annotated

import typer

from hourglass.cli.options import AsJson, Budget, Folder, PerMillion, parsed
from hourglass.cli.output import errors, one_line, print_json, print_table, print_usage


def relabel(
    folder: Folder,
    endpoint: Annotated[str, typer.Argument(metavar="URL", help="Base address of a chat endpoint (http://...).")],
    model: Annotated[str, typer.Option(help="Model of the endpoint.")],
    feature: Annotated[
        list[int] | None, typer.Option(help="Feature by number (repeat; default: the --top most dividing ones).")
    ] = None,
    top: Annotated[int, typer.Option(help="Number of features.")] = 50,
    budget: Budget = None,
    prices: PerMillion = None,
    seed: Annotated[int, typer.Option(help="Seed of the passages.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Let a language model name features, and keep of its name and the offline one that which holds better."""
    from hourglass import api

    relabelled = api.open(folder).relabel(
        endpoint,
        features=feature or (),
        model=model,
        top=top,
        budget=budget,
        prices=parsed(prices),
        seed=seed,
    )
    if as_json:
        print_json(relabelled.to_dict())
        return
    print_table(
        f"{len(relabelled.table):,} features asked",
        ["feature ", "score ", "by", "name", "offline name"],
        [
            (
                str(r.feature),
                f"{r.score:.2f}" if r.score == r.score else "-",
                r.named_by if isinstance(r.named_by, str) else "-",
                one_line(r.label if isinstance(r.label, str) else "(no name)", 70),
                one_line(r.offline if isinstance(r.offline, str) else "(no name)", 40),
            )
            for r in relabelled.table.itertuples()
        ],
    )
    print_usage(relabelled.usage)
    for note in [*relabelled.notes, f"hourglass report {folder} draws the report with these names"]:
        errors.print(note, markup=False, soft_wrap=True)
