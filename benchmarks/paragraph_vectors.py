"""Paragraph vectors: words a second of training, and what the vectors find, against gensim's Doc2Vec (dm=0).

    python benchmarks/paragraph_vectors.py --data DIR [--peer-python PYTHON] [--documents 4000] [--epochs 10] [--rounds 3] [--threads 1] [--out FILE]

Texts are Reuters news (DIR/reuters21578); gensim has an environment of its own, whose Python is named by --peer-python and that is reported
as missing where it is not. Both sides learn vectors of as many numbers, by negative sampling with as many negatives, for as many epochs, on
as many threads, from texts that are in lower case and parted into words by us; words that stand there once are left out.

words a second   of running text times epochs, by the time of the training alone: gensim's without `build_vocab`, ours with reading texts
MAP              of vectors by cosine and of their medians, of test documents that both infer; relevant is what shares a topic
floor            multiply-adds for a word of running text, of negative sampling token by token: what gensim must do, and ours, which
                 counts the words of a document first, need not

Sides take turns; figures are medians over rounds. Ours counts an epoch as one pass over the documents. Ours is measured with the full
softmax of the preset too, which gensim does not have.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import machine
import numpy as np
import pandas as pd
import torch

from hourglass.bottlenecks.discrete import fit_hasher
from hourglass.metrics.codes import hamming
from hourglass.metrics.ranking import mean_average_precision
from hourglass.storage.atomic import write_json
from hourglass.systems.binary_paragraph_vector import BinaryParagraphVector, BinaryParagraphVectorConfig
from hourglass.systems.binary_paragraph_vector_parts import terms
from hourglass.training import TrainConfig, fit
from hourglass.uses.probe.encoders import dense_vectors, unit_length

RESULT = Path(__file__).parent / "results" / "paragraph_vectors.json"
GENSIM = "gensim Doc2Vec"
NEGATIVES, QUERIES, RANKED, BATCH = 5, 300, 1500, 256

PEER = """
import json, sys, time
import numpy as np
from gensim import __version__
from gensim.models.doc2vec import Doc2Vec, TaggedDocument
given = json.load(open(sys.argv[1]))
documents = [TaggedDocument(words, [i]) for i, words in enumerate(given["learned"])]
model = Doc2Vec(dm=0, vector_size=given["width"], negative=given["negatives"], min_count=2, epochs=given["epochs"],
                workers=given["threads"], seed=given["seed"], sample=1e-4)
model.build_vocab(documents)
start = time.perf_counter()
model.train(documents, total_examples=len(documents), epochs=given["epochs"])
seconds = time.perf_counter() - start
sides = {name: np.array([model.infer_vector(words) for words in given[name]]) for name in ("queries", "ranked")}
np.savez(sys.argv[2], learned=model.dv.vectors, seconds=seconds, version=__version__, **sides)
"""


def corpus(data: Path, documents: int) -> tuple[list[str], pd.DataFrame, pd.DataFrame]:
    table = pd.read_parquet(data / "reuters21578" / "docs.parquet")
    table = table[(table["topics"].map(len) > 0) & (table["text"].str.strip() != "")].drop_duplicates("text")
    table = table.sample(frac=1, random_state=0)
    table["words"] = [terms(text, False, False) for text in table["text"]]
    table["text"] = [" ".join(words) for words in table["words"]]
    learned, test = (table[table["modapte"] == part] for part in ("train", "test"))
    return learned["text"].tolist()[:documents], test[:QUERIES], test[QUERIES : QUERIES + RANKED]


def ours(objective: str, learned: list[str], sides: list[list[str]], width: int, epochs: int, seed: int) -> Any:
    torch.manual_seed(seed)
    config = BinaryParagraphVectorConfig(
        latent="real", width=width, objective=objective, negatives=NEGATIVES, l2=0.1, dropout=0.0, stop_words="none",
        words=100_000,
    )  # fmt: skip
    model = BinaryParagraphVector(config)
    steps = max(1, epochs * len(learned) // BATCH)
    train = TrainConfig(steps=steps, batch_size=BATCH, lr=0.01, schedule="constant", warmup=0.0, clip=None, seed=seed)
    start = time.perf_counter()
    fit(model, learned, train, progress=False)
    seconds = time.perf_counter() - start
    return seconds, [model.documents.detach().numpy(), *(dense_vectors(model, texts) for texts in sides)]


def gensim(python: str, given: dict[str, Any]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "asked.json", Path(folder) / "answered.npz"
        asked.write_text(json.dumps(given))
        done = subprocess.run([python, "-c", PEER, asked, answered], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["no word of why"])[-1])
        made = np.load(answered)
        return float(made["seconds"]), [made[name] for name in ("learned", "queries", "ranked")], str(made["version"])


def found(vectors: list[np.ndarray], relevant: np.ndarray) -> dict[str, float]:
    learned, queries, ranked = vectors
    hasher = fit_hasher("median", learned)
    codes = hamming(hasher.codes(queries), hasher.codes(ranked))
    return {
        "cosine": round(mean_average_precision(unit_length(queries) @ unit_length(ranked).T, relevant), 4),
        "medians": round(mean_average_precision(-codes, relevant), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--documents", type=int, default=4000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    learned, queries, ranked = corpus(arguments.data, arguments.documents)
    relevant = np.array([[bool(set(a) & set(b)) for b in ranked["topics"]] for a in queries["topics"]])
    sides = [queries["text"].tolist(), ranked["text"].tolist()]
    words = sum(len(text.split()) for text in learned) * arguments.epochs
    given = {
        "learned": [text.split() for text in learned],
        "queries": [text.split() for text in sides[0]],
        "ranked": [text.split() for text in sides[1]],
        "width": arguments.width,
        "negatives": NEGATIVES,
        "epochs": arguments.epochs,
        "threads": arguments.threads,
    }
    seconds: dict[str, list[float]] = {}
    maps: dict[str, list[dict[str, float]]] = {}
    peer: dict[str, str] = {}
    for seed in range(arguments.rounds):
        for objective in ("negative", "full"):
            took, vectors = ours(objective, learned, sides, arguments.width, arguments.epochs, seed)
            seconds.setdefault(objective, []).append(took)
            maps.setdefault(objective, []).append(found(vectors, relevant))
        if "missing" in peer:
            continue
        try:
            took, vectors, known = gensim(arguments.peer_python, {**given, "seed": seed})
        except (RuntimeError, OSError) as error:
            peer = {"missing": str(error)}
            print(f"{GENSIM} is left out: {error}")
            continue
        peer = {"version": known}
        seconds.setdefault(GENSIM, []).append(took)
        maps.setdefault(GENSIM, []).append(found(vectors, relevant))
    speed = {side: round(words / statistics.median(times)) for side, times in seconds.items()}
    quality = {
        side: {way: statistics.median(one[way] for one in each) for way in each[0]} for side, each in maps.items()
    }
    result = {
        "work": f"paragraph vectors of {arguments.width} numbers of {len(learned):,} Reuters news, {arguments.epochs} epochs",
        "ours": {side: {"words_per_second": speed[side], "map": quality[side]} for side in ("negative", "full")},
        "peers": {GENSIM: {"words_per_second": speed.get(GENSIM), "map": quality.get(GENSIM), **peer}},
        "ratio": {side: round(speed[side] / speed[GENSIM], 3) for side in ("negative", "full") if GENSIM in speed},
        "floor": {"multiply_adds_per_word": 3 * (1 + NEGATIVES) * arguments.width},
        "seconds": seconds,
        "threads": arguments.threads,
        "command": " ".join(["python benchmarks/paragraph_vectors.py", *sys.argv[1:]]),
        "versions": {p: version(p) for p in ("hourglass-ai", "torch", "numpy")},
        "machine": {**machine.describe(), "capability": torch.backends.cpu.get_cpu_capability()},
    }
    write_json(arguments.out, result)
    for side in speed:
        print(f"{side:16} {speed[side]:>9,} words/s  MAP {quality[side]}")


if __name__ == "__main__":
    main()
