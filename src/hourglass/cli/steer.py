"""hourglass steer"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hourglass.cli.options import AsJson
from hourglass.cli.output import one_line, out, print_json, print_table


def steer(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A workspace over a causal model, or an autoencoder.")],
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT...", help="Texts that the model goes on from.")],
    feature: Annotated[
        list[str], typer.Option(help="Feature by number, or by a part of its name in a workspace (repeat).")
    ],
    alpha: Annotated[
        list[float] | None,
        typer.Option(
            help="Strength to add (repeat; default: 1, 2 and 4 times what the feature reaches in the corpus)."
        ),
    ] = None,
    clamp: Annotated[float | None, typer.Option(help="Set the feature to this value instead.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the feature out instead.")] = False,
    model: Annotated[
        str | None, typer.Option(help="Model folder or Hub id (default: the workspace's encoder).")
    ] = None,
    layer: Annotated[
        int | None, typer.Option(help="Block whose output the autoencoder reads (default: the workspace's).")
    ] = None,
    tokens: Annotated[str, typer.Option(help="Tokens to edit: all or generated.")] = "all",
    chat: Annotated[
        bool | None, typer.Option("--chat/--no-chat", help="Prompts are turns of a user (default: as the workspace).")
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Tokens to write.")] = 40,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token each time.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed, where tokens are drawn.")] = 0,
    dtype: Annotated[str, typer.Option(help="Arithmetic: auto, float32, bfloat16.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """What a causal model writes when a feature is made stronger, set or removed, beside what it writes without."""
    from hourglass import api

    steered = api.steer(
        folder,
        prompts,
        feature=feature,
        alphas=alpha or (),
        clamp=clamp,
        remove=remove,
        model=model,
        layer=layer,
        tokens=tokens,  # type: ignore[arg-type]  # checked where it is used
        chat=chat,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        dtype=dtype,  # type: ignore[arg-type]
    )
    if as_json:
        print_json(steered.to_dict())
        return
    features = ", ".join(
        f"{edit.feature} ({one_line(label, 60)})" if label else str(edit.feature)
        for edit, label in zip(steered.edits, steered.labels)
    )
    how = "added" if steered.edits[0].kind == "add" else f"set to {steered.edits[0].value:g}"
    out.print(
        f"Feature {features} {how} at layer {steered.layer} of {steered.model}\n",
        style="bold",
        markup=False,
        soft_wrap=True,
    )
    for prompt, rows in steered.table.groupby("prompt", sort=False):
        print_table(
            one_line(str(prompt), 100),
            ["alpha ", "text"],
            [
                ("unsteered", rows["unsteered"].iloc[0]),
                *((how if r.alpha is None else f"{r.alpha:g}", r.text) for r in rows.itertuples()),
            ],
        )
