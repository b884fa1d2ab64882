"""Vectors of one length as a byte a number, nearest where the inner product is largest.

|q - x|^2 = |q|^2 + |x|^2 - 2 q.x has the order of q.x where all x are of one length, and distances of bytes are sums of whole numbers,
which are faster than those of bytes that become floats.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_AT_ONCE = 16
"""Numbers that faiss compares in one step; it is slow where the width is no multiple."""
_ALIKE = 0.01
"""Lengths that differ by no larger share are one: bytes are hardly finer."""


@dataclass(frozen=True)
class ByteCodes:
    """low, step  the number that the byte 0 stands for, and from one byte to the next
    length        of the vectors
    width         numbers of a code: zeros fill it up to a multiple of 16
    """

    low: float
    step: float
    length: float
    width: int

    @classmethod
    def of(cls, parts: Iterable[Array]) -> ByteCodes | None:
        """What fits the vectors, some [n, d] at a time; None where their lengths differ."""
        low, high, shortest, longest, width = np.inf, -np.inf, np.inf, 0.0, 0
        for part in parts:
            lengths, width = np.linalg.norm(part, axis=1), part.shape[1]
            shortest, longest = min(shortest, float(lengths.min())), max(longest, float(lengths.max()))
            low, high = min(low, float(part.min())), max(high, float(part.max()))
        if shortest < (1 - _ALIKE) * longest or low == high:
            return None
        return cls(low, (high - low) / 255, longest, -(-width // _AT_ONCE) * _AT_ONCE)

    def documents(self, vectors: Array) -> Array:
        """[n, width] float32 of whole numbers 0 to 255, of [n, d] vectors."""
        codes = np.zeros((len(vectors), self.width), np.float32)
        codes[:, : vectors.shape[1]] = np.clip(np.rint((vectors - self.low) / self.step), 0, 255)
        return codes

    def queries(self, vectors: Array) -> Array:
        """The same of queries, each made as long as a document, which changes no order."""
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return self.documents(vectors * (self.length / np.where(lengths > 0, lengths, 1)))
