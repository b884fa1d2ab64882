"""Which features and words go together in documents: within one text, or across two (a prompt and its response).

A pair is measured by its normalised pointwise mutual information (NPMI) and by how often a document with one has the
other. Long documents have more of everything, so what a pair is compared with, and tested against, is one item's
documents shuffled among documents of like length. Words and pairs of words compete beside features, as in `diff`. Pairs that
say nothing are left out: with labels about the same, on the same tokens and, within one text, of form alone. With `split`,
one half of the documents selects the pairs and the other half, which had no say, must confirm them and gives the numbers
that are shown. Across two texts, what no pair shows all of one text may: [predicted.py](predicted.py); and what no item of either
shows, documents that are alike in both: [alike_in_both.py](alike_in_both.py).

Cost: time grows with the sum over documents of the square of the items present, memory with their sum and, for a block of
items at a time, with the number of items. No matrix of documents is ever dense.

Differences from the paper: words are looked at beside features; within one text features without a name are not looked at;
form is told from the name by rule, not by a language model, and across two texts it counts; label vectors are centred before
their cosine, since all of an encoder's vectors may point one way; tests, intervals, length matching and split halves are ours.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hourglass.errors import ConfigError, InputError
from hourglass.metrics.association import npmi, npmi_interval
from hourglass.metrics.proportions import benjamini_hochberg
from hourglass.uses.explore.alike_in_both import AlikeInBoth, alike_in_both
from hourglass.uses.explore.looked_at import look_at
from hourglass.uses.explore.pair_counts import PairCounts, measured
from hourglass.uses.explore.pair_filters import (
    LOOKED_AT,
    of_different_labels,
    of_different_tokens,
    one_of_a_kind,
    same_findings,
)
from hourglass.uses.explore.predicted import Learned, Predicted, predicted
from hourglass.uses.explore.presence import names_of
from hourglass.uses.explore.strata import FEWEST, FEWEST_SPLIT, SMALLEST, halves, length_strata
from hourglass.uses.progress import Progress, Report

if TYPE_CHECKING:
    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]

TO_PREDICTED = TO_ALIKE = 0.15
"""Of what may be discovered falsely across two texts, the parts of items that all of one predicts (as much is for groups), and of what
is alike in both; the rest is for pairs."""


@dataclass(frozen=True, kw_only=True)
class CorrelateOptions:
    """What counts as present, and which pairs are shown.

    level          presence: share of the feature's 90th percentile that the maximum must pass; a word is there or not
    min_tokens     presence: number of tokens that must fire
    min_frequency  share of the documents that must have each of the two
    min_documents  documents that must have both; NPMI is extreme for a few
    min_npmi       smallest NPMI that is kept
    match_length   compare with documents of like length; False compares with all, as the paper does
    max_similarity largest cosine of the labels, for which words are read; None keeps all
    max_same_tokens  how far the two may be on the same tokens (1: always); None keeps all and reads nothing again
    form           keep what tells form alone ("the", "how", a number) and, across two texts, features without a name;
                   None: across two texts
    split          select on one half, confirm and estimate on the other
    false_discovery  largest q that is kept
    top            most pairs whose parts both have a name, most others, most of what is predicted and most groups
    """

    level: float = 0.5
    min_tokens: int = 1
    min_frequency: float = 0.01
    min_documents: int = 5
    min_npmi: float = 0.2
    match_length: bool = True
    max_similarity: float | None = 0.2
    max_same_tokens: float | None = 0.5
    form: bool | None = None
    split: bool = True
    false_discovery: float = 0.05
    top: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("min_frequency", "false_discovery"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} {getattr(self, name)}: expected a share, from 0 to 1")


@dataclass(frozen=True)
class Correlations:
    """Pairs of features and words that go together.

    table      a row a pair, the strongest first: kind_a ("feature" or "word"), a (number of a feature, NA of a word), label_a
               (None where a feature has no name), kind_b, b, label_b, documents (that have both), expected (that would have
               by chance), frequency_a, frequency_b, a_given_b (share of the documents with b that have a),
               b_given_a, npmi (the textbook's), npmi_matched (against documents of like length) with its interval low
               and high, p, q, similarity (of the labels) and same_tokens (NaN where it was not looked at); with `split` the
               counts are from the half that did not select; same_as: the row of the pair that stands for this one, whose
               documents, or whose parts', are about the same (NA: it stands for itself); judged by somebody, also
               verified_documents, verified_joint and verified_npmi (NaN where a pair was not judged)
    documents  number of documents on which the table rests
    tested     number of pairs among which they were found
    notes      what a reader has to know before believing the table
    rows, other_rows  [documents] positions of these documents in the first workspace, and in the other
    predicted  what of either text, items and groups of documents, all of the other predicts; None within one text, and with a false_discovery of 1, which tests nothing
    alike_in_both  groups of documents that are alike in both texts; None as `predicted` is
    judge, usage      who judged, None: nobody; what was asked of a language model
    """

    table: pd.DataFrame
    documents: int
    tested: int
    notes: list[str]
    rows: Array
    other_rows: Array
    predicted: Predicted | None = None
    alike_in_both: AlikeInBoth | None = None
    judge: str | None = None
    usage: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return {
            "documents": self.documents,
            "tested": self.tested,
            **({} if self.judge is None else {"judge": self.judge, "usage": self.usage}),
            "notes": self.notes,
            "rows": json.loads(self.table.to_json(orient="records")),
            **({} if self.predicted is None else {"predicted": self.predicted.to_dict()}),
            **({} if self.alike_in_both is None else {"alike_in_both": self.alike_in_both.to_dict()}),
        }


def correlate(
    workspace: Workspace, other: Workspace | None, options: CorrelateOptions, progress: bool | Report = True
) -> Correlations:
    """Pairs of items of `workspace`, or pairs of one of it (a) and one of `other` (b), documents matched by id.

    Raises InputError where too few documents are matched.
    """
    notes: list[str] = []
    rows, other_rows = _rows(workspace, other, notes)
    left = look_at(workspace, rows, options, other is not None, notes)
    right = left if other is None else look_at(other, other_rows, options, True, notes)
    split = options.split and len(rows) >= FEWEST_SPLIT
    if options.split and not split:
        notes.append(
            f"Fewer than {FEWEST_SPLIT} documents: the same documents select and estimate, so the strongest pairs are flattered."
        )
    strata = np.zeros(len(rows), np.int64)
    if options.match_length:
        lengths = [left.tokens] if other is None else [left.tokens, right.tokens]
        strata = length_strata(*lengths, smallest=SMALLEST * (2 if split else 1))
    half = halves(strata, np.random.default_rng(options.seed)) if split else np.zeros(len(rows), np.int64)

    selecting = PairCounts(left, right, half == 0, strata)
    predicting = other is not None and options.false_discovery < 1  # nothing but its test makes it worth telling
    to_pairs = 1 - 2 * TO_PREDICTED - TO_ALIKE if predicting else 1.0
    by_all, groups = None, None
    with Progress(progress) as bar:
        pairs, shown = _select(selecting, options, split, to_pairs, bar), selecting
        task = bar.start("Comparing names", 2, "steps")
        pairs = of_different_labels(pairs, left, right, options, notes)
        bar.advance(task, 1)
        pairs = one_of_a_kind(pairs, left, right, notes)
        bar.advance(task, 1)
        if other is None:
            pairs = of_different_tokens(pairs, left, rows, half == 0, options, notes, bar)
        if predicting:
            random = np.random.default_rng([options.seed, 1])  # not the stream that halves the documents
            task = bar.start("Comparing documents", 2, "steps")
            learned = Learned.of(left, right, rows, other_rows, options.match_length, random)
            bar.advance(task, 1)
            groups = alike_in_both(learned, options, TO_ALIKE)
            bar.advance(task, 1)
            if 2 * groups.sure > groups.documents:
                notes.append(
                    f"{groups.sure:,} of {groups.documents:,} documents are alike in both texts, as where both have one subject: "
                    "the groups are the surest of many."
                )
            by_all = predicted(learned, options, TO_PREDICTED, random, bar)
    told = left.named[pairs["i"]] & right.named[pairs["j"]]
    pairs = pd.concat([pairs[told].head(options.top), pairs[~told].head(options.top)], ignore_index=True)
    if split:
        confirming = PairCounts(left, right, half == 1, strata)
        pairs = pairs.assign(joint=confirming.joint_of(pairs["i"].to_numpy(), pairs["j"].to_numpy()))
        pairs = measured(pairs, confirming)
        pairs["q"] = np.minimum(benjamini_hochberg(pairs["p"].to_numpy()) / to_pairs, 1)
        failed = pairs["q"] > options.false_discovery
        if failed.any():
            notes.append(
                f"{int(failed.sum()):,} of {len(pairs):,} pairs did not hold on the second half and are left out."
            )
        pairs, shown = pairs[~failed], confirming
    pairs = pairs.sort_values("npmi_matched", ascending=False, kind="stable")
    table = _described(pairs, shown)
    table["same_as"] = same_findings(pairs, shown)
    fresh = half == half.max()
    return Correlations(table, shown.total, selecting.pairs, notes, rows[fresh], other_rows[fresh], by_all, groups)


def verified(pairs: pd.DataFrame, judged_a: pd.DataFrame, judged_b: pd.DataFrame) -> pd.DataFrame:
    """The pairs with what a judge says: columns verified_documents, verified_joint and verified_npmi.

    pairs               a table as `correlate` gives it
    judged_a, judged_b  a row a document, the same in both; a column for each feature, by its number, and each word: 1 the
                        label holds, 0 it does not, NaN where there is no verdict. Within one text both are the same table.

    A document without a verdict on either counts for neither side; verified_npmi is NaN where the judge never, or always,
    saw one of the two.
    """
    rows = []
    for a, b in zip(items_in(pairs, "a"), items_in(pairs, "b")):
        both = judged_a[a].notna().to_numpy() & judged_b[b].notna().to_numpy()
        has_a, has_b = judged_a[a].to_numpy()[both] > 0, judged_b[b].to_numpy()[both] > 0
        joint, total = int((has_a & has_b).sum()), int(both.sum())
        tells = 0 < has_a.sum() < total and 0 < has_b.sum() < total
        value = float(npmi(np.array(joint), has_a.sum() * has_b.sum() / total, total)) if tells else np.nan
        rows.append((total, joint, value))
    columns = ["verified_documents", "verified_joint", "verified_npmi"]
    return pairs.join(pd.DataFrame(rows, columns=columns, index=pairs.index))


def items_in(pairs: pd.DataFrame, side: str) -> list[int | str]:
    """What stands on side "a" or "b" of each pair, a feature by its number, a word as it is."""
    return names_of(pairs[[f"kind_{side}", side, f"label_{side}"]])


def _rows(workspace: Workspace, other: Workspace | None, notes: list[str]) -> tuple[Array, Array]:
    """Positions of the documents in each of the two."""
    if other is None:
        rows = others = np.arange(len(workspace))
        where = f"{workspace.folder}"
    else:
        where = f"{workspace.folder} and {other.folder}"
        if workspace.folder.resolve() == other.folder.resolve():
            raise InputError(f"{workspace.folder}: the other workspace is the same one; leave it out")
        _, rows, others = np.intersect1d(
            workspace.column("_id").astype(str), other.column("_id").astype(str), return_indices=True
        )
        largest = max(len(workspace), len(other))
        if len(rows) < largest:
            notes.append(f"{len(rows):,} documents have the same id in both, of {len(workspace):,} and {len(other):,}.")
    if len(rows) < FEWEST:
        what = "documents" if other is None else "documents have the same id (explore both with --id)"
        raise InputError(f"{where}: {len(rows):,} {what}; at least {FEWEST} are needed to tell what goes together")
    return rows, others


def _select(counts: PairCounts, options: CorrelateOptions, split: bool, part: float, bar: Progress) -> pd.DataFrame:
    """The pairs that go together, the strongest first: columns i, j, joint, expected, npmi_matched, p, q; `part` of what may be
    discovered falsely is theirs.

    With `split` some that only seem to follow, the surest first: the other half bears the burden of proof, and of so few.
    """
    parts = [pd.DataFrame({"i": np.zeros(0, np.int64), "j": np.zeros(0, np.int64), "joint": np.zeros(0, np.int32)})]
    task = bar.start("Counting pairs", len(counts.count_left), "items")
    for items, joint, expected in counts.blocks():
        row, j = np.nonzero(joint >= options.min_documents)
        strong = npmi(joint[row, j], expected[row, j], counts.total) >= options.min_npmi
        row, j = row[strong], j[strong]
        parts.append(pd.DataFrame({"i": items[row], "j": j, "joint": joint[row, j]}))
        bar.advance(task, len(items))
    pairs = measured(pd.concat(parts, ignore_index=True), counts)
    # All pairs were looked at: those left out above count as tests that found nothing.
    pairs["q"] = np.minimum(benjamini_hochberg(pairs["p"].to_numpy(), of=counts.pairs) / part, 1)
    sure = pairs["q"] <= options.false_discovery
    strongest = pairs[sure].sort_values("npmi_matched", ascending=False, kind="stable")
    if not split:
        return strongest
    likely = pairs[~sure & (pairs["p"] <= options.false_discovery)].sort_values("p", kind="stable")
    return pd.concat([strongest, likely.head(LOOKED_AT * options.top)])


def _described(pairs: pd.DataFrame, counts: PairCounts) -> pd.DataFrame:
    i, j, joint = (pairs[c].to_numpy() for c in ("i", "j", "joint"))
    sides = [
        field.items.iloc[at].set_axis([f"kind_{side}", side, f"label_{side}"], axis=1).reset_index(drop=True)
        for field, at, side in ((counts.left, i, "a"), (counts.right, j, "b"))
    ]
    a, b = counts.count_left[i], counts.count_right[j]
    low, high = npmi_interval(joint, pairs["expected"].to_numpy(), counts.total)
    numbers = pd.DataFrame(
        {
            "documents": joint,
            "expected": pairs["expected"].to_numpy(),
            "frequency_a": a / counts.total,
            "frequency_b": b / counts.total,
            "a_given_b": joint / np.maximum(b, 1),
            "b_given_a": joint / np.maximum(a, 1),
            "npmi": npmi(joint, a * b / counts.total, counts.total),
            "npmi_matched": pairs["npmi_matched"].to_numpy(),
            "low": low,
            "high": high,
            "p": pairs["p"].to_numpy(),
            "q": pairs["q"].to_numpy(),
            "similarity": pairs["similarity"].to_numpy(),
            "same_tokens": pairs["same_tokens"].to_numpy() if "same_tokens" in pairs else np.full(len(pairs), np.nan),
        }
    )
    return pd.concat([*sides, numbers], axis=1)
