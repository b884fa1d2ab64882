"""Documents of like length, and halves of them.

Longer documents contain more of everything, so what is compared has to be alike in length. What is chosen on one half is
measured on the other, which had no say.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

STEP = 1.25
"""Documents within a step of 25 % are alike in length."""
SMALLEST = 50
"""Documents that a stratum has at least: among fewer, chance cannot be told from a common cause."""
FEWEST = 20
"""So few documents show nothing."""
FEWEST_SPLIT = 80
"""So few documents are not halved: a half could select nothing."""


def length_steps(tokens: Array) -> Array:
    """[n] the step of 25 % in which each length falls."""
    return np.floor(np.log(np.maximum(tokens, 1)) / np.log(STEP)).astype(np.int64)


def length_strata(*lengths: Array, smallest: int = SMALLEST) -> Array:
    """[n] number of the stratum of each document, 0 upwards: the steps of its lengths, small ones with the next.

    With two lengths a document (of a prompt and of its answer), the strata of the first are cut by the second.
    """
    stratum = np.zeros(len(lengths[0]), np.int64)
    for tokens in lengths:
        steps = length_steps(tokens)
        finer, next_number = np.zeros_like(stratum), 0
        for number in range(stratum.max(initial=-1) + 1):
            inside = stratum == number
            finer[inside] = next_number + merged(steps[inside], smallest)
            next_number = finer[inside].max() + 1
        stratum = finer
    return stratum


def merged(steps: Array, smallest: int) -> Array:
    """[n] numbers from 0 in the order of the steps, going on with the same number until enough documents have it."""
    values, where, counts = np.unique(steps, return_inverse=True, return_counts=True)
    number, gathered, of_value = 0, 0, np.zeros(len(values), np.int64)
    for i, count in enumerate(counts):
        of_value[i] = number
        gathered += count
        if gathered >= smallest and counts[i + 1 :].sum() >= smallest:  # what is left is enough for another
            number, gathered = number + 1, 0
    return of_value[where.ravel()]


def halves(strata: Array, random: np.random.Generator) -> Array:
    """[n] 0 selects, 1 estimates; each stratum is halved."""
    order = np.lexsort((random.random(len(strata)), strata))
    half = np.zeros(len(strata), np.int64)
    half[order[1::2]] = 1
    return half
