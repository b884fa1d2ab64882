"""Rows whose dictionary is known: what a sparse autoencoder should find is there to compare with.

made = simulated_rows(10_000, d=64, atoms=128, active=4)
made.rows        [10_000, 64] sums of about 4 of 128 unit atoms, and noise
made.atoms       [128, 64] the atoms
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hourglass.errors import ConfigError

Array = np.ndarray[Any, Any]

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class SimulatedRows:
    """rows = sum over j of strengths[:, j] * atoms[chosen[:, j]], and noise.

    rows       [n, d] float32
    atoms      [m, d] float32, of length 1
    chosen     [n, active] int64, the atoms of each row; one may be there twice, and then counts twice
    strengths  [n, active] float32, from 0.5 to 1.5
    """

    rows: Array
    atoms: Array
    chosen: Array
    strengths: Array


def simulated_rows(
    rows: int,
    *,
    d: int = 384,
    atoms: int = 1024,
    active: int = 12,
    power: float = 0.5,
    noise: float = 0.02,
    seed: int = 0,
) -> SimulatedRows:
    """Rows of `active` draws each out of `atoms` random directions of length 1 in d dimensions.

    power   atom i of 1, 2, 3 ... is drawn in proportion to i ** -power: 0 uses all alike
    noise   standard deviation of what is added to each number
    """
    if min(rows, d, atoms, active) < 1 or noise < 0:
        raise ConfigError(
            f"rows {rows}, d {d}, atoms {atoms}, active {active}: expected at least 1 of each; noise {noise}: at least 0"
        )
    random = np.random.default_rng(seed)
    directions = random.standard_normal((atoms, d)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    use = np.arange(1, atoms + 1) ** -float(power)
    chosen = random.choice(atoms, size=(rows, active), p=use / use.sum())
    strengths = 0.5 + random.random((rows, active), dtype=np.float32)
    x = random.standard_normal((rows, d)).astype(np.float32) * np.float32(noise)
    for start in range(0, rows, _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        x[part] += np.einsum("nk,nkd->nd", strengths[part], directions[chosen[part]])
    return SimulatedRows(x, directions, chosen, strengths)
