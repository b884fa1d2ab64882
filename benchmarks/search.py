"""Search of one million documents, side by side with what others search with: exactly by vectors, by codes and by words, and approximately.

    python benchmarks/search.py [--documents 1000000] [--only dense hamming approximate bm25] [--rounds 5] [--threads 2] [--folder DIR] [--out FILE]

Ours is what a pipeline calls (`Dense`, `Hamming`, `Approximate`, `BM25` and their `retrieve`) over indexes on disk, read once before; peers
hold in memory what we hold in the page cache. Both sides have --threads threads. Queries come one by one and 64 at once; the best 10 and the
best 100 are asked for. Sides take turns; figures are medians over rounds, queries a second (`qps`) and seconds of the processor a query (`cpu`,
which other work on the machine disturbs less).

dense        faiss.IndexFlatIP; the products must be equal to a hundred-thousandth
hamming      faiss.IndexBinaryFlat on the same codes of 256 bits; the distances must be equal
approximate  HNSW of faiss and of usearch, each with its own defaults and in one more setting: recall of the best 10 against queries a second, over
             ef. Which sides' curve is above is read at equal recall, between measured points
bm25         bm25s with its NumPy and with its numba backend on the same words; the scores must be equal to a hundred-thousandth
floor        bytes that must be read by the bandwidth of the memory, measured before with as many threads. Of 64 queries the vectors and the codes are read
             once; there it is the arithmetic that takes the time, of which the floor says nothing

Data are simulated. Vectors: topics of 400 documents, each in one of many fields, along axes that matter less and less, as embeddings have them; of length 1, float16.
Texts: 100 words on average out of 200,000, drawn by Zipf's law; queries have 2 to 8 words that are not among the 30 most frequent.

--folder keeps the indexes and the graphs for another run (some 10 GB for a million documents). A peer that does not import is named and left out.
"""

from __future__ import annotations

import argparse
import importlib
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import machine
import numba
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from hourglass.storage.atomic import atomic_file, read_json, write_json
from hourglass.uses.search.approximate import Approximate
from hourglass.uses.search.dense import Dense
from hourglass.uses.search.hamming import Hamming
from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.lexical import BM25
from hourglass.uses.search.scanning import in_parts
from hourglass.uses.search.stages import Query, Ranking

RESULT = Path(__file__).parent / "results" / "search.json"
PARTS = ("dense", "hamming", "approximate", "bm25")
BATCHES, DEPTHS = (1, 64), (10, 100)
QUERIES, ONE_BY_ONE, OF_A_CURVE = 64, 16, 512
TURN = 0.3
"""Seconds of a turn, or more: shorter ones measure how soon the system wakes a thread."""
BITS, WIDTH = 256, 384
WORDS, STOP, LENGTH = 200_000, 30, 100
EFS = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
RECALLS = (0.9, 0.95, 0.98, 0.99)
_BLOCK = 8192

# Data -------------------------------------------------------------------------------------------------------------


class Vectors:
    """Vectors of documents by their numbers; those of queries have numbers below 0. What an index takes as an encoder."""

    def __init__(self, documents: int, width: int) -> None:
        rng = np.random.default_rng(0)
        fields, topics = max(8, documents // 8_000), max(8, documents // 400)
        axes = np.linalg.qr(rng.standard_normal((width, width)))[0]
        self._axes = ((1 + np.arange(width)) ** -0.5)[:, None] * axes
        self._topics = (
            rng.standard_normal((topics, width)) + rng.standard_normal((fields, width))[rng.integers(0, fields, topics)]
        )
        self._topics *= 0.7
        self._kept: tuple[int, np.ndarray] = (-1, np.zeros(0))

    def __call__(self, texts: list[str]) -> np.ndarray:
        numbers = [int(head) if (head := text.partition(" ")[0]).isdigit() else 0 for text in texts]
        return np.stack([self.block(number // _BLOCK)[number % _BLOCK] for number in numbers])

    def block(self, which: int) -> np.ndarray:
        """[8192, width] float32; of queries: a great number."""
        if self._kept[0] != which:
            rng = np.random.default_rng((1, which))
            made = self._topics[rng.integers(0, len(self._topics), _BLOCK)]
            made = (made + 0.9 * rng.standard_normal(made.shape)) @ self._axes
            made /= np.linalg.norm(made, axis=1, keepdims=True)
            self._kept = which, made.astype(np.float32)
        return self._kept[1]

    def queries(self, number: int) -> list[Query]:
        return [Query(str(i), "", vector=vector) for i, vector in enumerate(self.block(10**9)[:number])]


def vocabulary() -> tuple[np.ndarray, np.ndarray]:
    """(words, their shares), the most frequent first."""
    syllables = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
    base = len(syllables)
    words = np.array(
        [syllables[i % base] + syllables[i // base % base] + syllables[i // base**2] for i in range(WORDS)]
    )
    shares = (np.arange(WORDS) + 2.7) ** -1.07
    return words, shares / shares.sum()


def texts(documents: int) -> Iterator[list[str]]:
    words, shares = vocabulary()
    ends = np.cumsum(shares)
    for start in range(0, documents, _BLOCK):
        rng = np.random.default_rng((2, start))
        lengths = rng.poisson(LENGTH, min(_BLOCK, documents - start))
        drawn = words[np.minimum(np.searchsorted(ends, rng.random(lengths.sum())), WORDS - 1)]
        yield [" ".join(part) for part in np.split(drawn, np.cumsum(lengths)[:-1])]


def questions(number: int) -> list[Query]:
    words, shares = vocabulary()
    rng = np.random.default_rng(3)
    left = shares[STOP:] / shares[STOP:].sum()
    return [
        Query(str(i), " ".join(words[STOP:][rng.choice(WORDS - STOP, rng.integers(2, 9), False, left)]))
        for i in range(number)
    ]


def index(folder: Path, name: str, documents: int, content: Iterator[list[str]], **options: Any) -> SearchIndex:
    """The index of a folder, made where there is none."""
    place = folder / f"{name}-{documents}"
    if not place.exists():
        source = folder / f"{name}.parquet"
        with pq.ParquetWriter(source, pa.schema([("text", pa.string())])) as writer:
            for block in content:
                writer.write_table(pa.table({"text": block}))
        SearchIndex.create(source, place, text="text", stem=None, stop_words=None, **options)
        source.unlink()
    return SearchIndex(place)


def numbered(documents: int) -> Iterator[list[str]]:
    for start in range(0, documents, _BLOCK):
        yield [str(number) for number in range(start, min(documents, start + _BLOCK))]


# Measuring --------------------------------------------------------------------------------------------------------

Search = Callable[[Any, int], Any]
"""Searches for a batch of queries, as a side has them, the best k."""


def turns(sides: dict[str, Callable[[], Any]], queries: int, rounds: int) -> dict[str, dict[str, float]]:
    """Medians of each side, which take turns of some tenths of a second; each has searched before."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    times = {}
    for name, work in sides.items():
        work()
        wall = time.perf_counter()
        work()
        times[name] = 1 + int(TURN / (time.perf_counter() - wall))
    for turn in range(rounds):
        for name in sorted(sides, reverse=bool(turn % 2)):
            time.sleep(0.05)  # threads of the side before still turn on their cores, waiting for more
            cpu, wall = time.process_time(), time.perf_counter()
            for _ in range(times[name]):
                sides[name]()
            spent[name].append(((time.perf_counter() - wall) / times[name], (time.process_time() - cpu) / times[name]))
    made = {}
    for name, found in spent.items():
        wall, cpu = (statistics.median(part) for part in zip(*found))
        made[name] = {"qps": round(queries / wall, 2), "cpu": float(f"{cpu / queries:.3g}")}
    return made


def compared(sides: dict[str, tuple[Search, Any]], rounds: int) -> dict[str, Any]:
    """Each side's figures for each size of batch and k. `sides`: how it searches, and all queries as it takes them."""
    made: dict[str, Any] = {}
    for batch in BATCHES:
        for k in DEPTHS:
            number = ONE_BY_ONE if batch == 1 else QUERIES

            def works(
                search: Search, queries: Any, batch: int = batch, k: int = k, number: int = number
            ) -> Callable[[], Any]:
                return lambda: [search(queries[i : i + batch], k) for i in range(0, number, batch)]

            name = f"batch {batch}, best {k}"
            made[name] = turns({side: works(*each) for side, each in sides.items()}, number, rounds)
            print(name, made[name], flush=True)
    return made


def report(found: dict[str, Any], floors: Callable[[int], float], peers: list[str], **more: Any) -> dict[str, Any]:
    """ours, peers, ratio (ours over the fastest peer, above 1 is faster, and by seconds of the processor) and floor (seconds a query)."""
    ratios = {}
    for name, sides in found.items():
        others = [sides[peer] for peer in peers if peer in sides]
        if others:
            ratios[name] = {
                "qps": round(sides["ours"]["qps"] / max(other["qps"] for other in others), 2),
                "cpu": round(min(other["cpu"] for other in others) / sides["ours"]["cpu"], 2),
            }
    return {
        "ours": {name: sides["ours"] for name, sides in found.items()},
        "peers": {peer: {name: sides[peer] for name, sides in found.items() if peer in sides} for peer in peers},
        "ratio": ratios,
        "floor": {f"batch {batch}": float(f"{floors(batch):.3g}") for batch in BATCHES},
        **more,
    }


def peer(name: str, missing: dict[str, str]) -> Any:
    """A module, or None where it does not import; its threads wait as they are used to."""
    os.environ.pop("GOMP_SPINCOUNT", None)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing[name] = str(error)
        print(f"{name}: left out ({error})", flush=True)
        return None


@numba.njit(nogil=True)
def _sum(numbers: Any) -> Any:
    total = np.uint64(0)
    for i in range(len(numbers)):
        total += numbers[i]
    return total


def bandwidth() -> float:
    """Bytes a second that the threads read of memory."""
    numbers = np.ones(1 << 26, np.uint64)
    spent = []
    for _ in range(6):
        start = time.perf_counter()
        in_parts(len(numbers), 8, lambda a, b: _sum(numbers[a:b]))
        spent.append(time.perf_counter() - start)
    return numbers.nbytes / min(spent)


def equal(what: str, ours: list[Ranking], scores: np.ndarray) -> None:
    for query, (ranking, expected) in enumerate(zip(ours, scores)):
        own = np.pad(ranking.scores, (0, len(expected) - len(ranking)))  # bm25s fills up with scores of 0
        if not np.allclose(own, expected, atol=1e-5):
            raise SystemExit(f"{what}: query {query}: {ranking.scores[:5]}... and {expected[:5]}... are not equal")


def blocks(vectors: np.ndarray) -> Iterator[np.ndarray]:
    """float32, a part at a time."""
    for start in range(0, len(vectors), _BLOCK):
        yield vectors[start : start + _BLOCK].astype(np.float32)


# The parts --------------------------------------------------------------------------------------------------------


class Run:
    """What all parts share."""

    def __init__(self, folder: Path, documents: int, rounds: int, threads: int) -> None:
        self.folder, self.documents, self.rounds, self.threads = folder, documents, rounds, threads
        self.missing: dict[str, str] = {}
        self.bandwidth = bandwidth()
        print(f"memory: {self.bandwidth / 1e9:.1f} GB/s", flush=True)
        self.faiss = peer("faiss", self.missing)
        if self.faiss:
            self.faiss.omp_set_num_threads(threads)

    def vectors(self) -> tuple[SearchIndex, Vectors]:
        made = Vectors(self.documents, WIDTH)
        return index(
            self.folder, "vectors", self.documents, numbered(self.documents), encoder=made, dtype="float16"
        ), made

    def dense(self) -> dict[str, Any]:
        searched, made = self.vectors()
        stage, queries = Dense(searched), made.queries(QUERIES)
        sides: dict[str, tuple[Search, Any]] = {"ours": (stage.retrieve, queries)}
        if self.faiss:
            flat = self.faiss.IndexFlatIP(WIDTH)
            for block in blocks(stage.vectors):
                flat.add(block)
            asked = searched.encode(queries)
            equal("dense", stage.retrieve(queries, 100), flat.search(asked, 100)[0])
            sides["faiss.IndexFlatIP"] = (flat.search, asked)
        found = compared(sides, self.rounds)
        return report(found, lambda batch: 2 * WIDTH * self.documents / batch / self.bandwidth, ["faiss.IndexFlatIP"])

    def hamming(self) -> dict[str, Any]:
        made = Vectors(self.documents, BITS)
        searched = index(self.folder, "codes", self.documents, numbered(self.documents), encoder=made, code="sign")
        stage, queries = Hamming(searched), made.queries(QUERIES)
        sides: dict[str, tuple[Search, Any]] = {"ours": (stage.retrieve, queries)}
        if self.faiss:
            flat = self.faiss.IndexBinaryFlat(BITS)
            flat.add(np.ascontiguousarray(stage._codes.T).view(np.uint8))
            asked = searched.coder.codes(searched.encode(queries))
            equal("hamming", stage.retrieve(queries, 100), -flat.search(asked, 100)[0])
            sides["faiss.IndexBinaryFlat"] = (flat.search, asked)
        found = compared(sides, self.rounds)
        return report(
            found, lambda batch: BITS / 8 * self.documents / batch / self.bandwidth, ["faiss.IndexBinaryFlat"]
        )

    def bm25(self) -> dict[str, Any]:
        searched = index(self.folder, "words", self.documents, texts(self.documents), encoder=None)
        stage, queries = BM25(searched), questions(QUERIES)
        stage.retrieve(queries[:1], 10)  # makes the index of words
        sides: dict[str, tuple[Search, Any]] = {"ours": (stage.retrieve, queries)}
        bm25s = peer("bm25s", self.missing)
        names = []
        if bm25s:
            settings = searched.manifest["bm25"]
            words = bm25s.BM25(method="lucene", k1=settings["k1"], b=settings["b"])
            known: dict[str, int] = {}
            words.index(
                (
                    [
                        [known.setdefault(term, len(known)) for term in searched.words(text)]
                        for batch in searched.batches(["text"])
                        for text in batch.column("text").to_pylist()
                    ],
                    known,
                ),
                create_empty_token=False,
                show_progress=False,
            )
            asked = [searched.words(query.text) for query in queries]

            def search(backend: str) -> Search:
                def retrieve(some: Any, k: int) -> Any:
                    words.backend = backend
                    return words.retrieve(some, k=k, show_progress=False, n_threads=self.threads)

                return retrieve

            for backend in ("numpy", "numba"):
                equal(f"bm25s {backend}", stage.retrieve(queries, 100), search(backend)(asked, 100).scores)
                sides[f"bm25s ({backend})"] = (search(backend), asked)
                names.append(f"bm25s ({backend})")
        found = compared(sides, self.rounds)
        postings = stage._postings
        terms = [
            postings.terms[term] for query in queries for term in searched.words(query.text) if term in postings.terms
        ]
        read = 8 * float(np.mean([postings._ends[t + 1] - postings._ends[t] for t in terms])) * len(terms) / QUERIES
        return report(found, lambda batch: read / self.bandwidth, names)

    def approximate(self) -> dict[str, Any]:
        searched, made = self.vectors()
        exact, queries = Dense(searched), made.queries(OF_A_CURVE)
        truth = [set(ranking.rows.tolist()) for ranking in exact.retrieve(queries, 10)]
        asked = searched.encode(queries)
        built: dict[str, float] = {}
        sides: dict[str, Callable[[int], Callable[[], list[np.ndarray]]]] = {}

        def timed(name: str, work: Callable[[], Any]) -> Any:
            """Seconds of the processor that a graph took; those of one that is kept, when it was made."""
            seconds, start = self.folder / f"{name}-{self.documents}.json", time.process_time()
            result = work()
            if not seconds.exists():
                write_json(seconds, round(time.process_time() - start, 1))
            built[name] = read_json(seconds)
            print(f"{name}: made in {built[name]} s of the processor", flush=True)
            return result

        timed("ours", lambda: Approximate(searched).retrieve(queries[:1], 10))

        def ours(ef: int) -> Callable[[], list[np.ndarray]]:
            stage = Approximate(searched, ef)
            return lambda: [
                ranking.rows for i in range(0, len(queries), 64) for ranking in stage.retrieve(queries[i : i + 64], 10)
            ]

        sides["ours"] = ours
        for name, search in self.graphs(exact, timed).items():
            sides[name] = lambda ef, search=search: (
                lambda: [rows for i in range(0, len(asked), 64) for rows in search(asked[i : i + 64], ef)]
            )
        curves: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for ef in EFS:
            works = {name: side(ef) for name, side in sides.items()}
            recall = {
                name: np.mean([len(own & set(rows.tolist())) / 10 for own, rows in zip(truth, work())])
                for name, work in works.items()
            }
            for name, figures in turns(works, len(queries), self.rounds).items():
                curves[name].append({"ef": ef, "recall@10": round(float(recall[name]), 4), **figures})
                print(name, curves[name][-1], flush=True)
        ratios = {}
        for recall in RECALLS:
            for measure in ("qps", "cpu"):
                at = {name: rate(curve, recall, measure) for name, curve in curves.items()}
                best = max((x for name, x in at.items() if name != "ours" and x), default=None)
                if best and at["ours"]:
                    ratios.setdefault(f"recall {recall}", {})[measure] = round(at["ours"] / best, 2)
        return {
            "ours": curves.pop("ours"),
            "peers": curves,
            "ratio": ratios,
            "built_cpu_seconds": built,
            "floor": {},
        }

    def graphs(
        self, exact: Dense, timed: Callable[[str, Callable[[], Any]], Any]
    ) -> dict[str, Callable[[np.ndarray, int], Any]]:
        """How each peer searches: for queries and ef, the rows of the best 10."""
        made: dict[str, Callable[[np.ndarray, int], Any]] = {}
        if self.faiss:
            for links, expansion in ((32, 40), (16, 100)):  # its own defaults first
                name = f"faiss.IndexHNSWFlat (M {links}, efConstruction {expansion})"

                def read_or_add(path: Path, links: int = links, expansion: int = expansion) -> Any:
                    if path.exists():
                        return self.faiss.read_index(str(path))
                    graph = self.faiss.IndexHNSWFlat(WIDTH, links, self.faiss.METRIC_INNER_PRODUCT)
                    graph.hnsw.efConstruction = expansion
                    for block in blocks(exact.vectors):
                        graph.add(block)
                    with atomic_file(path) as part:
                        self.faiss.write_index(graph, str(part))
                    return graph

                graph = timed(name, partial(read_or_add, self.folder / f"{name}-{self.documents}.graph"))

                def search(some: np.ndarray, ef: int, graph: Any = graph) -> Any:
                    graph.hnsw.efSearch = ef
                    return graph.search(some, 10)[1]

                made[name] = search
        usearch = peer("usearch.index", self.missing)
        if usearch:
            for dtype in (None, "i8"):
                graph = usearch.Index(ndim=WIDTH, metric="ip", dtype=dtype)
                name = f"usearch ({graph.dtype.name.lower()}, its defaults)"

                def load_or_fill(path: Path, graph: Any = graph) -> None:
                    if path.exists():
                        graph.load(str(path))
                        return
                    start = 0
                    for block in blocks(exact.vectors):
                        graph.add(np.arange(start, start + len(block)), block, threads=self.threads)
                        start += len(block)
                    with atomic_file(path) as part:
                        graph.save(str(part))

                timed(name, partial(load_or_fill, self.folder / f"{name}-{self.documents}.graph"))

                def find(some: np.ndarray, ef: int, graph: Any = graph) -> Any:
                    graph.expansion_search = ef
                    return np.atleast_2d(graph.search(some, 10, threads=self.threads).keys)

                made[name] = find
        return made


def rate(curve: list[dict[str, float]], recall: float, measure: str) -> float | None:
    """Queries a second (or a second of the processor) at a recall, between two points of a curve; the most that has as much. None where it is not reached."""
    points = [(x["recall@10"], np.log(x["qps"] if measure == "qps" else 1 / x["cpu"])) for x in curve]
    rates = [value for reached, value in points if reached >= recall]
    for (r0, v0), (r1, v1) in pairwise(points):
        if r0 < recall <= r1:
            rates.append(v0 + (v1 - v0) * (recall - r0) / (r1 - r0))
    return float(np.exp(max(rates))) if rates else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the indexes are kept; by default they are not")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        run = Run(folder, options.documents, options.rounds, options.threads)
        found = {}
        for part in options.only:
            print(f"--- {part}", flush=True)
            found[part] = getattr(run, part)()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    write_json(
        options.out,
        {
            "work": f"{options.documents:,} documents, vectors of {WIDTH} numbers (float16), codes of {BITS} bits, texts of {LENGTH} words; {options.threads} threads on each side",
            **{key: {part: found[part][key] for part in found} for key in ("ours", "peers", "ratio", "floor")},
            "built_cpu_seconds": {
                part: each["built_cpu_seconds"] for part, each in found.items() if "built_cpu_seconds" in each
            },
            "memory": {"bytes_a_second": round(run.bandwidth), "peak_gib": round(peak, 2)},
            "missing": run.missing,
            "command": machine.command(),
            "versions": {p: version(p) for p in ("hourglass-ai", "torch", "numpy", "numba", *installed())},
            "machine": machine.describe(),
        },
    )


def installed() -> list[str]:
    return [
        name
        for name, module in (("faiss-cpu", "faiss"), ("usearch", "usearch"), ("bm25s", "bm25s"))
        if module in sys.modules
    ]


if __name__ == "__main__":
    main()
