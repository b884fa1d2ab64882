"""How much of the data a reconstruction keeps."""

from __future__ import annotations

import torch
from torch import Tensor


def fvu(x: Tensor, restored: Tensor) -> float:
    """Fraction of variance unexplained of rows x [n, d]: squared error over squared distance from the mean row.

    0 is perfect, 1 is no better than the mean; NaN when all rows are equal.
    """
    x, restored = x.double(), restored.double()
    error = (x - restored).square().sum()
    return float(error / (x - x.mean(0)).square().sum())


class RunningFvu:
    """The same for rows that come a batch at a time, in the memory of a batch."""

    def __init__(self) -> None:
        self.rows = 0
        self.error = self._squares = 0.0
        self._origin: Tensor | None = None
        self._shift = torch.zeros((), dtype=torch.float64)

    def add(self, x: Tensor, restored: Tensor) -> None:
        """Rows [n, d] and what they were restored to."""
        if not len(x):
            return
        x, restored = x.double(), restored.double()
        # Squares are summed around a row, not around 0, or they would drown the variance of rows that are far off together.
        if self._origin is None:
            self._origin = x[:1]
        away = x - self._origin
        self.rows += len(x)
        self.error += float((x - restored).square().sum())
        self._squares += float(away.square().sum())
        self._shift = self._shift + away.sum(0)

    @property
    def variance(self) -> float:
        """Sum over rows and columns of the squared distance from the mean row."""
        if self._squares == 0:
            return 0.0
        return max(0.0, self._squares - float(self._shift.square().sum()) / self.rows)

    @property
    def fvu(self) -> float | None:
        """None when all rows are equal."""
        return self.error / self.variance if self.variance > 0 else None
