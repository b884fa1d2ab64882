"""Binary codes: packing, exact Hamming search, a short list re-ranked by real vectors, and whether the bits are any good.

Codes are uint8 [n, bytes], 8 bits a byte, the first bit the highest; a width that is no multiple of 8 is filled with zeros, the
same in all codes, so that distances do not change (28 bits are 4 bytes).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hourglass.errors import InputError

Array = np.ndarray[Any, Any]

_ROWS_AT_ONCE = 2**16


def pack(bits: Array) -> Array:
    """Bits [n, K], bool or 0 and 1, to codes uint8 [n, ceil(K / 8)]. Raises InputError for anything else."""
    bits = np.asarray(bits)
    if bits.ndim != 2 or not bits.shape[1] or (bits.dtype != bool and not np.isin(bits, (0, 1)).all()):
        raise InputError(f"bits of shape {bits.shape}: expected [n, K] of 0 and 1")
    return np.packbits(bits.astype(bool), axis=1)


def unpack(codes: Array, bits: int) -> Array:
    """The inverse of `pack`: bool [n, bits]. Raises InputError where the codes are not of so many bits."""
    codes = _checked(codes)
    if -(-bits // 8) != codes.shape[1]:
        raise InputError(f"codes of {codes.shape[1]} bytes: {bits} bits are {-(-bits // 8)} bytes")
    return np.unpackbits(codes, axis=1, count=bits).astype(bool)


def as_words(codes: Array) -> Array:
    """[n, words] uint64 of codes [n, bytes], filled with zeros: what `differing` compares."""
    codes = _checked(codes)
    made = np.zeros((len(codes), -(-codes.shape[1] // 8) * 8), np.uint8)
    made[:, : codes.shape[1]] = codes
    return made.view(np.uint64)


def differing(words: Array, query: Array) -> Array:
    """[n] int64 bits in which codes [n, words] differ from one [words], both as `as_words` makes them."""
    made = np.empty(len(words), np.int64)
    for start in range(0, len(words), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        np.sum(np.bitwise_count(words[part] ^ query), axis=1, dtype=np.int64, out=made[part])
    return made


def hamming(queries: Array, codes: Array) -> Array:
    """[q, n] int32: bits in which two codes differ. Raises InputError for codes of unequal length."""
    queries, codes = _checked(queries), _checked(codes)
    if queries.shape[1] != codes.shape[1]:
        raise InputError(f"queries of {queries.shape[1]} bytes and codes of {codes.shape[1]}: expected the same number")
    words = as_words(codes)
    made = np.empty((len(queries), len(codes)), np.int32)
    for row, query in zip(made, as_words(queries)):
        row[:] = differing(words, query)
    return made


def nearest_codes(queries: Array, codes: Array, k: int, seed: int = 0) -> tuple[Array, Array]:
    """(places [q, k], distances [q, k]) of the k nearest codes, exactly. Ties stand in an order drawn by `seed`, the same for all queries."""
    if k < 1:
        raise InputError(f"k {k}: expected 1 or more")
    distances = hamming(queries, codes)
    drawn = np.random.default_rng(seed).permutation(len(codes))
    order = drawn[np.argsort(distances[:, drawn], axis=1, kind="stable")[:, :k]]
    return order, np.take_along_axis(distances, order, 1)


def ball(query: Array, codes: Array, radius: int) -> Array:
    """Places of all codes at most `radius` bits from `query` [bytes], in rising order."""
    return np.flatnonzero(hamming(np.asarray(query)[None], codes)[0] <= radius)


def two_stage(query: Array, codes: Array, vector: Array, vectors: Array, *, radius: int) -> Array:
    """Places in the ball around `query`, best cosine of `vector` [d] and `vectors` [n, d] first; a vector of zeros is last."""
    short = ball(query, codes, radius)
    lengths = np.linalg.norm(vectors[short], axis=1) * np.linalg.norm(vector)
    cosines = np.divide(vectors[short] @ vector, lengths, out=np.full(len(short), -np.inf), where=lengths > 0)
    return short[np.argsort(-cosines, kind="stable")]


@dataclass(frozen=True)
class RadiusCurve:
    """What a Hamming ball of each radius holds; arrays [K + 1] for radius 0 to K.

    radius      bits
    precision   mean over queries of the share of the ball that is relevant; a query whose ball is empty is left out, NaN where all are
    recall      mean over queries of the share of what is relevant that is in the ball
    candidates  mean number of codes in the ball
    empty       share of the queries whose ball is empty
    """

    radius: Array
    precision: Array
    recall: Array
    candidates: Array
    empty: Array


def radius_curve(queries: Array, codes: Array, relevant: Array) -> RadiusCurve:
    """Of codes [q, bytes] and [n, bytes] and the mask relevant [q, n]; K is 8 x bytes. Queries without anything relevant are left out.

    Precision over recall, radius by radius, is the curve that papers on hashing draw. Raises InputError where shapes do not fit or no
    query has anything relevant.
    """
    distances, relevant = hamming(queries, codes), np.asarray(relevant, bool)
    if relevant.shape != distances.shape:
        raise InputError(f"relevant of shape {relevant.shape}: expected {distances.shape}, queries by codes")
    asked = relevant.any(1)
    if not asked.any():
        raise InputError("no query has anything relevant: expected one or more")
    bins = 8 * np.asarray(codes).shape[1] + 1
    held, hits = np.empty((2, int(asked.sum()), bins), np.int64)
    for row, mask, inside, good in zip(distances[asked], relevant[asked], held, hits):
        np.cumsum(np.bincount(row, minlength=bins), out=inside)
        np.cumsum(np.bincount(row[mask], minlength=bins), out=good)
    full = held > 0
    shares = np.divide(hits, held, out=np.zeros(held.shape), where=full).sum(0)
    precision = np.divide(shares, full.sum(0), out=np.full(bins, np.nan), where=full.any(0))
    recall = (hits / hits[:, -1:]).mean(0)
    return RadiusCurve(np.arange(bins), precision, recall, held.mean(0), 1 - full.mean(0))


@dataclass(frozen=True)
class BitHealth:
    """How much of its bits a set of codes uses.

    lowest, highest  mean of the bit that is least often and of the one that is most often 1; 0.5 is best
    stuck            bits that are the same in all codes
    correlation      mean of |Pearson's r| of two bits, stuck ones left out; 0 is best
    entropy          of the codes as buckets, in bits; at most log2(n)
    buckets          different codes
    """

    lowest: float
    highest: float
    stuck: int
    correlation: float
    entropy: float
    buckets: int

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def bit_health(bits: Array) -> BitHealth:
    """Of bits [n, K]. Raises InputError for fewer than two codes."""
    packed = pack(bits)
    if len(packed) < 2:
        raise InputError(f"{len(packed)} codes: expected two or more")
    values = np.asarray(bits, float)
    means = values.mean(0)
    moving = values[:, (means > 0) & (means < 1)]
    correlation = 0.0
    if moving.shape[1] > 1:
        r = np.corrcoef(moving, rowvar=False)
        correlation = float(np.abs(r[np.triu_indices(len(r), 1)]).mean())
    _, sizes = np.unique(packed, axis=0, return_counts=True)
    shares = sizes / sizes.sum()
    stuck = values.shape[1] - moving.shape[1]
    entropy = float(-(shares * np.log2(shares)).sum()) + 0.0
    return BitHealth(float(means.min()), float(means.max()), stuck, correlation, entropy, len(sizes))


def _checked(codes: Array) -> Array:
    codes = np.asarray(codes)
    if codes.ndim != 2 or codes.dtype != np.uint8:
        raise InputError(f"codes of shape {codes.shape} and type {codes.dtype}: expected uint8 [n, bytes]")
    return codes
