"""How long the verbs take on a workspace of 100,000 documents, and how much memory: diff, find, trend, correlate, cluster.

    python benchmarks/verbs.py [--workspace DIR [--other DIR]] [--documents 100000] [--times 5] [--only find diff]

Without `--workspace` two are made first, of windows of 20 words over the docstrings of the installed packages, and of those a
little further on as another text of the same documents (half an hour); a workspace of one's own needs the columns "package" and
"place", and without `--other` nothing is measured of two texts. Each verb runs in a process of its own that
opens the workspace. `first_s` is the first call, which reads what the verb needs from disk (find: the encoder, too);
`again_s` the median of the next, as in a session or in the studio; both with the seconds of processor time, which other
work on the machine lengthens less. `peak_mib` is the memory of the whole process at its largest, torch included.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import machine
import numpy as np
from explore import WORDS, windows

import hourglass as hg
from hourglass.storage.atomic import write_json
from hourglass.uses.explore import Workspace

RESULT = Path(__file__).parent / "results" / "verbs.json"
BOUNDS = {
    "diff": 2.0,
    "find": 0.5,
    "find, by features": 0.5,
    "find, 20 examples": 0.5,
    "correlate": 20.0,
    "correlate, two texts": 20.0,
}
"""Seconds allowed; the verbs that are not here have no bound."""
MEMORY_MIB = 2048


FURTHER = 8
"""Windows; so far on a text goes on with its subject, and has no words of the first."""


def calls(workspace: Workspace, other: Workspace | None) -> dict[str, Callable[[], Any]]:
    """What is measured, by name; `other` holds another text of the documents. Two of the groups for diff: the largest."""
    groups, sizes = np.unique(workspace.column("package").astype(str), return_counts=True)
    a, b = groups[np.argsort(-sizes)[:2]]
    ids = workspace.column("_id")[:: len(workspace) // 20][:20].tolist()
    named = workspace.features["label"].dropna().index[:3].tolist()
    return {
        "diff": lambda: workspace.diff("package", a, b),
        "diff, one against the rest": lambda: workspace.diff("package", a),
        "find": lambda: workspace.find("raises an error for bad input"),
        "find, by features": lambda: workspace.find(features=dict.fromkeys(named, 1.0)),
        "find, 20 examples": lambda: workspace.find(like=ids),
        "trend": lambda: workspace.trend("place"),
        "correlate": lambda: workspace.correlate(),
        "correlate, tokens not read again": lambda: workspace.correlate(max_same_tokens=None),
        **({} if other is None else {"correlate, two texts": lambda: workspace.correlate(other)}),
        "cluster along an axis": lambda: workspace.cluster("errors and warnings"),
        "cluster": lambda: workspace.cluster(),
    }


def seconds(action: Callable[[], Any]) -> tuple[float, float]:
    """Wall and processor seconds of one call."""
    started, used = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - started, time.process_time() - used


def measure(workspace: Path, other: Path | None, name: str, times: int) -> dict[str, float]:
    """One verb, in this process. What takes minutes is not done again."""
    action = calls(hg.open(workspace), None if other is None else hg.open(other))[name]
    first = seconds(action)
    again = [seconds(action) for _ in range(times if first[0] < 30 else 0)] or [first]
    wall, processor = np.median(again, axis=0)
    return {
        "first_s": round(first[0], 3),
        "again_s": round(float(wall), 3),
        "again_cpu_s": round(float(processor), 3),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def ask(workspace: Path, other: Path | None, name: str, times: int) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--workspace", str(workspace), "--worker", name, "--times", str(times)]
    command += ["--other", str(other)] if other else []
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(workspace: Path, other: Path | None, names: Sequence[str], times: int) -> dict[str, Any]:
    found = {}
    for name in names:
        found[name] = ask(workspace, other, name, times)
        print(f"{name:<34}" + "".join(f"{key} {value:<10}" for key, value in found[name].items()), flush=True)
    return found


def further_on(source: Path, path: Path) -> None:
    """Of each window in `source` the one that stands FURTHER lines on; of the last the first."""
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([*lines[FURTHER:], *lines[:FURTHER]]), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, help="a finished workspace with columns package and place")
    parser.add_argument("--other", type=Path, help="a finished workspace of another text of the same documents")
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="verbs, by the names in the result; nothing is written")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(measure(options.workspace, options.other, options.worker, options.times)))
        return
    with tempfile.TemporaryDirectory() as folder:
        place, other = options.workspace, options.other
        if place is None:
            place, other = Path(folder) / "workspace", Path(folder) / "other"
            sources = [Path(folder) / f"{name}.jsonl" for name in ("windows", "further")]
            windows(options.documents, sources[0])
            further_on(*sources)
            for source, out in zip(sources, (place, other)):
                hg.explore(source, by="package", out=out)
        workspace = hg.open(place)
        documents, features = len(workspace), len(workspace.features)
        names = list(calls(workspace, None if other is None else hg.open(other)))
        found = compare(place, other, options.only or names, options.times)
    if options.only:
        return
    write_json(
        RESULT,
        {
            "work": f"verbs on {documents:,} documents of {WORDS} words, {features:,} features, once the workspace is open",
            "ours": found,
            "peers": {},
            "ratio": {
                name: round(found[name]["again_s"] / bound, 3) for name, bound in BOUNDS.items() if name in found
            },
            "floor": {"bounds_s": BOUNDS, "memory_mib": MEMORY_MIB},
            "command": "python benchmarks/verbs.py",
            "versions": {p: version(p) for p in ("hourglass-ai", "torch", "numpy", "scipy", "pyarrow")},
            "machine": machine.describe(),
        },
    )


if __name__ == "__main__":
    main()
