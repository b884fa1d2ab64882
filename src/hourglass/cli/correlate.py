"""hourglass correlate"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hourglass.cli.options import AsJson, Budget, Folder, Level, MinTokens, Model, PerMillion, parsed
from hourglass.cli.output import (
    also,
    errors,
    gathered,
    number_or_kind,
    one_line,
    out,
    p_value,
    print_json,
    print_table,
    print_usage,
)
from hourglass.errors import ConfigError

if TYPE_CHECKING:
    from hourglass.uses.explore.alike_in_both import AlikeInBoth
    from hourglass.uses.explore.predicted import Predicted


def correlate(
    folder: Folder,
    with_: Annotated[
        Path | None,
        typer.Option(
            "--with", metavar="DIR", help="A workspace of another text of the same documents (matched by id)."
        ),
    ] = None,
    level: Level = 0.5,
    min_tokens: MinTokens = 1,
    min_frequency: Annotated[float, typer.Option(help="Share of the documents that must have each of the two.")] = 0.01,
    min_documents: Annotated[int, typer.Option(help="Documents that must have both.")] = 5,
    min_npmi: Annotated[float, typer.Option(help="Smallest NPMI that is kept.")] = 0.2,
    no_match_length: Annotated[
        bool, typer.Option("--no-match-length", help="Compare with all documents, not with those of like length.")
    ] = False,
    max_similarity: Annotated[
        float, typer.Option(help="Largest cosine of the two labels that is kept (1: all).")
    ] = 0.2,
    max_same_tokens: Annotated[
        float,
        typer.Option(help="How far the two may fire on the same tokens (1: all are kept, nothing is read again)."),
    ] = 0.5,
    form: Annotated[
        bool | None,
        typer.Option(
            "--form/--no-form",
            help='Keep what tells form alone ("the", "how", a number) and, with --with, features without a name.',
            show_default="kept with --with",
        ),
    ] = None,
    no_split: Annotated[bool, typer.Option("--no-split", help="Select and estimate on the same documents.")] = False,
    top: Annotated[int, typer.Option(help="Most pairs.")] = 100,
    judge: Annotated[
        str | None,
        typer.Option(
            help="Who checks the names on documents: rule, or the base address of a chat endpoint (http://...)."
        ),
    ] = None,
    pairs: Annotated[int, typer.Option(help="Pairs that are judged, the strongest.")] = 10,
    sample: Annotated[
        int | None, typer.Option(help="Documents that are judged (default: 1000; of an endpoint 300).")
    ] = None,
    model: Model = None,
    budget: Budget = None,
    prices: PerMillion = None,
    seed: Annotated[int, typer.Option(help="Seed of the halves and of the sample.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Which features and words go together in documents, or across two texts of the same documents."""
    from hourglass import api

    judging: dict[str, Any] = {"model": model, "budget": budget, "prices": parsed(prices), "sample": sample}
    if judge is None:
        for name, value in judging.items():
            if value is not None:
                raise ConfigError(f"--{name} belongs to a judge (--judge)")
    else:
        judging |= {"judge": judge, "pairs": pairs}
    found = api.open(folder).correlate(
        api.open(with_) if with_ else None,
        level=level,
        min_tokens=min_tokens,
        min_frequency=min_frequency,
        min_documents=min_documents,
        min_npmi=min_npmi,
        match_length=not no_match_length,
        max_similarity=max_similarity if max_similarity < 1 else None,
        max_same_tokens=max_same_tokens if max_same_tokens < 1 else None,
        form=form,
        split=not no_split,
        top=top,
        seed=seed,
        **(judging if judge is not None else {}),
    )
    if as_json:
        print_json(found.to_dict())
        return
    # What has a name comes first: of the rest somebody has to read documents.
    told = sorted(gathered(found.table), key=lambda of: not _is_told(of[0]))
    print_table(
        f"Pairs that go together, of {found.tested:,} ({found.documents:,} documents)",
        ["a", "b", "both ", "chance ", "b|a ", "a|b ", "NPMI (95 %) ", "q ", *(["judged "] if found.judge else [])],
        [
            (
                _named(r.kind_a, r.a, r.label_a, others["label_a"], [r.label_b]),
                _named(r.kind_b, r.b, r.label_b, others["label_b"], [r.label_a, *others["label_a"]]),
                str(r.documents),
                f"{r.expected:.1f}",
                f"{100 * r.b_given_a:.0f} %",
                f"{100 * r.a_given_b:.0f} %",
                f"{r.npmi_matched:.2f} ({r.low:.2f} … {r.high:.2f})",
                p_value(r.q),
                *([_judged(r)] if found.judge else []),
            )
            for r, others in told[:20]
        ],
    )
    predicted, groups = found.predicted, found.alike_in_both
    if predicted is not None and len(predicted.table):
        _print_predicted(predicted)
    if groups is not None and len(groups.table):
        _print_groups(groups)
    if not (told or (predicted is not None and len(predicted.table)) or (groups is not None and len(groups.table))):
        out.print("Nothing goes together.")
    print_usage(found.usage)
    untold = sum(not _is_told(row) for row, _ in told)
    for note in [
        *found.notes,
        *(
            [f"{untold} pairs have a feature without a name: `hourglass find DIR --feature NUMBER` shows what it is in"]
            if untold
            else []
        ),
    ]:
        errors.print(note, markup=False)


def _print_predicted(found: Predicted) -> None:
    """What all of either text predicts of the other."""
    out.print()
    print_table(
        f"Predicted by all of the other text, of {found.tested:,} features, words and groups ({found.documents:,} documents)\n"
        "with it, without: shares of the documents with it, and without, whose other text is more like that of those with it",
        [
            "of",
            "feature, word or group",
            "in ",
            "with it ",
            "without ",
            "points (95 %) ",
            "q ",
            "what speaks for it in the other text",
        ],
        [
            (
                r.side,
                _named(r.kind, r.feature, r.label, others["label"][others["kind"] != "group"], []),
                str(r.documents),
                f"{100 * r.frequency_with:.0f} %",
                f"{100 * r.frequency_without:.0f} %",
                f"{100 * r.difference:.0f} ({100 * r.low:.0f} … {100 * r.high:.0f})",
                p_value(r.q),
                one_line("; ".join(found.speaks_for(r.Index)[:4]) or "nothing that has a name", 60),
            )
            for r, others in list(gathered(found.table))[:20]
        ],
    )


def _print_groups(found: AlikeInBoth) -> None:
    """Groups of documents that are alike in both texts."""
    out.print()
    print_table(
        f"Documents that are alike in both texts ({found.documents:,} documents, {found.neighbours} neighbours of each)\n"
        "shared: neighbours by both texts, of the document that shares most surely",
        ["documents ", "shared ", "chance ", "q ", "what a has", "what b has"],
        [
            (
                str(r.documents),
                str(r.shared),
                f"{r.expected:.1f}",
                p_value(r.q),
                *(
                    one_line("; ".join(found.has(r.Index, side)[:4]) or "nothing that has a name", 60)
                    for side in (0, 1)
                ),
            )
            for r in found.table.head(20).itertuples()
        ],
    )


def _is_told(r: Any) -> bool:
    return isinstance(r.label_a, str) and isinstance(r.label_b, str)


def _named(kind: str, feature: Any, label: Any, others: Iterable[Any], told: Collection[Any]) -> str:
    """A part of a pair as it stands in the table, the other names of the finding below it."""
    return f"{number_or_kind(kind, feature, label)} {also(label if isinstance(label, str) else '(no name)', others, 30, told)}"


def _judged(r: Any) -> str:
    """NPMI of what the judge says, with the documents in which it finds both."""
    if r.verified_documents != r.verified_documents:
        return "not judged"
    value = f"{r.verified_npmi:.2f}" if r.verified_npmi == r.verified_npmi else "-"
    return f"{value} ({int(r.verified_joint)} of {int(r.verified_documents):,})"
