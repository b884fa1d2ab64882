"""Which features and words of one text all of the other text predicts, though perhaps no single one of it does.

A pair needs a feature or word on either side that tells by itself. Where one side has none, all of it may: a ridge regression of
an item of one text on everything that the other text has and, as much, on its mean state in the middle of the model (which
knows how a text is written, too), each document scored by the direction that all others give, as in
`together`. The distance between the mean scores of the documents with the item and of those without is tested by giving the item
to other documents of like length, as many of each length, at random: again and again, and anew with more draws for those items
that a few leave possible. Where hardly a draw reaches what was found, p is the tail of a distribution with four of their moments
(`shuffled_p`), which have to be sure: of thousands of items those are told for which they came out small.

Items of one text that the other tells in about the same way, by scores that go together, are one finding. Every finding has a row
before any has a second, so that a strong one with a hundred words does not hide a weak one.

Cost: the third power of the documents that are learned from and, for each item and draw, the square of the documents that have it.
So rare items are tested; of common ones a pair tells more.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import pandas as pd
from scipy.sparse import csc_matrix, csr_matrix

from hourglass.metrics.proportions import benjamini_hochberg, difference_interval
from hourglass.metrics.shuffles import shuffled_p
from hourglass.nn.parallel import over_rows
from hourglass.uses.explore.alike import first_near, same_as
from hourglass.uses.explore.looked_at import Field
from hourglass.uses.explore.ridge import Direction, Ridge
from hourglass.uses.explore.scores import dense_rows
from hourglass.uses.explore.strata import SMALLEST, length_strata
from hourglass.uses.progress import Progress

if TYPE_CHECKING:
    from hourglass.uses.explore.correlate import CorrelateOptions

Array = np.ndarray[Any, Any]

LARGEST = 2500
"""Documents, drawn at random, that are learned from at most."""
COMMONEST = 0.1
"""An item in a larger share of the documents is not tested."""
ROUNDS = ((49, 0.05, 0.7), (199, 0.01, 0.35), (999, 1e-3, 0.19), (4999, 1e-4, 0.09), (49_999, 0.0, 0.0))
"""Draws; the p up to which an item goes on to the next round, but for those that would be told were p as large as it may be; and how
much a p of them may be too small: its logarithm (to base 10) by so many times the square of what it should be. Of 24,000 tails that
were fitted to so few draws hardly one was further off."""
_PAIRS, _LEAST = 2**27, 4999
"""Of documents that all draws of an item sum over, but for so many draws: sums over more documents have lighter tails."""
MOST_SAID = 0.999
"""What a document says of another counts up to this share of all that is said: one pair of copies weighs as much as fifty others,
and hardly a draw has it, so that no draws tell the tail."""
ALIKE, LOOKED_AT = 0.6, 10
"""Correlation of the scores by which items are predicted from which on they are one finding; how many times as many items as are
shown are parted into findings, the best predicted of all."""
TYPICAL, LISTED = 5, 20
"""Documents of a row, and items of the other text for and against it in the JSON."""

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
    """Items of either text that all of the other predicts.

    table    a row an item, finding after finding, the best predicted first: side ("a": it is of the first text, and the second predicts it), kind, feature, label,
             position (number of the feature, or the width plus that of the word), documents (that have it), frequency_with, frequency_without (shares of the documents with the item, and without, whose
             other text is more like that of those with it, each judged without itself), difference with its interval low and high,
             p, q, same_as (the row that stands for this one), typical (positions of documents with the item whose other text
             speaks most for it)
    directions  of each row, through the other text, to the documents with the item
    tested, documents   number of items that were tested, and of documents on which they were
    """

    table: pd.DataFrame
    directions: list[Direction]
    tested: int
    documents: int

    def speaks_for(self, row: int) -> list[str]:
        """Names of what speaks for a row's item in the other text, the heaviest first."""
        return self.directions[row].names()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, each row with what speaks most for it and most against it."""
        rows = json.loads(self.table.to_json(orient="records"))
        for row, direction in zip(rows, self.directions):
            plain = direction.items[["kind", "feature", "label", "weight"]]
            for name, side in (("items_for", plain["weight"] > 0), ("items_against", plain["weight"] < 0)):
                row[name] = json.loads(plain[side].head(LISTED).to_json(orient="records"))
        return {"tested": self.tested, "documents": self.documents, "rows": rows}


@dataclass(frozen=True)
class Learned:
    """The documents that are learned from, and what their texts say of each other.

    rows     [documents] position of each in the first workspace
    fields   of the two texts, "a" and "b"; present: [documents, items] what each has; middle: [documents, d] the mean states
             in the middle of the model
    ridges   by which items of "a" are predicted, by all of the other text; and of "b"
    strata   [documents] numbers from 0, of like length
    """

    rows: Array
    fields: dict[str, Field]
    present: dict[str, csr_matrix]
    middle: dict[str, Array]
    ridges: dict[str, Ridge]
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
        return cls(rows[drawn], fields, present, middle, ridges, strata)


def predicted(
    learned: Learned, options: CorrelateOptions, part: float, random: np.random.Generator, bar: Progress
) -> Predicted:
    """The surest items of either field that the other predicts; `part` of what may be discovered falsely is theirs."""
    of, other = learned.fields, {"a": learned.fields["b"], "b": learned.fields["a"]}
    present, ridges, documents = learned.present, learned.ridges, len(learned.rows)
    distances, parts = {}, []
    for side, own in present.items():
        count = np.asarray(own.sum(0)).ravel()
        items = np.flatnonzero((count > 0) & (count <= COMMONEST * documents))
        distances[side] = Distances(ridges[side], own[:, items].tocsc(), learned.strata)
        parts.append(pd.DataFrame({"side": side, "item": items, "distance": distances[side].found}))
    tested = pd.concat(parts, ignore_index=True)
    level = options.false_discovery * part
    tested["p"] = np.concatenate(_p_values(list(distances.values()), level, random, bar))
    tested["q"] = np.minimum(benjamini_hochberg(tested["p"].to_numpy()) / part, 1)
    told = tested[tested["q"] <= options.false_discovery]
    told = told.sort_values("distance", ascending=False, kind="stable").head(LOOKED_AT * options.top)
    first = _findings(told, present, ridges)
    kept, first = _every_finding(first, options.top)
    told = told.iloc[kept]

    columns = [present[side][:, [item]] for side, item in zip(told["side"], told["item"])]
    lines, directions = [], []
    for (side, item, _, p, q), column in zip(told.itertuples(index=False), columns):
        has = column.toarray().ravel() > 0
        line, position = _shown(ridges[side], has, learned.rows), int(of[side].columns[item])
        lines.append({"side": side, **of[side].items.iloc[item], "position": position, **line, "p": p, "q": q})
        directions.append(direction_to(ridges[side], has, other[side]))
    table = pd.DataFrame(lines, columns=_COLUMNS).astype({"feature": "Int64"})
    table["same_as"] = same_as(first, [of[side].terms[item] for side, item in zip(told["side"], told["item"])])
    return Predicted(table, directions, len(tested), documents)


class Distances:
    """How far apart the mean scores are of the rows with an item and of those without, each row judged without itself, and copies as
    what is very much alike.

    items   [rows, items] 1 where a row has the item: some do, some do not
    strata  [rows] numbers from 0; by chance an item has other rows, as many of each stratum
    found   [items] the distances
    """

    def __init__(self, ridge: Ridge, items: csc_matrix, strata: Array) -> None:
        scores = np.minimum(ridge.alone, np.quantile(ridge.alone, MOST_SAID))
        # A sum over pairs of rows is the same for either order of the two.
        self._both, self._total = (scores + scores.T).astype(np.float32), scores.sum(0)
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

    def _drawn(self, which: Array, draws: int, random: np.random.Generator | None) -> Array:
        """[draws, which] distances of other rows; without `random` of the item's own."""
        made = np.empty((draws, len(which)))
        seeds = np.full(len(which), -1) if random is None else random.integers(2**32, size=len(which))
        places = self._items.indptr, self._items.indices
        over_rows(_distances, len(which), self._both, self._total, *places, *self._strata, which, seeds, made)
        return made


def _p_values(of: list[Distances], level: float, random: np.random.Generator, bar: Progress) -> list[Array]:
    """Those of the items of each, by as many draws as it takes to tell which are told at a false discovery rate of `level`."""
    p = [np.ones(len(own.found)) for own in of]
    going = [np.arange(len(own.found)) for own in of]
    task = bar.start("Predicting", len(ROUNDS), "rounds")
    for draws, most, doubt in ROUNDS:
        for own, of_own, which in zip(of, p, going):
            of_own[which] = own.p_values(which, draws, random)
        unsure = benjamini_hochberg(_at_most(np.concatenate(p), doubt)) > level
        starts = np.cumsum([0, *map(len, p)])
        going = [
            which[(of_own <= most)[which] & unsure[start + which]] for start, of_own, which in zip(starts, p, going)
        ]
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
                drawn.sort()  # in order, memory is read faster
            within, overall = 0.0, 0.0
            for i in range(number):
                scores, of_row = both[drawn[i]], 0.0
                for j in range(i):
                    of_row += scores[drawn[j]]
                within += of_row
                overall += total[drawn[i]]
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


def _findings(told: pd.DataFrame, present: dict[str, csr_matrix], ridges: dict[str, Ridge]) -> Array:
    """[told] the first item of the same text that the other text tells in about the same way; its own number where there is none."""
    first = np.arange(len(told))
    for side, own in present.items():
        rows = np.flatnonzero(told["side"] == side)
        of, near = np.nonzero(told_alike(ridges[side], own[:, told["item"].to_numpy()[rows]].toarray()))
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
