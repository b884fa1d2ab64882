"""hourglass explore"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hourglass.cli.options import AsJson
from hourglass.cli.output import errors, one_line, out, percent, print_json, print_table


def explore(
    source: Annotated[
        str,
        typer.Argument(
            help="A path or URL (csv, tsv, jsonl, json, parquet, arrow, .lance, a folder of files), 'docstrings:', a Hub data set id, or '-'."
        ),
    ],
    text: Annotated[str | None, typer.Option(help="Column that holds the text (guessed where it is plain).")] = None,
    by: Annotated[str | None, typer.Option(help="Column whose groups the report compares.")] = None,
    id: Annotated[
        str | None, typer.Option(help="Column that names a document (default: 'id' where there is one).")
    ] = None,
    out_dir: Annotated[str, typer.Option("--out", help="Folder of the workspace.")] = "hourglass-explore",
    encoder: Annotated[
        str | None,
        typer.Option(
            help="'minilm', a model folder or a Hub id (default: that of --sae, else minilm); of a trained cosmos or sentencevae, its latents."
        ),
    ] = None,
    layer: Annotated[int | None, typer.Option(help="Layer of the encoder (default: the last).")] = None,
    site: Annotated[
        str | None, typer.Option(help="Of the layer: residual, attention, mlp, head or head:N (default: residual).")
    ] = None,
    sae: Annotated[
        Path | None, typer.Option(help="A trained sparse autoencoder, used as it is instead of learning one.")
    ] = None,
    role: Annotated[str, typer.Option(help="Chat role that a document is wrapped in: none, user, assistant.")] = "none",
    width: Annotated[
        int | None, typer.Option(help="Number of features (default: as many as the corpus can teach).")
    ] = None,
    k: Annotated[int, typer.Option(help="Active features of a token.")] = 32,
    activation: Annotated[str, typer.Option(help="topk or batchtopk.")] = "topk",
    limit: Annotated[int | None, typer.Option(help="Read only the first so many documents.")] = None,
    sample: Annotated[
        int | None, typer.Option(help="Take so many documents at random from all (where the rows are sorted, say).")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Encoder arithmetic: auto, float32, bfloat16.")] = "auto",
    engine: Annotated[str, typer.Option(help="local, or ray: a cluster whose machines all see --out.")] = "local",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a finished workspace.")] = False,
    as_json: AsJson = False,
) -> None:
    """Learn the concepts of a pile of texts: a workspace on disk and a report."""
    from hourglass import api
    from hourglass.uses.explore.overview import corpus_summary

    workspace = api.explore(
        source,
        out=out_dir,
        text=text,
        by=by,
        id=id,
        encoder=encoder,
        layer=layer,
        site=site,
        sae=sae,
        role=role,  # type: ignore[arg-type]  # checked where it is used
        dtype=dtype,  # type: ignore[arg-type]
        width=width,
        k=k,
        activation=activation,  # type: ignore[arg-type]
        limit=limit,
        sample=sample,
        engine=engine,
        seed=seed,
        force=force,
    )
    summary = corpus_summary(workspace)
    if as_json:
        print_json(summary)
        return
    for line in summary["trouble"]:
        errors.print(line, markup=False)
    print_table(
        f"{summary['documents']:,} documents, {summary['tokens']:,} tokens, {summary['features']:,} features, {summary['named']:,} of them named",
        ["feature ", "documents ", "score ", "name"],
        [
            (str(c["feature"]), percent(c["frequency"]), f"{c['score']:.2f}", one_line(c["label"], 80))
            for c in summary["strongest"][:20]
        ],
    )
    out.print(f"\nReport: {summary['report']}", markup=False, soft_wrap=True)
