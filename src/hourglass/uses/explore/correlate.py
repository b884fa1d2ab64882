"""Which features go together in documents: within one text, or across two (a prompt and its response).

A pair is measured by its normalised pointwise mutual information (NPMI) and by how often a document with one has the
other. Long documents have more of everything, so what a pair is compared with, and tested against, is one feature's
documents shuffled among documents of like length. Pairs that say nothing are left out: of features about form alone, with
labels about the same, or that fire on the same tokens. With `split`, one half of the documents selects the pairs and the
other half, which had no say, must confirm them and gives the numbers that are shown.

Cost: time grows with the sum over documents of the square of the features present, memory with their sum and, for a
block of features at a time, with the number of features. No matrix of documents is ever dense.

Differences from the paper: features without a name are not looked at; form is told from the name by rule, not by a
language model; label vectors are centred before their cosine, since all of an encoder's vectors may point one way; tests,
intervals, length matching and split halves are ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, hstack, vstack

from hourglass.errors import InputError
from hourglass.metrics.association import joint_tail, npmi, npmi_interval
from hourglass.metrics.proportions import benjamini_hochberg
from hourglass.uses.explore.alike import first_alike, same_as
from hourglass.uses.explore.labels import TERMS, clarity, content_words, says_form
from hourglass.uses.explore.progress import Progress
from hourglass.uses.explore.same_tokens import same_tokens
from hourglass.uses.explore.strata import FEWEST, FEWEST_SPLIT, SMALLEST, halves, length_strata

if TYPE_CHECKING:
    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]

LOOKED_AT = 5
"""So many times the pairs asked for are read again at most, to find those that fire on different tokens."""
CELLS = 2**21
"""Pairs whose counts are in memory at once."""


@dataclass(frozen=True, kw_only=True)
class CorrelateOptions:
    """What counts as present, and which pairs are shown.

    level          presence: share of the feature's 90th percentile that the maximum must pass
    min_tokens     presence: number of tokens that must fire
    min_frequency  share of the documents that must have each of the two
    min_documents  documents that must have both; NPMI is extreme for a few
    min_npmi       smallest NPMI that is kept
    match_length   compare with documents of like length; False compares with all, as the paper does
    max_similarity largest cosine of the labels; None keeps all
    max_same_tokens  how far the two may fire on the same tokens (1: always); None keeps all and reads nothing again
    form           keep features whose name tells form alone
    split          select on one half, confirm and estimate on the other
    false_discovery  largest q that is kept
    top            most pairs
    """

    level: float = 0.5
    min_tokens: int = 1
    min_frequency: float = 0.01
    min_documents: int = 5
    min_npmi: float = 0.3
    match_length: bool = True
    max_similarity: float | None = 0.2
    max_same_tokens: float | None = 0.5
    form: bool = False
    split: bool = True
    false_discovery: float = 0.05
    top: int = 100
    seed: int = 0


@dataclass(frozen=True)
class Correlations:
    """Pairs of features that go together.

    table      a row a pair, the strongest first: a, label_a, b, label_b, documents (that have both), expected (that would
               have by chance), frequency_a, frequency_b, a_given_b (share of the documents with b that have a),
               b_given_a, npmi (the textbook's), npmi_matched (against documents of like length) with its interval low
               and high, p, q, similarity (of the labels), same_tokens (NaN where it was not looked at); with `split` the
               counts are from the half that did not select; same_as: the row of the pair that stands for this one, whose
               documents, or whose features', are about the same (NA: it stands for itself); judged by somebody, also
               verified_documents, verified_joint and verified_npmi (NaN where a pair was not judged)
    documents  number of documents on which the table rests
    tested     number of pairs among which they were found
    notes      what a reader has to know before believing the table
    rows, other_rows  [documents] positions of these documents in the first workspace, and in the other
    judge, usage      who judged, None: nobody; what was asked of a language model
    """

    table: pd.DataFrame
    documents: int
    tested: int
    notes: list[str]
    rows: Array
    other_rows: Array
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
        }


def correlate(
    workspace: Workspace, other: Workspace | None, options: CorrelateOptions, progress: bool = True
) -> Correlations:
    """Pairs of features of `workspace`, or pairs of one of it (a) and one of `other` (b), documents matched by id.

    Raises InputError where too few documents are matched.
    """
    notes: list[str] = []
    rows, other_rows = _rows(workspace, other, notes)
    left = _look_at(workspace, rows, options, notes)
    right = left if other is None else _look_at(other, other_rows, options, notes)
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

    selecting = _Counts(left, right, half == 0, strata)
    with Progress(progress) as bar:
        pairs, shown = _select(selecting, options, bar), selecting
        pairs = _of_different_labels(pairs, left, right, options, notes)
        pairs = _one_of_a_kind(pairs, left, right, notes)
        if other is None:
            pairs = _of_different_tokens(pairs, left, rows, half == 0, options, notes, bar)
    pairs = pairs.head(options.top).reset_index(drop=True)
    if split:
        confirming = _Counts(left, right, half == 1, strata)
        pairs = pairs.assign(joint=confirming.joint_of(pairs["i"].to_numpy(), pairs["j"].to_numpy()))
        pairs = _measured(pairs, confirming)
        pairs["q"] = benjamini_hochberg(pairs["p"].to_numpy())
        failed = pairs["q"] > options.false_discovery
        if failed.any():
            notes.append(
                f"{int(failed.sum()):,} of {len(pairs):,} pairs did not hold on the second half and are left out."
            )
        pairs, shown = pairs[~failed], confirming
    pairs = pairs.sort_values("npmi_matched", ascending=False, kind="stable")
    table = _described(pairs, shown)
    table["same_as"] = _same_findings(pairs, shown)
    told = half == half.max()
    return Correlations(table, shown.total, selecting.pairs, notes, rows[told], other_rows[told])


def verified(pairs: pd.DataFrame, judged_a: pd.DataFrame, judged_b: pd.DataFrame) -> pd.DataFrame:
    """The pairs with what a judge says: columns verified_documents, verified_joint and verified_npmi.

    pairs               a table with columns a and b
    judged_a, judged_b  a row a document, the same in both; a column for each feature: 1 the label holds, 0 it does not,
                        NaN where there is no verdict. Within one text both are the same table.

    A document without a verdict on either counts for neither side; verified_npmi is NaN where the judge never, or always,
    saw one of the two.
    """
    rows = []
    for a, b in zip(pairs["a"], pairs["b"]):
        both = judged_a[a].notna().to_numpy() & judged_b[b].notna().to_numpy()
        has_a, has_b = judged_a[a].to_numpy()[both] > 0, judged_b[b].to_numpy()[both] > 0
        joint, total = int((has_a & has_b).sum()), int(both.sum())
        tells = 0 < has_a.sum() < total and 0 < has_b.sum() < total
        value = float(npmi(np.array(joint), has_a.sum() * has_b.sum() / total, total)) if tells else np.nan
        rows.append((total, joint, value))
    columns = ["verified_documents", "verified_joint", "verified_npmi"]
    return pairs.join(pd.DataFrame(rows, columns=columns, index=pairs.index))


# What is looked at ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Field:
    """One text of the documents: `features` [m] are the numbers of those looked at, `present` is documents x m."""

    workspace: Workspace
    features: Array
    present: csr_matrix
    tokens: Array
    level: Array

    @property
    def labels(self) -> Array:
        return self.workspace.features["label"].to_numpy(object)[self.features]

    @property
    def first_terms(self) -> list[str]:
        return [own[0] for own in self.workspace.features["terms"].iloc[self.features]]

    @property
    def words(self) -> list[set[str]]:
        """The words of each label that mean something."""
        terms = self.workspace.features["terms"].iloc[self.features]
        return [content_words(own[:TERMS]) for own in terms]

    @property
    def vectors(self) -> Array:
        """[m, d] unit vectors of the labels, centred over all labels of the workspace."""
        everything = self.workspace.label_vectors
        labelled = int(np.any(everything != 0, axis=1).sum())
        own = everything[self.features] - everything.sum(0) / max(labelled, 1)
        return np.asarray(own / np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-12))


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


def _look_at(workspace: Workspace, rows: Array, options: CorrelateOptions, notes: list[str]) -> _Field:
    """The features with a name that says more than form and that enough of the documents have."""
    level = options.level * workspace.features["p90"].to_numpy(np.float32)
    named = workspace.features["label"].notna().to_numpy()
    formal = named & np.array([len(terms) > 0 and says_form(terms) for terms in workspace.features["terms"]])
    if "description" in workspace.features:  # the terms are those of the offline name, not of a model's
        formal &= workspace.features["description"].isna().to_numpy()
    chosen = np.flatnonzero(named if options.form else named & ~formal)
    parts, tokens = [], []
    for coded in workspace.coded():
        parts.append(coded.codes.present(level, options.min_tokens)[:, chosen])
        tokens.append(coded.codes.tokens)
    present = vstack(parts, format="csr")[rows]
    count = np.asarray(present.sum(0)).ravel()
    common = (count >= max(options.min_frequency * len(rows), options.min_documents)) & (count < len(rows))
    present = present[:, common]
    present.sort_indices()
    left_out = "" if options.form else f", {int(formal.sum()):,} that tell form alone left out"
    notes.append(
        f"{workspace.folder}: {int(common.sum()):,} of {len(level):,} features are looked at, those with a name"
        f"{left_out}, in {100 * options.min_frequency:g} % of the documents or more."
    )
    return _Field(workspace, chosen[common], present, np.concatenate(tokens)[rows], level)


# Counting -------------------------------------------------------------------------------------------


class _Counts:
    """Counts over some of the documents, for pairs (i, j) of a feature on the left and one on the right."""

    def __init__(self, left: _Field, right: _Field, inside: Array, strata: Array) -> None:
        self.left, self.right, self.symmetric = left, right, left is right
        _, stratum, sizes = np.unique(strata[inside], return_inverse=True, return_counts=True)
        member = csr_matrix(
            (np.ones(len(stratum), np.float32), (stratum.ravel(), np.arange(len(stratum)))), (len(sizes), len(stratum))
        )
        self.total = len(stratum)
        self._sizes = sizes
        self._rows = right.present[inside]
        self._columns = left.present[inside].tocsc()
        self._columns.sort_indices()
        self._left = (member @ left.present[inside]).toarray().T.astype(np.float64)  # [features, strata]
        self._right = self._left if self.symmetric else (member @ self._rows).toarray().T.astype(np.float64)
        self.count_left, self.count_right = self._left.sum(1), self._right.sum(1)

    @property
    def pairs(self) -> int:
        """Number of pairs there are."""
        m, n = len(self.count_left), len(self.count_right)
        return m * (m - 1) // 2 if self.symmetric else m * n

    def blocks(self) -> Iterator[tuple[Array, Array, Array]]:
        """Some features i on the left, and [i, right] documents that each shares with those on the right, and by chance.

        Within one text only pairs with i < j are counted.
        """
        at_once = max(1, CELLS // max(1, len(self.count_right)))
        for start in range(0, len(self.count_left), at_once):
            i = np.arange(start, min(start + at_once, len(self.count_left)))
            yield i, self._joint(i, self.symmetric), (self._left[i] / self._sizes) @ self._right.T

    def joint_of(self, i: Array, j: Array) -> Array:
        """Documents that have both, for pairs."""
        joint = np.zeros(len(i), np.int64)
        at_once = max(1, CELLS // max(1, len(self.count_right)))
        needed, where = np.unique(i, return_inverse=True)
        for start in range(0, len(needed), at_once):
            counts = self._joint(needed[start : start + at_once], False)
            here = (where >= start) & (where < start + at_once)
            joint[here] = counts[where[here] - start, j[here]]
        return joint

    def present(self, i: Array, j: Array) -> tuple[csr_matrix, csr_matrix]:
        """Each [documents, pairs], 1 where the document has the pair's feature on the left, and on the right."""
        return self._columns[:, i].tocsr(), self._rows[:, j]

    def expected(self, i: Array, j: Array) -> Array:
        """Documents that would have both by chance, for pairs, were j's shuffled in each stratum."""
        return self._over_strata(i, j, lambda a, b, size: a * b / size)

    def most(self, i: Array, j: Array) -> Array:
        """The most documents that could have both, for pairs."""
        return self._over_strata(i, j, lambda a, b, size: np.minimum(a, b))

    def _over_strata(self, i: Array, j: Array, term: Any) -> Array:
        total = np.zeros(len(i))
        for s, size in enumerate(self._sizes):
            total += term(self._left[i, s], self._right[j, s], size)
        return total

    def _joint(self, i: Array, above: bool) -> Array:
        columns, rows = self._columns, self._rows
        return _shared(i, columns.indptr, columns.indices, rows.indptr, rows.indices, rows.shape[1], above)


@numba.njit(cache=True)
def _shared(
    features: Array, starts: Array, documents: Array, offsets: Array, present: Array, width: int, above: bool
) -> Array:
    """[features, width] documents that have both; with `above` only with features of a larger number."""
    counts = np.zeros((len(features), width), np.int32)
    for row in range(len(features)):
        feature = features[row]
        own = counts[row]
        for at in range(starts[feature], starts[feature + 1]):
            document = documents[at]
            for k in range(offsets[document + 1] - 1, offsets[document] - 1, -1):
                if above and present[k] <= feature:
                    break
                own[present[k]] += 1
    return counts


def _measured(pairs: pd.DataFrame, counts: _Counts) -> pd.DataFrame:
    """Pairs with columns i, j and joint, with what is expected of them: expected, npmi_matched, p."""
    i, j, joint = (pairs[c].to_numpy() for c in ("i", "j", "joint"))
    expected = counts.expected(i, j)
    strength = npmi(joint, expected, counts.total)
    return pairs.assign(expected=expected, npmi_matched=strength, p=joint_tail(joint, expected, counts.most(i, j)))


# Choosing pairs -------------------------------------------------------------------------------------


def _select(counts: _Counts, options: CorrelateOptions, bar: Progress) -> pd.DataFrame:
    """The pairs that go together, the strongest first: columns i, j, joint, expected, npmi_matched, p, q."""
    parts = [pd.DataFrame({"i": np.zeros(0, np.int64), "j": np.zeros(0, np.int64), "joint": np.zeros(0, np.int32)})]
    task = bar.start("Counting pairs", len(counts.count_left), "features")
    for features, joint, expected in counts.blocks():
        row, j = np.nonzero(joint >= options.min_documents)
        strong = npmi(joint[row, j], expected[row, j], counts.total) >= options.min_npmi
        row, j = row[strong], j[strong]
        parts.append(pd.DataFrame({"i": features[row], "j": j, "joint": joint[row, j]}))
        bar.advance(task, len(features))
    pairs = _measured(pd.concat(parts, ignore_index=True), counts)
    # All pairs were looked at: those left out above count as tests that found nothing.
    pairs["q"] = benjamini_hochberg(pairs["p"].to_numpy(), of=counts.pairs)
    pairs = pairs[pairs["q"] <= options.false_discovery]
    return pairs.sort_values("npmi_matched", ascending=False, kind="stable")


def _of_different_labels(
    pairs: pd.DataFrame, left: _Field, right: _Field, options: CorrelateOptions, notes: list[str]
) -> pd.DataFrame:
    """Add the similarity of the labels (1 where they share a word) and drop the pairs whose labels say the same."""
    i, j = pairs["i"].to_numpy(), pairs["j"].to_numpy()
    ours, theirs = (_reader(field.workspace) for field in (left, right))
    if ours == theirs:
        a, b = left.vectors, right.vectors
        similarity = np.array([a[x] @ b[y] for x, y in zip(i, j)], float)
    else:
        similarity = np.full(len(pairs), np.nan)
        notes.append("The two workspaces have different encoders: labels are alike only where they share a word.")
    words_a, words_b = left.words, right.words
    shared = np.array([bool(words_a[x] & words_b[y]) for x, y in zip(i, j)], bool)
    pairs = pairs.assign(similarity=np.where(shared, 1.0, similarity))
    if options.max_similarity is None:
        return pairs
    alike = pairs["similarity"].to_numpy() > options.max_similarity
    if alike.any():
        notes.append(f"{int(alike.sum()):,} of {len(pairs):,} pairs have labels about the same and are left out.")
    return pairs[~alike]


def _one_of_a_kind(pairs: pd.DataFrame, left: _Field, right: _Field, notes: list[str]) -> pd.DataFrame:
    """Several features often share the first term of their name: the strongest pair of two such terms stands for all."""
    first_a, first_b = left.first_terms, right.first_terms
    keys = pd.Series(
        [(first_a[i], first_b[j]) for i, j in zip(pairs["i"], pairs["j"])], index=pairs.index, dtype=object
    )
    if left is right:
        keys = keys.map(sorted).map(tuple)
    again = keys.duplicated()
    if again.any():
        notes.append(f"{int(again.sum()):,} pairs say again what a stronger pair of like names says and are left out.")
    return pairs[~again]


def _reader(workspace: Workspace) -> list[Any]:
    return [workspace.settings.get(name) for name in ("encoder", "layer", "site")]


def _of_different_tokens(
    pairs: pd.DataFrame,
    field: _Field,
    rows: Array,
    inside: Array,
    options: CorrelateOptions,
    notes: list[str],
    bar: Progress,
) -> pd.DataFrame:
    """Add how far the strongest pairs fire on the same tokens, and drop those that do; the rest is not looked at."""
    if options.max_same_tokens is None or not len(pairs):
        return pairs.assign(same_tokens=np.nan)
    columns = field.present.tocsc()
    kept: list[pd.DataFrame] = []
    for start in range(0, min(len(pairs), LOOKED_AT * options.top), options.top):
        part = pairs.iloc[start : start + options.top]
        both = [
            np.intersect1d(_documents(columns, i), _documents(columns, j), assume_unique=True)
            for i, j in zip(part["i"], part["j"])
        ]
        both = [own[inside[own]] for own in both]
        # What takes long is reading: the documents that tell of many pairs in few tokens come first.
        worth = np.bincount(np.concatenate(both), minlength=len(rows)) / np.maximum(field.tokens, 1)
        documents = [rows[own[np.argsort(-worth[own], kind="stable")]] for own in both]
        numbers = [(int(field.features[i]), int(field.features[j])) for i, j in zip(part["i"], part["j"])]
        part = part.assign(same_tokens=same_tokens(field.workspace, numbers, documents, field.level, bar))
        kept.append(part[~(part["same_tokens"] > options.max_same_tokens)])
        looked_at = start + len(part)
        if sum(map(len, kept)) >= options.top:
            break
    together = pd.concat(kept)
    if len(together) < options.top and looked_at < len(pairs):
        notes.append(f"Only the {looked_at:,} strongest of {len(pairs):,} pairs were looked at for common tokens.")
    if len(together) < looked_at:
        notes.append(
            f"{looked_at - len(together):,} of the {looked_at:,} strongest pairs fire on the same tokens and are left out."
        )
    return together


def _same_findings(pairs: pd.DataFrame, counts: _Counts) -> Any:
    """The pair that stands for each: one whose common documents are about the same, or whose two features each are."""
    i, j = pairs["i"].to_numpy(np.int64), pairs["j"].to_numpy(np.int64)
    left, right = counts.present(i, j)
    a, b = i[first_alike(left)], j[first_alike(right)]
    if counts.symmetric:
        together = np.concatenate([i, j])
        a, b = together[first_alike(hstack([left, right], format="csr"))].reshape(2, -1)
        a, b = np.minimum(a, b), np.maximum(a, b)
    of_left, of_right = (
        field.workspace.features["terms"].iloc[field.features] for field in (counts.left, counts.right)
    )
    terms = [min(of_left.iloc[x], of_right.iloc[y], key=clarity) for x, y in zip(i, j)]
    return same_as(first_alike(left.multiply(right).tocsr()), terms, list(zip(a.tolist(), b.tolist())))


def _documents(columns: Any, feature: int) -> Array:
    return columns.indices[columns.indptr[feature] : columns.indptr[feature + 1]]


def _described(pairs: pd.DataFrame, counts: _Counts) -> pd.DataFrame:
    left, right = counts.left, counts.right
    i, j, joint = (pairs[c].to_numpy() for c in ("i", "j", "joint"))
    a, b = counts.count_left[i], counts.count_right[j]
    low, high = npmi_interval(joint, pairs["expected"].to_numpy(), counts.total)
    return pd.DataFrame(
        {
            "a": left.features[i],
            "label_a": left.labels[i],
            "b": right.features[j],
            "label_b": right.labels[j],
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
