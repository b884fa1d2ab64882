"""Paragraph vectors: words a second of training, and what the vectors find, against gensim's Doc2Vec.

    python benchmarks/paragraph_vectors.py --data DIR [--peer-python PYTHON] [--documents 4000] [--epochs 10] [--rounds 3] [--threads 1 2] [--out FILE]

Texts are Reuters news (DIR/reuters21578); gensim has an environment of its own, whose Python is named by --peer-python and that is reported
as missing where it is not. Both sides learn real vectors of as many numbers, by DBOW and by DM (words around of as many numbers, added), by
negative sampling with as many negatives and (DBOW) by a hierarchical softmax, with the same window and subsampling, for as many epochs, on as many
threads, from texts that are in lower case and parted into words by us; words that stand there once are left out.

words a second   of running text times epochs, by the time of the training alone, without reading and counting words first; by the clock,
                 and by the time of all threads on a processor, which other work on the machine moves less
MAP              of vectors by cosine and of their medians, of test documents that both infer; relevant is what shares a topic
inference        milliseconds of a processor for a document
floor            multiply-adds for a word that is kept, of negative sampling token by token

Sides take turns; figures are medians over rounds. Ours counts an epoch as one pass over the documents, in which DM learns 64 words of each, about as
many as subsampling leaves gensim, or 32, the default. Our rate and l2, of the hierarchical softmax also the rate of subsampling, which both
take, and the steps of inference, were chosen on training documents alone; gensim has its defaults.
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
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import hourglass  # noqa: F401  (before torch, whose threads it tells how to wait)

# isort: split
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
NEGATIVES, WINDOW, QUERIES, RANKED, BATCH = 5, 5, 300, 1500, 512

PEER = """
import json, sys, time
import numpy as np
from gensim import __version__
from gensim.models.doc2vec import Doc2Vec, TaggedDocument
given = json.load(open(sys.argv[1]))
documents = [TaggedDocument(words, [i]) for i, words in enumerate(given["learned"])]
hs = given["objective"] == "hierarchical"
model = Doc2Vec(dm=int(given["model"] == "dm"), hs=int(hs), negative=0 if hs else given["negatives"], vector_size=given["width"], min_count=2,
                epochs=given["epochs"], workers=given["threads"], seed=given["seed"], sample=given["subsample"], window=given["window"])
model.build_vocab(documents)
start = time.perf_counter(), time.process_time()
model.train(documents, total_examples=len(documents), epochs=given["epochs"])
seconds = time.perf_counter() - start[0], time.process_time() - start[1]
begun = time.process_time()
sides = {name: np.array([model.infer_vector(words) for words in given[name]]) for name in ("queries", "ranked")}
np.savez(sys.argv[2], learned=model.dv.vectors, seconds=(*seconds, time.process_time() - begun), version=__version__, **sides)
"""


class Setting(NamedTuple):
    """What ours learns by; subsample, which is gensim's too; draws: words of a document in a pass, of DM: subsampling leaves gensim 67 of
    the 130 that a document has."""

    model: str
    objective: str
    rate: float
    l2: float
    draws: int = 64
    subsample: float = 1e-4
    infer_steps: int = 20

    @property
    def name(self) -> str:
        drawn = f", {self.draws} words drawn" if self.model == "dm" else ""
        return f"{self.model}, {self.objective}{drawn}"


# Chosen by the MAP of training documents apart.
SETTINGS = (
    Setting("dbow", "negative", 0.02, 0.3),
    Setting("dbow", "hierarchical", 0.01, 0.5, subsample=1e-3, infer_steps=60),
    Setting("dm", "negative", 0.007, 0.15),
    Setting("dm", "negative", 0.007, 0.15, 32),
)


def corpus(data: Path, documents: int) -> tuple[list[str], pd.DataFrame, pd.DataFrame]:
    table = pd.read_parquet(data / "reuters21578" / "docs.parquet")
    table = table[(table["topics"].map(len) > 0) & (table["text"].str.strip() != "")].drop_duplicates("text")
    table = table.sample(frac=1, random_state=0)
    table["words"] = [terms(text, False, False) for text in table["text"]]
    table["text"] = [" ".join(words) for words in table["words"]]
    learned, test = (table[table["modapte"] == part] for part in ("train", "test"))
    return learned["text"].tolist()[:documents], test[:QUERIES], test[QUERIES : QUERIES + RANKED]


def ours(setting: Setting, learned: list[str], sides: list[list[str]], width: int, epochs: int, seed: int) -> Any:
    torch.manual_seed(seed)
    model, objective, rate, l2, draws, subsample, infer_steps = setting
    config = BinaryParagraphVectorConfig(
        model=model, latent="real", width=width, objective=objective, negatives=NEGATIVES, l2=l2, dropout=0.0,
        stop_words="none", words=100_000, combine="sum", window=WINDOW, draws=draws,
        subsample=subsample, infer_steps=infer_steps,
    )  # fmt: skip
    made = BinaryParagraphVector(config)
    steps = max(1, epochs * len(learned) // BATCH)
    train = TrainConfig(steps=steps, batch_size=BATCH, lr=rate, schedule="constant", warmup=0.0, clip=None, seed=seed)
    counted, start = made.initialize, []

    def count(batches: Any) -> None:
        counted(batches)
        start.extend((time.perf_counter(), time.process_time()))

    made.initialize = count  # type: ignore[method-assign]
    fit(made, learned, train, progress=False)
    seconds = time.perf_counter() - start[0], time.process_time() - start[1]
    begun = time.process_time()
    vectors = [dense_vectors(made, texts) for texts in sides]
    return (*seconds, time.process_time() - begun), [made.documents.detach().numpy(), *vectors]


def gensim(python: str, given: dict[str, Any]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "asked.json", Path(folder) / "answered.npz"
        asked.write_text(json.dumps(given))
        done = subprocess.run([python, "-c", PEER, asked, answered], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["no word of why"])[-1])
        made = np.load(answered)
        return (
            tuple(map(float, made["seconds"])),
            [made[name] for name in ("learned", "queries", "ranked")],
            str(made["version"]),
        )


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
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
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
        "window": WINDOW,
        "epochs": arguments.epochs,
    }
    for setting in SETTINGS:  # compile
        ours(setting, learned[:64], [side[:4] for side in sides], arguments.width, 1, 0)
    seconds: dict[str, dict[str, list[tuple[float, ...]]]] = {}
    maps: dict[str, dict[str, list[dict[str, float]]]] = {}
    peer: dict[str, str] = {}
    for seed, threads, setting in product(range(arguments.rounds), arguments.threads, SETTINGS):
        work = f"{setting.name}, {threads} threads"
        torch.set_num_threads(threads)
        took, vectors = ours(setting, learned, sides, arguments.width, arguments.epochs, seed)
        seconds.setdefault(work, {}).setdefault("ours", []).append(took)
        maps.setdefault(work, {}).setdefault("ours", []).append(found(vectors, relevant))
        if "missing" in peer:
            continue
        asked = {**given, "model": setting.model, "objective": setting.objective, "subsample": setting.subsample}
        asked |= {"threads": threads, "seed": seed}
        try:
            took, vectors, known = gensim(arguments.peer_python, asked)
        except (RuntimeError, OSError) as error:
            peer = {"missing": str(error)}
            print(f"{GENSIM} is left out: {error}")
            continue
        peer = {"version": known}
        seconds[work].setdefault(GENSIM, []).append(took)
        maps[work].setdefault(GENSIM, []).append(found(vectors, relevant))
    measured = {
        work: {
            side: summary(times, maps[work][side], words, len(queries) + len(ranked)) for side, times in each.items()
        }
        for work, each in seconds.items()
    }
    result = {
        "work": f"paragraph vectors of {arguments.width} numbers of {len(learned):,} Reuters news, {arguments.epochs} epochs",
        "ours": {work: each["ours"] for work, each in measured.items()},
        "peers": {GENSIM: {**{work: each[GENSIM] for work, each in measured.items() if GENSIM in each}, **peer}},
        "ratio": {
            work: {
                by: round(each["ours"][by] / each[GENSIM][by], 3)
                for by in ("words_per_second", "words_per_processor_second")
            }
            for work, each in measured.items()
            if GENSIM in each
        },
        "floor": {"multiply_adds_per_word": 3 * (1 + NEGATIVES) * arguments.width},
        "seconds": seconds,
        "command": machine.command(),
        "versions": {p: version(p) for p in ("hourglass-ai", "torch", "numba", "numpy")},
        "machine": {**machine.describe(), "capability": torch.backends.cpu.get_cpu_capability()},
    }
    write_json(arguments.out, result)
    for work, each in measured.items():
        for side, one in each.items():
            print(f"{work:46} {side:16} {one['words_per_second']:>9,} words/s, {one['words_per_processor_second']:>9,} "
                  f"of a processor; inference {one['inference_ms']} ms; MAP {one['map']}")  # fmt: skip


def summary(times: list[tuple[float, ...]], maps: list[dict[str, float]], words: int, inferred: int) -> dict[str, Any]:
    clock, processor, inference = (statistics.median(one) for one in zip(*times))
    return {
        "words_per_second": round(words / clock),
        "words_per_processor_second": round(words / processor),
        "inference_ms": round(1000 * inference / inferred, 3),
        "map": {way: statistics.median(one[way] for one in maps) for way in maps[0]},
    }


if __name__ == "__main__":
    main()
