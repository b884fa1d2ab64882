"""An index at size: how long it takes to make, to open and to search, and how much memory.

    python benchmarks/index.py [--documents 1000000] [--queries 200] [--threads 2] [--folder DIR] [--out FILE]

Passages of 100 words are drawn from a Zipf distribution over 200,000 made-up words; each has a random vector of 384 numbers in
float16. Both come from a seed, in batches of Arrow, as a source that has its vectors would give them, and are never in memory
as a whole. Every step is a process of its own, so that its peak of memory is its own, and so is what it had to load.

build      `SearchIndex.create` of the source, vectors given; the memory of the source is counted, for it is the same process
parts      the first search of each kind, which makes what retrievers keep of a version
open       opening the folder, and the first search of a process by each pipeline
search     warm, one query at a time, three words and a vector each: milliseconds of the whole of `SearchIndex.search`, ten results
           with their texts
peak_rss   of a process, in MiB; what is mapped from files counts while it is in memory, and could be dropped
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "index.json"
WORDS, VOCABULARY, WIDTH = 100, 200_000, 384
PIPELINES = ("bm25", "dense", "bm25 | dense >> rrf")
ASKED_OPEN, ASKED_P99 = 0.5, 100.0


def vocabulary() -> Any:
    """Pronounceable words, the frequent ones short."""
    import numpy as np

    syllables = np.array([a + b for a in "bcdfghklmnprstvz" for b in ("a", "e", "i", "o", "u")])
    words = []
    for number in range(VOCABULARY):
        word, rest = "", number + len(syllables)
        while rest:
            rest, place = divmod(rest, len(syllables))
            word += syllables[place]
        words.append(word)
    return np.array(words)


def source(documents: int, at_once: int = 4096) -> Any:
    """A reader of batches: id, text, year, vector."""
    import numpy as np
    import pyarrow as pa

    words, rng = vocabulary(), np.random.default_rng(0)
    shares = np.cumsum(1 / np.arange(1, VOCABULARY + 1))
    shares /= shares[-1]
    schema = pa.schema(
        {"id": pa.string(), "text": pa.string(), "year": pa.int64(), "vector": pa.list_(pa.float16(), WIDTH)}
    )

    def batches() -> Iterator[Any]:
        for start in range(0, documents, at_once):
            number = min(at_once, documents - start)
            drawn = words[np.searchsorted(shares, rng.random((number, WORDS)))]
            vectors = rng.standard_normal((number, WIDTH), np.float32).astype(np.float16)
            rows = np.arange(start, start + number)
            yield pa.record_batch(
                [
                    pa.array([f"p{row}" for row in rows]),
                    pa.array([" ".join(row) for row in drawn.tolist()]),
                    pa.array(1990 + rows % 35),
                    pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), WIDTH),
                ],
                schema=schema,
            )

    return pa.RecordBatchReader.from_batches(schema, batches())


def questions(number: int) -> list[Any]:
    """Of one frequent word, one less frequent and one rare, with a vector."""
    import numpy as np

    from hourglass.uses.search.stages import Query

    words, rng = vocabulary(), np.random.default_rng(1)
    bands = ((20, 200), (200, 5_000), (5_000, 100_000))
    return [
        Query(
            str(i),
            " ".join(words[rng.integers(*band)] for band in bands),
            vector=rng.standard_normal(WIDTH).astype(np.float32),
        )
        for i in range(number)
    ]


class ByVector:
    """Stands in for an encoder: the vector of a question that is known."""

    def __init__(self, queries: list[Any]) -> None:
        self._known = {query.text: query.vector for query in queries}
        self.__name__ = "given"

    def __call__(self, texts: list[str]) -> Any:
        import numpy as np

        return np.array([self._known.get(text, np.zeros(WIDTH, np.float32)) for text in texts], np.float32)


# Steps, each in a process of its own ----------------------------------------------------------------------


def build(folder: Path, documents: int, queries: int) -> dict[str, Any]:
    from hourglass.uses.search.index import SearchIndex

    start = time.perf_counter()
    SearchIndex.create(source(documents), folder, encoder=None, vectors="vector", id="id", text="text", progress=False)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "documents_per_second": documents / seconds}


def parts(folder: Path, documents: int, queries: int) -> dict[str, Any]:
    """One kind is made by each process: `documents` says of which."""
    from hourglass.uses.search.index import SearchIndex

    asked = questions(1)
    index = SearchIndex(folder, encoder=ByVector(asked))
    start = time.perf_counter()
    index.search(asked[0].text, pipeline=PIPELINES[documents])
    return {"seconds": time.perf_counter() - start}


def search(folder: Path, documents: int, queries: int) -> dict[str, Any]:
    import numpy as np

    from hourglass.uses.search.index import SearchIndex

    asked = questions(queries)
    start = time.perf_counter()
    index = SearchIndex(folder, encoder=ByVector(asked))
    made: dict[str, Any] = {"open_seconds": time.perf_counter() - start}
    for pipeline in PIPELINES:
        start = time.perf_counter()
        stage = index.pipeline(pipeline)
        index.search(asked[0].text, pipeline=stage)
        first = time.perf_counter() - start
        for query in asked[: queries // 4]:  # what is on disk comes into memory
            index.search(query.text, pipeline=stage)
        times = []
        for query in asked:
            start = time.perf_counter()
            found = index.search(query.text, pipeline=stage)
            times.append(1000 * (time.perf_counter() - start))
            assert len(found) == 10
        made[pipeline] = {
            "first_search_seconds": first,
            "p50_ms": float(np.percentile(times, 50)),
            "p99_ms": float(np.percentile(times, 99)),
        }
    return made


STEPS = {step.__name__: step for step in (build, parts, search)}


def alone(step: str, folder: Path, documents: int, queries: int, threads: int) -> dict[str, Any]:
    """A step in a process of its own, with its peak of memory."""
    number = str(threads)
    done = subprocess.run(
        [sys.executable, __file__, "--step", step, "--folder", folder, "--documents", str(documents), "--queries", str(queries)],
        env={**os.environ, "OMP_NUM_THREADS": number, "NUMBA_NUM_THREADS": number},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )  # fmt: skip
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{step} {documents}: {made}", flush=True)
    return made


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: rounded(of) for name, of in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--folder", type=Path, help="where the index is made and left (default: a folder that is removed)"
    )
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        made = STEPS[options.step](options.folder, options.documents, options.queries)
        made["peak_rss"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(made))
        return
    import machine

    from hourglass.storage.atomic import write_json

    folder = options.folder or Path(tempfile.mkdtemp(prefix="hourglass-index-"))
    try:
        sizes = folder / "ix", options.queries, options.threads
        ours: dict[str, Any] = {"build": alone("build", sizes[0], options.documents, *sizes[1:])}
        ours["parts"] = {name: alone("parts", sizes[0], kind, *sizes[1:]) for kind, name in enumerate(PIPELINES[:2])}
        ours["search"] = alone("search", sizes[0], options.documents, *sizes[1:])
        taken = {
            place.name: sum(file.stat().st_size for file in place.rglob("*") if file.is_file()) / options.documents
            for place in (folder / "ix/documents.lance", *(folder / "ix/cache").glob("*@*"))
        }
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    slowest = max(ours["search"][pipeline]["p99_ms"] for pipeline in PIPELINES)
    result = {
        "work": f"an index of {options.documents:,} passages of {WORDS} words with given vectors of {WIDTH} numbers (float16); "
        f"{options.queries} queries of three words and a vector, {options.threads} threads",
        "ours": {**ours, "bytes_per_document": taken},
        "peers": {},
        "ratio": ASKED_P99 / slowest,
        "floor": {
            "asked": {"open_seconds": ASKED_OPEN, "p99_ms": ASKED_P99},
            "ratio_is": "milliseconds asked for over the largest p99",
        },
        "command": f"python benchmarks/index.py --documents {options.documents} --queries {options.queries} --threads {options.threads}",
        "versions": {name: version(name) for name in ("pylance", "pyarrow", "numpy", "numba", "torch")},
        "machine": machine.describe(),
    }
    write_json(options.out, rounded(result))
    print(f"{options.out} written")


if __name__ == "__main__":
    main()
