"""Writes measured.md, variants.md and variants.svg from the results that claims and benchmarks have kept.

python docs/generate.py            write them
python docs/generate.py --check    say whether they are as the results are (exit code 1 if not)
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
RESULTS = ROOT / "benchmarks" / "results"
COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c6bb1"]
"""Of Okabe and Ito, told apart by colour-blind readers."""


def pages() -> dict[str, str]:
    """All that is generated, by the name of its file in docs/."""
    variants = json.loads((RESULTS / "sae_variants.json").read_text(encoding="utf-8"))
    return {"measured.md": measured(), "variants.md": _variants(variants), "variants.svg": _pareto(variants["ours"])}


def measured() -> str:
    """The page of all results."""
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
    for file in sorted(RESULTS.glob("*.json")):
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


def _variants(result: dict[str, Any]) -> str:
    """The kinds of sparse autoencoder side by side: what they leave unexplained, and what a step costs."""
    levels = sorted({level for kind in result["ours"].values() for level in kind["levels"]}, key=float)
    error = [
        "| kind | " + " | ".join(f"asked for {level}" for level in levels) + " | silent at the last |",
        "|---|" + "---|" * (len(levels) + 1),
    ]
    cost = ["| kind | ours, ms | " + " | ".join(result["peers"]) + " |", "|---|" + "---|" * (len(result["peers"]) + 1)]
    for name, kind in result["ours"].items():
        cells = [f"{at['fvu']:.3f} at {at['l0']:.1f}" if (at := kind["levels"].get(level)) else "-" for level in levels]
        last = kind["levels"].get(levels[-1])
        silent = f"{100 * last['dead_share']:.1f} %" if last else "-"
        error.append(f"| {name} | {' | '.join(cells)} | {silent} |")
        peers = (theirs.get(name) for theirs in result["peers"].values())
        ratios = (f"{kind['cpu_ms'] / p['cpu_ms']:.2f}" if p and "cpu_ms" in p else "has it not" for p in peers)
        cost.append(f"| {name} | {kind['cpu_ms']:.1f} | {' | '.join(ratios)} |")
    work = result["work"]
    return (
        "\n\n".join(
            [
                "# Which kind of sparse autoencoder?",
                "This page is generated (`python docs/generate.py`) from `benchmarks/results/sae_variants.json`.",
                f"{work['rows']}. Width {work['width']:,}, {work['steps']} steps of {work['batch']:,} rows, the learning rate "
                f"chosen for each kind on validation rows, one thread, {result['machine']['cpu']}. `{result['command']}`",
                "![Variance left unexplained against active latents a row, a line for each kind](variants.svg)",
                "## Variance left unexplained",
                "On rows that nothing was learned from: share of the variance, at so many active latents a row. Lower is better, and "
                "so is further left. What a kind reaches is not always what was asked of it.",
                "\n".join(error),
                "## What a step costs",
                "CPU time of a training step, and how much that is of the same kind's in other libraries (0.25: a quarter).",
                "\n".join(cost),
            ]
        )
        + "\n"
    )


def _pareto(kinds: dict[str, Any]) -> str:
    """FVU against L0 as a picture, a line a kind."""
    width, height, left, bottom, right = 760, 440, 62, 52, 120
    points = {name: sorted((at["l0"], at["fvu"]) for at in kind["levels"].values()) for name, kind in kinds.items()}
    sizes = [l0 for line in points.values() for l0, _ in line]
    errors = [fvu for line in points.values() for _, fvu in line]
    low, high = math.log2(min(sizes)) - 0.2, math.log2(max(sizes)) + 0.2
    top = math.ceil(20 * max(errors)) / 20

    def x(l0: float) -> float:
        return left + (width - left - right) * (math.log2(l0) - low) / (high - low)

    def y(fvu: float) -> float:
        return height - bottom - (height - bottom - 16) * fvu / top

    ticks = [2**n for n in range(math.ceil(low), math.floor(high) + 1)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for step in range(round(20 * top) + 1):
        at = y(step / 20)
        parts.append(f'<path d="M{left} {at:.1f}H{width - right}" stroke="#e4dfd5"/>')
        parts.append(f'<text x="{left - 8}" y="{at + 4:.1f}" text-anchor="end" fill="#5d6470">{5 * step} %</text>')
    parts += [
        f'<text x="{x(tick):.1f}" y="{height - bottom + 20}" text-anchor="middle" fill="#5d6470">{tick}</text>'
        for tick in ticks
    ]
    middle = (left + width - right) / 2
    parts.append(
        f'<text x="{middle}" y="{height - 10}" text-anchor="middle" fill="#1f2328">active latents a row</text>'
    )
    place = 30.0
    for (name, line), colour in zip(sorted(points.items(), key=lambda item: item[1][-1][1], reverse=True), COLOURS):
        path = "L".join(f"{x(l0):.1f} {y(fvu):.1f}" for l0, fvu in line)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x(l0):.1f}" cy="{y(fvu):.1f}" r="4" fill="{colour}"/>' for l0, fvu in line]
        parts.append(f'<circle cx="{width - right + 18}" cy="{place - 4}" r="5" fill="{colour}"/>')
        parts.append(f'<text x="{width - right + 30}" y="{place}" fill="#1f2328">{name}</text>')
        place += 22
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    generated = pages()
    if "--check" in sys.argv:
        there = {name: DOCS / name for name in generated}
        same = all(f.is_file() and f.read_text(encoding="utf-8") == generated[name] for name, f in there.items())
        sys.exit(0 if same else 1)
    for name, text in generated.items():
        (DOCS / name).write_text(text, encoding="utf-8")
