"""hourglass verify"""

from __future__ import annotations

from typing import Annotated

import typer

from hourglass.cli.options import AsJson, Budget, EqualLength, Folder, Model, Pair, PerMillion, parsed
from hourglass.cli.output import errors, one_line, out, percent, print_json, print_table, print_usage


def verify(
    folder: Folder,
    by: Annotated[str, typer.Option(help="Column that holds the groups.")],
    a: Annotated[str | None, typer.Option(help="Group (needed where there are more than two).")] = None,
    b: Annotated[str | None, typer.Option(help="Group to compare it with (default: all the others).")] = None,
    judge: Annotated[
        str, typer.Option(help="rule, rule:REGEX, local, or the base address of a chat endpoint (http://...).")
    ] = "rule",
    model: Model = None,
    writer: Annotated[
        str | None, typer.Option(help="Model that writes the hypotheses (default: --model); 'names': made of names.")
    ] = None,
    hypothesis: Annotated[
        list[str] | None, typer.Option(help="A statement of your own, said of --a, for an endpoint (repeat).")
    ] = None,
    documents: Annotated[
        str | None, typer.Option(help="Source of fresh documents (default: the half that did not select).")
    ] = None,
    number: Annotated[int, typer.Option(help="Most hypotheses.")] = 10,
    sample: Annotated[
        int | None, typer.Option(help="Documents of each side that are judged (default: 1000; of an endpoint 100).")
    ] = None,
    budget: Budget = None,
    prices: PerMillion = None,
    pair: Pair = None,
    match_length: EqualLength = False,
    threshold: Annotated[float, typer.Option(help="Smallest difference that becomes a hypothesis.")] = 0.03,
    seed: Annotated[int, typer.Option(help="Seed of the halves and of the sample.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Let a judge check, on documents that did not select them, what is said to differ between groups."""
    from hourglass import api

    verified = api.open(folder).verify(
        by,
        a,
        b,
        judge=judge,
        hypotheses=hypothesis or (),
        documents=documents,
        model=model,
        writer=writer,
        number=number,
        sample=sample,
        budget=budget,
        prices=parsed(prices),
        pair=pair,
        match_length=match_length,
        threshold=threshold,
        seed=seed,
    )
    if as_json:
        print_json(verified.to_dict())
        return
    print_table(
        f"{verified.a} against {verified.b}: {verified.documents[0]:,} and {verified.documents[1]:,} fresh documents, judged by {verified.judge}",
        ["of", "hypothesis", "a ", "b ", "verified (95 %) "],
        [
            (
                one_line(r.group, 20),
                one_line(r.statement, 80),
                _share(r.frequency_a),
                _share(r.frequency_b),
                "not judged"
                if r.difference != r.difference
                else f"{100 * r.difference:+.0f} ({100 * r.low:+.0f} … {100 * r.high:+.0f})",
            )
            for r in verified.table.itertuples()
        ],
    )
    if verified.mean is not None and verified.rate is not None and verified.sure is not None:
        out.print(
            f"\n{100 * verified.mean:+.1f} on average; {percent(verified.rate)} of the hypotheses above 1 %, "
            f"{percent(verified.sure)} with an interval above 0",
            markup=False,
            soft_wrap=True,
        )
    for side in verified.coverage:
        if side["own"] is not None and side["other"] is not None:
            out.print(
                f"a hypothesis of {side['group']} holds in {percent(side['own'])} of its documents, "
                f"in {percent(side['other'])} of the others",
                markup=False,
                soft_wrap=True,
            )
    print_usage(verified.usage)
    for note in verified.notes:
        errors.print(note, markup=False, soft_wrap=True)


def _share(share: float) -> str:
    return percent(share) if share == share else "-"
