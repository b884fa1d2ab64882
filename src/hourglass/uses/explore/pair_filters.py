"""Pairs that say nothing, or say again what another says: names about the same, the same tokens, the same documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.sparse import hstack

from hourglass.uses.explore.alike import first_alike, same_as
from hourglass.uses.explore.labels import clarity, parts_of
from hourglass.uses.explore.looked_at import Field
from hourglass.uses.explore.pair_counts import PairCounts
from hourglass.uses.explore.same_tokens import same_tokens
from hourglass.uses.progress import Progress

if TYPE_CHECKING:
    from hourglass.uses.explore.correlate import CorrelateOptions
    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]

LOOKED_AT = 5
"""So many times the pairs asked for are read again at most, to find those that stand on different tokens."""


def of_different_labels(
    pairs: pd.DataFrame, left: Field, right: Field, options: CorrelateOptions, notes: list[str]
) -> pd.DataFrame:
    """Add the similarity of the labels (1 where they share a word) and drop the pairs whose labels say the same.

    Words are read only where somebody wants to know.
    """
    i, j = pairs["i"].to_numpy(np.int64), pairs["j"].to_numpy(np.int64)
    words_a, words_b = left.words, right.words
    similarity = np.array([1.0 if words_a[x] & words_b[y] else np.nan for x, y in zip(i, j)], float)
    apart = np.isnan(similarity)
    ours, theirs = (_reader(field.workspace) for field in (left, right))
    if ours != theirs:
        notes.append("The two workspaces have different encoders: labels are alike only where they share a word.")
    elif apart.any() and options.max_similarity is not None:
        (of_a, a), (of_b, b) = (np.unique(at[apart], return_inverse=True) for at in (i, j))
        similarity[apart] = np.einsum("pd,pd->p", left.vectors(of_a)[a], right.vectors(of_b)[b])
    pairs = pairs.assign(similarity=similarity)
    if options.max_similarity is None:
        return pairs
    alike = similarity > options.max_similarity
    if alike.any():
        notes.append(f"{int(alike.sum()):,} of {len(pairs):,} pairs have labels about the same and are left out.")
    return pairs[~alike]


def one_of_a_kind(pairs: pd.DataFrame, left: Field, right: Field, notes: list[str]) -> pd.DataFrame:
    """Several features, and a word, often share the first term of their name: the strongest pair of two such terms stands
    for all, and for those of longer terms with the same words in them. So does the strongest for pairs of words that are in
    about the same documents as its own.
    """
    told: set[tuple[Any, Any]] = set()
    new = np.zeros(len(pairs), bool)
    for row, (i, j) in enumerate(zip(pairs["i"].tolist(), pairs["j"].tolist())):
        a, b = _first_term(left, i), _first_term(right, j)
        stand = int(left.stands[i]), int(right.stands[j])
        within: set[tuple[Any, Any]] = {(x, y) for x in parts_of(a) for y in parts_of(b)}
        if stand != (i, j):
            within.add(stand)
        new[row] = told.isdisjoint(within)
        if new[row]:
            told |= {(a, b), stand}
            if left is right:
                told |= {(b, a), stand[::-1]}
    if not new.all():
        notes.append(f"{int((~new).sum()):,} pairs say again what a stronger pair says and are left out.")
    return pairs[new]


def _first_term(field: Field, item: int) -> str:
    """Of an item's name; of a feature without one its number."""
    return field.terms[item][0] if field.named[item] else f"#{field.columns[item]}"


def _reader(workspace: Workspace) -> list[Any]:
    return [workspace.settings.get(name) for name in ("encoder", "layer", "site")]


def of_different_tokens(
    pairs: pd.DataFrame,
    field: Field,
    rows: Array,
    inside: Array,
    options: CorrelateOptions,
    notes: list[str],
    bar: Progress,
) -> pd.DataFrame:
    """Add how far the strongest pairs stand on the same tokens, and drop those that do; the rest is not looked at."""
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
        items = list(zip(field.names(part["i"].to_numpy()), field.names(part["j"].to_numpy())))
        part = part.assign(same_tokens=same_tokens(field.workspace, items, documents, field.level, bar))
        kept.append(part[~(part["same_tokens"] > options.max_same_tokens)])
        looked_at = start + len(part)
        if sum(map(len, kept)) >= options.top:
            break
    together = pd.concat(kept)
    if len(together) < options.top and looked_at < len(pairs):
        notes.append(f"Only the {looked_at:,} strongest of {len(pairs):,} pairs were looked at for common tokens.")
    if len(together) < looked_at:
        notes.append(
            f"{looked_at - len(together):,} of the {looked_at:,} strongest pairs are on the same tokens and are left out."
        )
    return together


def same_findings(pairs: pd.DataFrame, counts: PairCounts) -> Any:
    """The pair that stands for each: one whose common documents are about the same, or whose two items each are."""
    i, j = pairs["i"].to_numpy(np.int64), pairs["j"].to_numpy(np.int64)
    left, right = counts.present(i, j)
    a, b = i[first_alike(left)], j[first_alike(right)]
    if counts.symmetric:
        together = np.concatenate([i, j])
        a, b = together[first_alike(hstack([left, right], format="csr"))].reshape(2, -1)
        a, b = np.minimum(a, b), np.maximum(a, b)
    of_left, of_right = counts.left.terms, counts.right.terms
    terms = [min(of_left[x], of_right[y], key=clarity) for x, y in zip(i, j)]
    return same_as(first_alike(left.multiply(right).tocsr()), terms, list(zip(a.tolist(), b.tolist())))


def _documents(columns: Any, item: int) -> Array:
    return columns.indices[columns.indptr[item] : columns.indptr[item + 1]]
