"""hourglass find"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hourglass.cli.options import AsJson, Budget, Folder, Model, PerMillion, parsed
from hourglass.cli.output import one_line, out, print_json, print_table, print_usage
from hourglass.errors import InputError

if TYPE_CHECKING:
    from hourglass.uses.explore import Found


def find(
    folder: Folder,
    query: Annotated[str | None, typer.Argument(help="What the documents should have, in words.")] = None,
    like: Annotated[list[str] | None, typer.Option(help="Id of a document that has it (repeat).")] = None,
    unlike: Annotated[list[str] | None, typer.Option(help="Id of a document that has it not (repeat).")] = None,
    feature: Annotated[
        list[str] | None,
        typer.Option(
            help="Feature by number, with a weight: 123 or 123=0.5 (repeat). Beside a query or examples, sets its weight there."
        ),
    ] = None,
    without: Annotated[
        list[int] | None, typer.Option(help="Feature of the query or of the examples to leave out (repeat).")
    ] = None,
    k: Annotated[
        int | None,
        typer.Option(help="Most features that a question turns into.", show_default="20; 400 learned from examples"),
    ] = None,
    temperature: Annotated[float, typer.Option(help="How fast the weights fall along them.")] = 0.2,
    no_scale: Annotated[
        bool, typer.Option("--no-scale", help="Do not divide features by their 90th percentile.")
    ] = False,
    no_learn: Annotated[
        bool,
        typer.Option(
            "--no-learn",
            help="Of examples, weigh the features they have more often by rank; rankings have equal votes.",
        ),
    ] = False,
    fuse: Annotated[
        str, typer.Option(help="Rankings that the one by features is fused with: dense,words or one of them, or none.")
    ] = "dense,words",
    rerank: Annotated[
        str | None,
        typer.Option(help="Base address of a chat endpoint that picks among the 100 features nearest to the query."),
    ] = None,
    model: Model = None,
    budget: Budget = None,
    prices: PerMillion = None,
    top: Annotated[int, typer.Option(help="Number of documents.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Documents that have a property: by words, by examples, or by features."""
    from hourglass import api

    found = api.open(folder).find(
        query,
        like=like or (),
        unlike=unlike or (),
        features=_weights(feature) if feature else None,
        without=without or (),
        k=k,
        temperature=temperature,
        scale=not no_scale,
        learn=not no_learn,
        fuse=() if fuse == "none" else tuple(part.strip() for part in fuse.split(",")),
        rerank=rerank,
        model=model,
        budget=budget,
        prices=parsed(prices),
        top=top,
    )
    if as_json:
        print_json(found.to_dict())
        return
    _print(found)
    print_usage(found.usage)


def _print(found: Found) -> None:
    edited = found.overlap is not None
    features = found.features
    if edited:  # what the edit has touched is shown besides the first five
        touched = features["weight"] != features["weight_before"]
        features = features[touched | (features.index < 5)]
    else:
        features = features.head(5)
    print_table(
        "Features used",
        ["feature ", "weight ", *(["before "] if edited else []), "name"],
        [
            (
                str(r.feature),
                f"{r.weight:.2f}",
                *([_number(r.weight_before, "{:.2f}")] if edited else []),
                one_line(r.label or "(no name)", 80),
            )
            for r in features.itertuples()
        ],
    )
    if len(found.votes) > 1:
        earned = "by how each parts the examples" if found.learned else "equal"
        said = ", ".join(f"{name} {vote:.2f}" for name, vote in found.votes.items())
        out.print(f"Votes of the rankings ({earned}): {said}", markup=False)
    if edited:
        out.print(f"Overlap with the ranking before the edit: {found.overlap:.2f} (1: the same)", markup=False)
    print_table(
        "Documents",
        ["rank ", *(["before "] if edited else []), "id", "carried by", "text"],
        [
            (
                str(i),
                *([str(r.rank_before)] if edited else []),
                r.id,
                ", ".join(f"{c['feature']} {c['contribution']:+.2f}" for c in r.carried[:3]) or "-",
                one_line(r.text, 100),
            )
            for i, r in enumerate(found.documents.itertuples(), 1)
        ],
    )


def _number(value: Any, written: str) -> str:
    return written.format(value) if value == value else "-"


def _weights(given: list[str]) -> dict[int, float]:
    weights = {}
    for item in given:
        number, _, weight = item.partition("=")
        try:
            weights[int(number)] = float(weight or 1)
        except ValueError:
            raise InputError(f"--feature {item!r}: expected a feature's number, or NUMBER=WEIGHT") from None
    return weights
