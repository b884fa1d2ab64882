"""Which features, words and groups of documents of one text all of the other text predicts, though perhaps no single item of it does.

A pair needs a feature or word on either side that tells by itself. Where one side has none, all of it may: a ridge regression of
an item of one text on everything that the other text has and, as much, on its mean state in the middle of the model (which
knows how a text is written, too), each document scored by the direction that all others give, as in
`together`. The distance between the mean scores of the documents with the item and of those without is tested by giving the item
to other documents of like length, as many of each length, at random: again and again, and anew with more draws for those items
that a few leave possible. Where hardly a draw reaches what was found, p is the tail of a distribution with four of their moments
(`shuffled_p`), which have to be sure: of thousands of items those are told for which they came out small.

What marks a kind of document in its own text may be in others, too. Predicted in the same way are the groups around each document of
those most alike to it by that text ([neighbours.py](neighbours.py)): more of such a group are of one kind than of the documents with
an item.

What of one text the other tells in about the same way, by scores that go together, is one finding, of whose groups the best told stands
for all. Every finding has a row before any has a second, so that a strong one with a hundred words does not hide a weak one.

Cost: the third power of the documents that are learned from and, for each item and draw, the square of the documents that have it.
So rare items are tested; of common ones a pair tells more.

Not in the paper.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numba
import numpy as np
import pandas as pd
from scipy.sparse import csc_matrix, csr_matrix

from hourglass.metrics.proportions import benjamini_hochberg, difference_interval
from hourglass.metrics.shuffles import shuffled_p
from hourglass.nn.parallel import over_rows
from hourglass.uses.explore.alike import first_near, same_as
from hourglass.uses.explore.looked_at import Field
from hourglass.uses.explore.neighbours import apart, groups_around, nearest
from hourglass.uses.explore.ridge import Direction, Ridge
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
ROUNDS = ((49, 0.05, 0.7), (199, 0.01, 0.35), (999, 1e-3, 0.19), (4999, 1e-4, 0.09), (49_999, 0.0, 0.0))
"""Draws; the p up to which an item goes on to the next round, but for those that would be told were p as large as it may be; and how
much a p of them may be too small: its logarithm (to base 10) by so many times the square of what it should be. Of 24,000 tails that
were fitted to so few draws hardly one was further off."""
MANY = 500
"""Groups of a text for which more draws are made, without looking whether one tells what others do."""
_PAIRS, _LEAST = 2**27, 4999
"""Of documents that all draws of an item sum over, but for so many draws: sums over more documents have lighter tails."""
MOST_SAID = 0.999
"""What a document says of another counts up to this share of all that is said: one pair of copies weighs as much as fifty others,
and hardly a draw has it, so that no draws tell the tail."""
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
        ridges = {side: Ridge(present[other], middle[other]) for side, other in (("a", "b"), ("b", "a"))}
        alike = {side: nearest((present[side], middle[side]), random) for side in fields}
        return cls(rows[drawn], fields, present, middle, ridges, alike, strata)


def predicted(
    learned: Learned, options: CorrelateOptions, part: float, random: np.random.Generator, bar: Progress
) -> Predicted:
    """The surest items and groups of either field that the other predicts; `part` of what may be discovered falsely is the items', as
    much the groups'."""
    of_items = {side: _items(own) for side, own in learned.present.items()}
    of_groups = {side: groups_around(alike) for side, alike in learned.alike.items()}
    ridges, strata, level = learned.ridges, learned.strata, options.false_discovery * part
    said = {side: Said.by(ridge) for side, ridge in ridges.items()}
    item_distances = [Distances(said[side], has, strata) for side, (has, _) in of_items.items()]
    items = _tested(of_items, item_distances, benjamini_hochberg, level, random, bar)
    group_distances = [GroupDistances(said[side], has, strata, at) for side, (has, at) in of_groups.items()]
    groups = _tested(of_groups, group_distances, _of_any, level, random, bar)
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
    lines, directions, terms = [], [], []
    in_own: list[Direction | None] = []
    for row, own_has in zip(told.itertuples(), has.T):
        own, other = ("a", "b") if row.side == "a" else ("b", "a")
        field = learned.fields[own]
        directions.append(direction_to(learned.ridges[own], own_has, learned.fields[other]))
        if row.group:
            of_group = direction_to(learned.ridges[other], own_has, field)  # what of its own text tells of the other
            in_own.append(of_group)
            terms.append(of_group.names()[:NAMED])
            named = {"kind": "group", "label": "; ".join(terms[-1]) or None, "position": int(learned.rows[row.number])}
        else:
            in_own.append(None)
            terms.append(field.terms[row.number])
            named = {**field.items.iloc[row.number], "position": int(field.columns[row.number])}
        shown = _shown(learned.ridges[own], own_has, learned.rows)
        lines.append({"side": own, **named, **shown, "p": row.p, "q": row.q})
    table = pd.DataFrame(lines, columns=_COLUMNS).astype({"feature": "Int64"})
    table["same_as"] = same_as(first, terms)
    return Predicted(table, directions, in_own, tested, len(learned.rows))


def _items(present: csr_matrix) -> Marks:
    """Those that are common enough to be there, and rare enough."""
    count = np.asarray(present.sum(0)).ravel()
    items = np.flatnonzero((count > 0) & (count <= COMMONEST * present.shape[0]))
    return present[:, items].tocsc(), items


def _tested(
    marks: dict[str, Marks],
    distances: Sequence[Distances],
    adjusted: Callable[[Array], Array],
    level: float,
    random: np.random.Generator,
    bar: Progress,
) -> pd.DataFrame:
    """A row each of what may be predicted: side, number, column (of the marks), distance, p and q (p adjusted for all)."""
    parts = [
        pd.DataFrame({"side": side, "number": numbers, "column": np.arange(len(numbers)), "distance": own.found})
        for (side, (_, numbers)), own in zip(marks.items(), distances)
    ]
    p = np.concatenate(_p_values(distances, adjusted, level, random, bar))
    return pd.concat(parts, ignore_index=True).assign(p=p, q=adjusted(p))


def _of_any(p: Array) -> Array:
    """q at which perhaps none at all is called that should not be (Bonferroni): around a document of a group that is true lie many more
    that are, by the number of which a false discovery rate would let pass what stands alone."""
    return np.minimum(p * len(p), 1)


def _rows_with(marks: dict[str, Marks], row: Any) -> Array:
    """The documents that have what a row is about."""
    has = marks[row.side][0]
    return np.asarray(has.indices[has.indptr[row.column] : has.indptr[row.column + 1]])


class Said(NamedTuple):
    """What documents say of each other, but for the very largest.

    both   [rows, rows] the sum over either order of two, which is all that a sum over pairs needs, in steps of this size: draws take
           the time to read it, of bytes half as much; what is rounded adds less than a thousandth to the variance (docs/LOG.md)
    total  [rows] what all say of each
    """

    both: Array
    step: float
    total: Array

    @classmethod
    def by(cls, ridge: Ridge) -> Said:
        scores = np.minimum(ridge.alone, np.quantile(ridge.alone, MOST_SAID))
        total = scores.sum(0)
        scores += scores.T
        step = float(np.abs(scores).max()) / np.iinfo(np.int8).max or 1.0
        scores /= step
        return cls(np.rint(scores, out=scores).astype(np.int8), step, total)


class Distances:
    """How far apart the mean scores are of the rows with an item and of those without, each row judged without itself, and copies as
    what is very much alike.

    items   [rows, items] 1 where a row has the item: some do, some do not
    strata  [rows] numbers from 0; by chance an item has other rows, as many of each stratum
    found   [items] the distances
    """

    def __init__(self, said: Said, items: csc_matrix, strata: Array) -> None:
        self._said = said
        self._items, self._counts = items, np.diff(items.indptr)
        self._strata = strata, np.argsort(strata, kind="stable"), np.cumsum([0, *np.bincount(strata)])
        self.found: Array = self._drawn(np.arange(items.shape[1]), 1, None)[0]

    def p_values(self, which: Array, draws: int, random: np.random.Generator) -> Array:
        """[which] p of some of the items, by so many draws, or fewer of what is in many rows."""
        p = np.empty(len(which))
        each = np.minimum(draws, np.maximum(_PAIRS // self._counts[which] ** 2, _LEAST))
        for number in np.unique(each):
            same = which[each == number]
            p[each == number] = shuffled_p(self.found[same], self._drawn(same, int(number), random))
        return p

    def further(self, which: Array, p: Array, told: Array) -> Array:
        """Those of some items, left possible by p [items], that are worth more draws: all, whatever is `told` [items] already."""
        return which

    def _drawn(self, which: Array, draws: int, random: np.random.Generator | None) -> Array:
        """[draws, which] distances of other rows; without `random` of the item's own."""
        made = np.empty((draws, len(which)))
        seeds = np.full(len(which), -1) if random is None else random.integers(2**32, size=len(which))
        places = self._items.indptr, self._items.indices
        over_rows(_distances, len(which), *self._said, *places, *self._strata, which, seeds, made)
        return made


class GroupDistances(Distances):
    """The same of groups; centre [groups] the row that each is around."""

    def __init__(self, said: Said, groups: csc_matrix, strata: Array, centre: Array) -> None:
        super().__init__(said, groups, strata)
        self._centre = centre

    def further(self, which: Array, p: Array, told: Array) -> Array:
        """Those around no document of one that is told and told better, which will stand for them. Where most texts are of one subject
        and many are left, those around no document of a surer one."""
        best = np.full(self._items.shape[0], -np.inf)
        for k in np.flatnonzero(told):
            rows = self._items.indices[self._items.indptr[k] : self._items.indptr[k + 1]]
            best[rows] = np.maximum(best[rows], self.found[k])
        which = which[self.found[which] >= best[self._centre[which]]]
        if len(which) <= MANY:
            return which
        surer = np.argsort(p, kind="stable")[: int((p <= p[which].max()).sum())]
        return which[np.isin(which, apart(self._items, self._centre, surer))]


def _p_values(
    of: Sequence[Distances],
    adjusted: Callable[[Array], Array],
    level: float,
    random: np.random.Generator,
    bar: Progress,
) -> list[Array]:
    """Those of the items of each, by as many draws as it takes to tell which are told: those that are adjusted to `level` at most."""
    p = [np.ones(len(own.found)) for own in of]
    going = [np.arange(len(own.found)) for own in of]
    task = bar.start("Predicting", len(ROUNDS), "rounds")
    for draws, most, doubt in ROUNDS:
        for own, of_own, which in zip(of, p, going):
            of_own[which] = own.p_values(which, draws, random)
        sure = adjusted(_at_most(np.concatenate(p), doubt)) <= level
        told = np.split(sure, np.cumsum([len(own) for own in p])[:-1])
        left = [
            which[(of_own <= most)[which] & ~of_own_told[which]] for of_own, of_own_told, which in zip(p, told, going)
        ]
        going = [own.further(which, of_own, of_own_told) for own, of_own, of_own_told, which in zip(of, p, told, left)]
        for of_own, which, more in zip(p, left, going):
            of_own[np.setdiff1d(which, more)] = 1
        bar.advance(task, 1)
    return p


def _at_most(p: Array, doubt: float) -> Array:
    """What p may be where its logarithm may be too small by `doubt` times the square of what it should be."""
    if not doubt:
        return p
    size = -np.log10(np.maximum(p, np.finfo(float).tiny))
    return np.asarray(10 ** (-(np.sqrt(1 + 4 * doubt * size) - 1) / (2 * doubt)))


@numba.njit(cache=True, nogil=True)
def _distances(
    both: Any,
    step: float,
    total: Any,
    starts: Any,
    rows: Any,
    strata: Any,
    members: Any,
    bounds: Any,
    items: Any,
    seeds: Any,
    made: Any,
    start: int,
    stop: int,
) -> None:
    """made [draws, items]: mean score of the rows with an item less that of those without, the item in rows drawn from its strata.

    members, bounds  the rows of stratum after stratum, and where each begins
    seeds            [items] those of what is drawn, so that threads draw the same; below 0: the item stays in its rows
    """
    taken = np.empty(len(bounds) - 1, np.int64)
    for k in range(start, stop):
        own = rows[starts[items[k]] : starts[items[k] + 1]]
        drawn, left, number = own.copy(), members.copy(), len(own)
        if seeds[k] >= 0:
            np.random.seed(seeds[k])
        for draw in range(len(made)):
            if seeds[k] >= 0:
                taken[:] = bounds[:-1]
                for i in range(number):
                    stratum = strata[own[i]]
                    first = taken[stratum]
                    other = np.random.randint(first, bounds[stratum + 1])
                    left[first], left[other] = left[other], left[first]
                    drawn[i] = left[first]
                    taken[stratum] += 1
            steps, overall = np.int64(0), 0.0
            for i in range(number):
                scores, of_row = both[drawn[i]], np.int32(0)
                for j in range(i):
                    of_row += scores[drawn[j]]
                steps += of_row
                overall += total[drawn[i]]
            within = steps * step
            made[draw, k] = within / number - (overall - within) / (len(total) - number)


def _shown(ridge: Ridge, has: Array, positions: Array) -> dict[str, Any]:
    """What the table says of an item.

    has, positions  [documents] whether they have the item, and where they are
    """
    scores, middle = _scores(ridge, has)
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


def direction_to(ridge: Ridge, has: Array, field: Field) -> Direction:
    """What of a text tells the documents that `has` [documents] marks."""
    middle, weights = _scores(ridge, has)[1], ridge.weights(has)
    return Direction.of(field.items.assign(position=field.columns), weights, ridge.sum_at(middle, has, weights))


def _scores(ridge: Ridge, has: Array) -> tuple[Array, float]:
    """[documents] how like those marked each is, judged without itself, and the middle between the means of these and of the others."""
    scores = ridge.alone @ has
    return scores, float((scores[has].mean() + scores[~has].mean()) / 2)


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
