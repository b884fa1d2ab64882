"""p of what was found, from what shuffling gave, also where no shuffle comes near it.

Far out p is the tail of a normal-inverse Gaussian distribution with the mean, variance, skewness and kurtosis of the shuffles
(Barndorff-Nielsen 1997). A gamma distribution, fitted to three of them (Knijnenburg and others 2009 compare such fits), is too
light for sums over few pairs: a p of 1e-5 is passed 4 to 5 times as often as it says with the gamma, twice with this one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import ndtr

Array = np.ndarray[Any, Any]

COUNTED = 10
"""Where fewer shuffles reach what was found, the tail is fitted, and p is at least the median of what their number speaks for."""
_LEAST_SKEWNESS, _LEAST_RATIO = 1e-3, 1.7
"""The distribution leans to the right, and its kurtosis above 3 is more than 5/3 of the square of its skewness."""
_POINTS, _FARTHEST = 241, 60.0
"""Of the integral; minus the log of what it leaves out, in parts of its largest value."""


def shuffled_p(found: Array, drawn: Array) -> Array:
    """[items] the chance of at least what was found; drawn [draws, items] is what shuffling gave."""
    reached, spread = (drawn >= found).sum(0), drawn.std(0)
    moves = spread > 0
    safe = np.where(moves, spread, 1)
    z = (drawn - drawn.mean(0)) / safe
    skewness = np.maximum((z**3).mean(0), _LEAST_SKEWNESS)
    excess = np.maximum((z**4).mean(0) - 3, _LEAST_RATIO * skewness**2)
    fitted = np.where(moves, heavy_tail((found - drawn.mean(0)) / safe, skewness, excess), 1)
    return np.where(
        reached >= COUNTED, (reached + 1) / (len(drawn) + 1), np.maximum(fitted, (reached - 1 / 3) / len(drawn))
    )


def heavy_tail(z: Array, skewness: Array, excess: Array) -> Array:
    """[items] P(Z >= z) of the normal-inverse Gaussian distribution of mean 0 and variance 1.

    skewness, excess  [items] more than 0; kurtosis less 3, more than 5/3 skewness^2

    scipy's `norminvgauss.sf` integrates to 1e-8 of the whole, where a p of 1e-7 is asked for. Here the integral is over the
    variance of the normal distributions that are mixed, in steps of its logarithm around the largest value: every term is above 0,
    so that all digits stay.
    """
    ratio = 3 * excess / skewness**2 - 4
    alpha = 3 / excess * (1 + 4 / ratio) / np.sqrt(1 - 1 / ratio)
    beta = alpha / np.sqrt(ratio)
    gamma = np.sqrt(alpha**2 - beta**2)
    x = beta / gamma + alpha / gamma**1.5 * z
    far = np.sqrt(1 + x**2)
    steps = np.linspace(-1, 1, _POINTS)[:, None] * np.arccosh(1 + _FARTHEST / (gamma * far))
    variance = far / alpha * np.exp(steps)
    root = np.sqrt(variance)
    mixed = np.exp(-((gamma * root - 1 / root) ** 2) / 2) / root / np.sqrt(2 * np.pi)
    return (mixed * ndtr((beta * variance - x) / root)).sum(0) * (steps[1] - steps[0])
