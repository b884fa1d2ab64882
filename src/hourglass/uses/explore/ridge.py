"""Ridge regression of few rows on many columns, each row judged without itself (leave-one-out, in closed form: Allen 1974)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, issparse

from hourglass.uses.explore.labels import quoted

Array = np.ndarray[Any, Any]

LISTED = 20
"""Items of a direction in the JSON, for it and against it."""
RIDGE = 10.0
"""Penalty in mean squares of a row (of what it has, unlike the average one); ten told more plantings than one or three."""


class Ridge:
    """Of any target on x [rows, columns] and on vectors [rows, d], which weigh as much as all columns; with `intercept` on how each
    row differs from the average one.

    alone  [rows, rows] what each row is said to be, of the targets of all others
    """

    def __init__(self, x: csr_matrix, vectors: Array, intercept: bool = True) -> None:
        self._x, self._vectors, self._intercept = x, vectors.astype(float), intercept
        gram, of_vectors = (centred_gram(view) if intercept else _gram(view) for view in (x, self._vectors))
        self._scale = np.trace(gram) / (np.trace(of_vectors) or 1.0)
        gram += self._scale * of_vectors
        penalty = RIDGE * np.trace(gram) / len(gram) or 1.0  # rows that are all alike say nothing, whatever the penalty
        gram[np.diag_indices_from(gram)] += penalty
        self._inverse = np.linalg.inv(gram)
        smoothed = np.eye(len(gram)) - penalty * self._inverse + (1 / len(gram) if intercept else 0)
        self.alone: Array = smoothed / (1 - np.diag(smoothed))[:, None]
        np.fill_diagonal(self.alone, 0)

    def weights(self, target: Array) -> Weights:
        """Those of a target [rows]."""
        dual = self._inverse @ (target - (target.mean() if self._intercept else 0))
        return Weights(np.asarray(self._x.T @ dual), self._scale * (self._vectors.T @ dual))

    def sum_at(self, score: float, target: Array, weights: Weights) -> float:
        """What a row's weights sum to that is given this score: a score is the target's mean, and how much further the row leans
        than the average one."""
        return float(score - target.mean() + weights.sums(self._x, self._vectors).mean())


class Weights(NamedTuple):
    """Of columns [columns], and of the numbers of vectors [d]."""

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
        weighed = items.assign(weight=weights.columns)
        order = weighed["weight"].abs().sort_values(ascending=False, kind="stable").index
        return cls(weighed.loc[order], weights.vectors, bar)

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


def _gram(x: csr_matrix | Array) -> Array:
    products = x @ x.T
    return np.asarray(products.toarray() if isinstance(products, csr_matrix) else products, float)
