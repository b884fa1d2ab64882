"""Explore as a whole: time on 6,000 docstrings, and peak memory at 10,000 and 100,000 documents.

    python benchmarks/explore.py [--small 10000] [--large 100000]

Each run is a process of its own, so that its peak is its own. The documents of the memory runs are windows of 60 words
over the docstrings of the installed packages: as many as asked for, all different.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hourglass.data import open_texts
from hourglass.storage.atomic import write_json

RESULT = Path(__file__).parent / "results" / "explore.json"
WORDS = 60


def windows(number: int, path: Path) -> int:
    """Write `number` documents of WORDS words, one JSON object a line; returns how many there were to write."""
    step, written = WORDS, 0
    while written < number and step >= 6:
        written = 0
        with path.open("w", encoding="utf-8") as file:
            for batch in open_texts("docstrings:").batches():
                for text in batch.column("text").to_pylist():
                    words = text.split()
                    for start in range(0, max(1, len(words) - WORDS // 2), step):
                        file.write(json.dumps({"text": " ".join(words[start : start + WORDS])}) + "\n")
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=100_000)
    options = parser.parse_args()
    ours: dict[str, Any] = {"help_s": help_seconds()}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        ours["docstrings_6000"] = run(
            ["explore", "docstrings:", "--limit", "6000", "--by", "package", "--out", str(out / "d")]
        )
        print("6,000 docstrings:", ours["docstrings_6000"])
        for name, number in (("small", options.small), ("large", options.large)):
            source = out / f"{name}.jsonl"
            windows(number, source)
            ours[name] = run(["explore", str(source), "--out", str(out / name)])
            print(f"{number:,} documents:", ours[name])
    small, large = ours["small"], ours["large"]
    ratio = round(large["peak_mib"] / small["peak_mib"], 3)
    print(f"peak memory, large over small: {ratio}; hourglass --help: {ours['help_s']} s")
    write_json(
        RESULT,
        {
            "work": f"hourglass explore: 6,000 docstrings (time); {options.small:,} and {options.large:,} documents of {WORDS} words (peak memory)",
            "ours": ours,
            "peers": {},
            "ratio": {"peak_memory_large_over_small": ratio},
            "floor": {"bound": "peak memory at most 1.5 times, 6,000 docstrings under 180 s, --help under 0.3 s"},
            "command": "python benchmarks/explore.py",
            "versions": {p: version(p) for p in ("hourglass-ai", "torch", "transformers", "numpy")},
            "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, {round(_memory_gib())} GiB",
        },
    )


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


if __name__ == "__main__":
    main()
