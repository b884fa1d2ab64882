"""What a workspace says at a glance: the summary that the command prints and the report that people read."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hourglass.errors import InputError
from hourglass.storage.atomic import atomic_file
from hourglass.uses.explore.diff import SMALLEST, DiffOptions, differences
from hourglass.uses.explore.report import (
    Concept,
    Corpus,
    Difference,
    DifferenceRow,
    Example,
    Group,
    Map,
    Report,
    render,
)
from hourglass.uses.explore.scores import LEVEL, strengths
from hourglass.uses.explore.words import is_sign

if TYPE_CHECKING:
    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]

CONCEPTS = 60
"""Concepts of a report."""
MAPPED = 40
"""Concepts by which its map can be coloured."""
GROUPS = 12
"""Groups that are compared, the largest first; a column with more is no grouping that a person reads."""
ROWS = 24
"""Rows of a difference."""
SNIPPET = 140
"""Characters of a document shown on the map."""

_FIRST_TERM = r"(“[^”]*”|[^,]*)"  # of a name


def telling(features: pd.DataFrame) -> pd.Series:
    """How much each feature tells documents apart: a good name, in neither none nor all of them; NaN without a name."""
    share = features["frequency"].clip(0, 1)
    # `common` is high for names made of words that nearly every document has, such as "the".
    worth = (2 * features["score"] - 1) * np.sqrt(share * (1 - share)) * (1 - features["common"]) ** 2
    return worth.where(features["label"].notna())


def strongest(features: pd.DataFrame) -> pd.DataFrame:
    """The named features that occur, the most telling first."""
    named = features[features["label"].notna() & (features["documents"] > 0)]
    ordered = named.loc[telling(named).sort_values(ascending=False, kind="stable").index]
    # Several features often share their first term; the best of them stands for all.
    return ordered[~ordered["terms"].map(lambda terms: terms[0]).duplicated()]


def corpus_summary(workspace: Workspace) -> dict[str, Any]:
    """What `hourglass explore --json` prints."""
    features = workspace.features
    best = strongest(features).head(CONCEPTS)[["label", "score", "frequency", "documents"]].reset_index()
    return {
        "workspace": str(workspace.folder),
        "report": str((workspace.folder / "report.html").resolve()),
        "documents": len(workspace),
        "tokens": sum(shard["tokens"] for shard in workspace.shards),
        "features": len(features),
        "named": int(features["label"].notna().sum()),
        "text_column": workspace.text_column,
        "by": workspace.settings["by"],
        "learning": workspace.manifest["learning"],
        "trouble": [line for source in workspace.manifest["sources"] for line in source["trouble"]],
        "strongest": json.loads(best.to_json(orient="records")),
    }


def write_report(workspace: Workspace, by: str | None = None) -> Path:
    """Write report.html into the workspace; `by` names the column whose groups are compared."""
    by = by or workspace.settings["by"]
    path = workspace.folder / "report.html"
    html = render(make_report(workspace, by))
    with atomic_file(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def make_report(workspace: Workspace, by: str | None) -> Report:
    """Everything the report shows, as plain data."""
    groups = workspace.column(by) if by else np.full(len(workspace), None, object)
    tokens = np.concatenate([arrays["tokens"] for arrays in workspace.stored("tokens")])
    sizes = pd.Series(groups).value_counts()
    names = [str(name) for name in sizes.index]
    best = strongest(workspace.features).head(CONCEPTS)
    source = workspace.manifest["sources"][0]["name"]
    trouble = [line for entry in workspace.manifest["sources"] for line in entry["trouble"]]
    compared, caveats = _differences(workspace, by)
    return Report(
        title=title(workspace),
        source=source,
        created=date.today().isoformat(),
        corpus=Corpus(
            documents=len(workspace),
            tokens=int(tokens.sum()),
            median_tokens=float(np.median(tokens)),
            skipped=trouble,
            columns=[c for c in workspace.columns if not c.startswith("_")],
            group_column=by,
            groups=[Group(n, int(sizes[n]), float(np.median(tokens[groups == n]))) for n in names],
        ),
        named=int(workspace.features["label"].notna().sum()),
        concepts=concepts(workspace, best, groups, names),
        map=_map(workspace, best, groups, names),
        differences=compared,
        method=_method(workspace),
        caveats=[*caveats, *_caveats(workspace)],
    )


def title(workspace: Workspace) -> str:
    """What the pages about a workspace are headed with."""
    source = workspace.manifest["sources"][0]["name"]
    if source.startswith("docstrings:"):
        picked = source.removeprefix("docstrings:").replace(",", ", ")
        return f"What is in the docstrings of {picked or 'the installed packages'}"
    return f"What is in {Path(source).name or source}"


def snippet(text: str, length: int = SNIPPET) -> str:
    """The beginning of a document in one line."""
    return " ".join(text[: 4 * length].split())[:length]


def concepts(workspace: Workspace, best: pd.DataFrame, groups: Array, names: list[str]) -> list[Concept]:
    """Rows of the table of features with their examples, and the share in each group of `names`; `groups` are the documents'."""
    number = {name: i for i, name in enumerate(names)}
    of = np.array([number.get(g, -1) for g in groups])
    present = strengths(workspace, best.index.tolist()) > LEVEL
    shares = np.array([np.asarray(present[of == i].mean(0)).ravel() for i in range(len(names))])
    examples = workspace.examples[workspace.examples["feature"].isin(best.index)]
    where = dict(zip(workspace.column("_id"), groups)) if names else {}
    by_feature = dict(iter(examples.groupby("feature")))
    return [
        Concept(
            feature=int(feature),
            label=row["label"],
            score=float(row["score"]),
            frequency=float(row["frequency"]),
            by_group=[float(share[i]) for share in shares],
            examples=[
                Example(e.document, where.get(e.document), list(zip(e.pieces, map(float, e.strengths))))
                for e in by_feature.get(feature, examples.iloc[:0]).itertuples()
            ],
        )
        for i, (feature, row) in enumerate(best.iterrows())
    ]


def _map(workspace: Workspace, best: pd.DataFrame, groups: Array, names: list[str]) -> Map | None:
    places = pd.read_parquet(workspace.folder / "map.parquet")
    if not len(places):
        return None
    positions = places["position"].to_numpy()
    rows = workspace.rows(positions.tolist(), ["_id", workspace.text_column])
    shown = best.index.to_numpy()[:MAPPED]
    p90 = np.maximum(workspace.features["p90"].to_numpy(np.float32)[shown], 1e-6)
    strengths, start = np.zeros((len(positions), len(shown)), np.int8), 0
    for coded in workspace.coded():
        inside = np.flatnonzero((positions >= start) & (positions < start + len(coded.codes)))
        maxima = coded.codes.matrix("max")[positions[inside] - start][:, shown].toarray()
        strengths[inside] = np.clip(np.rint(9 * maxima / p90), 0, 9)
        start += len(coded.codes)
    number = {name: i for i, name in enumerate(names)}
    return Map(
        x=[round(float(x), 2) for x in places["x"]],
        y=[round(float(y), 2) for y in places["y"]],
        group=[number.get(groups[p], -1) for p in positions],
        snippet=[snippet(text) for text in rows.column(1).to_pylist()],
        id=rows.column(0).to_pylist(),
        concept_strengths={int(f): strengths[:, i].tolist() for i, f in enumerate(shown)},
    )


def _differences(workspace: Workspace, by: str | None) -> tuple[list[Difference], list[str]]:
    """The groups' differences, and why there are none where a person would expect some."""
    if by is None:
        return [], []
    sizes = pd.Series(workspace.column(by)).value_counts()
    notes = []
    if len(sizes) > GROUPS:
        notes.append(
            f"Column {by!r} has {len(sizes):,} groups; the {GROUPS} largest are compared here, `hourglass diff` compares any."
        )
    small = int((sizes < SMALLEST).sum())
    if small:
        notes.append(f"{small:,} groups of column {by!r} have fewer than {SMALLEST} documents and are not compared.")
    found = []
    try:
        for difference in differences(workspace, by, DiffOptions(), list(map(str, sizes.index[:GROUPS]))):
            rows = readable(difference.table)
            found.append(
                Difference(
                    difference.a,
                    difference.b,
                    *difference.documents,
                    [
                        DifferenceRow(
                            "concept" if r.kind == "feature" else "sign" if is_sign(r.label) else "word",
                            r.label,
                            None if r.kind == "word" else int(r.feature),
                            *map(float, (r.frequency_a, r.frequency_b, r.difference, r.low, r.high, r.p, r.q)),
                        )
                        for r in rows.itertuples()
                    ],
                    difference.together.sentences(difference.a, difference.b) if difference.together else [],
                )
            )
            notes += [f"{difference.a} against {difference.b}: {note}" for note in difference.notes]
    except InputError as error:
        notes.append(f"Groups were not compared: {str(error).split(': ', 1)[-1]}.")
    return found, notes


def readable(table: pd.DataFrame, most: int = ROWS) -> pd.DataFrame:
    """The rows of a difference that a person reads, as many of words as of features, the most different first."""
    table = table[table["label"].notna() & table["same_as"].isna()]
    # Of features that share their first term, the most different stands for all.
    first = table["label"].str.extract(_FIRST_TERM)[0] + table["kind"]
    table = table[~first.duplicated()]
    rows = pd.concat([table[table["kind"] == kind].head(most // 2) for kind in ("feature", "word")])
    return rows.loc[rows["difference"].abs().sort_values(ascending=False, kind="stable").index]


def _method(workspace: Workspace) -> list[tuple[str, str]]:
    settings, learning = workspace.settings, workspace.manifest["learning"]
    layer = "last layer" if settings["layer"] is None else f"layer {settings['layer']} ({settings['site']})"
    features = workspace.features
    return [
        ("Reader", f"{settings['encoder']}, {layer}, frozen"),
        (
            "Sparse autoencoder",
            f"{len(features):,} features, {learning['l0']:.0f} active on a token "
            f"({settings['activation'] if settings['sae'] is None else settings['sae']})",
        ),
        (
            "Learned on" if learning["steps"] else "Used as it is, named on",
            f"{learning['tokens']:,} tokens of {learning['documents']:,} documents, {learning['steps']:,} steps",
        ),
        (
            "Variance left unexplained",
            "not measured: a transcoder" if learning["fvu"] is None else f"{100 * learning['fvu']:.1f} %",
        ),
        (
            "Features with a name",
            f"{int(features['label'].notna().sum()):,}: a name must guess on unseen contexts, with balanced accuracy 0.75 or more, where its feature fires",
        ),
        *_named_by_models(features),
        ("Presence", "a document has a concept when its strongest token passes half of the concept's 90th percentile"),
        (
            "Differences",
            "chosen on one half of the documents, estimated on the other; 95 % intervals (Newcombe), exact p (Fisher), q (Benjamini-Hochberg)",
        ),
    ]


def _named_by_models(features: pd.DataFrame) -> list[tuple[str, str]]:
    """How many names are of language models, and of which; nothing where none is."""
    if "named_by" not in features:
        return []
    by = features["named_by"].dropna()
    counts = by[by != "offline"].value_counts()
    told = ", ".join(f"{count:,} by {model}" for model, count in counts.items())
    return [("Of them named by a language model", f"{told}; scored by it on passages that it had not named by")] * bool(
        told
    )


def _caveats(workspace: Workspace) -> list[str]:
    learning = workspace.manifest["learning"]
    caveats = [
        "A name says what a concept's contexts have in common; it is a guess that was tested, not a definition. Read the examples.",
        "Longer documents contain more of everything: compare groups of unlike length with `hourglass diff --match-length`.",
        "The map keeps neighbours together; distances between far-apart islands mean nothing.",
    ]
    if len(workspace) < 100:
        caveats.insert(0, f"{len(workspace):,} documents are few: what is shown may be chance.")
    if not learning["whole_corpus"]:
        caveats.append(
            f"Concepts were learned on a random sample of {learning['documents']:,} documents; one that is rarer than that sample can show is missing."
        )
    return caveats
