"""Ridge regression of few rows on many columns, each row judged without itself (leave-one-out, in closed form: Allen 1974)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, issparse

Array = np.ndarray[Any, Any]

RIDGE = 10.0
"""Penalty in mean squares of a row (of what it has, unlike the average one); ten told more plantings than one or three."""


class Ridge:
    """Of any target on x [rows, columns] and on the vectors `beside` ([rows, d] each), any of which weigh as much as all columns;
    with `intercept` on how each row differs from the average one.

    alone  [rows, rows] what each row is said to be, of the targets of all others
    """

    def __init__(self, x: csr_matrix, intercept: bool = True, beside: Sequence[Array] = ()) -> None:
        self._views, self._intercept = (x, *(vectors.astype(float) for vectors in beside)), intercept
        grams = [centred_gram(view) if intercept else _gram(view) for view in self._views]
        sizes = [np.trace(gram) for gram in grams]
        self._scales = [1.0, *(sizes[0] / max(size, np.finfo(float).tiny) for size in sizes[1:])]
        gram = sum(own * scale for own, scale in zip(grams, self._scales))
        penalty = RIDGE * np.trace(gram) / len(gram) or 1.0  # rows that are all alike say nothing, whatever the penalty
        gram[np.diag_indices_from(gram)] += penalty
        self._inverse = np.linalg.inv(gram)
        smoothed = np.eye(len(gram)) - penalty * self._inverse + (1 / len(gram) if intercept else 0)
        self.alone: Array = smoothed / (1 - np.diag(smoothed))[:, None]
        np.fill_diagonal(self.alone, 0)

    def weights(self, target: Array) -> tuple[Array, ...]:
        """Those of a target [rows]: [columns], and [d] of each of the vectors beside."""
        dual = self._inverse @ (target - (target.mean() if self._intercept else 0))
        return tuple(np.asarray(view.T @ dual) * scale for view, scale in zip(self._views, self._scales))

    def sum_at(self, score: float, target: Array, weights: Sequence[Array]) -> float:
        """What a row's weights sum to that is given this score: a score is the target's mean, and how much further the row leans
        than the average one."""
        return float(score - target.mean() + sum((view @ own).mean() for view, own in zip(self._views, weights)))


@dataclass(frozen=True)
class Direction:
    """Through what documents have, and their vectors.

    items    what is weighed, the heaviest first: kind, feature, label, weight (above 0: speaks for it), position (number of the
             feature, or the width plus that of the word)
    vectors  weights [d] of the vectors beside: the mean state of a document, and that in the middle of the model
    bar      documents whose weights sum to more are more like what is told; NaN where only two can be compared
    """

    items: pd.DataFrame
    vectors: tuple[Array, ...]
    bar: float

    @classmethod
    def of(cls, items: pd.DataFrame, weights: Sequence[Array], bar: float) -> Direction:
        """Of items (kind, feature, label, position), and weights as a `Ridge` gives them."""
        weighed = items.assign(weight=weights[0])
        order = weighed["weight"].abs().sort_values(ascending=False, kind="stable").index
        return cls(weighed.loc[order], tuple(weights[1:]), bar)

    def sums(self, present: csr_matrix, vectors: Sequence[Array]) -> Array:
        """[documents] what weights sum to: of all features and words, present [documents, features and words] 1 where a document
        has one, and of the vectors [documents, d]."""
        of_items = present[:, self.items["position"].to_numpy()] @ self.items["weight"].to_numpy()
        return np.asarray(of_items + sum(own @ weights for own, weights in zip(vectors, self.vectors)))

    def names(self) -> list[str]:
        """Of what has a weight above 0, the heaviest first, each once."""
        return list(self.items["label"][self.items["weight"] > 0].dropna().drop_duplicates())


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
