"""hourglass trend"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hourglass.cli.options import AsJson, Folder, Level, MinTokens
from hourglass.cli.output import also, errors, gathered, number_or_kind, p_value, percent, print_json, print_table

if TYPE_CHECKING:
    import pandas as pd


def trend(
    folder: Folder,
    by: Annotated[
        str, typer.Option(help="Column with an order: numbers, dates, or values that --order puts in order.")
    ],
    order: Annotated[str | None, typer.Option(help="Values of the column in their order: A,B,C.")] = None,
    bins: Annotated[int, typer.Option(help="Most bins; a column with more values is cut into so many.")] = 10,
    level: Level = 0.5,
    min_tokens: MinTokens = 1,
    min_documents: Annotated[int, typer.Option(help="Documents that must have the feature, and lack it.")] = 10,
    no_match_length: Annotated[
        bool, typer.Option("--no-match-length", help="The trend among all documents, not among those of like length.")
    ] = False,
    monotone: Annotated[bool, typer.Option("--monotone", help="Keep only what never turns.")] = False,
    threshold: Annotated[float, typer.Option(help="Smallest change from first to last bin that is kept.")] = 0.03,
    top: Annotated[int, typer.Option(help="Rows of each direction and kind.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Which features and words rise or fall along an ordered column."""
    from hourglass import api

    found = api.open(folder).trend(
        by,
        order=tuple(order.split(",")) if order else (),
        bins=bins,
        level=level,
        min_tokens=min_tokens,
        min_documents=min_documents,
        match_length=not no_match_length,
        monotone=monotone,
        threshold=threshold,
        top=top,
    )
    if as_json:
        print_json(found.to_dict())
        return
    print_table(
        f"Bins of {by}",
        ["bin ", "values", "documents ", "median tokens "],
        [
            (str(i), b.name, f"{b.documents:,}", f"{b.median_tokens:.0f}")
            for i, b in enumerate(found.bins.itertuples(), 1)
        ],
    )
    told: dict[str, tuple[Any, pd.DataFrame]] = {}
    for row, others in gathered(found.table):
        if isinstance(row.label, str):
            told.setdefault(row.label, (row, others))
    for title, direction in (("Rising", 1), ("Falling", -1)):
        print_table(
            f"{title} along {by} ({found.documents:,} documents)",
            ["feature ", "name", "first ", "last ", "bin by bin", "change (95 %) ", "q "],
            [_row(row, others) for row, others in told.values() if direction * row.change > 0][:12],
        )
    unnamed = int((found.table["label"].isna() & found.table["same_as"].isna()).sum())
    for note in [
        *found.notes,
        *([f"{unnamed} features without a name that move are left out; --json has them"] if unnamed else []),
    ]:
        errors.print(note, markup=False)


def _row(r: Any, others: pd.DataFrame) -> tuple[str, ...]:
    return (
        number_or_kind(r.kind, r.feature, r.label),
        also(r.label, others["label"], 50),
        percent(r.frequencies[0]),
        percent(r.frequencies[-1]),
        _spark(r.frequencies),
        f"{100 * r.change:+.0f} ({100 * r.low:+.0f} … {100 * r.high:+.0f})",
        p_value(r.q),
    )


def _spark(shares: Any) -> str:
    """Shares as a row of blocks, the largest full."""
    largest = max(shares) or 1
    return "".join("▁▂▃▄▅▆▇█"[min(7, int(8 * s / largest))] for s in shares)
