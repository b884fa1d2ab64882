"""hourglass rewrite"""

from __future__ import annotations

from typing import Annotated

import typer

from hourglass.cli.options import AsJson, Guidance, Seed, Set, Solver, Steps, chosen
from hourglass.cli.output import one_line, out, print_json, print_table


def rewrite(
    folder: Annotated[
        str, typer.Argument(metavar="DIR", help="The folder of a model that learned to write from a source text.")
    ],
    source: Annotated[str, typer.Argument(metavar="FILE", help="Texts to write from, as for explore.")],
    text: Annotated[str | None, typer.Option(help="Column that holds the text (guessed where it is plain).")] = None,
    limit: Annotated[int | None, typer.Option(help="Read at most so many texts.")] = None,
    wanted: Annotated[
        str | None,
        typer.Option(
            help="Column of the texts that are wanted, or of lists of them: BLEU and ROUGE against them are told."
        ),
    ] = None,
    steps: Steps = None,
    guidance: Guidance = None,
    solver: Solver = None,
    settings: Set = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """A text written from each text of a source: a summary, a question, the same in another tone, whatever the model learned."""
    from hourglass import api

    given = chosen(settings, steps=steps, guidance=guidance, solver=solver, seed=seed)
    written = api.rewrite(folder, source, text=text, limit=limit, wanted=wanted, **given)
    if as_json:
        print_json(written.to_dict())
        return
    for row in written.rows:
        out.print(one_line(str(row["source"]), 100), style="dim", markup=False, soft_wrap=True)
        out.print(f"  {row['text']}", markup=False, soft_wrap=True)
    if written.measured is not None:
        out.print()
        print_table(
            f"Against {wanted} ({len(written.rows):,} texts)",
            ["", *(f"{name} " for name in ("BLEU", "ROUGE-1", "ROUGE-2", "ROUGE-L"))],
            [
                (told, *(f"{value:.3f}" for value in written.measured[name].values()))
                for name, told in (("written", "as written"), ("source", "the sources as they are"))
            ],
        )
