"""How much of the data a reconstruction keeps."""

from __future__ import annotations

from torch import Tensor


def fvu(x: Tensor, restored: Tensor) -> float:
    """Fraction of variance unexplained of rows x [n, d]: squared error over squared distance from the mean row.

    0 is perfect, 1 is no better than the mean; NaN when all rows are equal.
    """
    x, restored = x.double(), restored.double()
    error = (x - restored).square().sum()
    return float(error / (x - x.mean(0)).square().sum())
