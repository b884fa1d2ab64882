"""hourglass features"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hourglass.cli.options import AsJson
from hourglass.cli.output import one_line, out, percent, print_json, print_table
from hourglass.errors import ConfigError, InputError

if TYPE_CHECKING:
    import pandas as pd

    from hourglass.uses.explore import Workspace


def features(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A workspace, or a sparse autoencoder.")],
    feature: Annotated[int | None, typer.Argument(help="Show this feature's card.")] = None,
    source: Annotated[
        str | None,
        typer.Option(help="Of an autoencoder: texts on which to see when its features are active, as for explore."),
    ] = None,
    text: Annotated[str | None, typer.Option(help="Column of the source that holds the text.")] = None,
    limit: Annotated[int | None, typer.Option(help="Read at most so many texts of the source.")] = None,
    model: Annotated[str | None, typer.Option(help="What an autoencoder reads that does not say so.")] = None,
    layer: Annotated[int | None, typer.Option(help="Layer of the model.")] = None,
    site: Annotated[str | None, typer.Option(help="Of the layer: residual, attention, mlp, head or head:N.")] = None,
    search: Annotated[str | None, typer.Option(help="Only features whose name holds this.")] = None,
    unnamed: Annotated[bool, typer.Option("--unnamed", help="Also features without a name.")] = False,
    top: Annotated[int, typer.Option(help="Number of features.")] = 50,
    logits: Annotated[
        bool | None,
        typer.Option(
            "--logits/--no-logits",
            help="On a card: the words that it makes likelier (loads the causal model it is of; an autoencoder's cards have it).",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The concepts of a workspace, the most telling first, those of an autoencoder, the densest first, or one with its examples."""
    from hourglass import api
    from hourglass.uses.explore.overview import telling
    from hourglass.uses.explore.workspace import is_workspace

    about_texts = {"text": text, "limit": limit, "model": model, "layer": layer, "site": site}
    given = [name for name, value in about_texts.items() if value is not None]
    if source is None and given:
        raise InputError(f"--{given[0]} belongs to --source")
    bare = not is_workspace(folder)
    if bare:
        workspace = api.explore_sae(folder, source, **about_texts)  # type: ignore[arg-type]
    elif source is not None:
        raise InputError(f"{folder}: a workspace, which has its texts; --source is for an autoencoder")
    else:
        workspace = api.open(folder)
    table = workspace.features
    if feature is not None:
        if feature not in table.index:
            raise InputError(f"{folder}: no feature {feature}; they go from 0 to {len(table) - 1}")
        effect = None
        if logits or (bare and logits is None):
            try:
                effect = api.logit_effect(workspace.folder, feature)
            except ConfigError:  # a model without a head
                if logits:
                    raise
        _card(workspace, feature, effect, as_json)
        return
    if logits:
        raise InputError("--logits belongs to a card: name a feature")
    if not (unnamed or bare):
        table = table[table["label"].notna()]
    if search:
        table = table[table["label"].fillna("").str.contains(search, case=False, regex=False)]
    worth = table["density"] if bare else telling(table)
    table = table.loc[worth.sort_values(ascending=False, kind="stable").index].head(top)
    if as_json:
        print_json(json.loads(table.reset_index().to_json(orient="records")))
        return
    rows = list(table.itertuples())
    columns: dict[str, list[str]] = {"feature ": [str(r.Index) for r in rows]}
    if bare:
        columns["tokens "] = [_share(r.density) for r in rows]
    columns |= {
        "documents ": [f"{r.documents:,}" for r in rows],
        "share ": [percent(r.frequency) for r in rows],
        "score ": [f"{r.score:.2f}" for r in rows],
        "name": [one_line(r.label or "(no name)", 80) for r in rows],
    }
    print_table(f"{len(table):,} features", list(columns), zip(*columns.values()))


def _bars(counts: Sequence[int]) -> str:
    """A histogram in one line; a bin with anything in it shows."""
    return "".join(" ▁▂▃▄▅▆▇█"[math.ceil(8 * count / max(counts))] for count in counts)


def _share(density: float) -> str:
    """A share of tokens, in the unit in which it can be read."""
    return percent(density) if density >= 0.001 or density == 0 else f"{1e6 * density:,.0f} per million"


def _card(workspace: Workspace, feature: int, effect: pd.DataFrame | None, as_json: bool) -> None:
    row = workspace.features.loc[feature]
    examples = workspace.examples[workspace.examples["feature"] == feature]
    if as_json:
        card = json.loads(row.to_json())
        print_json(
            {
                "feature": feature,
                **card,
                "examples": json.loads(examples.drop(columns="feature").to_json(orient="records")),
                **({} if effect is None else {"logits": json.loads(effect.to_json(orient="records"))}),
            }
        )
        return
    out.print(f"Feature {feature}: {row['label'] or '(no name)'}", style="bold", markup=False)
    score = f"{row['score']:.2f}" if row["score"] == row["score"] else "not scored"
    out.print(
        f"in {row['documents']:,} documents ({percent(row['frequency'])}), name's held-out score {score}", markup=False
    )
    if "density" in row:  # a workspace of before has it not
        out.print(f"active on {_share(row['density'])} of tokens", markup=False)
    if "histogram" in row and sum(row["histogram"]):
        out.print(f"activations 0 {_bars(row['histogram'])} {row['max']:.3g}", markup=False)
    out.print()
    if effect is not None:
        for way, part in (("likelier", effect.head(len(effect) // 2)), ("less likely", effect.tail(len(effect) // 2))):
            words = ", ".join(f"{r.token!r} {r.logit:+.2f}" for r in part.itertuples())
            out.print(f"makes {way}: {words}", markup=False, soft_wrap=True)
        out.print()
    for example in examples.itertuples():
        marked = "".join(
            f"«{piece}»" if strength > 0 else piece for piece, strength in zip(example.pieces, example.strengths)
        )
        out.print(f"[{example.document}] {one_line(marked, 400)}\n", markup=False)
