"""How two groups of documents differ, in features and in words.

A feature is present in a document when its maximum passes `level` times the feature's own 90th percentile
(level 0 is the paper's rule: any activation at all). Frequencies, their difference with its interval, an
exact p and a false-discovery q come for every feature and every word that could differ by the threshold,
which how many documents have it decides, whatever their groups. Intervals are wider the fewer of many are
shown: 95 % of those shown hold what they should (Benjamini and Yekutieli 2005). With `split`, one half of the
documents selects what is likely to differ, and the other half, which had no say, must confirm it and gives
the numbers that are shown; what is weak is then often missed. What no single row shows, all of them together
may: [together.py](together.py).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, vstack

from hourglass.errors import ConfigError, InputError, nearest
from hourglass.metrics.proportions import (
    benjamini_hochberg,
    difference_interval,
    fisher,
    level_of_selected,
    mcnemar,
    paired_interval,
    weighted_benjamini_hochberg,
)
from hourglass.uses.explore.alike import first_alike, same_as, terms_of
from hourglass.uses.explore.presence import any_of, items_of, present_by_shard, present_in
from hourglass.uses.explore.scores import dense_rows
from hourglass.uses.explore.strata import length_steps
from hourglass.uses.explore.together import LARGEST, Together, told_together

if TYPE_CHECKING:
    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]
Metric = Literal["absolute", "relative", "nearest"]
Test = Literal["fisher", "permutation"]

REST = "(the rest)"
SMALLEST = 5
"""A group of fewer documents is refused: every interval would span nearly everything."""
SMALLEST_SPLIT = 40
"""A group of fewer documents is not split: a half could select nothing."""
TO_TOGETHER = 0.2
"""Of what may be discovered falsely, the part that the one test of all rows together may use; the rest is for the rows."""


@dataclass(frozen=True)
class Difference:
    """How group `a` differs from group `b`.

    table      a row a feature or word, the most different first: kind ("feature" or "word"), feature, label,
               frequency_a, frequency_b, difference, low, high (with all other rows shown 95 % sure), relative, p, q,
               nearest (largest frequency in any single other group); with `split` all from the half that did not select;
               same_as: the row that stands for this one, which is about the same documents (NA: it stands for itself)
    documents  number of documents in a and in b on which the table rests (pairs, when paired)
    together   how well all that was tested tells a from b at once; None where chance explains it
    notes      what a reader has to know before believing the table
    """

    by: str
    a: str
    b: str
    table: pd.DataFrame
    documents: tuple[int, int]
    median_tokens: tuple[float, float]
    together: Together | None
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return {
            "by": self.by,
            "a": self.a,
            "b": self.b,
            "documents_a": self.documents[0],
            "documents_b": self.documents[1],
            "median_tokens_a": self.median_tokens[0],
            "median_tokens_b": self.median_tokens[1],
            "notes": self.notes,
            "together": self.together.to_dict() if self.together is not None else None,
            "rows": json.loads(self.table.to_json(orient="records")),
        }


class Differences(list[Difference]):
    """One difference or one for each group; `table` is all of them together, with columns a and b in front."""

    @property
    def table(self) -> pd.DataFrame:
        tables = [d.table.assign(a=d.a, b=d.b) for d in self]
        table = pd.concat(tables, ignore_index=True)
        return table[["a", "b", *(c for c in table.columns if c not in ("a", "b"))]]


@dataclass(frozen=True, kw_only=True)
class DiffOptions:
    """What counts as present, how the groups are compared and what is shown.

    metric      order and selection by "absolute" difference, by "relative" difference (each frequency over the
                larger of the two), or by the difference to the "nearest" of the other groups
    level       presence: share of the feature's 90th percentile that the maximum must pass
    min_tokens  presence: number of tokens that must fire
    pair        column that matches documents of the groups one to one (the same prompt, say)
    test        "fisher" (exact; McNemar's when paired) or "permutation" of the group labels
    permutations  shufflings of that, and of the test of all rows together
    split       select on one half (by p, as the other must confirm it), confirm by q and estimate on the other
    match_length  compare only as many documents of each length in one group as in the other; of each pair, with `pair`
    threshold   smallest difference that is kept; what too few, or too many, documents have to differ so much is not tested
    false_discovery  largest q that is kept, of rows and of all together; None keeps all
    top         most rows of each direction and kind
    """

    metric: Metric = "absolute"
    level: float = 0.5
    min_tokens: int = 1
    pair: str | None = None
    test: Test = "fisher"
    permutations: int = 999
    split: bool = False
    match_length: bool = False
    threshold: float = 0.03
    false_discovery: float | None = 0.05
    top: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (("metric", get_args(Metric)), ("test", get_args(Test))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"no {name} {getattr(self, name)!r}{nearest(getattr(self, name), allowed)}")
        if self.permutations < 1:
            raise ConfigError(f"permutations {self.permutations}: expected 1 or more")


def differences(
    workspace: Workspace, by: str, options: DiffOptions, among: Sequence[str] | None = None
) -> Iterator[Difference]:
    """Every group of column `by` (or those in `among`) against the rest; two groups: one against the other.

    Groups that are too small are left out.
    """
    groups = pd.Series(workspace.column(by)).dropna().value_counts()
    names = [name for name, count in groups.items() if count >= SMALLEST and (among is None or name in among)]
    if len(groups) < 2:
        raise InputError(f"{workspace.folder}: column {by!r} has {len(groups)} group(s); a difference needs two")
    if len(names) < 2:
        raise InputError(
            f"{workspace.folder}: column {by!r} has {len(names)} group(s) of {SMALLEST} documents or more; "
            "a difference needs two; choose a column with fewer values"
        )
    if len(groups) == 2:
        yield difference(workspace, by, names[0], names[1], options)
        return
    for name in names:
        yield difference(workspace, by, name, None, options)


def difference(workspace: Workspace, by: str, a: str, b: str | None, options: DiffOptions) -> Difference:
    """Group `a` of column `by` against group `b`, or against all other groups when `b` is None.

    Raises InputError for a group that does not exist or has fewer than five documents.
    """
    compared = _compare(workspace, by, a, b, options)
    notes, counted, shown = compared.notes, compared.counted, compared.counted[-1]
    if options.split and len(counted) == 1:
        notes.append(f"Fewer than {SMALLEST_SPLIT} documents on a side: the same documents select and estimate.")
    chosen = counted[0].tested(options.threshold).table()
    if len(counted) > 1:
        # The other half bears the burden of proof, and of so few rows: what selects need only be likely.
        chosen = shown.of(chosen.index[_selection(chosen, options, "p")]).table()
    tested = len(chosen)
    together = _together(workspace, compared, options)
    if together is not None:
        chosen["q"], together = _shared(chosen["p"].to_numpy(), together)
        if options.false_discovery is not None and together.q > options.false_discovery:
            together = None
    if len(counted) > 1:
        keep = chosen if options.false_discovery is None else chosen[chosen["q"] <= options.false_discovery]
    else:
        keep = chosen[_selection(chosen, options, "q")]
        notes += _too_few_shufflings(tested, options)
    keep = _ordered(keep, options)
    low, high = shown.of(keep.index).interval(level_of_selected(len(keep), tested))
    at = keep.columns.get_loc("difference")
    keep.insert(at + 1, "low", low)
    keep.insert(at + 2, "high", high)
    told = np.flatnonzero((compared.side >= 0) & (compared.half == len(counted) - 1))
    present = present_in(workspace, keep.index.to_numpy(np.int64), options.level, options.min_tokens, told)
    table = _described(keep.reset_index(drop=True), workspace)
    table["same_as"] = same_as(first_alike(present), terms_of(workspace, table))
    documents = (int(shown.total_a), int(shown.total_b))
    return Difference(by, a, b or REST, table, documents, compared.medians, together, notes)


@dataclass(frozen=True)
class Selected:
    """What the selecting half of the documents says, and which documents had no say.

    table  the rows that it chose, strongest first, with its own numbers; the index is the column of the row among all
           features, then all words
    side   [n] of each document: 0 in a, 1 in b, -1 in neither
    fresh  [n] documents of either side that did not select; none where they are too few to split
    pair   [n] number of the pair of each document, -1 outside any; None when not paired
    """

    table: pd.DataFrame
    side: Array
    fresh: Array
    pair: Array | None
    notes: list[str]


def select(workspace: Workspace, by: str, a: str, b: str | None, options: DiffOptions) -> Selected:
    """The first half of `difference`: what differs on the selecting documents, nothing of the others looked at."""
    compared = _compare(workspace, by, a, b, options)
    chosen = compared.counted[0].tested(options.threshold).table()
    ordered = _ordered(chosen[_selection(chosen, options, "q")], options)
    table = _described(ordered, workspace)
    pair = compared.pairs.of if compared.pairs is not None else None
    fresh = (compared.side >= 0) & (compared.half == 1)
    return Selected(table, compared.side, fresh, pair, compared.notes)


@dataclass
class _Compared:
    side: Array
    half: Array
    pairs: _Pairs | None
    counted: list[_Counts]
    drawn: Array
    present: csr_matrix  # [drawn documents, all features, then words]
    medians: tuple[float, float]
    notes: list[str]


def _compare(workspace: Workspace, by: str, a: str, b: str | None, options: DiffOptions) -> _Compared:
    """Who is on which side and in which half, and the counts of each half."""
    groups = workspace.column(by)
    _check_groups(workspace, by, groups, [a] if b is None else [a, b])
    tokens = np.concatenate([arrays["tokens"] for arrays in workspace.stored("tokens")])
    side = np.full(len(groups), -1, np.int8)
    named = np.array([g is not None for g in groups])
    side[named & (groups == a)] = 0
    side[(groups == b) if b is not None else named & (groups != a)] = 1
    random = np.random.default_rng(options.seed)
    notes: list[str] = []
    medians = (float(np.median(tokens[side == 0])), float(np.median(tokens[side == 1])))
    if options.match_length:
        side = _match_lengths(side, tokens, random, workspace.column(options.pair) if options.pair else None)
        medians = (float(np.median(tokens[side == 0])), float(np.median(tokens[side == 1])))
        if min((side == 0).sum(), (side == 1).sum()) < SMALLEST:
            raise InputError(
                f"{workspace.folder}: {a!r} and {b or REST!r} have too few documents of equal length; drop length matching"
            )
    elif max(medians) > 1.5 * max(min(medians), 1):
        notes.append(
            f"Documents of the two sides differ in length (medians {medians[0]:.0f} and {medians[1]:.0f} tokens): "
            "longer documents contain more of everything. Match lengths (`--match-length`) to see what remains."
        )
    pairs = _pairs(workspace, options.pair, side) if options.pair else None
    if pairs is not None and (len(pairs.names) < SMALLEST):
        raise InputError(
            f"{workspace.folder}: column {options.pair!r} matches only {len(pairs.names)} pairs of {a!r} and {b or REST!r}"
        )

    units = (len(pairs.names),) if pairs is not None else ((side == 0).sum(), (side == 1).sum())
    split = options.split and min(units) >= SMALLEST_SPLIT
    half = _halves(side, pairs, random) if split else np.zeros(len(side), np.int8)

    others = _other_groups(groups, side) if b is None else None
    drawn = _drawn((side >= 0) & (half == half.max()), side, pairs, random)
    counted, present = _count(workspace, side, half, pairs, others, drawn, options)
    return _Compared(side, half, pairs, counted, drawn, present, medians, notes)


# Counting -------------------------------------------------------------------------------------------


@dataclass
class _Counts:
    """Presence counts over one half of the documents; `position` is the row's among `features` features, then all words."""

    features: int
    position: Array
    a: Array
    b: Array
    total_a: int
    total_b: int
    nearest: Array | None  # largest frequency in a single other group
    only_a: Array | None = None  # paired: pairs where only a has it
    only_b: Array | None = None
    permuted_p: Array | None = None

    def of(self, rows: Array | pd.Index) -> _Counts:
        """The same of some rows alone; an exact p for every word there is takes long."""
        sliced: dict[str, Any] = {
            field.name: value[rows]
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), np.ndarray)
        }
        return dataclasses.replace(self, **sliced)

    def tested(self, threshold: float) -> _Counts:
        """Of the rows that could differ by more than the threshold, for the documents that have each, or, of pairs, one alone of the two.

        That number is given where the groups do not differ, so what is left out by it must not dilute the others' q
        (Bourgon, Gentleman and Huber 2010).
        """
        having, total = self.a + self.b, self.total_a + self.total_b
        could = np.minimum(having, total - having)
        if self.only_a is not None and self.only_b is not None:
            could = self.only_a + self.only_b
        return self.of(np.flatnonzero(could > threshold * min(self.total_a, self.total_b)))

    def interval(self, level: float) -> tuple[Array, Array]:
        """Of the difference of each row."""
        if self.only_a is not None and self.only_b is not None:
            return paired_interval(self.only_a, self.only_b, self.total_a, level)
        return difference_interval(self.a, self.total_a, self.b, self.total_b, level)

    def _p(self) -> Array:
        if self.permuted_p is not None:
            return self.permuted_p
        if self.only_a is not None and self.only_b is not None:
            return mcnemar(self.only_a, self.only_b)
        return fisher(self.a, self.total_a, self.b, self.total_b)

    def table(self) -> pd.DataFrame:
        """A row each, with q among all of them."""
        frequency_a, frequency_b = self.a / max(self.total_a, 1), self.b / max(self.total_b, 1)
        p = self._p()
        larger = np.maximum(frequency_a, frequency_b)
        table = pd.DataFrame(
            {
                "kind": np.where(self.position < self.features, "feature", "word"),
                "frequency_a": frequency_a,
                "frequency_b": frequency_b,
                "difference": frequency_a - frequency_b,
                "relative": (frequency_a - frequency_b) / np.where(larger > 0, larger, 1),
                "p": p,
            },
            index=self.position,
        )
        table["nearest"] = self.nearest if self.nearest is not None else frequency_b
        table["q"] = benjamini_hochberg(p)
        return table


def _count(
    workspace: Workspace,
    side: Array,
    half: Array,
    pairs: _Pairs | None,
    others: Array | None,
    drawn: Array,
    options: DiffOptions,
) -> tuple[list[_Counts], csr_matrix]:
    """The counts of each half, and what the documents at `drawn` (in rising order) have."""
    rows = np.flatnonzero(side >= 0)
    side, half, drawn = side[rows], half[rows], np.searchsorted(rows, drawn)
    pairs = None if pairs is None else _Pairs(pairs.names, pairs.of[rows])
    halves = int(half.max()) + 1
    cells = half * 2 + side
    number = 2 * halves
    if others is not None:
        # A cell of its own for each other group in each half, so that the nearest of them can be told.
        others = others[rows]
        cells = np.where(side == 1, number + half * (others.max() + 1) + others, cells)
        number += halves * (int(others.max()) + 1)
    sums = np.zeros((number, workspace.manifest["width"] + len(workspace.words)))
    kept: list[csr_matrix] = []
    of_drawn: list[csr_matrix] = []
    start = 0
    for present in present_by_shard(workspace, rows, options.level, options.min_tokens):
        documents = present.shape[0]
        here = slice(start, start + documents)
        membership = csr_matrix(
            (np.ones(documents, np.float32), (cells[here], np.arange(documents))), shape=(number, documents)
        )
        counts = membership @ present  # few of all cells: a shard holds few groups, and few of the words
        sums[np.repeat(np.arange(number), np.diff(counts.indptr)), counts.indices] += counts.data
        if pairs is not None or options.test == "permutation":
            kept.append(present)
        of_drawn.append(present[drawn[slice(*np.searchsorted(drawn, [here.start, here.stop]))] - here.start])
        start = here.stop
    features = workspace.manifest["width"]
    everything = vstack(kept, format="csr") if kept else None
    results = []
    for h in range(halves):
        inside_a, inside_b = (side == 0) & (half == h), (side == 1) & (half == h)
        total_a, total_b = int(inside_a.sum()), int(inside_b.sum())
        a, b, closest = sums[2 * h], sums[2 * h + 1], None
        if others is not None:
            groups = int(others.max()) + 1
            of_others = sums[2 * halves + h * groups : 2 * halves + (h + 1) * groups]
            sizes = np.bincount(others[inside_b], minlength=groups)
            b = of_others.sum(0)
            closest = (of_others[sizes > 0] / sizes[sizes > 0, None]).max(0)
        counts_here = _Counts(features, np.arange(len(a)), a, b, total_a, total_b, closest)
        if pairs is not None and everything is not None:
            counts_here = _count_pairs(everything, pairs, inside_a, inside_b, features)
        if options.test == "permutation" and everything is not None:
            random = np.random.default_rng(options.seed + h)
            counts_here.permuted_p = _permute(everything, inside_a, inside_b, pairs, options.permutations, random)
        results.append(counts_here)
    return results, vstack(of_drawn, format="csr")


@dataclass(frozen=True)
class _Pairs:
    """Documents matched by a shared key: `of[i]` is the pair of document i, -1 outside any pair."""

    names: Array
    of: Array


def _pairs(workspace: Workspace, column: str | None, side: Array) -> _Pairs:
    keys = pd.Series(workspace.column(str(column)))
    have_a, have_b = set(keys[side == 0].dropna()), set(keys[side == 1].dropna())
    names = np.array(sorted(have_a & have_b), object)
    where = {name: i for i, name in enumerate(names)}
    of = np.array(keys.map(where).fillna(-1), np.int64)
    of[side < 0] = -1
    return _Pairs(names, of)


def _count_pairs(present: csr_matrix, pairs: _Pairs, inside_a: Array, inside_b: Array, features: int) -> _Counts:
    """A side of a pair has a feature when any of its documents has it (the union rule for several others)."""
    used = np.zeros(len(pairs.names), bool)
    used[pairs.of[(inside_a | inside_b) & (pairs.of >= 0)]] = True
    a, b = (any_of(present, np.where(inside, pairs.of, -1), len(used)) for inside in (inside_a, inside_b))
    both = np.asarray(a.multiply(b).sum(0)).ravel()
    count_a, count_b = np.asarray(a.sum(0)).ravel(), np.asarray(b.sum(0)).ravel()
    total = int(used.sum())
    return _Counts(
        features, np.arange(len(count_a)), count_a, count_b, total, total, None, count_a - both, count_b - both
    )


def _permute(
    present: csr_matrix, inside_a: Array, inside_b: Array, pairs: _Pairs | None, draws: int, random: np.random.Generator
) -> Array:
    """Two-sided p of the frequency difference when group labels are shuffled (swapped within pairs when paired)."""
    rows = np.flatnonzero((inside_a | inside_b) & ((pairs.of >= 0) if pairs is not None else True))
    matrix, first = present[rows], inside_a[rows]
    total_a, total_b = int(first.sum()), int((~first).sum())

    def gap(labels: Array) -> Array:
        return np.asarray(np.abs((labels / total_a - (1 - labels) / total_b) @ matrix))

    observed = gap(first.astype(np.float32))
    beyond = np.zeros(matrix.shape[1])
    for _ in range(draws):
        if pairs is not None:
            flip = random.random(len(pairs.names)) < 0.5
            shuffled = first ^ flip[pairs.of[rows]]
        else:
            shuffled = random.permutation(first)
        beyond += gap(shuffled.astype(np.float32)) >= observed - 1e-9
    return np.asarray((beyond + 1) / (draws + 1))


# Choosing documents ---------------------------------------------------------------------------------


def _check_groups(workspace: Workspace, by: str, groups: Array, asked: list[str]) -> None:
    sizes = pd.Series(groups).dropna().value_counts()
    if len(set(asked)) < len(asked):
        raise InputError(f"{workspace.folder}: group {asked[0]!r} of column {by!r} against itself; name two groups")
    for name in asked:
        if name not in sizes.index:
            raise InputError(
                f"{workspace.folder}: column {by!r} has no group {name!r}{nearest(name, map(str, sizes.index))}"
            )
        if sizes[name] < SMALLEST:
            raise InputError(
                f"{workspace.folder}: group {name!r} of column {by!r} has {sizes[name]} document(s); "
                f"at least {SMALLEST} are needed to tell a difference from chance"
            )
    if len(sizes) < 2:
        raise InputError(f"{workspace.folder}: column {by!r} has one group; a difference needs two")


def _other_groups(groups: Array, side: Array) -> Array | None:
    """Number of the group of each document on side b; None when there is only one such group."""
    inside = side == 1
    names, number = np.unique(groups[inside].astype(str), return_inverse=True)
    if len(names) < 2:
        return None
    codes = np.zeros(len(groups), np.int64)
    codes[inside] = number
    return codes


def _match_lengths(side: Array, tokens: Array, random: np.random.Generator, pairs: Array | None = None) -> Array:
    """Keep, in each of the length bins (steps of 25 %), as many documents of one side as of the other; of pairs, in each pair."""
    bins = length_steps(tokens)
    if pairs is not None:
        of = pd.factorize(pd.Series(pairs))[0]  # -1: without a pair
        side = np.where(of >= 0, side, -1).astype(side.dtype)
        bins = np.unique(np.stack([of, bins]), axis=1, return_inverse=True)[1].ravel()
    kept = np.full_like(side, -1)
    rows = np.flatnonzero(side >= 0)
    rows = rows[np.argsort(bins[rows], kind="stable")]
    for bin in np.split(rows, np.flatnonzero(np.diff(bins[rows])) + 1):
        here = [bin[side[bin] == s] for s in (0, 1)]
        number = min(len(here[0]), len(here[1]))
        for s in (0, 1):
            kept[random.permutation(here[s])[:number]] = s
    return kept


def _halves(side: Array, pairs: _Pairs | None, random: np.random.Generator) -> Array:
    """0 selects, 1 estimates; the two documents of a pair stay together."""
    if pairs is not None:
        of_pair = random.permutation(np.arange(len(pairs.names)) % 2)
        return np.where(pairs.of >= 0, of_pair[pairs.of], 0).astype(np.int8)
    half = np.zeros(len(side), np.int8)
    for s in (0, 1):
        rows = random.permutation(np.flatnonzero(side == s))
        half[rows[: len(rows) // 2]] = 1
    return half


def _drawn(inside: Array, side: Array, pairs: _Pairs | None, random: np.random.Generator) -> Array:
    """Rows of documents `inside` that a direction is learned from, in rising order: of each side as many, or whole pairs."""
    if pairs is not None:
        numbers = random.permutation(np.unique(pairs.of[inside & (pairs.of >= 0)]))[:LARGEST]
        return np.flatnonzero(inside & np.isin(pairs.of, numbers))
    each = [random.permutation(np.flatnonzero(inside & (side == s)))[: LARGEST // 2] for s in (0, 1)]
    return np.sort(np.concatenate(each))


# All rows together ----------------------------------------------------------------------------------


def _together(workspace: Workspace, compared: _Compared, options: DiffOptions) -> Together | None:
    position = compared.counted[-1].tested(options.threshold).position
    pair = compared.pairs.of[compared.drawn] if compared.pairs is not None else None
    return told_together(
        compared.present[:, position],
        dense_rows(workspace, compared.drawn, "middle"),
        compared.side[compared.drawn],
        pair,
        items_of(workspace, position).assign(position=position),
        compared.drawn,
        options.permutations,
        np.random.default_rng(options.seed),
    )


def _shared(p: Array, together: Together) -> tuple[Array, Together]:
    """The rows' q, and `together` with its own, where each has its part of what may be discovered falsely."""
    number = len(p) + 1
    weights = np.full(number, (1 - TO_TOGETHER) * number / max(len(p), 1))
    weights[-1] = TO_TOGETHER * number
    q = weighted_benjamini_hochberg(np.append(p, together.p), weights)
    return q[:-1], dataclasses.replace(together, q=float(q[-1]))


# Choosing rows --------------------------------------------------------------------------------------


def _strength(table: pd.DataFrame, metric: str) -> pd.Series:
    if metric == "relative":
        return table["relative"]
    if metric == "nearest":
        return table["frequency_a"] - table["nearest"]
    return table["difference"]


def _selection(table: pd.DataFrame, options: DiffOptions, by: str) -> Array:
    """Which rows differ enough, with a `by` ("p" or "q") of at most `false_discovery`, and are among the strongest."""
    strength = _strength(table, options.metric).to_numpy()
    keep = np.abs(table["difference"].to_numpy()) > options.threshold
    if options.false_discovery is not None:
        keep &= table[by].to_numpy() <= options.false_discovery
    chosen = np.zeros(len(table), bool)
    for kind in ("feature", "word"):
        for direction in (1, -1):
            rows = np.flatnonzero(keep & (table["kind"] == kind).to_numpy() & (direction * strength > 0))
            chosen[rows[np.argsort(-direction * strength[rows], kind="stable")][: options.top]] = True
    return chosen


def _too_few_shufflings(tested: int, options: DiffOptions) -> list[str]:
    """A note where the least p that shuffling can give is too much among so many."""
    least = 1 / (options.permutations + 1)
    if options.test == "fisher" or options.false_discovery is None:
        return []
    if least * tested <= (1 - TO_TOGETHER) * options.false_discovery:
        return []
    return [
        f"{options.permutations:,} shufflings cannot tell a single difference among {tested:,} features and words that were tested: "
        "what few rows could show is missed. Take more (permutations=), or the exact test (fisher)."
    ]


def _ordered(table: pd.DataFrame, options: DiffOptions) -> pd.DataFrame:
    return table.loc[_strength(table, options.metric).abs().sort_values(ascending=False, kind="stable").index].assign(
        position=lambda t: t.index
    )


def _described(table: pd.DataFrame, workspace: Workspace) -> pd.DataFrame:
    """Put a label to each row; the position tells the feature or the word."""
    position = table.pop("position").to_numpy(np.int64) if len(table) else np.zeros(0, np.int64)
    items = items_of(workspace, position)
    table.insert(1, "feature", items["feature"].array)
    table.insert(2, "label", items["label"].array)
    return table
