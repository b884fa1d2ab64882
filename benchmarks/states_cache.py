"""The cache of token states at ten million rows: memory, what a kill costs, and how fast batches come back.

    python benchmarks/states_cache.py [--small 1000000] [--large 10000000] [--killed 10000000] [--folder /tmp]

The reader is a stand-in: a token is a word, its state one of 4,096 random vectors of 384 numbers by the word and its place, so
that ten million rows take minutes and not the half hour of a small encoder. All else is what `fit sae` runs: the
texts (docstrings of the installed packages over and over, numbered, as one jsonl file), `cache_states`, and the files.

write   peak resident memory of the process (VmHWM) and rows a second, undisturbed
killed  kill -9 at KILLS random moments, the same call again after each, and the SHA-256 of all files against those of the
        undisturbed run
read    batches of 1,024 random rows, all in the page cache: by RowFile, from numpy's memory map, and the floor, system calls
        alone into buffers that are ready

Every measurement in a process of its own, one thread. Needs 2 x 784 bytes of disk for each row of --large.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch

from hourglass.data import open_texts
from hourglass.data.states import cache_states
from hourglass.storage.atomic import write_json
from hourglass.storage.rows import RowFile
from hourglass.waist import TokenStates

RESULT = Path(__file__).parent / "results" / "states_cache.json"
WIDTH, VECTORS, BATCH, BATCHES, KILLS = 384, 4096, 1024, 400, 3
_WORD = re.compile(r"\S+")


class StandIn:
    """Reads a text as fast as Python can, always to the same states, in the number format of the encoder."""

    width = WIDTH

    def __init__(self) -> None:
        self._vectors = torch.randn(VECTORS, WIDTH, generator=torch.Generator().manual_seed(0)).bfloat16()

    def read(self, texts: Sequence[str]) -> TokenStates:
        words: list[int] = []
        spans: list[tuple[int, int]] = []
        offsets = [0]
        for text in texts:
            for place, word in enumerate(_WORD.finditer(text)):
                words.append((zlib.crc32(word.group().encode()) + place) % VECTORS)
                spans.append(word.span())
            offsets.append(len(words))
        return TokenStates(self._vectors[words], torch.tensor(offsets), torch.tensor(spans).reshape(-1, 2))

    def describe(self) -> dict[str, Any]:
        return {"model": "stand-in"}


def write_texts(rows: int, path: Path) -> None:
    """Docstrings with `rows` words in all, one JSON object a line."""
    documents = [
        text
        for batch in open_texts("docstrings:").limited(5_000).batches()
        for text in batch.column("text").to_pylist()
    ]
    with path.open("w", encoding="utf-8") as file:
        for number in count():
            text = f"{number} {documents[number % len(documents)]}"
            held = len(_WORD.findall(text))
            if held > rows:
                text, held = " ".join(text.split()[:rows]), rows
            file.write(json.dumps({"text": text}) + "\n")
            rows -= held
            if rows == 0:
                return


# What runs in a process of its own --------------------------------------------------------------------------------


def peak_mib() -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024, 1)


def write(folder: Path) -> dict[str, Any]:
    started, before = time.perf_counter(), peak_mib()
    rows = cache_states(StandIn(), folder.with_suffix(".jsonl"), folder)
    seconds = time.perf_counter() - started
    return {
        "rows": len(rows),
        "seconds": round(seconds, 1),
        "rows_per_s": round(len(rows) / seconds),
        "peak_mib": peak_mib(),
        "started_at_mib": before,
    }


def read(folder: Path, way: str) -> dict[str, Any]:
    cache = RowFile(folder)
    generator = np.random.default_rng(0)
    batches = [generator.integers(0, len(cache), BATCH) for _ in range(BATCHES)]
    take: Callable[[np.ndarray], Any]
    if way == "ours":
        take = cache.rows.__getitem__
    elif way == "memmap":
        take = np.memmap(folder / "rows.f16", np.float16, "r", shape=cache.rows.shape).__getitem__
    else:
        file = os.open(folder / "rows.f16", os.O_RDONLY)
        buffers = [[memoryview(bytearray(2 * WIDTH))] for _ in range(BATCH)]

        def take(rows: np.ndarray) -> None:
            for buffer, place in zip(buffers, (rows * (2 * WIDTH)).tolist()):
                os.preadv(file, buffer, place)

    spent = []
    for _ in range(5):  # the first brings what is read into the page cache
        started = time.perf_counter()
        for rows in batches:
            take(rows)
        spent.append(time.perf_counter() - started)
    return {"rows_per_s": round(BATCH * BATCHES / min(spent)), "peak_mib": peak_mib()}


# All measurements -------------------------------------------------------------------------------------------------


def start(*arguments: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, "--worker", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})


def run(*arguments: Any) -> dict[str, Any]:
    process = start(*arguments)
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, arguments))} ended with {process.returncode}")
    found: dict[str, Any] = json.loads(output)
    print(*arguments, found, flush=True)
    return found


def rows_of(folder: Path) -> int:
    return json.loads((folder / "rows.json").read_text())["rows"] if RowFile.exists(folder) else 0


def write_with_kills(folder: Path, rows: int) -> list[int]:
    """The rows that were there at each kill."""
    chance, at = random.Random(0), []
    for goal in sorted(chance.uniform(0.1, 0.9) for _ in range(KILLS)):
        process = start("write", folder)
        while rows_of(folder) < goal * rows:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 1))  # in the middle of whatever it does then
        process.kill()
        process.communicate()
        at.append(rows_of(folder))
        print("killed at", at[-1], flush=True)
    run("write", folder)
    return at


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.file_digest(path.open("rb"), "sha256").hexdigest()
        for path in sorted(folder.iterdir())
        if path.name != ".lock"
    }


def measure(place: Path, small: int, large: int, killed: int) -> dict[str, Any]:
    written = {}
    for name, number in (("small", small), ("large", large)):
        write_texts(number, place / f"{name}.jsonl")
        written[name] = run("write", place / name)
    reads = {way: run("read", place / "large", way) for way in ("ours", "memmap", "floor")}
    reference = place / "large"
    if killed != large:
        reference = place / "reference"
        write_texts(killed, place / "reference.jsonl")
        run("write", reference)
    expected = digests(reference)
    shutil.rmtree(reference)
    # The same place again: the name of the source is a part of states.json.
    kills = write_with_kills(reference, killed)
    return {
        "write": written,
        "read": reads,
        "killed": {"rows": killed, "killed_at_rows": kills, "same_bytes": digests(reference) == expected},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=1_000_000)
    parser.add_argument("--large", type=int, default=10_000_000)
    parser.add_argument("--killed", type=int, default=10_000_000, help="rows of the run that is killed")
    parser.add_argument("--folder", type=Path, help="where there is room")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        torch.set_num_threads(1)
        verb, folder, *more = options.worker
        print(json.dumps(write(Path(folder)) if verb == "write" else read(Path(folder), *more)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = measure(Path(folder), options.small, options.large, options.killed)
    write_json(
        RESULT,
        {
            "work": f"states of width {WIDTH} through cache_states by a stand-in reader: {options.small:,} and {options.large:,} rows",
            "ours": found,
            "peers": {},
            "ratio": {
                "peak_memory_large_over_small": round(
                    found["write"]["large"]["peak_mib"] / found["write"]["small"]["peak_mib"], 3
                ),
                "read_ours_over_memmap": round(
                    found["read"]["ours"]["rows_per_s"] / found["read"]["memmap"]["rows_per_s"], 3
                ),
                "read_ours_over_floor": round(
                    found["read"]["ours"]["rows_per_s"] / found["read"]["floor"]["rows_per_s"], 3
                ),
            },
            "floor": {"bounds": "peak memory at most 1.1 times, the same bytes after kills"},
            "command": machine.command(),
            "versions": {p: version(p) for p in ("hourglass-ai", "torch", "numpy")},
            "machine": machine.describe(),
        },
    )


if __name__ == "__main__":
    main()
