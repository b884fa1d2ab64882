"""In how few steps a trained cosmos writes as well as in 200: MAUVE against real texts, by solver and number of steps.

    python benchmarks/latent_steps.py MODEL SOURCE --text COL [--texts 500] [--seeds 3] [--steps 5 10 20 50 100 200] [--out FILE]

MODEL is the folder of a trained model without a source, SOURCE what it has learned from. Drawn texts of each seed are measured against real ones
that the seed has chosen, by vectors of MiniLM (`hourglass.metrics.generation.mauve`); "real" is what other real texts come to, the most there is.
A number of steps is as good as 200 where its mean lies within the seeds' spread of the solver "euler" in 200, or above it. Seconds are by the clock
for all texts, one after another in one process; what else the machine does moves them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import hourglass as hg

# isort: split
import machine
import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from hourglass.adapters.huggingface_loading import resolve
from hourglass.data import open_texts
from hourglass.metrics.generation import diversity, mauve
from hourglass.storage.atomic import write_json
from hourglass.uses.probe.encoders import dense_vectors

RESULT = Path(__file__).parent / "results" / "latent_steps.json"
SOLVERS = ("euler", "dpm++")
MOST = 200


def summary(found: list[dict[str, float]]) -> dict[str, Any]:
    of = {name: [one[name] for one in found] for name in found[0]}
    return {
        "mauve": round(statistics.mean(of["mauve"]), 4),
        "mauve_of_seeds": [round(value, 4) for value in of["mauve"]],
        "diversity": round(statistics.mean(of["diversity"]), 4),
        "seconds": round(statistics.median(of["seconds"]), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("source")
    parser.add_argument("--text")
    parser.add_argument("--texts", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 10, 20, 50, 100, MOST])
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    model: Any = hg.load(options.model)
    source = open_texts(options.source, text=options.text)
    known = [text for batch in source.batches() for text in batch.column(source.text_column).to_pylist()]
    # As it would write them: its own words, and what is too long not at all.
    known = [text for text, row in zip(known, model.encoder.rows(known)) if len(row) <= model.config.max_tokens]
    encoder = SentenceTransformer(resolve("minilm"), device="cpu")

    def vectors(texts: list[str]) -> np.ndarray:
        return dense_vectors(lambda given: encoder.encode(list(given), show_progress_bar=False), texts)

    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(options.seeds):
        order = np.random.default_rng(seed).permutation(len(known))
        real, others = (
            [known[i].lower() for i in part]
            for part in (order[: options.texts], order[options.texts : 2 * options.texts])
        )
        against = vectors(real)

        def measured(texts: list[str], seconds: float, against: np.ndarray = against) -> dict[str, float]:
            return {"mauve": mauve(vectors(texts), against).value, "diversity": diversity(texts), "seconds": seconds}

        found.setdefault("real", []).append(measured(others, 0.0))
        for solver, steps in product(SOLVERS, sorted({*options.steps, MOST})):
            began = time.perf_counter()
            texts = model.generate(options.texts, steps=steps, solver=solver, seed=seed)
            found.setdefault(f"{solver}, {steps} steps", []).append(measured(texts, time.perf_counter() - began))
            print(f"seed {seed}, {solver}, {steps} steps: {found[f'{solver}, {steps} steps'][-1]}", flush=True)
    made = {name: summary(rows) for name, rows in found.items()}
    spread = made[f"euler, {MOST} steps"]["mauve_of_seeds"]
    as_good = {solver: [s for s in sorted({*options.steps, MOST}) if made[f"{solver}, {s} steps"]["mauve"] >= min(spread)] for solver in SOLVERS}  # fmt: skip
    result = {
        "work": f"{options.texts} texts drawn from a trained cosmos ({model.config.latents} latents of {model.latent_width}), MAUVE against as many real ones",
        "ours": made,
        "peers": {},
        "ratio": {name: round(one["mauve"] / statistics.mean(spread), 3) for name, one in made.items()},
        "floor": {"spread_of_200_steps": [min(spread), max(spread)], "as_good_in": as_good},
        "command": machine.command(),
        "versions": {p: version(p) for p in ("hourglass-ai", "torch", "mauve-text")},
        "machine": {**machine.describe(), "capability": torch.backends.cpu.get_cpu_capability()},
    }
    write_json(options.out, result)
    print(result["floor"])


if __name__ == "__main__":
    main()
