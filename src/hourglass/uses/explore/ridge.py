"""Ridge regression of few rows on many columns, each row judged without itself (leave-one-out, in closed form: Allen 1974)."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

Array = np.ndarray[Any, Any]

RIDGE = 10.0
"""Penalty in mean squares of a row (of what it has, unlike the average one); ten told more plantings than one or three."""


class Ridge:
    """Of any target on x [rows, columns]; with `intercept` on how each row differs from the average one.

    alone  [rows, rows] what each row is said to be, of the targets of all others
    """

    def __init__(self, x: csr_matrix, intercept: bool = True) -> None:
        gram = centred_gram(x) if intercept else (x @ x.T).toarray().astype(float)
        penalty = RIDGE * np.trace(gram) / len(gram) or 1.0  # rows that are all alike say nothing, whatever the penalty
        gram[np.diag_indices_from(gram)] += penalty
        self._x, self._intercept = x, intercept
        self._inverse = np.linalg.inv(gram)
        smoothed = np.eye(len(gram)) - penalty * self._inverse + (1 / len(gram) if intercept else 0)
        self.alone: Array = smoothed / (1 - np.diag(smoothed))[:, None]
        np.fill_diagonal(self.alone, 0)

    def weights(self, target: Array) -> Array:
        """[columns] those of a target [rows]."""
        return np.asarray(self._x.T @ (self._inverse @ (target - (target.mean() if self._intercept else 0))))

    def sum_at(self, score: float, target: Array, weights: Array) -> float:
        """What a row's weights sum to that is given this score: a score is the target's mean, and how much further the row leans
        than the average one."""
        return float(score - target.mean() + (self._x @ weights).mean())


def centred_gram(x: csr_matrix) -> Array:
    """[rows, rows] products of the rows of x [rows, columns], each less their mean."""
    gram: Array = (x @ x.T).toarray().astype(float)
    mean = gram.mean(0)
    gram += mean.mean() - mean - mean[:, None]
    return gram
