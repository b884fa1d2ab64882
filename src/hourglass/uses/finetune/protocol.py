"""How encoders are compared by fine-tuning: every learning rate of a grid with every seed, the best rate picked on validation
data, mean and interval over seeds on test data; and how much hangs on the rate.

    done = fine_tune(lambda: Classifier(config, model), train, validation, test)
    done.test                  # at the best rate, mean and 95 % interval over the seeds
    done.stability             # spread of the test score over the grid

The recipe is that of Gisserot-Boukhlef et al. 2025 (arXiv 2507.00994): at most 1,000 steps or one epoch, batches of 32, 10 %
warm-up, linear decay, six rates, five seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import numpy as np
import torch

from hourglass.errors import ConfigError, TrainingError
from hourglass.metrics.estimates import Estimate, of_seeds
from hourglass.training import TrainConfig, fit
from hourglass.training.randomness import INITIALIZE, seeded
from hourglass.waist import Waist

Array = np.ndarray[Any, Any]

RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4)
SEEDS = (0, 1, 2, 3, 4)


class Scored(Protocol):
    """A head: a system that can say how well it does."""

    def score(self, examples: Any) -> Estimate: ...


@dataclass(frozen=True)
class Stability:
    """How the test score, mean over seeds, varies over the rates: largest minus smallest, and the standard deviation.

    Rates at which a run diverged are left out and counted.
    """

    spread: float
    deviation: float
    diverged: int

    def to_dict(self) -> dict[str, float]:
        return dict(vars(self))


@dataclass(frozen=True)
class FineTuned:
    """What came of it.

    rates               the grid
    seeds               of the runs
    validation, scores  [rates, seeds] on validation and on test data; NaN where a run diverged
    best                the rate with the best mean on validation data, all its runs having come to an end
    """

    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    validation: Array
    scores: Array
    best: float

    @property
    def test(self) -> Estimate:
        """Test score at the best rate: mean and interval over seeds."""
        return of_seeds(self.scores[self.rates.index(self.best)])

    @property
    def stability(self) -> Stability:
        means = self.scores.mean(1)
        finite = means[np.isfinite(means)]
        return Stability(float(np.ptp(finite)), float(finite.std()), int(len(means) - len(finite)))

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON; a run that diverged is null."""
        return {
            "best": self.best,
            "test": self.test.to_dict(),
            "stability": self.stability.to_dict(),
            "rates": list(self.rates),
            "seeds": list(self.seeds),
            "validation": _plain(self.validation),
            "scores": _plain(self.scores),
        }


def recipe(examples: int) -> TrainConfig:
    """The settings of the paper for so many training examples; rate and seed are the protocol's."""
    batch = min(32, examples)
    return TrainConfig(
        steps=min(1000, -(-examples // batch)), batch_size=batch, schedule="linear", warmup=0.1, weight_decay=0.01
    )


def fine_tune(
    make: Callable[[], Waist],
    train: Sequence[Any],
    validation: Any,
    test: Any,
    *,
    config: TrainConfig | None = None,
    rates: Sequence[float] = RATES,
    seeds: Sequence[int] = SEEDS,
) -> FineTuned:
    """Train a head for every rate and seed, and score it.

    make              a new head on the encoder as it was before: heads copy it
    train             examples of the head
    validation, test  what its `score` takes: examples, or a `Judged` for retrieval
    config            of the runs, their `lr` and `seed` replaced; None: `recipe`

    Raises ConfigError for an empty grid, TrainingError when at every rate a run diverges.
    """
    if not len(rates) or not len(seeds):
        raise ConfigError("rates and seeds: expected one or more of each")
    plan = recipe(len(train)) if config is None else config
    on_validation, on_test = (np.full((len(rates), len(seeds)), np.nan) for _ in range(2))
    for row, rate in enumerate(rates):
        for column, seed in enumerate(seeds):
            with seeded(torch.device("cpu"), seed, INITIALIZE):
                head = make()
            try:
                fit(head, train, replace(plan, lr=rate, seed=seed), progress=False)
            except TrainingError:
                continue
            scored = cast(Scored, head)
            on_validation[row, column] = scored.score(validation).value
            on_test[row, column] = scored.score(test).value
    means = on_validation.mean(1)
    if np.isnan(means).all():
        raise TrainingError(f"at every rate ({', '.join(map(str, rates))}) a run diverges; lower them")
    best = float(rates[int(np.nanargmax(means))])
    return FineTuned(tuple(map(float, rates)), tuple(seeds), on_validation, on_test, best)


def _plain(values: Array) -> list[list[float | None]]:
    return [[None if np.isnan(value) else float(value) for value in row] for row in values]
