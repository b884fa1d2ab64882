"""Explore as a whole: time on 6,000 docstrings, and peak memory at 10,000 and 100,000 documents.

    python benchmarks/explore.py [--part time | memory] [--small 10000] [--large 100000]

Each run is a process of its own, so that its peak is its own. The documents of the memory runs are windows of 20 words
over the docstrings of the installed packages: as many as asked for, all different.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import machine

from hourglass.data import open_texts
from hourglass.storage.atomic import write_json

RESULT = Path(__file__).parent / "results" / "explore.json"
WORDS = 20


def windows(number: int, path: Path) -> int:
    """Write `number` documents of WORDS words with their package, a JSON object a line; returns how many there were to write."""
    step, written = WORDS, 0
    while written < number and step >= 6:
        written = 0
        with path.open("w", encoding="utf-8") as file:
            for batch in open_texts("docstrings:").batches():
                for text, package in zip(batch.column("text").to_pylist(), batch.column("package").to_pylist()):
                    words = text.split()
                    for start in range(0, max(1, len(words) - WORDS // 2), step):
                        window = " ".join(words[start : start + WORDS])
                        file.write(json.dumps({"text": window, "package": package, "place": written}) + "\n")
                        written += 1
                        if written == number:
                            return written
        step //= 2
    return written


def run(arguments: list[str]) -> dict[str, float]:
    """Wall seconds, CPU seconds and peak resident MiB of one `hourglass` process."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("hourglass")), *arguments, "--json"], stdout=subprocess.PIPE
    )
    output = process.stdout.read() if process.stdout else b""
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"hourglass {' '.join(arguments)} ended with {status}")
    summary = json.loads(output)
    return {
        "wall_s": round(time.perf_counter() - started, 1),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mib": round(usage.ru_maxrss / 1024, 1),
        "documents": summary["documents"],
        "tokens": summary["tokens"],
        "named": summary["named"],
        "fvu": round(summary["learning"]["fvu"], 4),
    }


def help_seconds(times: int = 5) -> float:
    """Median wall seconds of `hourglass --help`."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        subprocess.run(
            [str(Path(sys.executable).with_name("hourglass")), "--help"], stdout=subprocess.DEVNULL, check=True
        )
        taken.append(time.perf_counter() - started)
    return round(sorted(taken)[times // 2], 3)


def measure_time(out: Path) -> dict[str, Any]:
    """The command line's start and the main job."""
    arguments = ["explore", "docstrings:", "--limit", "6000", "--by", "package", "--out", str(out / "d")]
    return {"help_s": help_seconds(), "docstrings_6000": run(arguments)}


def measure_memory(out: Path, small: int, large: int) -> dict[str, Any]:
    """Peaks at two sizes of corpus."""
    found: dict[str, Any] = {}
    for name, number in (("small", small), ("large", large)):
        source = out / f"{name}.jsonl"
        windows(number, source)
        found[name] = run(["explore", str(source), "--out", str(out / name)])
    found["peak_large_over_small"] = round(found["large"]["peak_mib"] / found["small"]["peak_mib"], 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["time", "memory"], help="measure this part only, keep the other's result")
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=100_000)
    options = parser.parse_args()
    kept = json.loads(RESULT.read_text(encoding="utf-8"))["ours"] if RESULT.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        if options.part != "memory":
            kept["time"] = measure_time(Path(folder))
            print(kept["time"], flush=True)
        if options.part != "time":
            kept["memory"] = measure_memory(Path(folder), options.small, options.large)
            print(kept["memory"], flush=True)
    write_json(
        RESULT,
        {
            "work": f"hourglass explore: 6,000 docstrings (time); {options.small:,} and {options.large:,} documents of {WORDS} words (peak memory)",
            "ours": kept,
            "peers": {},
            "ratio": {"peak_memory_large_over_small": kept.get("memory", {}).get("peak_large_over_small")},
            "floor": {"bounds": "6,000 docstrings under 180 s, --help under 0.3 s, peak memory at most 1.5 times"},
            "command": "python benchmarks/explore.py",
            "versions": {p: version(p) for p in ("hourglass-ai", "torch", "transformers", "numpy")},
            "machine": {**machine.describe(), "memory_gib": round(_memory_gib())},
        },
    )


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


if __name__ == "__main__":
    main()
