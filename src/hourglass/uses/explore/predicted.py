"""Which features, words and groups of documents of one text all of the other text predicts, though perhaps no single item of it does.

A pair needs a feature or word on either side that tells by itself. Where one side has none, all of it may: a ridge regression of
an item of one text on everything that the other text has and, as much, on its mean state in the middle of the model (which
knows how a text is written, too), each document scored by the direction that all others give, as in
`together`. The distance between the mean scores of the documents with the item and of those without is tested by giving the item
to other documents of like length, as many of each length, at random ([distances.py](distances.py)).

What marks a kind of document in its own text may be in others, too. Predicted in the same way are the groups around each document of
those most alike to it by that text ([neighbours.py](neighbours.py)): more of such a group are of one kind than of the documents with
an item.

What of one text the other tells in about the same way, by scores that go together, is one finding, of whose groups the best told stands
for all. Every finding has a row before any has a second, so that a strong one with a hundred words does not hide a weak one.

Cost: the third power of the documents that are learned from. Rare items are tested; of common ones a pair tells more.

Not in the paper.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.sparse import csc_matrix, csr_matrix

from hourglass.metrics.proportions import benjamini_hochberg, difference_interval
from hourglass.uses.explore.alike import first_near, same_as
from hourglass.uses.explore.distances import Distances, Said
from hourglass.uses.explore.looked_at import Field
from hourglass.uses.explore.neighbours import apart, groups_around, nearest
from hourglass.uses.explore.ridge import Direction, Ridge, Weights, centred_gram
from hourglass.uses.explore.scores import dense_rows
from hourglass.uses.explore.strata import SMALLEST, length_strata
from hourglass.uses.progress import Progress

if TYPE_CHECKING:
    from hourglass.uses.explore.correlate import CorrelateOptions

Array = np.ndarray[Any, Any]
Marks = tuple[csc_matrix, Array]
"""[documents, m] 1 where a document has an item, or is of a group, and [m] the number of the item, or of the document in the middle."""

LARGEST = 2500
"""Documents, drawn at random, that are learned from at most."""
COMMONEST = 0.1
"""An item in a larger share of the documents is not tested."""
ALIKE, LOOKED_AT = 0.6, 10
"""Correlation of the scores by which items are predicted from which on they are one finding; how many times as many items as are
shown are parted into findings, the best predicted of all."""
TYPICAL, NAMED = 5, 3
"""Documents of a row; names of a group."""

_COLUMNS = [
    "side",
    "kind",
    "feature",
    "label",
    "position",
    "documents",
    "frequency_with",
    "frequency_without",
    "difference",
    "low",
    "high",
    "p",
    "q",
    "same_as",
    "typical",
]


@dataclass(frozen=True)
class Predicted:
    """Items and groups of either text that all of the other predicts.

    table    a row an item or group, finding after finding, the best predicted first: side ("a": it is of the first text, and the second predicts it), kind ("feature",
             "word" or "group"), feature, label (of a group what tells it in its own text), position (number of the feature, or the
             width plus that of the word; of a group the document it is around), documents (that have it, or are in it), frequency_with, frequency_without (shares of the documents with the item, and without, whose
             other text is more like that of those with it, each judged without itself), difference with its interval low and high,
             p, q, same_as (the row that stands for this one), typical (positions of documents with the item whose other text
             speaks most for it)
    directions  of each row, through the other text, to the documents with the item
    in_own      of each row that is a group, the direction to it through its own text; None of an item
    tested, documents   number of items and groups that were tested, and of documents on which they were
    """

    table: pd.DataFrame
    directions: list[Direction]
    in_own: list[Direction | None]
    tested: int
    documents: int

    def speaks_for(self, row: int) -> list[str]:
        """Names of what speaks for a row's item in the other text, the heaviest first."""
        return self.directions[row].names()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, each row with what speaks most for it and most against it."""
        rows = json.loads(self.table.to_json(orient="records"))
        for row, direction, in_own in zip(rows, self.directions, self.in_own):
            row["items_for"], row["items_against"] = direction.heaviest(1), direction.heaviest(-1)
            if in_own is not None:
                row["items_own"] = in_own.heaviest(1)
        return {"tested": self.tested, "documents": self.documents, "rows": rows}


@dataclass(frozen=True)
class Learned:
    """The documents that are learned from, and what their texts say of each other.

    rows     [documents] position of each in the first workspace
    fields   of the two texts, "a" and "b"; present: [documents, items] what each has; middle: [documents, d] the mean states
             in the middle of the model
    ridges   by which items of "a" are predicted, by all of the other text; and of "b"
    alike    by a text, [documents, most alike] the documents most alike to each
    strata   [documents] numbers from 0, of like length
    """

    rows: Array
    fields: dict[str, Field]
    present: dict[str, csr_matrix]
    middle: dict[str, Array]
    ridges: dict[str, Ridge]
    alike: dict[str, Array]
    strata: Array

    @classmethod
    def of(
        cls, left: Field, right: Field, rows: Array, other_rows: Array, match_length: bool, random: np.random.Generator
    ) -> Learned:
        """Some of the documents that are looked at, drawn at random; rows, other_rows: their positions in either workspace."""
        drawn = np.sort(random.permutation(len(rows))[:LARGEST])
        fields = {"a": left, "b": right}
        present = {side: field.present[drawn] for side, field in fields.items()}
        strata = np.zeros(len(drawn), np.int64)
        if match_length:
            strata = length_strata(left.tokens[drawn], right.tokens[drawn], smallest=SMALLEST)
        middle = {}
        for side, workspace, at in (("a", left.workspace, rows[drawn]), ("b", right.workspace, other_rows[drawn])):
            own = dense_rows(workspace, at, "middle")  # in rising order
            middle[side] = own[np.argsort(np.argsort(at))]
        grams = {side: [centred_gram(view) for view in (present[side], middle[side].astype(float))] for side in fields}
        ridges = {
            side: Ridge(present[other], middle[other], grams=grams[other]) for side, other in (("a", "b"), ("b", "a"))
        }
        alike = {side: nearest(own, random) for side, own in grams.items()}
        return cls(rows[drawn], fields, present, middle, ridges, alike, strata)

    def directions(self, text: str, has: Array) -> list[Direction]:
        """What of a text, "a" or "b", tells the documents that each column of has [documents, m] marks."""
        ridge, field = self.ridges["b" if text == "a" else "a"], self.fields[text]
        middle, weights = _scores(ridge, has)[1], ridge.weights(has)
        items, bars = field.items.assign(position=field.columns), ridge.sum_at(middle, has, weights)
        return [
            Direction.of(items, Weights(*own), bar) for *own, bar in zip(weights.columns.T, weights.vectors.T, bars)
        ]


def predicted(
    learned: Learned, options: CorrelateOptions, part: float, random: np.random.Generator, bar: Progress
) -> Predicted:
    """The surest items and groups of either field that the other predicts; `part` of what may be discovered falsely is the items', as
    much the groups'."""
    of_items = {side: _items(own) for side, own in learned.present.items()}
    of_groups = {side: groups_around(alike) for side, alike in learned.alike.items()}
    ridges, strata, level = learned.ridges, learned.strata, options.false_discovery * part
    said = {side: Said.by(ridge) for side, ridge in ridges.items()}
    task = bar.start("Predicting", len(of_items) + len(of_groups), "parts")

    def tested(marks: dict[str, Marks], adjusted: Callable[[Array], Array]) -> pd.DataFrame:
        parts = []
        for side, (has, numbers) in marks.items():
            distances = Distances(said[side], has, strata)
            columns = {"number": numbers, "column": np.arange(len(numbers)), "distance": distances.found}
            parts.append(pd.DataFrame({"side": side, **columns, "p": distances.p_values(random)}))
            bar.advance(task, 1)
        every = pd.concat(parts, ignore_index=True)
        return every.assign(q=adjusted(every["p"].to_numpy()))

    items, groups = tested(of_items, benjamini_hochberg), tested(of_groups, _of_any)
    told = pd.concat([items.assign(group=False), groups.assign(group=True)])
    told = told[told["q"] <= level].sort_values("distance", ascending=False, kind="stable")
    for side, marks in of_groups.items():
        own = told["group"] & (told["side"] == side)
        told = told[~own | told["column"].isin(apart(*marks, told["column"][own].to_numpy()))]
    told = told.head(LOOKED_AT * options.top)
    has = np.zeros((len(learned.rows), len(told)), bool)
    for at, row in enumerate(told.itertuples()):
        has[_rows_with(of_groups if row.group else of_items, row), at] = True
    told = told.assign(finding=_findings(told["side"].to_numpy(), has, ridges))
    # Of a finding's groups the first tells all.
    one = ~(told["group"] & told.duplicated(["finding", "group"])).to_numpy()
    told, has, first = told[one], has[:, one], (np.cumsum(one) - 1)[told["finding"].to_numpy()[one]]
    kept, first = _every_finding(first, options.top)
    shown = told.iloc[kept]
    return _described(shown.assign(q=shown["q"] / part), has[:, kept], first, learned, len(items) + len(groups))


def _described(told: pd.DataFrame, has: Array, first: Array, learned: Learned, tested: int) -> Predicted:
    """What is shown of `told`: side, number, group, p, q; has [documents, told] which documents, and first [told] of its finding."""
    side, group = told["side"].to_numpy(), told["group"].to_numpy(bool)
    scores, middle = np.empty(has.shape), np.empty(len(told))
    directions, in_own = np.full((2, len(told)), None, object)
    for text, ridge in learned.ridges.items():
        own = side == text
        scores[:, own], middle[own] = _scores(ridge, has[:, own])
        directions[~own] = learned.directions(text, has[:, ~own])
        in_own[own & group] = learned.directions(text, has[:, own & group])
    lines, terms = [], []
    for at, (row, of_group) in enumerate(zip(told.itertuples(), in_own)):
        field = learned.fields[row.side]
        if row.group:
            terms.append(of_group.names()[:NAMED])
            named = {"kind": "group", "label": "; ".join(terms[-1]) or None, "position": int(learned.rows[row.number])}
        else:
            terms.append(field.terms[row.number])
            named = {**field.items.iloc[row.number], "position": int(field.columns[row.number])}
        shown = _shown(scores[:, at], middle[at], has[:, at], learned.rows)
        lines.append({"side": row.side, **named, **shown, "p": row.p, "q": row.q})
    table = pd.DataFrame(lines, columns=_COLUMNS).astype({"feature": "Int64"})
    table["same_as"] = same_as(first, terms)
    return Predicted(table, directions.tolist(), in_own.tolist(), tested, len(learned.rows))


def _items(present: csr_matrix) -> Marks:
    """Those that are common enough to be there, and rare enough."""
    count = np.asarray(present.sum(0)).ravel()
    items = np.flatnonzero((count > 0) & (count <= COMMONEST * present.shape[0]))
    return present[:, items].tocsc(), items


def _of_any(p: Array) -> Array:
    """q at which perhaps none at all is called that should not be (Bonferroni): around a document of a group that is true lie many more
    that are, by the number of which a false discovery rate would let pass what stands alone."""
    return np.minimum(p * len(p), 1)


def _rows_with(marks: dict[str, Marks], row: Any) -> Array:
    """The documents that have what a row is about."""
    has = marks[row.side][0]
    return np.asarray(has.indices[has.indptr[row.column] : has.indptr[row.column + 1]])


def _shown(scores: Array, middle: float, has: Array, positions: Array) -> dict[str, Any]:
    """What the table says of an item.

    scores, middle  what `_scores` gives
    has, positions  [documents] whether they have the item, and where they are
    """
    more, total = [int((scores[of] > middle).sum()) for of in (has, ~has)], [int(of.sum()) for of in (has, ~has)]
    low, high = difference_interval(np.array(more[0]), total[0], np.array(more[1]), total[1])
    return {
        "documents": total[0],
        "frequency_with": more[0] / total[0],
        "frequency_without": more[1] / total[1],
        "difference": more[0] / total[0] - more[1] / total[1],
        "low": float(low),
        "high": float(high),
        "typical": positions[has][np.argsort(-scores[has], kind="stable")[:TYPICAL]].tolist(),
    }


def _scores(ridge: Ridge, has: Array) -> tuple[Array, Array]:
    """[documents, m] how like those that a column of has [documents, m] marks each is, judged without itself, and [m] the middle between
    the means of these and of the others."""
    scores = ridge.alone @ has.astype(float)
    return scores, (scores.mean(0, where=has) + scores.mean(0, where=~has)) / 2


def told_alike(ridge: Ridge, has: Array) -> Array:
    """[m, m] bool, which columns of has [documents, m] are told in about the same way: by scores that go together."""
    scores = ridge.alone @ has.astype(float)
    scores -= scores.mean(0)
    scores /= np.maximum(np.linalg.norm(scores, axis=0), np.finfo(float).tiny)
    alike: Array = scores.T @ scores >= ALIKE
    return alike


def _findings(side: Array, has: Array, ridges: dict[str, Ridge]) -> Array:
    """[told] the first of the same text that the other text tells in about the same way; its own number where there is none.

    side  [told] whose each is
    has   [documents, told] bool, which documents
    """
    first = np.arange(len(side))
    for own, ridge in ridges.items():
        rows = np.flatnonzero(side == own)
        of, near = np.nonzero(told_alike(ridge, has[:, rows]))
        first[rows] = rows[first_near(of, near, len(rows))]
    return first


def _every_finding(first: Array, number: int) -> tuple[Array, Array]:
    """Which of the rows are shown, `number` at most, finding after finding; and of these the first of each one's finding.

    A row of every finding, the foremost first, then what comes next, whatever its finding.
    """
    heads = np.flatnonzero(first == np.arange(len(first)))[:number]
    others = np.flatnonzero(first != np.arange(len(first)))[: number - len(heads)]
    kept = np.concatenate([heads, others])
    kept = kept[np.lexsort((kept, first[kept]))]
    starts, of = np.unique(first[kept], return_index=True, return_inverse=True)[1:]
    return kept, starts[of]
