"""hourglass diff"""

from __future__ import annotations

from typing import Annotated

import typer

from hourglass.cli.options import AsJson, EqualLength, Folder, Level, MinTokens, Pair
from hourglass.cli.output import also, errors, gathered, number_or_kind, out, p_value, percent, print_json, print_table


def diff(
    folder: Folder,
    by: Annotated[str, typer.Option(help="Column that holds the groups.")],
    a: Annotated[str | None, typer.Option(help="Group to compare (default: each group).")] = None,
    b: Annotated[str | None, typer.Option(help="Group to compare it with (default: all the others).")] = None,
    metric: Annotated[
        str,
        typer.Option(help="Order by absolute or relative difference, or by the difference to the nearest other group."),
    ] = "absolute",
    level: Level = 0.5,
    min_tokens: MinTokens = 1,
    pair: Pair = None,
    test: Annotated[str, typer.Option(help="fisher or permutation.")] = "fisher",
    split: Annotated[
        bool, typer.Option("--split", help="One half of the documents selects, the other confirms and estimates.")
    ] = False,
    match_length: EqualLength = False,
    threshold: Annotated[float, typer.Option(help="Smallest difference that is kept.")] = 0.03,
    top: Annotated[int, typer.Option(help="Rows of each direction and kind.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of halves, shufflings and documents of like length.")] = 0,
    as_json: AsJson = False,
) -> None:
    """How groups of documents differ, in features, in words and in all of them together, with intervals."""
    from hourglass import api

    found = api.open(folder).diff(
        by,
        a,
        b,
        metric=metric,
        level=level,
        min_tokens=min_tokens,
        pair=pair,
        test=test,
        split=split,
        match_length=match_length,
        threshold=threshold,
        top=top,
        seed=seed,
    )
    if as_json:
        print_json([difference.to_dict() for difference in found])
        return
    for difference in found:
        told = [(row, others) for row, others in gathered(difference.table) if isinstance(row.label, str)]
        print_table(
            f"{difference.a} against {difference.b} ({difference.documents[0]:,} and {difference.documents[1]:,} documents)",
            ["feature ", "name", "a ", "b ", "difference (95 %) ", "q "],
            [
                (
                    number_or_kind(r.kind, r.feature, r.label),
                    also(r.label, others["label"], 60),
                    percent(r.frequency_a),
                    percent(r.frequency_b),
                    f"{100 * r.difference:+.0f} ({100 * r.low:+.0f} … {100 * r.high:+.0f})",
                    p_value(r.q),
                )
                for r, others in told[:20]
            ],
        )
        for sentence in difference.together.sentences(difference.a, difference.b) if difference.together else ():
            out.print(sentence, markup=False, soft_wrap=True)
        unnamed = int((difference.table["label"].isna() & difference.table["same_as"].isna()).sum())
        for note in [
            *difference.notes,
            *([f"{unnamed} differing features without a name are left out; --json has them"] if unnamed else []),
        ]:
            errors.print(note, markup=False)
