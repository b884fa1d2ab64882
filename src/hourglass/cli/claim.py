"""hourglass claim"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from hourglass.cli.options import AsJson
from hourglass.cli.output import out, print_json, print_table
from hourglass.errors import InputError

BUDGETS = ("smoke", "laptop", "full")


def claim(
    name: Annotated[str, typer.Argument(help="The paper's short name, such as interpretable_embeddings.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder of public data sets (default: $HOURGLASS_DATA, else offline data).")
    ] = None,
    budget: Annotated[str, typer.Option(help="smoke, laptop or full.")] = "laptop",
    as_json: AsJson = False,
) -> None:
    """Measure a paper's claim: statement first, then numbers, intervals and a verdict. Needs a checkout."""
    if budget not in BUDGETS:
        raise InputError(f"no budget {budget!r}; there are: {', '.join(BUDGETS)}")
    if not Path("claims/base.py").is_file():
        raise InputError(f"{Path.cwd()}: no folder claims here; run it in a checkout of the project")
    sys.path.insert(0, str(Path.cwd()))
    from claims import base

    if data is None and "HOURGLASS_DATA" in os.environ:
        data = Path(os.environ["HOURGLASS_DATA"])
    if data is not None and not data.is_dir():
        raise InputError(f"{data}: no such folder of data sets")
    command = f"hourglass claim {name} --budget {budget}" + (" --data DIR" if data else "")
    result = base.run(name, data, budget, command)
    if as_json:
        print_json(result)
        return
    for part, found in result["verdict"].items():
        out.print(f"\n{part}: {found['statement']}", markup=False, style="bold")
        print_table(
            f"{found['metric']}; baseline: {found['baseline']}",
            ["units ", "ours ", "baseline ", "difference ", "95 % interval ", "margin ", "verdict"],
            [
                (
                    str(found["units"]),
                    f"{found['mean_ours']:.3f}",
                    f"{found['mean_baseline']:.3f}",
                    f"{found['difference']:+.3f}",
                    f"{found['low']:+.3f} … {found['high']:+.3f}",
                    f"{found['margin']:+.3f}",
                    found["verdict"],
                )
            ],
        )
