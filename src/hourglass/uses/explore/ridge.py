"""Ridge regression of few rows on many columns, each row judged without itself (leave-one-out, in closed form: Allen 1974)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.linalg import lapack
from scipy.sparse import csr_matrix, issparse

from hourglass.uses.explore.labels import quoted

Array = np.ndarray[Any, Any]

LISTED = 20
"""Items of a direction in the JSON, for it and against it."""
RIDGE = 10.0
"""Penalty in mean squares of a row (of what it has, unlike the average one); ten told more plantings than one or three."""


class Ridge:
    """Of any target on x [rows, columns] and on vectors [rows, d], which weigh as much as all columns; with `intercept` on how each
    row differs from the average one, by `grams` of x and of vectors where they are made already.

    alone  [rows, rows] what each row is said to be, of the targets of all others
    """

    def __init__(
        self, x: csr_matrix, vectors: Array, intercept: bool = True, grams: Sequence[Array] | None = None
    ) -> None:
        self._x, self._vectors, self._intercept = x, vectors.astype(float), intercept
        views = (x, self._vectors)
        of_x, of_vectors = grams or [centred_gram(view) if intercept else _gram(view) for view in views]
        self._scale = np.trace(of_x) / (np.trace(of_vectors) or 1.0)
        gram = of_x + self._scale * of_vectors
        penalty = RIDGE * np.trace(gram) / len(gram) or 1.0  # rows that are all alike say nothing, whatever the penalty
        gram[np.diag_indices_from(gram)] += penalty
        self._inverse = _inverse(gram)
        smoothed = np.eye(len(gram)) - penalty * self._inverse + (1 / len(gram) if intercept else 0)
        self.alone: Array = smoothed / (1 - np.diag(smoothed))[:, None]
        np.fill_diagonal(self.alone, 0)

    def weights(self, target: Array) -> Weights:
        """Those of a target [rows], or of several [rows, targets]."""
        dual = self._inverse @ (target - (target.mean(0) if self._intercept else 0))
        return Weights(np.asarray(self._x.T @ dual), self._scale * (self._vectors.T @ dual))

    def sum_at(self, score: Any, target: Array, weights: Weights) -> Any:
        """What a row's weights sum to that is given this score: a score is the target's mean, and how much further the row leans
        than the average one."""
        return score - target.mean(0) + weights.sums(self._x, self._vectors).mean(0)


class Weights(NamedTuple):
    """Of columns [columns], and of the numbers of vectors [d]; of several targets [columns, targets] and [d, targets]."""

    columns: Array
    vectors: Array

    def sums(self, x: csr_matrix, vectors: Array) -> Array:
        """[rows] what they sum to."""
        return np.asarray(x @ self.columns + vectors @ self.vectors)


@dataclass(frozen=True)
class Direction:
    """Through what documents have, and their mean states in the middle of the model.

    items    what is weighed, the heaviest first: kind, feature, label, weight (above 0: speaks for it), position (number of the
             feature, or the width plus that of the word)
    middle   [d] weights of the mean state
    bar      documents whose weights sum to more are more like what is told; NaN where only two can be compared
    """

    items: pd.DataFrame
    middle: Array
    bar: float

    @classmethod
    def of(cls, items: pd.DataFrame, weights: Weights, bar: float) -> Direction:
        """Of items (kind, feature, label, position) that are weighed in this order."""
        order = np.argsort(-np.abs(weights.columns), kind="stable")
        return cls(items.iloc[order].assign(weight=weights.columns[order]), weights.vectors, float(bar))

    def sums(self, present: csr_matrix, middle: Array) -> Array:
        """[documents] what weights sum to, for documents that have of all features and words what present [documents, features
        and words] says, and these mean states [documents, d]."""
        own = present[:, self.items["position"].to_numpy()]
        return Weights(self.items["weight"].to_numpy(), self.middle).sums(own, middle)

    def heaviest(self, sign: int) -> list[dict[str, Any]]:
        """Of what has a weight above 0 (of `sign` -1: below), the LISTED heaviest as plain values: kind, feature, label, weight."""
        plain = self.items.loc[sign * self.items["weight"] > 0, ["kind", "feature", "label", "weight"]]
        rows: list[dict[str, Any]] = json.loads(plain.head(LISTED).to_json(orient="records"))
        return rows

    def names(self, sign: int = 1) -> list[str]:
        """Of what has a weight above 0 (of `sign` -1: below), the heaviest first, each once."""
        named = self.items[(sign * self.items["weight"] > 0) & self.items["label"].notna()]
        names = (quoted(label) if kind == "word" else label for kind, label in zip(named["kind"], named["label"]))
        return list(dict.fromkeys(names))


def centred_gram(x: csr_matrix | Array) -> Array:
    """[rows, rows] products of the rows of x [rows, columns], each less their mean."""
    if not issparse(x):
        return _gram(x - x.mean(0, dtype=float))
    gram = _gram(x)
    mean = gram.mean(0)
    gram += mean.mean() - mean - mean[:, None]
    return gram


def _inverse(positive: Array) -> Array:
    """Of a symmetric matrix whose eigenvalues are above 0, in half the time of any other's; the matrix is used up."""
    factor, failed = lapack.dpotrf(positive.T, overwrite_a=True)
    inverse, failed_too = lapack.dpotri(factor, overwrite_c=True)
    if failed or failed_too:
        raise np.linalg.LinAlgError("the matrix has eigenvalues that are not above 0")
    upper = np.triu(inverse)
    return upper + np.triu(upper, 1).T


def _gram(x: csr_matrix | Array) -> Array:
    products = x @ x.T
    return np.asarray(products.toarray() if isinstance(products, csr_matrix) else products, float)
