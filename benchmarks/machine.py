"""The machine that a benchmark ran on, and how it was called, in words for its result. Standard library only: peers' pythons import it, too."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path


def describe() -> dict[str, str | int]:
    return {"cpu": cpu(), "cores": len(os.sched_getaffinity(0)), "system": platform.platform()}


def cpu() -> str:
    """Name, family and model: how fast bfloat16 is depends on the generation."""
    file = Path("/proc/cpuinfo")
    if not file.exists():
        return platform.processor()
    lines = file.read_text().split("\n\n")[0].splitlines()
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return ", ".join(
        " ".join(word for word in (prefix, values[key]) if word)
        for key, prefix in (("model name", ""), ("cpu family", "family"), ("model", "model"))
        if key in values
    )


def command() -> str:
    """How the benchmark was called; of paths only the last part, as the rest is this machine's alone."""
    said = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    return " ".join([f"python benchmarks/{Path(sys.argv[0]).name}", *said])
