"""A direction that parts a few examples from others, and how it does on each of them unseen."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

Array = np.ndarray[Any, Any]


def discriminant(x: Array | csr_matrix, positive: Array, penalty: float = 1.0) -> tuple[Array, Array]:
    """Weights [d], and for each row of `x` [n, d] the score that it gets from weights learned without it [n].

    Ridge regression (Hoerl and Kennard 1970) of +1 for rows where `positive`, -1 for others, both sides weighing the
    same, with an intercept. It is solved over rows, of which there are fewer than columns. `penalty` is in units of
    the rows' mean squared distance from their middle. Leaving a row out needs no second solution (Allen 1974): of what a
    row gets, its own part is known. No weights where all rows are alike. Both sides need a row.
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
    if spread <= 1e-9 * max(np.trace(products) / number, 1e-300):
        return np.zeros(x.shape[1]), np.zeros(number)
    inverse = np.linalg.inv(kernel + penalty * spread * np.diag(1 / (share * number)))
    # The sides weigh the same, so the target's mean is 0 and the dual's centring shows in the hat matrix alone.
    dual = inverse @ target
    weights = x.T @ dual - (x.T @ share) * dual.sum()
    hat = kernel @ inverse
    hat += (1 - hat.sum(1, keepdims=True)) * share
    own = np.diag(hat)
    return weights, (hat @ target - own * target) / (1 - own)
