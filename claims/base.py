"""How a claim is stated, measured and kept.

A claim says what it will find before it looks: statement, data, split, metric, baseline, direction and margin are
constants of its module. Measuring gives a row a seed for ours and for the baseline at equal budget; the verdict
follows from the interval of the paired differences, not from a reader's mood.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import hourglass
from hourglass.errors import InputError, nearest
from hourglass.metrics.ranking import bootstrap_interval
from hourglass.storage.atomic import read_json, write_json

HERE = Path(__file__).parent
RESULTS = HERE / "results"
UNFINISHED = HERE / "unfinished"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What is claimed, before it is measured. `margin` is the least mean difference that counts as holding."""

    paper: str
    statement: str
    data: str
    split: str
    metric: str
    baseline: str
    direction: str
    margin: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison at one seed: `unit` says of what (a property, a class), `ours` and `baseline` the metric."""

    part: str
    unit: str
    seed: int
    ours: float
    baseline: float
    detail: dict[str, Any] | None = None


Measure = Callable[[Any, Sequence[int], str], list[Row]]


def verdict(rows: Sequence[Row], margin: float) -> dict[str, Any]:
    """Mean paired difference over units with its bootstrap interval, and what follows from it.

    "holds": the interval lies above the margin; "does not hold": below it; "inconclusive": it spans the margin.
    Seeds of one unit are averaged first: they are not independent evidence about other units.
    """
    units = sorted({row.unit for row in rows})
    gaps = np.array([np.mean([r.ours - r.baseline for r in rows if r.unit == unit]) for unit in units])
    low, high = bootstrap_interval(gaps)
    said = "holds" if low > margin else "does not hold" if high < margin else "inconclusive"
    return {
        "units": len(units),
        "mean_ours": float(np.mean([r.ours for r in rows])),
        "mean_baseline": float(np.mean([r.baseline for r in rows])),
        "difference": float(gaps.mean()),
        "low": low,
        "high": high,
        "wins": float((gaps > 0).mean()),
        "verdict": said,
    }


def run(name: str, data: Path | None, budget: str, command: str) -> dict[str, Any]:
    """Measure the claim of paper `name` and keep the result as JSON; InputError names the claims there are.

    A claim that has no use for public data sets says so (PUBLIC_DATA = False) and is measured without. One that measures each
    seed by itself says so too (SEEDS_APART = True): after a kill the same call goes on with the seed that it was at, if no code has
    changed.
    """
    known = [path.stem for path in HERE.glob("*.py") if path.stem not in ("base", "__init__")]
    if name not in known:
        raise InputError(f"no claim {name!r}{nearest(name, known)}")
    module = importlib.import_module(f"claims.{name}")
    claims: dict[str, Claim] = module.CLAIMS
    if not getattr(module, "PUBLIC_DATA", True):
        data, command = None, command.removesuffix(" --data DIR")
    seeds = module.SEEDS[budget]
    suffix = ".data" if data else ""
    apart = getattr(module, "SEEDS_APART", False) and budget != "smoke"
    kept = UNFINISHED / f"{name}{suffix}.{budget}"
    rows = _seed_by_seed(module.measure, data, seeds, budget, kept) if apart else module.measure(data, seeds, budget)
    parts = {}
    for part, claim in claims.items():
        inside = [row for row in rows if row.part == part]
        if inside:
            parts[part] = {**asdict(claim), **verdict(inside, claim.margin)}
    result = {
        "paper": name,
        "statement": {part: claim.statement for part, claim in claims.items()},
        "data": "; ".join(dict.fromkeys(claim["data"] for claim in parts.values())),
        "budget": budget,
        "seeds": list(seeds),
        "rows": [asdict(row) for row in rows],
        "margin": {part: claim.margin for part, claim in claims.items()},
        "verdict": parts,
        "command": command,
        "versions": {p: version(p) for p in ("hourglass-ai", "torch", "transformers", "numpy", "scikit-learn")},
        "machine": f"{platform.machine()}, {_cores()} cores, Python {sys.version.split()[0]}",
    }
    if budget != "smoke":
        write_json(RESULTS / f"{name}{suffix}.json", json.loads(json.dumps(result)))
        shutil.rmtree(kept, ignore_errors=True)
    return result


def _seed_by_seed(measure: Measure, data: Path | None, seeds: Sequence[int], budget: str, folder: Path) -> list[Row]:
    """The rows of all seeds; those of one are kept as soon as they are there, with what they were measured by and on."""
    code = hashlib.sha256(str(data).encode())
    for path in sorted([*HERE.rglob("*.py"), *Path(hourglass.__file__).parent.rglob("*.py")]):
        code.update(path.read_bytes())
    rows: list[Row] = []
    for seed in seeds:
        path = folder / f"{seed}.json"
        found = read_json(path) if path.is_file() else {}
        if found.get("code") != code.hexdigest():
            found = {"code": code.hexdigest(), "rows": [asdict(row) for row in measure(data, (seed,), budget)]}
            folder.mkdir(parents=True, exist_ok=True)
            write_json(path, json.loads(json.dumps(found)))
        rows += [Row(**row) for row in found["rows"]]
    return rows


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
