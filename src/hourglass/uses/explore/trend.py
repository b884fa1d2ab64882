"""Which features and words rise or fall along an ordered column: time, model generations, a grade.

The column is cut into bins. The trend of a feature is the slope of its share over the bins, one step each, among documents
of like length (texts that grow over time would have more of everything); its p is that of the Cochran-Armitage test
within strata of length, and its q counts every feature and word that enough documents have and lack. Intervals allow for how
many are shown of these, as in `diff`. A line through a peak has a slope too, so what turns by more than chance is left out.

Differences from the paper: it keeps features whose frequency rises or falls at every step, ordered by last minus first;
that is `monotone=True`. A few steps of noise break that rule and three bins fulfil it by chance, so here a test decides.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from hourglass.errors import ConfigError
from hourglass.metrics.proportions import benjamini_hochberg, difference_interval, level_of_selected, wilson
from hourglass.metrics.trends import trends
from hourglass.uses.explore.alike import first_alike, same_as, terms_of
from hourglass.uses.explore.ordering import Bins, ordered_bins
from hourglass.uses.explore.presence import present_by_shard, present_in
from hourglass.uses.explore.strata import length_strata

if TYPE_CHECKING:
    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]

SMALLEST_BIN, SMALLEST_SHARE = 10, 0.05
"""A bin has so many documents and such a share of those with a value: a line is not drawn on to where nearly nothing is."""
CELLS = 2**22
"""Counts that are looked at at once."""


@dataclass(frozen=True, kw_only=True)
class TrendOptions:
    """What counts as present, and what is shown.

    order         values of the column in their order, where they have none of their own
    bins          most bins; a column with more values is cut into so many of about equal size, and a value that few
                  documents have goes with the next
    level         presence: share of the feature's 90th percentile that the maximum must pass
    min_tokens    presence: number of tokens that must fire
    min_documents documents that must have the feature, and that must lack it
    match_length  the trend among documents of like length; False: among all
    monotone      keep only what rises, or falls, at every step (the paper's rule)
    threshold     smallest change from the first bin to the last that is kept
    false_discovery  largest q that is kept
    top           most rows of each direction and kind
    """

    order: tuple[str, ...] = ()
    bins: int = 10
    level: float = 0.5
    min_tokens: int = 1
    min_documents: int = 10
    match_length: bool = True
    monotone: bool = False
    threshold: float = 0.03
    false_discovery: float = 0.05
    top: int = 100

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise ConfigError(f"bins {self.bins}: a trend needs 2 or more")


@dataclass(frozen=True)
class Trended:
    """What rises and falls along a column.

    table  a row a feature or word, the largest change first: kind ("feature" or "word"), feature, label, change (of the
           share, from the first bin to the last, along the line) with its interval low and high (with all other rows shown
           95 % sure), against (the largest move the other way between two bins, 0 when it never turns), p, q, and over the
           bins frequencies with their intervals lows and highs; same_as: the row that stands for this one, which is about the
           same documents (NA: it stands for itself)
    bins   a row a bin: name, documents, median_tokens
    notes  what a reader has to know before believing the table
    """

    by: str
    bins: pd.DataFrame
    table: pd.DataFrame
    documents: int
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return {
            "by": self.by,
            "documents": self.documents,
            "bins": json.loads(self.bins.to_json(orient="records")),
            "notes": self.notes,
            "rows": json.loads(self.table.to_json(orient="records")),
        }


def trend(workspace: Workspace, by: str, options: TrendOptions) -> Trended:
    """What rises and falls along column `by`.

    Raises InputError for a column that does not exist, has no order, one value or too few documents.
    """
    bins = _bins(workspace, by, options)
    placed = bins.of >= 0
    tokens = np.concatenate([arrays["tokens"] for arrays in workspace.stored("tokens")])
    notes = []
    if not placed.all():
        notes.append(f"{int((~placed).sum()):,} documents without a value in {by!r} are left out.")
    number = len(bins.names)
    medians = [float(np.median(tokens[bins.of == b])) for b in range(number)]
    if not options.match_length and max(medians) > 1.5 * max(min(medians), 1):
        notes.append(
            f"Documents differ in length along {by!r} (medians {min(medians):.0f} to {max(medians):.0f} tokens): "
            "longer documents contain more of everything. Leave out `--no-match-length` to see what remains."
        )
    strata = np.zeros(len(placed), np.int64)
    if options.match_length:
        strata[placed] = length_strata(tokens[placed])

    counts = _count(workspace, bins, strata, options)
    tested = counts.tested(options.min_documents)
    table = _select(counts.table(tested), counts.features, options)
    level = level_of_selected(len(table), len(tested))
    table = counts.table(table["position"].to_numpy(), level).assign(q=table["q"].to_numpy())
    table = table.loc[table["change"].abs().sort_values(ascending=False, kind="stable").index]
    described = pd.DataFrame(
        {"name": bins.names, "documents": np.bincount(bins.of[placed], minlength=number), "median_tokens": medians}
    )
    present = present_in(
        workspace, table["position"].to_numpy(), options.level, options.min_tokens, np.flatnonzero(placed)
    )
    table = _described(table, workspace)
    table["same_as"] = same_as(first_alike(present), terms_of(workspace, table))
    return Trended(by, described, table, int(placed.sum()), notes)


def _bins(workspace: Workspace, by: str, options: TrendOptions) -> Bins:
    where = f"{workspace.folder}: column {by!r}"
    return ordered_bins(workspace.values(by), options.bins, SMALLEST_BIN, where, options.order, SMALLEST_SHARE)


# Counting -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Counts:
    """Documents in each cell: total [strata, bins], count [strata, bins, features and then words]."""

    features: int
    count: Array
    total: Array

    def tested(self, fewest: int) -> Array:
        """Positions of what enough documents have and enough lack; the rest could show no trend."""
        number = self.count.sum((0, 1))
        return np.flatnonzero((number >= fewest) & (self.total.sum() - number >= fewest))

    def table(self, positions: Array, level: float = 0.95) -> pd.DataFrame:
        """A row for each position, with its interval at `level`; all of them together are the tests that q counts."""
        at_once = max(1, CELLS // self.total.size)
        parts = [trends(self.count[:, :, []].astype(float), self.total)]
        for start in range(0, len(positions), at_once):
            part = positions[start : start + at_once]
            parts.append(trends(self.count[:, :, part].astype(float), self.total, level))
        slope, low, high, p = (
            np.concatenate([getattr(part, c) for part in parts]) for c in ("slope", "low", "high", "p")
        )
        steps = self.total.shape[1] - 1
        filled = self.total.sum(0)
        number = self.count[:, :, positions].sum(0).T  # [positions, bins]
        against, turns = _turning(number, filled, np.sign(slope))
        lows, highs = wilson(number, filled)
        return pd.DataFrame(
            {
                "position": positions,
                "change": slope * steps,
                "low": low * steps,
                "high": high * steps,
                "against": against,
                "turns": turns,
                "p": p,
                "q": benjamini_hochberg(p),
                "frequencies": list(number / filled),
                "lows": list(lows),
                "highs": list(highs),
            }
        )


def _turning(number: Array, total: Array, direction: Array) -> tuple[Array, Array]:
    """[positions] the largest move against the direction from a bin to a later one, and whether chance cannot explain it.

    number [positions, bins] documents that have it, of total [bins].
    """
    pairs = list(combinations(range(len(total)), 2))
    against, turns = np.zeros(len(number)), np.zeros(len(number), bool)
    for i, j in pairs:
        move = direction * (number[:, j] / total[j] - number[:, i] / total[i])
        low, high = difference_interval(number[:, j], total[j], number[:, i], total[i], 1 - 0.05 / len(pairs))
        against = np.maximum(against, -move)
        turns |= np.where(direction > 0, high < 0, low > 0)
    return against, turns


def _count(workspace: Workspace, bins: Bins, strata: Array, options: TrendOptions) -> _Counts:
    width, number = workspace.manifest["width"], len(bins.names)
    layers = int(strata.max()) + 1
    rows = np.flatnonzero(bins.of >= 0)
    cells = (strata * number + bins.of)[rows]
    total = np.bincount(cells, minlength=layers * number)
    # A document belongs to one cell, so a cell's counts are far from the limit of 32 bits.
    count = np.zeros((layers * number, width + len(workspace.words)), np.int32)
    start = 0
    for present in present_by_shard(workspace, rows, options.level, options.min_tokens):
        documents = present.shape[0]
        here = cells[start : start + documents]
        member = csr_matrix((np.ones(documents, np.float32), (here, np.arange(documents))), (len(count), documents))
        added = (member @ present).tocoo()
        count[added.row, added.col] += added.data.astype(np.int32)
        start += documents
    return _Counts(width, count.reshape(layers, number, -1), total.reshape(layers, number))


# Choosing rows --------------------------------------------------------------------------------------


def _select(table: pd.DataFrame, features: int, options: TrendOptions) -> pd.DataFrame:
    change = table["change"].to_numpy()
    keep = (table["q"].to_numpy() <= options.false_discovery) & (np.abs(change) > options.threshold)
    keep &= ~table["turns"].to_numpy()
    if options.monotone:
        keep &= table["against"].to_numpy() == 0
    chosen = []
    for kind in (table["position"] < features, table["position"] >= features):
        for direction in (1, -1):
            rows = np.flatnonzero(keep & kind.to_numpy() & (direction * change > 0))
            chosen.append(rows[np.argsort(-direction * change[rows], kind="stable")][: options.top])
    return table.iloc[np.concatenate(chosen)]


def _described(table: pd.DataFrame, workspace: Workspace) -> pd.DataFrame:
    """Put kind, feature and label in front; the position tells the feature or the word."""
    width = workspace.manifest["width"]
    position = table["position"].to_numpy(np.int64)
    is_feature = position < width
    labels = workspace.features["label"].to_numpy(object)
    names = [labels[p] if p < width else workspace.words[p - width] for p in position]
    front = pd.DataFrame(
        {
            "kind": np.where(is_feature, "feature", "word"),
            "feature": pd.array([p if p < width else pd.NA for p in position], dtype="Int64"),
            "label": np.array([*names, None], object)[:-1],
        }
    )
    return front.join(table.drop(columns=["position", "turns"]).reset_index(drop=True))
