"""A number with its interval, and how the interval is had: over seeds by Student's t, over rows by the bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import t

from hourglass.metrics.ranking import bootstrap_interval

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval; `low` and `high` are NaN where `n`, the seeds or rows behind it, is 1."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def of_seeds(values: Sequence[float] | Array) -> Estimate:
    """The mean of a few values that differ by a seed: Student's t."""
    values = np.asarray(values, float)
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return Estimate(float(values.mean()), float(values.mean() - half), float(values.mean() + half), len(values))


def of_rows(values: Sequence[float] | Array) -> Estimate:
    """The mean of a value for each of many rows (queries, texts): bootstrap."""
    values = np.asarray(values, float)
    return Estimate(float(values.mean()), *bootstrap_interval(values), len(values))


def of_statistic(statistic: Callable[[Array], float], n: int, draws: int = 1000, seed: int = 0) -> Estimate:
    """What is no mean: `statistic` takes the numbers of rows [n], which the bootstrap draws with replacement.

    Draws for which it is not finite (one class only, all equal) do not count.
    """
    random = np.random.default_rng(seed)
    drawn = np.array([statistic(random.integers(0, n, n)) for _ in range(draws)])
    finite = drawn[np.isfinite(drawn)]
    low, high = np.quantile(finite, [0.025, 0.975]) if len(finite) else (np.nan, np.nan)
    return Estimate(float(statistic(np.arange(n))), float(low), float(high), n)
