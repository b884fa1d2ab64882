"""hourglass interpolate"""

from __future__ import annotations

from typing import Annotated

import typer

from hourglass.cli.options import AsJson, Seed, chosen
from hourglass.cli.output import out, print_json


def interpolate(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="The folder of a trained model, as of cosmos.")],
    first: Annotated[str, typer.Argument(metavar="A", help="The text at one end.")],
    last: Annotated[str, typer.Argument(metavar="B", help="The text at the other.")],
    n: Annotated[int, typer.Option(help="Number of texts, both ends included.")] = 7,
    t: Annotated[
        float | None, typer.Option(help="Noise, from 0 to 1, that each is cleaned of by the diffusion (default: none).")
    ] = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Texts on the way from one text to another, through the latents of a model."""
    from hourglass import api

    texts = api.interpolate(folder, first, last, n, **chosen(None, t=t, seed=seed))
    if as_json:
        print_json({"model": folder, "texts": texts})
        return
    for text in texts:
        out.print(text, markup=False, soft_wrap=True)
