"""hourglass cluster"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from hourglass.cli.options import Folder, Level, MinTokens
from hourglass.cli.output import errors, one_line, out, percent, print_json, print_table
from hourglass.errors import InputError

AXIS_SHOWN = 20


def cluster(
    folder: Folder,
    axis: Annotated[
        list[str] | None, typer.Option(help="Key phrase of the axis (repeat); without any, all features are used.")
    ] = None,
    features: Annotated[str | None, typer.Option(help="Features of the axis by number: 12,40.")] = None,
    number: Annotated[
        int | None, typer.Option("-n", "--number", help="Number of clusters (default: as the eigengap says).")
    ] = None,
    each: Annotated[
        bool | None,
        typer.Option(
            "--each/--together",
            help="A cluster for each key phrase, or clusters along all together (default: each, where -n is their number).",
        ),
    ] = None,
    k: Annotated[int, typer.Option(help="Features for each key phrase, and as many words.")] = 20,
    words: Annotated[bool, typer.Option(help="Words of the corpus make the axis too.")] = True,
    level: Level = 0.5,
    min_tokens: MinTokens = 1,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the cluster of every document.")] = False,
) -> None:
    """Clusters of the documents along an axis that you name, or on all features."""
    from hourglass import api

    found = api.open(folder).cluster(
        axis or (),
        features=_numbers(features) if features is not None else (),
        number=number,
        each=each,
        k=k,
        words=words,
        level=level,
        min_tokens=min_tokens,
        seed=seed,
    )
    if as_json:
        print_json(found.to_dict())
        return
    if axis:
        print_table(
            "Features of the axis",
            ["feature ", "documents ", "nearness ", "phrase", "name"],
            [
                (
                    str(r.feature),
                    f"{r.documents:,}",
                    _or_dash(r.similarity, "{:.2f}".format),
                    one_line(r.phrase or "-", 30),
                    one_line(r.label or "(no name)", 60),
                )
                for r in found.features.head(AXIS_SHOWN).itertuples()
            ],
        )
        _and_more(len(found.features))
        if len(found.words):
            print_table(
                "Words of the axis",
                ["documents ", "nearness ", "phrase", "word"],
                [
                    (f"{r.documents:,}", f"{r.similarity:.2f}", one_line(r.phrase, 30), one_line(r.word, 60))
                    for r in found.words.head(AXIS_SHOWN).itertuples()
                ],
            )
            _and_more(len(found.words))
        out.print()
    by_phrase = ["phrase"] if found.table["phrase"].notna().any() else []
    clustered = int((found.assignment > 0).sum())
    print_table(
        f"{clustered:,} of {len(found.assignment):,} documents in {len(found)} clusters",
        ["cluster ", "documents ", "share ", "kept ", "z ", "dense z ", *by_phrase, "name"],
        [
            (
                str(r.Index),
                f"{r.documents:,}",
                percent(r.share),
                _or_dash(r.accuracy, percent),
                _or_dash(r.conductance_z, "{:+.1f}".format),
                _or_dash(r.dense_conductance_z, "{:+.1f}".format),
                *([one_line(r.phrase, 30)] if by_phrase else []),
                one_line(r.name or "(no name)", 80),
            )
            for r in found.table.itertuples()
        ],
    )
    out.print(
        f"By its cluster's name alone {percent(found.accuracy)} of the held-out documents stay where they are "
        f"(by the axis' features {percent(found.accuracy_by_features)}, by chance {percent(found.accuracy_by_chance)}).\n",
        markup=False,
    )
    print_table(
        "Central documents",
        ["cluster ", "id", "text"],
        [
            (str(number), document["id"], one_line(document["text"], 100))
            for number, shown in enumerate(found.shown, 1)
            for document in shown["central"][:2]
        ],
    )
    for note in found.notes:
        errors.print(note, markup=False)


def _and_more(number: int) -> None:
    if number > AXIS_SHOWN:
        out.print(f"… and {number - AXIS_SHOWN:,} more (--json has all)", markup=False)


def _or_dash(value: float, written: Callable[[float], str]) -> str:
    return written(value) if value == value else "-"


def _numbers(given: str) -> list[int]:
    try:
        return [int(number) for number in given.split(",")]
    except ValueError:
        raise InputError(f"--features {given!r}: expected numbers with commas between them, such as 12,40") from None
