"""hourglass features"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hourglass.cli.output import one_line, out, percent, print_json, print_table
from hourglass.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from hourglass.uses.explore import Workspace


def features(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A workspace.")],
    feature: Annotated[int | None, typer.Argument(help="Show this feature's card.")] = None,
    search: Annotated[str | None, typer.Option(help="Only features whose name holds this.")] = None,
    unnamed: Annotated[bool, typer.Option("--unnamed", help="Also features without a name.")] = False,
    top: Annotated[int, typer.Option(help="Number of features.")] = 50,
    logits: Annotated[
        bool,
        typer.Option("--logits", help="On a card: the words that it makes likelier (loads the causal model it is of)."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """The concepts of a workspace, the most telling first, or one of them with its examples."""
    from hourglass import api
    from hourglass.uses.explore.overview import telling

    workspace = api.open(folder)
    table = workspace.features
    if feature is not None:
        if feature not in table.index:
            raise InputError(f"{folder}: no feature {feature}; they go from 0 to {len(table) - 1}")
        effect = api.logit_effect(folder, feature) if logits else None
        _card(workspace, feature, effect, as_json)
        return
    if logits:
        raise InputError("--logits belongs to a card: name a feature")
    if not unnamed:
        table = table[table["label"].notna()]
    if search:
        table = table[table["label"].fillna("").str.contains(search, case=False, regex=False)]
    table = table.loc[telling(table).sort_values(ascending=False, kind="stable").index].head(top)
    if as_json:
        print_json(json.loads(table.reset_index().to_json(orient="records")))
        return
    print_table(
        f"{len(table):,} features",
        ["feature ", "documents ", "share ", "score ", "name"],
        [
            (
                str(r.Index),
                f"{r.documents:,}",
                percent(r.frequency),
                f"{r.score:.2f}",
                one_line(r.label or "(no name)", 80),
            )
            for r in table.itertuples()
        ],
    )


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
        f"in {row['documents']:,} documents ({percent(row['frequency'])}), name's held-out score {score}\n",
        markup=False,
    )
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
