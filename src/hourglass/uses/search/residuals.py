"""A vector as its nearest centroid and what is left of it, in a few bits a dimension: how ColBERTv2 keeps token vectors small.

    codec = Residuals.fit(sample, bits=2)
    kept = codec.encode(vectors)      # 4 bytes and d x bits / 8 a vector, where float32 takes 4 d
    codec.decode(kept)                # [n, d], of length 1

Santhanam, Khattab, Saad-Falcon, Potts and Zaharia 2022 (arXiv 2112.01488), section 3.3: the cuts between the values of a remainder are
its quantiles over all dimensions, the values are the quantiles half way between.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from hourglass.errors import ConfigError, FolderError
from hourglass.storage.atomic import atomic_file

Array = np.ndarray[Any, Any]

BITS = (1, 2, 4, 8)
_ROWS_AT_ONCE = 4096
_STEPS = 4
"""Of Lloyd's algorithm, as ColBERTv2 takes; more hardly come nearer."""


class Compressed(NamedTuple):
    """nearest [n] uint32, the centroids; rest [n, d x bits / 8] uint8, a packed code for each dimension."""

    nearest: Array
    rest: Array


class Residuals:
    """The codec.

    centroids  [k, d] float32 of length 1
    cuts       [2 ^ bits - 1] float32, between the values
    values     [2 ^ bits] float32 that a dimension of the remainder can have
    """

    def __init__(self, centroids: Array, cuts: Array, values: Array) -> None:
        self.centroids, self.cuts, self.values = centroids, cuts, values
        self.bits = len(values).bit_length() - 1
        self._inverse = _unpacked(np.arange(256, dtype=np.uint8)[:, None], self.bits)

    @classmethod
    def fit(cls, vectors: Array, bits: int = 2, centroids: int | None = None, seed: int = 0) -> Self:
        """From a sample [n, d] of the vectors.

        centroids  how many; None: the power of two below 16 sqrt(n), as in the paper, and at most n / 4

        Raises ConfigError for bits other than 1, 2, 4, 8, and for a width that these do not fill bytes of.
        """
        vectors = np.asarray(vectors, np.float32)
        n, d = vectors.shape
        check_bits(bits, d)
        if not n:
            raise ConfigError("no vector to learn centroids from")
        vectors = unit(vectors)
        number = centroids or 2 ** int(np.log2(max(1, min(16 * np.sqrt(n), n / 4))))
        if number > n:
            raise ConfigError(f"centroids {number}: more than the {n} vectors of the sample")
        nearest = unit(centres(vectors, number, seed, _STEPS))
        rest = np.concatenate([part - nearest[_nearest(part, nearest)] for part in _parts(vectors)])
        shares = np.arange(1, 2**bits) / 2**bits
        return cls(
            nearest,
            np.quantile(rest, shares).astype(np.float32),
            np.quantile(rest, (np.arange(2**bits) + 0.5) / 2**bits).astype(np.float32),
        )

    def encode(self, vectors: Array) -> Compressed:
        """Of vectors [n, d], whose lengths do not count."""
        vectors = unit(np.asarray(vectors, np.float32))
        nearest, rest = [np.zeros(0, np.uint32)], [np.zeros((0, self.centroids.shape[1] * self.bits // 8), np.uint8)]
        for part in _parts(vectors):
            near = _nearest(part, self.centroids)
            codes = np.searchsorted(self.cuts, part - self.centroids[near], side="right").astype(np.uint8)
            nearest.append(near.astype(np.uint32))
            rest.append(_packed(codes, self.bits))
        return Compressed(np.concatenate(nearest), np.concatenate(rest))

    def decode(self, kept: Compressed) -> Array:
        """[n, d] float32 of length 1."""
        codes = self._inverse[kept.rest].reshape(len(kept.rest), self.centroids.shape[1])
        return unit(self.centroids[kept.nearest] + self.values[codes])

    def save(self, path: Path) -> None:
        """Into a .safetensors file, whole or not at all."""
        with atomic_file(path) as part:
            save_file({"centroids": self.centroids, "cuts": self.cuts, "values": self.values}, part)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises FolderError for a file that is not there or that holds something else."""
        try:
            return cls(**load_file(path))
        except (OSError, SafetensorError, TypeError) as error:
            raise FolderError(f"{path}: holds no centroids and cuts ({error})") from None


def check_bits(bits: int, d: int) -> None:
    """ConfigError where vectors of d numbers cannot be kept in so many bits a number."""
    if bits not in BITS:
        raise ConfigError(f"bits {bits}: expected one of {', '.join(map(str, BITS))}")
    if d * bits % 8:
        raise ConfigError(f"bits {bits} of {d} dimensions fill no bytes; expected a multiple of 8 together")


def centres(vectors: Array, number: int, seed: int = 0, steps: int = 300) -> Array:
    """[number, d] float32: k-means of vectors [n, d], from rows drawn by `seed`; of fewer different ones some come twice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it says so of rows that are alike
        means = KMeans(number, init="random", n_init=1, max_iter=steps, random_state=seed).fit(vectors)
    return np.asarray(means.cluster_centers_, np.float32)


def unit(vectors: Array) -> Array:
    """Of length 1; zeros stay."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def _parts(vectors: Array) -> list[Array]:
    return [vectors[i : i + _ROWS_AT_ONCE] for i in range(0, len(vectors), _ROWS_AT_ONCE)]


def _nearest(vectors: Array, centroids: Array) -> Array:
    found: Array = (vectors @ centroids.T).argmax(1)
    return found


def _packed(codes: Array, bits: int) -> Array:
    """[n, d x bits / 8] of codes [n, d] below 2 ^ bits, the first in the lowest bits."""
    together = codes.reshape(len(codes), codes.shape[1] * bits // 8, 8 // bits)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    packed: Array = np.bitwise_or.reduce(together << shifts, axis=2).astype(np.uint8)
    return packed


def _unpacked(packed: Array, bits: int) -> Array:
    """[n, bytes x 8 / bits] of packed [n, bytes]."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes: Array = packed[:, :, None] >> shifts & np.uint8(2**bits - 1)
    return codes.reshape(len(packed), packed.shape[1] * 8 // bits)
