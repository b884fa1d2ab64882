"""What terms each document has becomes which documents each term has, in memory that does not grow with either.

    inverter = Inverter(folder)
    inverter.add(rows, terms)                    # [n] each, documents in their order
    inverter.write(documents, vocabulary, weigh) # the files of `Postings`

Postings are sorted a run at a time and put on disk; then a few terms at a time are gathered from all runs. In memory are the
words themselves, and 8 bytes for each of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import final

import numpy as np

from hourglass.uses.search.postings import write_postings
from hourglass.uses.search.stages import Array

_AT_ONCE = 1 << 21
"""Postings that are sorted together."""


@final
class Inverter:
    """Postings on their way into `folder`, where the runs are until `write` is done."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._runs_folder = folder, folder / "runs"
        self._waiting: list[tuple[Array, Array, Array | None]] = []
        self._held = self._runs = 0

    def add(self, rows: Array, terms: Array, weights: Array | None = None) -> None:
        """Document `rows[i]` has term `terms[i]` with `weights[i]` (1 each by default; where one comes again they are added up).

        A document is added in one call, after those before it.
        """
        self._waiting.append((rows, terms, weights))
        self._held += len(rows)
        if self._held >= _AT_ONCE:
            self._sort()

    def write(
        self,
        documents: int,
        vocabulary: Sequence[str],
        weigh: Callable[[Array, Array, Array], Array] = lambda weights, rows, having: weights,
    ) -> None:
        """Write the postings of `documents` documents; term i is `vocabulary[i]`.

        weigh  what is kept in place of the weights [n] in documents [n] of some terms, of which each has so many [terms]
        """
        self._sort()
        having = np.zeros(len(vocabulary), np.int64)
        for run in range(self._runs):
            terms, ends, _, _ = self._opened(run)
            having[terms] += np.diff(ends)
        starts = np.concatenate([[0], np.cumsum(having)])

        def parts() -> Iterator[tuple[Array, Array]]:
            first = 0
            while self._runs and first < len(vocabulary):
                beyond = int(np.searchsorted(starts, starts[first] + _AT_ONCE, "right")) - 1
                beyond = max(first + 1, beyond)
                rows, weights = self._gathered(first, beyond)
                yield rows, weigh(weights, rows, having[first:beyond])
                first = beyond

        write_postings(self._folder, documents, vocabulary, starts, parts())
        shutil.rmtree(self._runs_folder, ignore_errors=True)

    def _gathered(self, first: int, beyond: int) -> tuple[Array, Array]:
        """(rows, weights) of the terms from `first` on to before `beyond`, by term and document."""
        found = []
        for run in range(self._runs):
            terms, ends, rows, weights = self._opened(run)
            low, high = np.searchsorted(terms, (first, beyond))
            part = slice(ends[low], ends[high])
            numbers = np.repeat(terms[low:high], np.diff(ends[low : high + 1]))
            found.append((numbers, np.array(rows[part]), np.array(weights[part])))
        terms, rows, weights = (np.concatenate(part) for part in zip(*found))
        order = np.argsort(terms, kind="stable")  # runs are in the order of documents
        return rows[order], weights[order]

    def _opened(self, run: int) -> list[Array]:
        """Anew each time: what stays mapped stays in memory."""
        return [np.load(file, mmap_mode="r") for file in self._files(run)]

    def _files(self, run: int) -> list[Path]:
        return [self._runs_folder / f"{run}-{name}.npy" for name in ("terms", "ends", "rows", "weights")]

    def _sort(self) -> None:
        """Put what waits on disk, by term and document."""
        if not self._held:
            return
        keys = np.concatenate([terms.astype(np.int64) << 32 | rows for rows, terms, _ in self._waiting])
        if self._waiting[0][2] is None:
            keys.sort()
            weights = None
        else:
            order = np.argsort(keys, kind="stable")
            weights = np.concatenate([part for _, _, part in self._waiting if part is not None])[order]
            keys = keys[order]
        self._waiting, self._held = [], 0
        first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        weights = np.diff(first, append=len(keys)) if weights is None else np.add.reduceat(weights, first)
        keys = keys[first]
        terms = keys >> 32
        begins = np.flatnonzero(np.concatenate([[True], terms[1:] != terms[:-1]]))
        made = (terms[begins], np.append(begins, len(keys)), (keys & 0xFFFFFFFF).astype(np.int32), weights)
        self._runs_folder.mkdir(exist_ok=True)
        for file, array in zip(self._files(self._runs), made):
            np.save(file, array.astype(np.float32) if array is weights else array)
        self._runs += 1
