"""Seconds of a search in 100,000 documents, once the workspace is open and the encoder is loaded.

    python benchmarks/find.py [--documents 100000] [--times 5]

The workspace is made: 4,096 features, 30,000 words and 384 dense dimensions at random, features and words about as frequent as
in real texts (Zipf), 150 features and 70 words a document. The query's vector is random too, so the encoder's few milliseconds are not
in the figures. Reported are the median wall seconds and the median seconds of processor time, which other work does not lengthen.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import machine
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.numpy import save_file
from scipy.sparse import csr_matrix

from hourglass.storage.atomic import write_json
from hourglass.uses.explore.build import ROW_GROUP, SHARD
from hourglass.uses.explore.pooling import PooledCodes
from hourglass.uses.explore.workspace import FORMAT, CodedDocuments, Workspace

RESULT = Path(__file__).parent / "results" / "find.json"
WIDTH, DIM, WORDS = 4096, 384, 30_000
FLOOR_S = 0.5

Array = np.ndarray[Any, Any]


def make(folder: Path, documents: int) -> Workspace:
    """A workspace of random documents."""
    random = np.random.default_rng(0)
    for part in ("documents", "codes"):
        (folder / part).mkdir(parents=True)
    write_json(folder / "words.json", sorted(f"w{i}" for i in range(WORDS)))
    shards, present = [], np.zeros(WIDTH, np.int64)
    for number, start in enumerate(range(0, documents, SHARD)):
        n, name = min(SHARD, documents - start), f"{number:05d}"
        indptr, indices = draw(n, WIDTH, 200, 0.7, random)
        values = random.gamma(2, 1, len(indices)).astype(np.float16)
        present += np.bincount(indices[values > 1.5], minlength=WIDTH)
        count, tokens = np.ones(len(indices), np.int32), np.full(n, 200, np.int32)
        codes = PooledCodes(indptr, indices, values, values.astype(np.float32), count, tokens, WIDTH)
        word_indptr, words = draw(n, WORDS, 90, 0.8, random)
        has = csr_matrix((np.ones(len(words), np.float32), words, word_indptr), shape=(n, WORDS))
        dense = random.normal(size=(n, DIM)).astype(np.float16)
        CodedDocuments(codes, has, dense).save(folder / "codes" / f"{name}.safetensors")
        ids = range(start, start + n)
        texts = [f"document {i} " + "lorem ipsum dolor " * 45 for i in ids]
        table = pa.table({"text": texts, "_row": ids, "_id": [f"d{i}" for i in ids]})
        pq.write_table(table, folder / "documents" / f"{name}.parquet", row_group_size=ROW_GROUP)
        shards.append({"name": name, "documents": n, "coded": True, "tokens": 200 * n})
    features = pd.DataFrame({"label": [f"name {i}" for i in range(WIDTH)], "documents": present, "p90": np.float32(3)})
    features.to_parquet(folder / "features.parquet")
    save_file({"vectors": random.normal(size=(WIDTH, DIM)).astype(np.float32)}, folder / "labels.safetensors")
    manifest = {"format": FORMAT, "stage": "done", "settings": {}, "text_column": "text", "sources": []}
    write_json(folder / "workspace.json", {**manifest, "shards": shards, "width": WIDTH})
    states = torch.from_numpy(random.normal(size=(4, DIM)).astype(np.float32))
    reader = SimpleNamespace(read=lambda texts: SimpleNamespace(states=states))
    return Workspace.open(folder, lambda path: SimpleNamespace(reader=reader))  # type: ignore[arg-type,return-value]


def draw(rows: int, width: int, number: int, slope: float, random: np.random.Generator) -> tuple[Array, Array]:
    """indptr and indices of rows that each have `number` columns, less repetitions, the low ones more often."""
    share = 1 / np.arange(1, width + 1) ** slope
    picked = random.choice(width, (rows, number), p=share / share.sum())
    parts = [np.unique(row) for row in picked]
    return np.append(0, np.cumsum([len(p) for p in parts])).astype(np.int64), np.concatenate(parts).astype(np.int32)


def timed(search: Callable[[], Any], times: int) -> dict[str, float]:
    """Median wall and processor seconds, after one search that is not counted."""
    search()
    wall, processor = [], []
    for _ in range(times):
        started, used = time.perf_counter(), time.process_time()
        search()
        wall.append(time.perf_counter() - started)
        processor.append(time.process_time() - used)
    return {"wall_s": round(float(np.median(wall)), 3), "cpu_s": round(float(np.median(processor)), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ws = make(Path(folder) / "ws", options.documents)
        examples = [f"d{i}" for i in range(0, 1000, 50)]
        ours = {
            "query": timed(lambda: ws.find("w50 w3000 w77"), options.times),
            "query, edited": timed(lambda: ws.find("w50 w3000", features={5: 2.0}, k=100), options.times),
            "20 examples": timed(lambda: ws.find(like=examples, unlike=["d7"]), options.times),
        }
    print(ours)
    slowest = max(row["wall_s"] for row in ours.values())
    write_json(
        RESULT,
        {
            "work": f"find in {options.documents:,} made documents, features fused with dense vectors and BM25",
            "ours": ours,
            "peers": {},
            "ratio": {"slowest_over_bound": round(slowest / FLOOR_S, 2)},
            "floor": {"bounds": f"{FLOOR_S} s a search"},
            "command": "python benchmarks/find.py",
            "versions": {p: version(p) for p in ("hourglass-ai", "numpy", "scipy", "pyarrow")},
            "machine": machine.describe(),
        },
    )


if __name__ == "__main__":
    main()
