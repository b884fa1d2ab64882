"""Approximate search by vectors: a graph of near neighbours (HNSW, Malkov and Yashunin 2018), walked towards the query.

The graph is faiss's, over vectors of a byte a number; what it finds is scored again by the vectors that the index keeps, so that
scores are those of the exact search. Vectors of one length are compared as whole numbers, which is faster; of others the bytes become
floats. Chosen by measuring (`benchmarks/search.py`). The graph lies in large pages of memory where the
system has them: a walk jumps about in it, and of a million vectors a third of its time went into finding small ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from hourglass.errors import ConfigError, FolderError, MissingExtra
from hourglass.storage.atomic import read_json, write_json
from hourglass.storage.memory import in_large_pages
from hourglass.uses.progress import Progress
from hourglass.uses.search.byte_codes import ByteCodes
from hourglass.uses.search.dense import Dense
from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.scanning import best_of, in_order, in_parts
from hourglass.uses.search.stages import Array, Query, Ranking, Scorer

_FILE, _SETTINGS = "graph.faiss", "graph.json"
_EXACT = 10_000
"""Documents that are sooner looked at one by one."""
_SHARE = 10
"""Of all documents, one in so many that a filter leaves: with fewer, too little of what the walk sees counts."""
_COST = 1 << 19
"""Of a walk, in bytes read, or so."""
_MORE = 4
"""Documents beyond those that are wanted, and beyond an eighth of them, that are scored again: bytes order a little differently."""
_LEARNED, _AT_ONCE = 50_000, 8192
"""Vectors that the range of bytes is learned from where lengths differ; that are read together."""


@final
class Approximate(Scorer):
    """Documents by the inner product of their vector and the query's, as `Dense`, of which some may be missed.

    ef               how many candidates a walk keeps; more find more and take longer
    m                links of a document; more find more, and take memory and time to make
    ef_construction  candidates while the graph is made

    The graph is made at the first search of a version, for each m and ef_construction. Where a filter leaves few documents or
    there are few, all are looked at. ConfigError for an index without vectors, MissingExtra without faiss.
    """

    def __init__(self, index: SearchIndex, ef: int = 64, m: int = 16, ef_construction: int = 200) -> None:
        for name, value, least in (("ef", ef, 1), ("m", m, 2), ("ef_construction", ef_construction, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"{name} {value}: expected a whole number, {least} or more")
        self.name, self._index, self._exact = "near", index, Dense(index)
        self._ef, self._settings = ef, {"m": m, "ef_construction": ef_construction}
        self._faiss = _import_faiss()

    def retrieve(self, queries: Sequence[Query], depth: int) -> list[Ranking]:
        number, selected = len(self._index), self._index.selected
        left = number if selected is None else len(selected)
        if not queries or left <= max(_EXACT, depth) or left * _SHARE < number:
            return self._exact.retrieve(queries, depth)
        asked = self._exact.asked(queries)
        found = [ranking for part in self._walk(asked, depth) for ranking in part]
        # A walk that ended before it had met enough.
        short = [i for i, ranking in enumerate(found) if len(ranking) < depth]
        for i, ranking in zip(short, self._exact.retrieve([queries[i] for i in short], depth)):
            found[i] = ranking
        return found

    def score(self, query: Query, rows: Array) -> Array:
        return self._exact.score(query, rows)

    def _walk(self, asked: Array, depth: int) -> list[list[Ranking]]:
        """The best `depth` near each of `asked` [n, d], in parts: of a few more, by the vectors that the index keeps."""
        settings, ef = self._faiss.SearchParametersHNSW(), self._ef
        if (selected := self._index.selected) is not None:
            settings.sel = self._selector
            ef = ef * len(self._index) // len(selected)  # as many of those that count
        settings.efSearch = max(ef, depth)
        (graph, codes), number = self._graph, min(settings.efSearch, depth + _MORE + depth // 8)
        vectors = self._exact.vectors

        def part(start: int, stop: int) -> list[Ranking]:
            some = asked[start:stop]
            # Threads of OpenMP would wait for one another by spinning; the number is of the calling thread alone.
            before = self._faiss.omp_get_max_threads()
            self._faiss.omp_set_num_threads(1)
            try:
                rows = graph.search(some if codes is None else codes.queries(some), number, params=settings)[1]
            finally:
                self._faiss.omp_set_num_threads(before)
            return in_order(best_of(vectors, some, rows, depth))

        return in_parts(len(asked), _COST, part)

    @cached_property
    def _selector(self) -> Any:
        """What faiss takes for the rows that a filter has left."""
        counted = np.zeros(-(-len(self._index) // 8) * 8, np.bool_)
        counted[self._index.selected] = True
        return self._faiss.IDSelectorBitmap(np.packbits(counted, bitorder="little"))

    @cached_property
    def _graph(self) -> tuple[Any, ByteCodes | None]:
        name = "near-bytes-" + "-".join(map(str, self._settings.values()))
        folder = self._index.cached(name, self._build)
        path, kept = folder / _FILE, read_json(folder / _SETTINGS)
        # What is damaged is not read: faiss would follow links to anywhere.
        if not path.is_file() or _digest(path) != kept.get("sha256"):
            raise FolderError(f"{path}: missing or damaged; remove {folder}, and it is made again")
        graph = self._faiss.read_index(str(path))
        for numbers in (self._faiss.downcast_index(graph.storage).codes, graph.hnsw.neighbors):
            in_large_pages(self._faiss.rev_swig_ptr(numbers.data(), numbers.size()))
        return graph, None if kept["codes"] is None else ByteCodes(**kept["codes"])

    def _build(self, folder: Path) -> None:
        vectors = self._exact.vectors
        codes, kinds, links = ByteCodes.of(self._parts()), self._faiss.ScalarQuantizer, self._settings["m"]
        if codes is None:
            inner = self._faiss.METRIC_INNER_PRODUCT
            graph = self._faiss.IndexHNSWSQ(vectors.shape[1], kinds.QT_8bit_uniform, links, inner)
            graph.train(np.asarray(vectors[:: -(-len(vectors) // _LEARNED)], np.float32))
        else:
            graph = self._faiss.IndexHNSWSQ(codes.width, kinds.QT_8bit_direct, links, self._faiss.METRIC_L2)
        graph.hnsw.efConstruction = self._settings["ef_construction"]
        self._faiss.omp_set_num_threads(torch.get_num_threads())
        with Progress(True) as bars:
            task = bars.start("linking", len(vectors), "vectors")
            for part in self._parts():
                graph.add(part if codes is None else codes.documents(part))
                bars.advance(task, len(part))
        path = folder / _FILE
        self._faiss.write_index(graph, str(path))
        settings = {
            **self._settings,
            "documents": len(vectors),
            "codes": codes and asdict(codes),
            "sha256": _digest(path),
        }
        write_json(folder / _SETTINGS, settings)

    def _parts(self) -> Iterator[Array]:
        """All vectors, float32, some at a time."""
        vectors = self._exact.vectors
        for start in range(0, len(vectors), _AT_ONCE):
            yield np.asarray(vectors[start : start + _AT_ONCE], np.float32)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _import_faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise MissingExtra("approximate search", "search") from None
    return faiss
