"""hourglass fit"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hourglass.cli.options import AsJson, setting
from hourglass.cli.output import out, percent, print_json
from hourglass.errors import InputError

if TYPE_CHECKING:
    from hourglass.training import FitResult

SAE, TEXTS = "Of sae", "Of systems that learn on texts"


def fit(
    context: typer.Context,
    system: Annotated[
        str,
        typer.Argument(
            help="What to train: sae, a sparse autoencoder of a model's states, or a system that learns on texts, by name, as dupmae, bart or text2token."
        ),
    ],
    source: Annotated[str, typer.Argument(help="Texts to learn from, as for explore.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder of the run; the result is in its folder model.")],
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="'minilm' (the default), a model folder or a Hub id (repeat: with --cross).", rich_help_panel=SAE
        ),
    ] = None,
    layer: Annotated[
        list[int] | None,
        typer.Option(
            help="Layer of the model (default: the last state); repeat: an autoencoder for each.", rich_help_panel=SAE
        ),
    ] = None,
    site: Annotated[
        list[str] | None,
        typer.Option(
            help="Of the layer: residual (the default), attention, mlp, mlp_in, head or head:N; repeat likewise.",
            rich_help_panel=SAE,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Site that is made of what is read: a transcoder (--site mlp_in --target mlp).", rich_help_panel=SAE
        ),
    ] = None,
    skip: Annotated[
        bool, typer.Option("--skip", help="A transcoder with a skip connection.", rich_help_panel=SAE)
    ] = False,
    cross: Annotated[
        bool,
        typer.Option("--cross", help="One crosscoder of all layers, sites and models together.", rich_help_panel=SAE),
    ] = False,
    variant: Annotated[
        str, typer.Option(help="topk, batchtopk, abstopk, matryoshka, relu, jumprelu or gated.", rich_help_panel=SAE)
    ] = "topk",
    width: Annotated[
        list[int] | None,
        typer.Option(
            help="Number of features (default: as many as the tokens can teach; repeat).", rich_help_panel=SAE
        ),
    ] = None,
    k: Annotated[
        list[int] | None,
        typer.Option(
            help="Active features of a token (default: 32, for variants with a k; repeat).", rich_help_panel=SAE
        ),
    ] = None,
    target_l0: Annotated[
        float | None,
        typer.Option(help="Active features of a token that relu, jumprelu and gated are led to.", rich_help_panel=SAE),
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="Column that holds the text or dialogue (guessed where it is plain).")
    ] = None,
    role: Annotated[
        str, typer.Option(help="Chat role that a text is wrapped in: none, user, assistant.", rich_help_panel=SAE)
    ] = "none",
    special: Annotated[
        bool | None,
        typer.Option(
            help="Learn from special and template tokens (default: of dialogues, not of plain texts).",
            rich_help_panel=SAE,
        ),
    ] = None,
    max_norm: Annotated[
        float | None,
        typer.Option(
            help="Leave out tokens with a state so many times as long as the median one.", rich_help_panel=SAE
        ),
    ] = None,
    dialogues: Annotated[
        bool,
        typer.Option(
            "--dialogues", help="The source holds dialogues: read them as a chat model does.", rich_help_panel=SAE
        ),
    ] = False,
    pack: Annotated[
        str,
        typer.Option(
            help="How dialogues are read: none (each alone), blocks, masked (alone, side by side).", rich_help_panel=SAE
        ),
    ] = "none",
    block: Annotated[
        int, typer.Option(help="Tokens of a block of --pack blocks or masked.", rich_help_panel=SAE)
    ] = 2048,
    template: Annotated[
        Path | None,
        typer.Option(help="File with a chat template in Jinja (default: the tokenizer's own).", rich_help_panel=SAE),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="'minilm', a model folder or a Hub id to go on from (default: from scratch).", rich_help_panel=TEXTS
        ),
    ] = None,
    preset: Annotated[
        str, typer.Option(help="Size where it starts from scratch: tiny, base, paper.", rich_help_panel=TEXTS)
    ] = "base",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the system, as objective=retromae; repeat.", rich_help_panel=TEXTS),
    ] = None,
    vocabulary: Annotated[
        int, typer.Option(help="Most tokens of the tokenizer that is made of the texts.", rich_help_panel=TEXTS)
    ] = 8000,
    batch_size: Annotated[int | None, typer.Option(help="Texts of a step.", rich_help_panel=TEXTS)] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.", rich_help_panel=TEXTS)] = None,
    keep_before_decay: Annotated[
        bool,
        typer.Option(
            "--keep-before-decay",
            help="Keep the checkpoint before the learning rate decays, in OUT/before-decay.",
            rich_help_panel=TEXTS,
        ),
    ] = False,
    limit: Annotated[int | None, typer.Option(help="Read at most so many texts or dialogues.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of training (default: by the number of tokens).")] = None,
    stream: Annotated[
        bool,
        typer.Option(
            "--stream",
            help="Keep no states on disk: the model reads along while it is learned from.",
            rich_help_panel=SAE,
        ),
    ] = False,
    dtype: Annotated[
        str, typer.Option(help="Arithmetic of the model: auto, float32, bfloat16.", rich_help_panel=SAE)
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Train a system on texts; goes on where it stopped after a crash."""
    from hourglass import api

    if system != "sae":
        cls = api.text_system(system)
        _refuse(context, system, SAE)
        given = {"steps": steps, "batch_size": batch_size, "lr": lr, "seed": seed}
        if keep_before_decay:
            given["keep_before_decay"] = True
        result = api.fit(
            cls.system_name(),
            source,
            out=out_dir,
            init=init,
            preset=preset,
            text=text,
            limit=limit,
            vocabulary=vocabulary,
            train={name: value for name, value in given.items() if value is not None},
            **dict(map(setting, settings or [])),
        )
        _tell(result, out_dir / "model", as_json)
        return
    _refuse(context, system, TEXTS)
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


def _refuse(context: typer.Context, system: str, panel: str) -> None:
    """Options of the other kind of system are not passed over in silence."""
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if source is not None and source.name == "COMMANDLINE" and getattr(parameter, "rich_help_panel", None) == panel:
            raise InputError(f"{parameter.opts[0]} is not for {system}; see hourglass fit --help")


def _tell(result: FitResult, folder: Path, as_json: bool) -> None:
    last = result.evaluations[-1] if result.evaluations else {}
    losses = {name: value for name, value in last.items() if name != "step"}
    if as_json:
        print_json({"model_folder": str(folder), "steps": result.steps, "held_out": losses})
        return
    shown = ", ".join(f"{name} {value:.3f}" for name, value in losses.items()) or "nothing was held out"
    out.print(f"{result.steps:,} steps; on held-out texts: {shown}", markup=False, soft_wrap=True)
    out.print(f"Model: {folder}", markup=False, soft_wrap=True)


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: no text file that can be read ({getattr(error, 'strerror', None) or error})"
        ) from None
