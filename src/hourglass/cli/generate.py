"""hourglass generate"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hourglass.cli.options import AsJson, Guidance, Seed, Set, Solver, Steps, chosen
from hourglass.cli.output import out, print_json


def generate(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="The folder of a trained model that writes.")],
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="A text to write from or to go on from (repeat). One alone is shown as it comes."),
    ] = None,
    source: Annotated[str | None, typer.Option(help="Texts to write from, as for explore.")] = None,
    text: Annotated[str | None, typer.Option(help="Column that holds them (guessed where it is plain).")] = None,
    limit: Annotated[int | None, typer.Option(help="Read at most so many texts.")] = None,
    n: Annotated[int | None, typer.Option(help="Number of texts, of each source where there are any.")] = None,
    steps: Steps = None,
    guidance: Guidance = None,
    solver: Solver = None,
    settings: Set = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Texts that a model writes: from nothing, from the texts of a source, or as it goes on from a prompt."""
    from hourglass import api

    given = chosen(settings, n=n, steps=steps, guidance=guidance, solver=solver, seed=seed)
    model = api.load(folder)
    if prompt is not None and len(prompt) == 1 and source is None and not as_json:
        parts = api.stream(model, prompt[0], **given)
        if parts is not None:
            _show(parts)
            return
    written = api.generate(model, prompt, source=source, text=text, limit=limit, **given)
    if as_json:
        print_json(written.to_dict())
        return
    for row in written.rows:
        out.print(row["text"], markup=False, soft_wrap=True)


def _show(parts: Any) -> None:
    """Each part as soon as it is there."""
    for part in parts:
        out.file.write(part)
        out.file.flush()
    out.file.write("\n")
