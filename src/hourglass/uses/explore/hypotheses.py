"""From differing rows to at most ten distinct hypotheses: what documents of one group have more often.

Rows are merged: two rows of one direction say the same when the first term of one is, or is part of, a term of the other,
or when most selecting documents that have either have both. `writing` lets a language model do it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hourglass.uses.explore.diff import DiffOptions, Selected
from hourglass.uses.explore.labels import bare, clarity, quoted, says_nothing
from hourglass.uses.explore.presence import present_in
from hourglass.uses.explore.words import is_sign, pattern_of_lines

if TYPE_CHECKING:
    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]

MOST = 10
"""Hypotheses of one difference."""
EVIDENCE = 400
"""Selecting documents of each side that are looked at."""
SAME = 0.5
"""Rows of one direction whose documents overlap more than this (Jaccard) are one hypothesis."""
SURE = 0.9
"""A name of form alone, such as “?”, is worth a hypothesis from this score on."""
BEGINNING = "This document "

_MOST_NEEDED = 6
_SHOWN = 4


@dataclass(frozen=True)
class Hypothesis:
    """A statement that is said to hold of more documents of one side than of the other.

    statement  "This document ..."
    side       0: of a, 1: of b
    strength   largest difference among its rows on the selecting documents; None where a person made the statement
    features, labels  the rows that it stands for: features by number, and the names of all rows
    terms      words of its strongest row, of which a rule wants `needed`; pattern: a regular expression in their place
    column     the column of its strongest row in the evidence; None where there is none
    """

    statement: str
    side: int = 0
    strength: float | None = None
    features: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()
    needed: int = 1
    pattern: str | None = None
    column: int | None = None


@dataclass(frozen=True)
class Evidence:
    """Some of the documents that selected, and which of the selected rows each has.

    positions [m], side [m], ids [m], texts [m], present [m, rows] bool
    """

    positions: Array
    side: Array
    ids: list[str]
    texts: list[str]
    present: Array


def evidence(workspace: Workspace, selected: Selected, options: DiffOptions) -> Evidence:
    """Up to 400 random selecting documents of each side."""
    random = np.random.default_rng(options.seed)
    selecting = ~selected.fresh & (selected.side >= 0)
    if selected.pair is not None:
        selecting &= selected.pair >= 0
    drawn = [random.permutation(np.flatnonzero(selecting & (selected.side == s)))[:EVIDENCE] for s in (0, 1)]
    positions = np.sort(np.concatenate(drawn))
    columns = selected.table.index.to_numpy(np.int64)
    present = present_in(workspace, columns, options.level, options.min_tokens, positions)
    rows = workspace.rows(positions.tolist(), ["_id", workspace.text_column])
    texts = rows.column(1).to_pylist()
    return Evidence(
        positions, selected.side[positions], rows.column(0).to_pylist(), texts, present.toarray().astype(bool)
    )


# From the names ---------------------------------------------------------------------------------------


def from_names(features: pd.DataFrame, selected: Selected, seen: Evidence, number: int = MOST) -> list[Hypothesis]:
    """Distinct hypotheses out of the rows that have a name, the strongest first; half of them of either direction.

    Those that say little to a reader are made only where there are too few others.
    """
    table = selected.table
    terms = [_terms(features, row) for row in table.itertuples()]
    merged: list[list[int]] = []
    for row, label in enumerate(table["label"]):
        if label is None or label != label:
            continue
        home = next((rows for rows in merged if _same(table, terms, seen.present, rows[0], row)), None)
        if home is None:
            merged.append([row])
        else:
            home.append(row)
    little = [_says_little(features, row, own) for row, own in zip(table.itertuples(), terms)]
    # What stands for its rows, and comes first, is what tells most: of what tells as much, the strongest.
    merged = [sorted(rows, key=lambda row: (little[row], -clarity(terms[row]))) for rows in merged]
    merged.sort(key=lambda rows: little[rows[0]])
    found = [_of_rows(features, table, rows, terms[rows[0]], seen) for rows in merged]
    halves = [[h for h in found if h.side == side] for side in (0, 1)]
    best = [h for half in halves for h in half[: number // 2]]
    best += [h for h in found if h not in best][: number - len(best)]
    return sorted(best, key=lambda h: -(h.strength or 0.0))


def _of_rows(
    features: pd.DataFrame, table: pd.DataFrame, rows: list[int], terms: list[str], seen: Evidence
) -> Hypothesis:
    first = table.iloc[rows[0]]
    return Hypothesis(
        statement=_statement(features, first),
        side=int(first["difference"] < 0),
        strength=float(table["difference"].iloc[rows].abs().max()),
        features=features_of(table, rows),
        labels=labels_of(table, rows),
        terms=tuple(terms),
        needed=_needed(terms, seen, rows[0]),
        column=rows[0],
    )


def features_of(table: pd.DataFrame, rows: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(feature) for feature in table["feature"].iloc[list(rows)].dropna())


def labels_of(table: pd.DataFrame, rows: Sequence[int]) -> tuple[str, ...]:
    return tuple(str(label) for label in table["label"].iloc[list(rows)].dropna())


def _statement(features: pd.DataFrame, row: Any) -> str:
    """What a row says of a document."""
    if row["kind"] == "word":
        return statement_of(quoted(str(row["label"])))
    told = description_of(features, row["feature"])
    return told if isinstance(told, str) else statement_of(str(row["label"]))


def description_of(features: pd.DataFrame, feature: Any) -> Any:
    """What a language model wrote of a feature, where it did."""
    return features["description"].iloc[int(feature)] if "description" in features else None


def statement_of(label: str) -> str:
    """What an offline name says of a document."""
    if label.startswith("topic: "):
        return f"{BEGINNING}is about: {label.removeprefix('topic: ')}"
    return f"{BEGINNING}has {'any of: ' if ', ' in label else 'this: '}{label}"


def _says_little(features: pd.DataFrame, row: Any, terms: list[str]) -> bool:
    """Whether a name is form alone, unless it is of a sign or a shape and nearly sure."""
    if clarity(terms) > 1 or (row.kind == "feature" and isinstance(description_of(features, row.feature), str)):
        return False
    if row.kind == "word":
        return not is_sign(terms[0]) or says_nothing(terms)
    return says_nothing(terms) or features["score"].iloc[int(row.feature)] < SURE


def _terms(features: pd.DataFrame, row: Any) -> list[str]:
    return [str(row.label)] if row.kind == "word" else list(features["terms"].iloc[int(row.feature)])


def _same(table: pd.DataFrame, terms: list[list[str]], present: Array, one: int, other: int) -> bool:
    """Whether two rows say the same of documents."""
    if (table["difference"].iloc[one] < 0) != (table["difference"].iloc[other] < 0):
        return False
    first, second = terms[one][:_SHOWN], terms[other][:_SHOWN]
    if first and second and (_plain(first[0]) in _parts(second) or _plain(second[0]) in _parts(first)):
        return True
    both, either = present[:, one] & present[:, other], present[:, one] | present[:, other]
    return bool(both.sum() > SAME * either.sum())


def _parts(terms: list[str]) -> set[str]:
    """The terms of a name, and the words in them."""
    return {_plain(part) for term in terms for part in (term, *term.split())}


def _plain(term: str) -> str:
    """A term without its mark and plural: names of one thing differ in them."""
    word = bare(term)
    return word[:-1] if len(word) > 3 and word.endswith("s") else word


def _needed(terms: list[str], seen: Evidence, column: int) -> int:
    """How many of the terms a document must hold: what tells best, on selecting documents, where the row is present."""
    patterns = [pattern for term in terms if (pattern := pattern_of(term))]
    has = seen.present[:, column]
    if len(patterns) < 2 or not 0 < has.sum() < len(has):
        return 1
    held = np.array([sum(bool(pattern.search(text)) for pattern in patterns) for text in seen.texts])
    return max(range(1, _MOST_NEEDED + 1), key=lambda n: float((held[has] >= n).mean() - (held[~has] >= n).mean()))


_SHAPES = {
    "a number": r"\d",
    "a CAPITAL word": r"\b[A-Z]{2,}\b",
    "a Capitalised word": r"\b[A-Z][a-z]",
    "a code_name": r"\w_\w|[a-z][A-Z]",
    "punctuation": r"[^\w\s]",
}


def pattern_of(term: str) -> re.Pattern[str] | None:
    """What a term of a name looks like in a text; None for a place, such as "the first word"."""
    if term in _SHAPES:
        return re.compile(_SHAPES[term])
    if lines := pattern_of_lines(term):
        return lines
    if term in ("the first word", "a line's first word"):
        return None
    if re.fullmatch(r"-\w+", term):
        return re.compile(rf"\w{re.escape(term[1:])}\b", re.I)
    words = bare(term).split()
    if not words:
        return None
    between = r"\s+" if all(map(_is_word, words)) else r"\s*"
    before = r"(?<!\w)" if _is_word(words[0]) else ""
    after = r"(?!\w)" if _is_word(words[-1][-1]) else ""
    return re.compile(before + between.join(map(re.escape, words)) + after, re.I)


def _is_word(text: str) -> bool:
    return text[:1].isalnum()
