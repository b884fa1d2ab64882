"""How many tokens a second each noise of BART takes, against a mere copy of the ids.

    python benchmarks/noising.py [--lengths 128 512] [--rounds 7]

A document is random ids; three of four tokens begin a word, a sentence has some twenty tokens. One thread; all noises one after
another in each round, the best round of each counts. The floor is one copy of the ids, document by document as the noises go. The
authors' own routine (fairseq) cannot be installed beside today's versions, and is not measured.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import machine
import numpy as np

from hourglass.bottlenecks.noising import NOISES, Noise
from hourglass.storage.atomic import write_json

RESULT = Path(__file__).parent / "results" / "noising.json"
VOCABULARY, MASK = 50_265, 50_264
TOKENS = 500_000
"""Of a round, of each noise."""
KINDS = {
    **NOISES,
    "insert": Noise(insert=0.1),
    "infill+shuffle, random tokens": Noise(mask=0.3, mean=3.5, permute=1.0, mask_random=0.1),
}
"""The last is the noise of the authors' released model."""
GOAL = 1_000_000


def documents(length: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(ids, where words begin, where sentences end) of each."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(TOKENS // length):
        starts = random.random(length) < 0.75
        starts[0] = True
        ends = np.append(np.flatnonzero(random.random(length - 1) < 0.05) + 1, length)
        made.append((random.integers(4, MASK, length), starts, ends))
    return made


def sides(length: int) -> dict[str, Callable[[], None]]:
    """What is timed, by name."""
    given = documents(length)
    ordinary = np.arange(4, MASK)
    random = np.random.default_rng(1)

    def copied() -> None:
        for ids, _, _ in given:
            ids.copy()

    def noised(noise: Noise) -> Callable[[], None]:
        def run() -> None:
            for ids, starts, ends in given:
                noise(ids, random, mask_id=MASK, random_ids=ordinary, starts=starts, ends=ends)

        return run

    return {"copy": copied, **{name: noised(noise) for name, noise in KINDS.items()}}


def speeds(length: int, rounds: int) -> dict[str, int]:
    """Tokens a second of CPU time, by name; the best of the rounds."""
    timed = sides(length)
    tokens = TOKENS // length * length
    best = dict.fromkeys(timed, float("inf"))
    for run in timed.values():
        run()
    for _ in range(rounds):
        for name, run in timed.items():
            began = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - began)
    return {name: round(tokens / seconds) for name, seconds in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", nargs="+", type=int, default=[128, 512])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    found = {f"{length} tokens": speeds(length, options.rounds) for length in options.lengths}
    floor = {name: of.pop("copy") for name, of in found.items()}
    least = {name: min(of.values()) for name, of in found.items()}
    write_json(
        options.out,
        {
            "work": f"noise on documents of {', '.join(found)} each, {TOKENS:,} tokens a round, one thread: tokens per CPU second",
            "ours": found,
            "peers": {},
            "ratio": {
                f"{name}, slowest noise to {GOAL:,} tokens a second": round(speed / GOAL, 2)
                for name, speed in least.items()
            },
            "floor": {f"{name}, one copy of the ids": speed for name, speed in floor.items()},
            "command": machine.command(),
            "versions": {p: version(p) for p in ("hourglass-ai", "numpy")},
            "machine": machine.describe(),
        },
    )
    for name, of in found.items():
        print(f"{name}: a copy {floor[name]:,} tokens/s")
        for noise, speed in of.items():
            print(f"  {noise:30} {speed:>12,} tokens/s")


if __name__ == "__main__":
    main()
