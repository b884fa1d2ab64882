"""Long documents: cut into passages, each scored by itself, and the scores of a document's passages made one.

    ByPassages(index, score, aggregate="max")      # what was found is scored again, passage by passage
    Folded(BM25(passages), parents, "max")         # an index of passages answers with documents

Score aggregation after Dai and Callan 2019 (FirstP, MaxP, SumP), Yilmaz et al. 2019 (Birch) and their kin; Wang et al. 2024, section on
long documents (arXiv 2403.00784). MaxP favours long documents, which have more passages to be lucky with; the mean of the best few less.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple, Protocol, final, get_args

import numpy as np

from hourglass.errors import ConfigError, nearest
from hourglass.uses.search.stages import Array, Documents, Query, Ranking, Rescorer, Scorer

Unit = Literal["words", "sentences"]
Middle = Literal["even", "random"]
Aggregate = Literal["first", "max", "sum", "mean", "top", "kernel", "decay"]

_LONG = 60
_WINDOW, _STRIDE = 40, 20
_NOTHING = np.zeros(0, np.int64)
_PARTS = {"words": re.compile(r"\S+"), "sentences": re.compile(r"\S.*?(?:[.!?…]+(?=\s|$)|[。！？]|\n\s*\n|$)", re.S)}


class Passage(NamedTuple):
    """Characters `start` to `stop` of a text, and these, with the title before them where one was given."""

    start: int
    stop: int
    text: str


class TextScorer(Protocol):
    """[n] scores of texts for a query: a cross-encoder, an inner product of vectors, BM25 with the statistics of a corpus."""

    def __call__(self, query: Query, texts: Sequence[str]) -> Array: ...


def passages(
    text: str,
    size: int = 150,
    stride: int = 75,
    *,
    unit: Unit = "words",
    most: int | None = None,
    middle: Middle = "even",
    title: str = "",
) -> list[Passage]:
    """Windows of `size` words or sentences, one every `stride`; the last ends with the text. A text without words has none.

    most    keep so many at most: the first, the last, and some between
    middle  which between: evenly spaced, or "random" ones, always the same of the same text
    title   stands before each

    Raises ConfigError for sizes that leave something out.
    """
    if unit not in get_args(Unit):
        raise ConfigError(f"no unit {unit!r}{nearest(str(unit), get_args(Unit))}")
    if not 1 <= stride <= size:
        raise ConfigError(f"size {size}, stride {stride}: expected a stride of 1 or more, up to the size")
    if middle not in get_args(Middle):
        raise ConfigError(f"no middle {middle!r}{nearest(str(middle), get_args(Middle))}")
    if most is not None and most < 1:
        raise ConfigError(f"most {most}: expected 1 passage or more")
    spans = [match.span() for match in _PARTS[unit].finditer(text)]
    if not spans:
        return []
    count = 1 + max(0, -(-(len(spans) - size) // stride))
    firsts = [i * stride for i in range(count)]
    if most is not None and count > most:
        kept = np.linspace(0, count - 1, most).round().astype(int)
        if middle == "random" and most > 2:
            random = np.random.default_rng(zlib.crc32(text.encode(errors="replace")))
            kept[1:-1] = 1 + random.choice(count - 2, most - 2, replace=False)
        firsts = [firsts[i] for i in np.unique(kept)]
    made = []
    for first in firsts:
        start, stop = spans[first][0], spans[min(first + size, len(spans)) - 1][1]
        made.append(Passage(start, stop, f"{title} {text[start:stop]}".strip()))
    return made


def sentences(text: str) -> list[Passage]:
    """What a person reads of a text at once: its sentences, of one of 60 words or more windows of 40, one every 20."""
    made = []
    for sentence in passages(text, 1, 1, unit="sentences"):
        if sentence.text.count(" ") < _LONG:
            made.append(sentence)
            continue
        made += [
            Passage(sentence.start + part.start, sentence.start + part.stop, part.text)
            for part in passages(sentence.text, _WINDOW, _STRIDE)
        ]
    return made


def aggregated(
    scores: Array,
    documents: Array,
    aggregate: Aggregate,
    *,
    top: int = 3,
    weights: Sequence[float] = (),
    temperature: float = 1.0,
) -> tuple[Array, Array]:
    """(documents, one score of each) of passages' scores [n], `documents` [n] saying whose each is, in the order of the text.

    "first"   of the first passage here        "max"     the highest
    "sum"     of all                           "mean"    of all
    "top"     mean of the `top` highest        "decay"   sum of score / place, 1 for the first passage
              or with `weights` their weighted sum: the first weight times the highest, and so on (Birch)
    "kernel"  temperature x log of the sum of exp(score / temperature): a soft maximum
    """
    if aggregate not in get_args(Aggregate):
        raise ConfigError(f"no aggregate {aggregate!r}{nearest(str(aggregate), get_args(Aggregate))}")
    if top < 1 or not temperature > 0:
        raise ConfigError(f"top {top}, temperature {temperature}: expected 1 or more, and above 0")
    order = np.argsort(documents, kind="stable")
    scores = np.asarray(scores, np.float64)[order]
    named, starts, counts = np.unique(np.asarray(documents)[order], return_index=True, return_counts=True)
    if not len(named):
        return named, scores
    place = np.arange(len(scores)) - np.repeat(starts, counts)
    if aggregate == "first":
        return named, scores[starts]
    if aggregate == "max":
        return named, np.maximum.reduceat(scores, starts)
    if aggregate == "sum":
        return named, np.add.reduceat(scores, starts)
    if aggregate == "mean":
        return named, np.add.reduceat(scores, starts) / counts
    if aggregate == "decay":
        return named, np.add.reduceat(scores / (1 + place), starts)
    if aggregate == "kernel":
        highest = np.maximum.reduceat(scores, starts)
        summed = np.add.reduceat(np.exp((scores - np.repeat(highest, counts)) / temperature), starts)
        return named, highest + temperature * np.log(summed)
    best = np.lexsort((-scores, np.repeat(named, counts)))
    if len(weights):
        weighed = np.concatenate([np.asarray(weights, float), np.zeros(int(counts.max()))])[place] * scores[best]
        return named, np.add.reduceat(weighed, starts)
    kept = np.where(place < top, scores[best], 0)
    return named, np.add.reduceat(kept, starts) / np.minimum(counts, top)


@final
class ByPassages(Rescorer):
    """Scores what has been found again, passage by passage.

    score      of passages, for a query
    aggregate  of a document's passages, as in `aggregated`
    keep       share that the score before keeps: keep x before + (1 - keep) x now, both from 0 to 1 within the query
               (Birch, with sentences and "top" with weights); 0: the new score alone

    A document without words keeps its place below those that have some.
    """

    def __init__(
        self,
        documents: Documents,
        score: TextScorer,
        *,
        aggregate: Aggregate = "max",
        size: int = 150,
        stride: int = 75,
        unit: Unit = "words",
        most: int | None = 16,
        middle: Middle = "even",
        top: int = 3,
        weights: Sequence[float] = (),
        temperature: float = 1.0,
        keep: float = 0.0,
        name: str = "passages",
    ) -> None:
        if not 0 <= keep < 1:
            raise ConfigError(f"keep {keep}: expected a share from 0 up to, not with, 1")
        self.name, self._documents, self._score, self._keep = name, documents, score, keep
        self._cut = partial(passages, size=size, stride=stride, unit=unit, most=most, middle=middle)
        self._cut("")
        self._fold = partial(aggregated, aggregate=aggregate, top=top, weights=weights, temperature=temperature)
        self._fold(_NOTHING, _NOTHING)  # settings that do not fit are refused now

    def again(self, query: Query, ranking: Ranking) -> Ranking:
        cut = [self._cut(text) for text in self._documents.texts(ranking.rows)]
        of = np.repeat(np.arange(len(ranking)), [len(parts) for parts in cut])
        if not len(of):
            return ranking
        scores = self._score(query, [part.text for parts in cut for part in parts])
        which, now = self._fold(scores, of)
        if self._keep:
            now = (1 - self._keep) * _unit(now) + self._keep * _unit(ranking.scores.astype(np.float64))[which]
        silent = np.setdiff1d(np.arange(len(ranking)), which)
        below = now.min() - 1 - np.arange(len(silent))
        return Ranking.of(ranking.rows[np.concatenate([which, silent])], np.concatenate([now, below]))


@final
class ByText(Rescorer):
    """Scores what has been found again, each document as a whole: by a cross-encoder, PARADE, or any other `TextScorer`.

    told  what the scorer has to say
    """

    def __init__(
        self,
        documents: Documents,
        score: TextScorer,
        name: str = "texts",
        told: Callable[[], list[str]] | None = None,
    ) -> None:
        self.name, self._documents, self._score, self._told = name, documents, score, told

    def told(self) -> list[str]:
        return self._told() if self._told is not None else []

    def again(self, query: Query, ranking: Ranking) -> Ranking:
        return Ranking.of(ranking.rows, self._score(query, self._documents.texts(ranking.rows)))


@final
class Folded(Scorer):
    """An index of passages that answers with documents.

    inner      scores passages
    parents    [passages] int64: the document of each, in the order of the text
    aggregate  of the passages that `inner` finds, as in `aggregated`
    wider      passages that are retrieved for each document that is wanted
    """

    def __init__(
        self,
        inner: Scorer,
        parents: Array,
        aggregate: Aggregate = "max",
        *,
        top: int = 3,
        temperature: float = 1.0,
        wider: int = 4,
    ) -> None:
        if wider < 1:
            raise ConfigError(f"wider {wider}: expected 1 or more")
        self.name = f"{inner.name} {aggregate}p"
        self._inner, self._parents, self._wider = inner, np.asarray(parents, np.int64), wider
        self._fold = partial(aggregated, aggregate=aggregate, top=top, temperature=temperature)
        self._fold(_NOTHING, _NOTHING)  # settings that do not fit are refused now
        self._by_parent = np.argsort(self._parents, kind="stable")

    def retrieve(self, queries: Sequence[Query], depth: int) -> list[Ranking]:
        made = []
        for ranking in self._inner.retrieve(queries, depth * self._wider):
            in_text = np.argsort(ranking.rows)  # what is first is the first in the text
            rows = ranking.rows[in_text]
            made.append(Ranking.of(*self._fold(ranking.scores[in_text], self._parents[rows]), depth))
        return made

    def score(self, query: Query, rows: Array) -> Array:
        ordered = self._parents[self._by_parent]
        low, high = np.searchsorted(ordered, rows), np.searchsorted(ordered, rows, side="right")
        counts = high - low
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        parts = self._by_parent[np.repeat(low, counts) + within]
        which, scores = self._fold(self._inner.score(query, parts), np.repeat(np.arange(len(rows)), counts))
        made = np.full(len(rows), -np.inf)
        made[which] = scores
        return made


def _unit(scores: Array) -> Array:
    width = np.ptp(scores)
    return (scores - scores.min()) / width if width else np.zeros_like(scores)
