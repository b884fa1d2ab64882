"""hourglass evaluate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hourglass.cli.options import AsJson
from hourglass.cli.output import errors, one_line, out, p_value, print_json, print_table


def evaluate(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="An index, or its URL.")],
    queries: Annotated[
        str, typer.Option(help="Queries: .jsonl (_id, text), .parquet, or a name, a tab and a text a line.")
    ],
    qrels: Annotated[str, typer.Option(help="Judgements: of TREC, of BEIR, or .parquet.")],
    pipeline: Annotated[
        list[str] | None,
        typer.Option(
            help="Stages, as for search (repeat); the first is what the others are compared with.",
            show_default="bm25, and with vectors dense and both fused",
        ),
    ] = None,
    survey: Annotated[
        bool, typer.Option("--survey", help="Also every pipeline of the survey that the index has the parts for.")
    ] = False,
    cross: Annotated[str | None, typer.Option(help="With --survey: a cross-encoder, a folder or a Hub id.")] = None,
    parade: Annotated[str | None, typer.Option(help="With --survey: a folder of a trained PARADE.")] = None,
    measure: Annotated[list[str] | None, typer.Option(help="ndcg, mrr, recall, p or map, at a depth (repeat).")] = None,
    dev: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="QUERIES QRELS",
            help="Queries and judgements of a development set: tune each pipeline on these alone, and measure what was chosen too.",
        ),
    ] = None,
    runs: Annotated[Path | None, typer.Option(help="A folder for what was found, in TREC's format.")] = None,
    differences: Annotated[
        int, typer.Option(help="Show so many queries at which each pipeline gained and lost most.")
    ] = 0,
    where: Annotated[str | None, typer.Option(help='Only documents for which this holds, as "year >= 2020".')] = None,
    as_json: AsJson = False,
) -> None:
    """How much of what is relevant pipelines find, whether they differ by more than chance, and what a query costs."""
    from hourglass import api
    from hourglass.errors import InputError
    from hourglass.metrics.ranking import MEASURES
    from hourglass.systems import bert_ir
    from hourglass.uses.search.evaluate import bytes_per_document

    index = api.open_index(folder)
    index = index if where is None else index.where(where)
    if survey:
        pipeline = list(dict.fromkeys([*(pipeline or ["bm25"]), *bert_ir.pipelines(index, cross=cross, parade=parade)]))
    elif cross or parade:
        raise InputError(
            "--cross and --parade name models for the pipelines of --survey; add it, or name them in --pipeline"
        )
    done = api.evaluate(index, queries, qrels, pipelines=pipeline or (), measures=measure or MEASURES, dev=dev)
    written = [] if runs is None else done.write_runs(runs)
    size = bytes_per_document(index)
    if as_json:
        print_json(
            {"index": str(folder), **done.to_dict(), "bytes_per_document": size, "runs": list(map(str, written))}
        )
        return
    for tuned in done.tuned:
        print_table(
            f"{tuned.given}: {len(tuned.table)} tried on {tuned.queries:,} development queries",
            ["stage", f"{tuned.measure} ", ""],
            [
                (stage, f"{value:.4f}", "chosen" if chosen else "")
                for stage, value, chosen in tuned.table[["stage", "value", "chosen"]].itertuples(index=False)
            ],
        )
        out.print(f"chosen: {tuned.chosen}\n", markup=False, soft_wrap=True)
    measures = list(next(iter(done.values.values())))
    rows = []
    for name in done.values:
        for one in measures:
            mean = done.mean(name, one)
            row = [name if one == measures[0] else "", one, f"{mean.value:.3f} ({mean.low:.3f} … {mean.high:.3f})"]
            if name == done.baseline:
                row += ["", ""]
            else:
                against = done.against(name, one)
                row += [f"{against.difference:+.3f}", p_value(against.p)]
            rows.append((*row, f"{sum(done.costs[name].values()):.1f}" if one == measures[0] else ""))
    print_table(
        f"{len(done.queries):,} queries on {len(index):,} documents",
        ["pipeline", "measure", "mean (95 %) ", "more ", "p ", "ms "],
        rows,
    )
    stages = done.stages()
    stages = stages[~stages["stage"].str.startswith("%")]
    if len(stages) > len(done.values):
        print_table(
            "cost, stage by stage",
            ["pipeline", "stage", "documents ", "ms ", "ms a document "],
            [
                (
                    "" if i and pipeline == stages["pipeline"].iloc[i - 1] else pipeline,
                    stage,
                    f"{number:,.1f}" if number else "",
                    f"{ms:.2f}",
                    f"{each:.4f}" if number else "",
                )
                for i, (pipeline, stage, number, ms, each) in enumerate(stages.itertuples(index=False))
            ],
        )
    for name in done.values:
        if "within(" in name:
            out.print(f"{name}: {done.ran[name]}", markup=False, soft_wrap=True)
        for line in done.notes[name]:
            out.print(f"{name}: {line}", markup=False, soft_wrap=True)
    for name in list(done.values)[1:] if differences else ():
        table = done.differences(name, measures[0])
        shown = table if len(table) <= 2 * differences else [*table.index[:differences], *table.index[-differences:]]
        shown = table.loc[shown] if isinstance(shown, list) else shown
        print_table(
            f"{measures[0]}, query by query: {name} against {done.baseline}",
            ["query", "text", f"{done.baseline} ", f"{name} ", "more "],
            [
                (str(row[0]), one_line(str(row[1]), 60), f"{row[2]:.3f}", f"{row[3]:.3f}", f"{row[4]:+.3f}")
                for row in shown.itertuples(index=False)
            ],
        )
    out.print("on disk: " + ", ".join(f"{what} {number:,.0f} bytes a document" for what, number in size.items()))
    if done.absent:
        errors.print(
            f"{len(done.absent):,} judged documents are not in the index (the first: {done.absent[0]!r}); they count as not found",
            markup=False,
        )
    if done.unasked:
        errors.print(f"{done.unasked:,} queries have no judgement and were not asked", markup=False)
    for path in written:
        out.print(str(path), markup=False, soft_wrap=True)
