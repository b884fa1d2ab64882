"""hourglass fit"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hourglass.cli.output import out, percent, print_json
from hourglass.errors import InputError, nearest

SYSTEMS = ("sae",)


def fit(
    system: Annotated[str, typer.Argument(help="What to train: sae, a sparse autoencoder of a model's states.")],
    source: Annotated[str, typer.Argument(help="Texts to learn from, as for explore.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder of the run; the result is in its folder model.")],
    model: Annotated[str, typer.Option(help="'minilm', a model folder or a Hub id.")] = "minilm",
    layer: Annotated[int | None, typer.Option(help="Layer of the model (default: the last state).")] = None,
    site: Annotated[str, typer.Option(help="Of the layer: residual, attention, mlp, head or head:N.")] = "residual",
    variant: Annotated[
        str, typer.Option(help="topk, batchtopk, abstopk, matryoshka, relu, jumprelu or gated.")
    ] = "topk",
    width: Annotated[
        int | None, typer.Option(help="Number of features (default: as many as the tokens can teach).")
    ] = None,
    k: Annotated[
        int | None, typer.Option(help="Active features of a token (default: 32, for the variants with a k).")
    ] = None,
    target_l0: Annotated[
        float | None, typer.Option(help="Active features of a token that relu, jumprelu and gated are led to.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="Column that holds the text or dialogue (guessed where it is plain).")
    ] = None,
    role: Annotated[str, typer.Option(help="Chat role that a text is wrapped in: none, user, assistant.")] = "none",
    special: Annotated[
        bool | None,
        typer.Option(help="Learn from special and template tokens (default: of dialogues, not of plain texts)."),
    ] = None,
    max_norm: Annotated[
        float | None, typer.Option(help="Leave out tokens with a state so many times as long as the median one.")
    ] = None,
    dialogues: Annotated[
        bool, typer.Option("--dialogues", help="The source holds dialogues: read them as a chat model does.")
    ] = False,
    pack: Annotated[
        str, typer.Option(help="How dialogues are read: none (each alone), blocks, masked (alone, side by side).")
    ] = "none",
    block: Annotated[int, typer.Option(help="Tokens of a block of --pack blocks or masked.")] = 2048,
    template: Annotated[
        Path | None, typer.Option(help="File with a chat template in Jinja (default: the tokenizer's own).")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Read at most so many texts or dialogues.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of training (default: by the number of tokens).")] = None,
    dtype: Annotated[str, typer.Option(help="Arithmetic of the model: auto, float32, bfloat16.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train a system on texts; goes on where it stopped after a crash."""
    if system not in SYSTEMS:
        raise InputError(f"no system {system!r} to fit{nearest(system, SYSTEMS)}")
    from hourglass import api

    measures = api.fit_sae(
        source,
        out=out_dir,
        model=model,
        layer=layer,
        site=site,
        activation=variant,
        width=width,
        k=k,
        target_l0=target_l0,
        text=text,
        role=role,  # type: ignore[arg-type]  # checked where it is used
        special=special,
        max_norm=max_norm,
        dialogues=dialogues,
        pack=pack,  # type: ignore[arg-type]
        block=block,
        template=None if template is None else _content(template),
        dtype=dtype,  # type: ignore[arg-type]
        limit=limit,
        steps=steps,
        seed=seed,
    )
    folder = str(out_dir / "model")
    if as_json:
        print_json({"model_folder": folder, **measures})
        return
    out.print(
        f"{measures['tokens']:,} tokens, {measures['steps']:,} steps: {percent(measures['fvu'])} of the variance unexplained, "
        f"{measures['l0']:.1f} features active on a token, {measures['dead']:,} of {measures['width']:,} on none",
        markup=False,
        soft_wrap=True,
    )
    out.print(f"Autoencoder: {folder}", markup=False, soft_wrap=True)


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: no text file that can be read ({getattr(error, 'strerror', None) or error})"
        ) from None
