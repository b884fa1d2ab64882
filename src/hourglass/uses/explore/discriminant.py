"""A direction that parts a few examples from others, and how it does on each of them unseen."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

Array = np.ndarray[Any, Any]

PENALTY = 1.0
"""Of the weights, in units of the rows' mean squared distance from their middle."""


def discriminant(x: Array | csr_matrix, positive: Array) -> tuple[Array, Array]:
    """Weights [d], and for each row of `x` [n, d] the score that it gets from weights learned without it [n].

    Ridge regression (Hoerl and Kennard 1970), with an intercept, of +1 for rows where `positive` and -1 for the others,
    both sides weighing the same; solved over rows, of which there are fewer than columns. No row is left out by solving
    again: what a row adds to its own score is known (Allen 1974). Zeros where all rows are alike. Both sides need a row.
    """
    number = len(positive)
    target = np.where(positive, 1.0, -1.0)
    share = np.where(positive, 0.5 / positive.sum(), 0.5 / (number - positive.sum()))
    x = x.astype(np.float64)
    products = x @ x.T
    products = products.toarray() if isinstance(products, csr_matrix) else products
    middle = products @ share
    kernel = products - middle - middle[:, None] + share @ middle  # of rows less their weighted mean
    spread = np.trace(kernel) / number
    if spread <= 1e-9 * np.trace(products) / number:
        return np.zeros(x.shape[1]), np.zeros(number)
    inverse = np.linalg.inv(kernel + PENALTY * spread * np.diag(1 / (share * number)))
    dual = inverse @ target  # whose mean is 0, as both sides weigh the same
    weights = x.T @ dual - (x.T @ share) * dual.sum()
    hat = kernel @ inverse  # [scores, targets]
    hat += (1 - hat.sum(1, keepdims=True)) * share
    own = np.diag(hat)
    return weights, (hat @ target - own * target) / (1 - own)
