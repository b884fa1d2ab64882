"""Writes docs/measured.md from the results that claims and benchmarks have kept.

python docs/generate.py            write it
python docs/generate.py --check    say whether it is as the results are (exit code 1 if not)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "measured.md"


def page() -> str:
    """The page's text."""
    parts = [
        "# Measured",
        "This page is generated (`python docs/generate.py`) from `claims/results/` and `benchmarks/results/`, which hold every row.",
        "## Claims",
        "A claim is stated before it is measured; its verdict follows from the interval of the paired differences over units "
        "(properties, classes), seeds of a unit averaged first.",
    ]
    for file in sorted((ROOT / "claims" / "results").glob("*.json")):
        parts += _claim(json.loads(file.read_text(encoding="utf-8")))
    parts.append("## Benchmarks")
    for file in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        parts += _benchmark(file.stem, json.loads(file.read_text(encoding="utf-8")))
    return "\n\n".join(parts) + "\n"


def _claim(result: dict[str, Any]) -> list[str]:
    rows = [
        "| part | units | ours | baseline | difference | 95 % interval | units won | verdict |",
        "|---|---|---|---|---|---|---|---|",
    ]
    notes = []
    for part, v in result["verdict"].items():
        rows.append(
            f"| {part} | {v['units']} | {v['mean_ours']:.3f} | {v['mean_baseline']:.3f} | {v['difference']:+.3f} "
            f"| {v['low']:+.3f} to {v['high']:+.3f} | {round(v['wins'] * v['units'])} | **{v['verdict']}** |"
        )
        notes.append(f"- *{part}*: {v['statement']} Metric: {v['metric']}. Baseline: {v['baseline']}.")
    head = f"### {result['paper']}: {result['data']}"
    made = f"`{result['command']}`, seeds {', '.join(map(str, result['seeds']))}, {result['machine']}"
    return [head, made, "\n".join(rows), "\n".join(notes)]


def _benchmark(name: str, result: dict[str, Any]) -> list[str]:
    rows = ["| what | value |", "|---|---|"]
    for part in ("ours", "peers", "ratio", "floor"):
        rows += [
            f"| {part}: {key} | {value} |"
            for key, value in _flat(result[part])
            if "versions" not in key and "rounds" not in key
        ]
    work, machine = (", ".join(f"{k} {v}".strip() for k, v in _flat(result[key])) for key in ("work", "machine"))
    return [
        f"### {name}",
        work.removeprefix("value "),
        f"`{result['command']}`, {machine.removeprefix('value ')}",
        "\n".join(rows),
    ]


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [pair for key, inner in value.items() for pair in _flat(inner, f"{prefix} {key}".strip())]
    if isinstance(value, list):
        return [(prefix, ", ".join(map(str, value)))]
    return [(prefix or "value", f"{value:.4g}" if isinstance(value, float) else value)]


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page() else 1)
    PAGE.write_text(page(), encoding="utf-8")
