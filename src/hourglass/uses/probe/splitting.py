"""Which items teach a probe and which test it."""

from __future__ import annotations

from typing import Any

import numpy as np

from hourglass.errors import ConfigError

Array = np.ndarray[Any, Any]


def train_mask(labels: Array, documents: Array | None, test_share: float, seed: int) -> Array:
    """[n] bool: the items that teach. A share of those of each label tests; with `documents` [n], a share of the documents.

    Tokens of one document are alike: on both sides, they would be recognised rather than told.
    """
    if not 0 < test_share < 1:
        raise ConfigError(f"test_share {test_share}: expected a share between 0 and 1")
    random = np.random.default_rng(seed)
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if documents is not None:
        units, documents = np.unique(documents, return_inverse=True)
        groups = [np.arange(len(units))]
    train = np.ones(len(labels) if documents is None else len(units), bool)
    for group in groups:
        tested = random.permutation(group)[: round(test_share * len(group))]
        train[tested] = False
    return train if documents is None else train[documents]
