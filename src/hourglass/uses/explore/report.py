"""The report of an exploration: one HTML file that needs nothing else, for people who would rather look.

Everything in it comes from a `Report`, which is plain data. The page is `report.html.jinja`; what its script needs
travels as JSON in which no `<` survives, so a document cannot break out of it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c6bb1", "#b8a900")
"""Of the groups, the largest first: Okabe and Ito's, told apart by colour-blind readers."""


@dataclass(frozen=True)
class Group:
    name: str
    documents: int
    median_tokens: float


@dataclass(frozen=True)
class Corpus:
    """`skipped` are lines about rows that could not be read; `groups` are those of `group_column`, if there is one."""

    documents: int
    tokens: int
    median_tokens: float
    skipped: list[str]
    columns: list[str]
    group_column: str | None
    groups: list[Group]


@dataclass(frozen=True)
class Example:
    """A stretch of a document in pieces (text, how strongly the concept fires there from 0 to 1)."""

    document_id: str
    group: str | None
    pieces: list[tuple[str, float]]


@dataclass(frozen=True)
class Concept:
    """`frequency` is the share of documents that have it; `by_group` the share in each group, in the groups' order."""

    feature: int
    label: str | None
    score: float | None
    frequency: float
    by_group: list[float]
    examples: list[Example]


@dataclass(frozen=True)
class Map:
    """A point a document; `group` is a position among the groups or -1, strengths go from 0 to 9."""

    x: list[float]
    y: list[float]
    group: list[int]
    snippet: list[str]
    id: list[str]
    concept_strengths: dict[int, list[int]]


@dataclass(frozen=True)
class DifferenceRow:
    """`kind` is "concept", "word" or "sign"; shares, their difference and its interval are between -1 and 1."""

    kind: str
    label: str
    feature: int | None
    frequency_a: float
    frequency_b: float
    difference: float
    low: float
    high: float
    p: float
    q: float


@dataclass(frozen=True)
class Difference:
    a: str
    b: str
    documents_a: int
    documents_b: int
    rows: list[DifferenceRow]
    together: list[str]


@dataclass(frozen=True)
class Report:
    """`named` counts all concepts with a name, of which `concepts` are the ones shown."""

    title: str
    source: str
    created: str
    corpus: Corpus
    named: int
    concepts: list[Concept]
    map: Map | None
    differences: list[Difference]
    method: list[tuple[str, str]]
    caveats: list[str]


def render(report: Report) -> str:
    """The report as one HTML page."""
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_beside("report.html.jinja"))
    return page.render(
        report=report,
        data=_script_data(report),
        most=max([g.documents for g in report.corpus.groups], default=1),
        look=Markup(look()),
        colours=COLOURS,
    )


def look() -> str:
    """The style that the report and the studio share, as CSS."""
    return _beside("look.css")


def _beside(name: str) -> str:
    return files("hourglass.uses.explore").joinpath(name).read_text(encoding="utf-8")


def _script_data(report: Report) -> Markup:
    """What the page's script draws from, as JSON that can stand in a script element."""
    data: dict[str, Any] = {
        "groups": [group.name for group in report.corpus.groups],
        "concepts": [asdict(concept) for concept in report.concepts],
        "differences": [asdict(difference) for difference in report.differences],
        "map": None,
    }
    if report.map is not None:
        data["map"] = {
            **asdict(report.map),
            # One digit a document: forty concepts of four thousand documents stay small.
            "concept_strengths": {f: "".join(map(str, s)) for f, s in report.map.concept_strengths.items()},
        }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for sign, code in (
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("&", "\\u0026"),
        ("\u2028", "\\u2028"),
        ("\u2029", "\\u2029"),
    ):
        text = text.replace(sign, code)
    return Markup(text)
