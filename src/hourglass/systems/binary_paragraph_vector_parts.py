"""What Binary Paragraph Vector makes of texts and of words, its straight-through rounding, and how a vector is inferred."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import Any, NamedTuple, final

import numba
import numpy as np
import torch
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from torch import Tensor

from hourglass.waist import Batch

Array = np.ndarray[Any, Any]

_WORD = re.compile(r"\w[\w'’-]*\w")


def terms(text: str, stop: bool, bigrams: bool) -> list[str]:
    """Words of a text of two characters or more, in lower case, without English stop words if `stop`; then pairs of them."""
    words = [word for word in _WORD.findall(text.lower()) if not (stop and word in ENGLISH_STOP_WORDS)]
    return words + ([f"{a} {b}" for a, b in pairwise(words)] if bigrams else [])


def text_hash(text: str) -> int:
    """By which a document is known again, 64 bits."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def as_bytes(texts: Sequence[str]) -> Batch:
    """Texts whole, while there are no words yet: bytes [n, longest] in UTF-8 and length [n]."""
    rows = [np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8) for text in texts]
    made = np.zeros((len(rows), max(1, max(map(len, rows)))), np.uint8)
    for row, one in zip(made, rows):
        row[: len(one)] = one
    return {"bytes": torch.from_numpy(made), "length": torch.tensor([len(row) for row in rows])}


def kept_share(counts: Array, rate: float) -> Array:
    """[V] share of a word's tokens that subsampling keeps: min(1, sqrt(rate / f) + rate / f), f its share of all; 1 at rate 0."""
    if not rate:
        return np.ones(len(counts))
    ratio = rate * counts.sum() / counts
    return np.minimum(1.0, np.sqrt(ratio) + ratio)


def shares(ids: Array, keep: Array) -> tuple[Array, Array]:
    """(different words, their shares of the document after subsampling), of the ids of its words."""
    words, times = np.unique(ids, return_counts=True)
    weights = times * keep[words]
    return words, (weights / weights.sum()).astype(np.float32)


def side_by_side(documents: Sequence[tuple[Array, Array]]) -> Batch:
    """ids, weights [n, L] of what `shares` gives."""
    ids = np.zeros((len(documents), max(1, max(len(words) for words, _ in documents))), np.int64)
    weights = np.zeros(ids.shape, np.float32)
    for i, (words, share) in enumerate(documents):
        ids[i, : len(words)], weights[i, : len(words)] = words, share
    return {"ids": torch.from_numpy(ids), "weights": torch.from_numpy(weights)}


def windows(ordered: Sequence[Array], keep: Array, draws: int, window: int, *, at_random: bool) -> Batch:
    """ids, weights [n, draws], around [n, draws, 2 window]: words of each document and the ids around them, -1 beyond its ends.

    at_random  drawn as subsampling keeps them, of equal weight; otherwise evenly spaced, weighed by it
    """
    n = len(ordered)
    words = np.concatenate([*ordered, np.zeros(0, np.int32)]).astype(np.int64)
    ends = np.append(0, np.cumsum([len(of_text) for of_text in ordered]))
    # In the order of the text, so that neighbours are read together: as far apart as random numbers in order are.
    apart = torch.empty(n, draws + 1 if at_random else 1, dtype=torch.float64).exponential_().cumsum(1)
    random = apart[:, :-1] / apart[:, -1:]
    made = np.zeros((n, draws), np.int64), np.zeros((n, draws), np.float32), np.full((n, draws, 2 * window), -1)
    _windows(words, ends, keep, random.numpy(), window, *made)
    return {name: torch.from_numpy(part) for name, part in zip(("ids", "weights", "around"), made)}


@numba.njit(cache=True, nogil=True)
def _windows(
    words: Any, ends: Any, keep: Any, random: Any, window: int, ids: Any, weights: Any, around: Any
) -> None:  # fmt: skip
    draws = ids.shape[1]
    for i in range(len(ids)):
        text = words[ends[i] : ends[i + 1]]
        if len(text) == 0:
            continue
        total = 0.0
        for word in text:
            total += keep[word]
        number = draws if random.shape[1] else min(draws, len(text))
        below, place, shares = keep[text[0]], 0, 0.0
        for d in range(number):
            if random.shape[1]:
                while below <= random[i, d] * total and place + 1 < len(text):
                    place += 1
                    below += keep[text[place]]
            elif number > 1:
                place = int(np.round(d * (len(text) - 1) / (number - 1)))
            ids[i, d] = text[place]
            share = 1.0 if random.shape[1] else keep[text[place]]
            weights[i, d] = share
            shares += share
            for step in range(window):
                if place - window + step >= 0:
                    around[i, d, step] = text[place - window + step]
                if place + 1 + step < len(text):
                    around[i, d, window + step] = text[place + 1 + step]
        for d in range(number):
            weights[i, d] /= shares


class Targets(NamedTuple):
    """Rows of a matrix, labels 1 or -1 and weights [m], `counts` [words] of them for each word: what a logistic loss says of words."""

    rows: Tensor
    labels: Tensor
    weights: Tensor
    counts: Tensor


@final
class Draws:
    """Numbers drawn in proportion to `weights` [V], each for two random numbers (Walker's alias method, 1977)."""

    def __init__(self, weights: Array) -> None:
        own = weights / weights.sum() * len(weights)
        other = np.arange(len(weights))
        small, large = list(np.flatnonzero(own < 1)), list(np.flatnonzero(own >= 1))
        while small and large:
            low, high = small.pop(), large[-1]
            other[low] = high
            own[high] -= 1 - own[low]
            if own[high] < 1:
                small.append(large.pop())
        own[[*small, *large]] = 1  # what is left differs from 1 by rounding
        self._own, self._other = torch.from_numpy(own.astype(np.float32)), torch.from_numpy(other)

    def draw(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        own, other = self._own.to(device), self._other.to(device)
        places = torch.randint(len(own), shape, device=device)
        return torch.where(torch.rand(shape, device=device) < own[places], places, other[places])


def against_draws(ids: Tensor, weights: Tensor, draws: Tensor) -> Targets:
    """Negative sampling: each of the words `ids` [words] against its `draws` [words, k]; one that is the word itself counts nothing."""
    rows = torch.cat([ids[:, None], draws], 1)
    labels = torch.full(rows.shape, -1.0, device=ids.device)
    labels[:, 0] = 1
    each = weights[:, None].repeat(1, rows.shape[1])
    each[:, 1:] *= draws != ids[:, None]
    return Targets(rows.flatten(), labels.flatten(), each.flatten(), torch.full_like(ids, rows.shape[1]))


@final
class Tree:
    """The Huffman tree of a vocabulary, by which a word costs as many logits as its rareness has bits (Morin and Bengio 2005).

    counts  [V] how often each word stands there; inner nodes are the rows 0 to V - 2
    """

    def __init__(self, counts: Sequence[int]) -> None:
        words = len(counts)
        # Of equal counts the earlier goes first, so that the tree follows from the counts alone.
        left = [(count, i) for i, count in enumerate(counts)]
        heapq.heapify(left)
        above: dict[int, tuple[int, float]] = {}
        for node in range(words - 1):
            (a, first), (b, second) = heapq.heappop(left), heapq.heappop(left)
            above[first], above[second] = (node, 1.0), (node, -1.0)
            heapq.heappush(left, (a + b, words + node))
        rows: list[int] = []
        labels: list[float] = []
        ends = [0]
        for at in range(words):
            while at in above:
                node, label = above[at]
                rows.append(node)
                labels.append(label)
                at = words + node
            ends.append(len(rows))
        self._rows, self._labels = np.array(rows, np.int64), np.array(labels, np.float32)
        self._ends = np.array(ends, np.int64)

    def targets(self, ids: Tensor, weights: Tensor) -> Targets:
        """The turns on the way to each of the words `ids` [words]: p(word) is the product of their probabilities."""
        words = ids.cpu().numpy()
        counts = self._ends[words + 1] - self._ends[words]
        made = tuple(np.empty(counts.sum(), kind) for kind in (np.int64, np.float32, np.float32))
        _turns(words, weights.detach().cpu().numpy(), self._ends, self._rows, self._labels, *made)
        return Targets(*(torch.from_numpy(part).to(ids.device) for part in (*made, counts)))


@numba.njit(cache=True, nogil=True)
def _turns(words: Any, shares: Any, ends: Any, rows: Any, labels: Any, to_rows: Any, to_labels: Any, to: Any) -> None:
    at = 0
    for word, share in zip(words, shares):
        for p in range(ends[word], ends[word + 1]):
            to_rows[at], to_labels[at], to[at] = rows[p], labels[p], share
            at += 1


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, soft: Tensor, hard: Tensor) -> Tensor:
        return hard.to(soft.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def straight_through(soft: Tensor, hard: Tensor) -> Tensor:
    """`hard` forward, the gradient of `soft` backward."""
    made: Tensor = _StraightThrough.apply(soft, hard)
    return made


def minimum(loss: Callable[[Tensor], Tensor], start: Tensor, steps: int, lr: float) -> Tensor:
    """Where Adam comes to in so many steps from `start` [n, d]; `loss` gives a scalar, a sum over rows."""
    vectors, mean, square = start, torch.zeros_like(start), torch.zeros_like(start)
    for step in range(1, steps + 1):
        asked = vectors.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(asked), asked)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient.square()
        moved = mean / (1 - 0.9**step) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
        vectors = vectors - lr * moved
    return vectors.detach()
