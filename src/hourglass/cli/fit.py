"""hourglass fit"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hourglass.cli.options import AsJson
from hourglass.cli.output import out, percent, print_json
from hourglass.errors import InputError, nearest

SYSTEMS = ("sae",)


def fit(
    system: Annotated[str, typer.Argument(help="What to train: sae, a sparse autoencoder of a model's states.")],
    source: Annotated[str, typer.Argument(help="Texts to learn from, as for explore.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder of the run; the result is in its folder model.")],
    model: Annotated[
        list[str] | None,
        typer.Option(help="'minilm' (the default), a model folder or a Hub id (repeat: with --cross)."),
    ] = None,
    layer: Annotated[
        list[int] | None,
        typer.Option(help="Layer of the model (default: the last state); repeat: an autoencoder for each."),
    ] = None,
    site: Annotated[
        list[str] | None,
        typer.Option(
            help="Of the layer: residual (the default), attention, mlp, mlp_in, head or head:N; repeat likewise."
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Site that is made of what is read: a transcoder (--site mlp_in --target mlp).")
    ] = None,
    skip: Annotated[bool, typer.Option("--skip", help="A transcoder with a skip connection.")] = False,
    cross: Annotated[
        bool, typer.Option("--cross", help="One crosscoder of all layers, sites and models together.")
    ] = False,
    variant: Annotated[
        str, typer.Option(help="topk, batchtopk, abstopk, matryoshka, relu, jumprelu or gated.")
    ] = "topk",
    width: Annotated[
        list[int] | None, typer.Option(help="Number of features (default: as many as the tokens can teach; repeat).")
    ] = None,
    k: Annotated[
        list[int] | None, typer.Option(help="Active features of a token (default: 32, for variants with a k; repeat).")
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
    stream: Annotated[
        bool, typer.Option("--stream", help="Keep no states on disk: the model reads along while it is learned from.")
    ] = False,
    dtype: Annotated[str, typer.Option(help="Arithmetic of the model: auto, float32, bfloat16.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Train a system on texts; goes on where it stopped after a crash."""
    if system not in SYSTEMS:
        raise InputError(f"no system {system!r} to fit{nearest(system, SYSTEMS)}")
    from hourglass import api

    measures = api.fit_sae(
        source,
        out=out_dir,
        model=model or "minilm",
        layer=layer or None,
        site=site or "residual",
        target=target,
        skip=skip,
        cross=cross,
        activation=variant,
        width=width or None,
        k=k or None,
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
        stream=stream,
        seed=seed,
    )
    several = {out_dir / name / "model": found for name, found in measures.items()} if "tokens" not in measures else {}
    trained = several or {out_dir / "model": measures}
    if as_json:
        found = [{"model_folder": str(folder), **measures} for folder, measures in trained.items()]
        print_json({"autoencoders": found} if several else found[0])
        return
    for folder, measured in trained.items():
        out.print(
            f"{measured['tokens']:,} tokens, {measured['steps']:,} steps: {percent(measured['fvu'])} of the variance unexplained, "
            f"{measured['l0']:.1f} features active on a token, {measured['dead']:,} of {measured['width']:,} on none",
            markup=False,
            soft_wrap=True,
        )
        kind = "Crosscoder" if "places" in measured else "Transcoder" if "target" in measured else "Autoencoder"
        out.print(f"{kind}: {folder}", markup=False, soft_wrap=True)


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: no text file that can be read ({getattr(error, 'strerror', None) or error})"
        ) from None
