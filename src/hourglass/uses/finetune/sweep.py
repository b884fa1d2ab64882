"""A setting of a system at several values: a model trained at each, tuned, and the value chosen on validation data.

table = sweep(
    (0.2, 0.3, 0.4, 0.5),
    lambda ratio: CLMMLM(CLMMLMConfig(ratio=ratio), tokenizer),
    lambda model: fine_tune(lambda: Classifier(config, model), train, validation, test),
    texts,
    TrainConfig(...),
)
table[table.chosen]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from hourglass.errors import ConfigError
from hourglass.metrics.estimates import of_seeds
from hourglass.training import TrainConfig, fit
from hourglass.training.randomness import INITIALIZE, seeded
from hourglass.uses.finetune.protocol import FineTuned
from hourglass.waist import Waist


def sweep(
    values: Sequence[Any],
    make: Callable[[Any], Waist],
    tune: Callable[[Any], FineTuned],
    data: Any,
    config: TrainConfig,
    *,
    out: Path | None = None,
) -> pd.DataFrame:
    """Train and tune a model for each of the values; all begin with the same random numbers and see the data in the same order.

    make    a value to a new model
    tune    a trained model to what `fine_tune` makes of it
    out     folder of the runs, each in one named after its value; the same call goes on where it stopped

    Returns a row a value: `value`; `validation` and `test`, each with its `_low` and `_high`, mean and 95 % interval over the
    seeds of tuning at the best rate; that `rate`; `spread`, how much of the test score hangs on the rate; `chosen`, true for
    the best mean on validation data. Raises ConfigError for no value and for one that is given twice.
    """
    names = [str(value).replace("/", "-") for value in values]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"values {tuple(values)}: expected one or more, each once")
    rows = []
    for name, value in zip(names, values):
        with seeded(torch.device("cpu"), config.seed, INITIALIZE):
            model = make(value)
        fit(model, data, config, out=None if out is None else Path(out) / name)
        done = tune(model)
        row = {"value": value}
        for part, scores in (("validation", done.validation), ("test", done.scores)):
            found = of_seeds(scores[done.rates.index(done.best)])
            row |= {part: found.value, f"{part}_low": found.low, f"{part}_high": found.high}
        rows.append({**row, "rate": done.best, "spread": done.stability.spread})
    table = pd.DataFrame(rows)
    return table.assign(chosen=table.index == table.validation.idxmax())
