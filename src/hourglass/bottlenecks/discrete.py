"""Binary codes of vectors that were made without codes in mind: signs, medians, random hyperplanes, iterative quantisation.

    hasher = fit_hasher("itq", training_vectors, bits=64)
    codes = hasher.codes(vectors)                # uint8 [n, bytes], as `metrics.codes` packs them

Each is a shift and a matrix; a bit is 1 where the product is above 0:
    sign         no shift, no matrix: a bit for each number
    median       less the training vectors' median: each bit is 1 for half of them
    hyperplanes  less their mean, on random normal directions (Charikar 2002)
    itq          less their mean, on their first principal components, turned such that signs are nearest to the numbers (Gong and
                 Lazebnik 2011)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from hourglass.errors import ConfigError, FolderError, InputError, nearest
from hourglass.metrics.codes import pack
from hourglass.storage.atomic import atomic_file

Array = np.ndarray[Any, Any]

METHODS = ("sign", "median", "hyperplanes", "itq")
_ITQ_STEPS = 50


@dataclass(frozen=True)
class Hasher:
    """Codes of vectors [n, d]: bit j is 1 where (vector - shift) @ matrix[:, j] > 0.

    shift   [d] float32
    matrix  [d, bits] float32; None: a bit for each number
    """

    shift: Array
    matrix: Array | None = None

    @property
    def bits(self) -> int:
        """Of a code."""
        return len(self.shift) if self.matrix is None else self.matrix.shape[1]

    def codes(self, vectors: Array) -> Array:
        """uint8 [n, bytes]. Raises InputError for vectors of another width or that are not finite."""
        rows = _checked(vectors)
        if rows.shape[1] != len(self.shift):
            raise InputError(f"vectors of {rows.shape[1]} numbers: expected {len(self.shift)}")
        moved = rows - self.shift
        return pack((moved if self.matrix is None else moved @ self.matrix) > 0)

    def save(self, path: str | Path) -> None:
        """Into a .safetensors file."""
        tensors = {"shift": self.shift} | ({} if self.matrix is None else {"matrix": self.matrix})
        with atomic_file(Path(path)) as file:
            save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, file)

    @classmethod
    def load(cls, path: str | Path) -> Hasher:
        """FolderError where there is no such file."""
        try:
            tensors = load_file(path)
            return cls(tensors["shift"], tensors.get("matrix"))
        except (OSError, KeyError, SafetensorError) as error:
            raise FolderError(f"{path}: no hasher that can be read ({error})") from None


def fit_hasher(method: str, vectors: Array, bits: int | None = None, seed: int = 0) -> Hasher:
    """A hasher by the training vectors [n, d].

    bits  of a code; default d, and with "sign" and "median" no other. "itq": at most d
    seed  of directions, and of the rotation that is begun with

    Raises ConfigError for a method or a number of bits that there is not, InputError for vectors that will not do.
    """
    if method not in METHODS:
        raise ConfigError(f"no hashing {method!r}{nearest(method, METHODS)}")
    rows = _checked(vectors)
    n, d = rows.shape
    bits = check_bits(method, d, bits)
    if method == "itq" and n < bits:
        raise InputError(f"{n} vectors: expected {bits} or more, one for each bit")
    random = np.random.default_rng(seed)
    if method == "sign":
        return Hasher(np.zeros(d, np.float32))
    if method == "median":
        return Hasher(np.median(rows, axis=0).astype(np.float32))
    mean = rows.mean(0, dtype=float)
    if method == "hyperplanes":
        return Hasher(mean.astype(np.float32), random.normal(size=(d, bits)).astype(np.float32))
    values, axes = np.linalg.eigh(np.cov((rows - mean).T, ddof=0).reshape(d, d))
    axes = axes[:, np.argsort(-values, kind="stable")[:bits]]
    turned = rotation((rows - mean) @ axes, random)
    return Hasher(mean.astype(np.float32), (axes @ turned).astype(np.float32))


def check_bits(method: str, d: int, bits: int | None = None) -> int:
    """Bits of a code of vectors of d numbers, d by default; ConfigError for a number that the method does not give."""
    bits = d if bits is None else bits
    if bits < 1 or (method in ("sign", "median") and bits != d) or (method == "itq" and bits > d):
        expected = {"itq": f"from 1 to {d}", "hyperplanes": "1 or more"}.get(method, str(d))
        raise ConfigError(f"{bits} bits of {d} numbers by {method!r}: expected {expected}")
    return bits


def rotation(rows: Array, random: np.random.Generator, steps: int = _ITQ_STEPS) -> Array:
    """[b, b] the orthogonal matrix R for which the signs of rows @ R are nearest to rows @ R, by alternation from a random one."""
    turned, _ = np.linalg.qr(random.normal(size=(rows.shape[1],) * 2))
    for _ in range(steps):
        signs = np.where(rows @ turned > 0, 1.0, -1.0)
        left, _, right = np.linalg.svd(rows.T @ signs)  # the orthogonal Procrustes problem
        turned = left @ right
    return np.asarray(turned)


def _checked(vectors: Array) -> Array:
    rows = np.asarray(vectors, np.float32)
    if rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
        raise InputError(f"vectors of shape {rows.shape}: expected finite numbers [n, d], one row or more")
    return rows
