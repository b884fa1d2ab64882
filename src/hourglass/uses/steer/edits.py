"""What steering does to the state of a token: arithmetic on a few directions of a sparse autoencoder.

    add     x + alpha * row               row is the feature's unit decoder row, alpha is in the units of x
    clamp   x + (wanted - is) * row       `is` is the feature's activation in x, so what the autoencoder cannot
                                          reconstruct of x stays in it
    remove  clamp to 0

All edits of one call read the same x, so their order does not matter.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hourglass.bottlenecks.sparse.sae import SparseAutoencoder
from hourglass.errors import ConfigError


@dataclass(frozen=True)
class Edit:
    """One change of one feature; `add`, `clamp` and `remove` make it."""

    feature: int
    kind: Literal["add", "clamp"]
    value: float


def add(feature: int, alpha: float = 1.0) -> Edit:
    """Add `alpha` times the feature's direction."""
    return Edit(feature, "add", alpha)


def clamp(feature: int, value: float) -> Edit:
    """Set the feature's activation to `value`, whatever it is."""
    return Edit(feature, "clamp", value)


def remove(feature: int) -> Edit:
    """Take the feature out wherever it is active."""
    return clamp(feature, 0.0)


def scaled(edits: Sequence[Edit], alpha: float) -> list[Edit]:
    """The same edits with everything that is added `alpha` times as strong."""
    return [dataclasses.replace(e, value=alpha * e.value) if e.kind == "add" else e for e in edits]


class Change:
    """Edits made ready for one autoencoder: called with states [..., d] it gives the edited ones, same number format.

    Raises ConfigError, in one line, for a feature that does not exist or is edited twice.
    """

    def __init__(self, sae: SparseAutoencoder, edits: Sequence[Edit]) -> None:
        _check(edits, sae.config.width)
        self._sae = sae
        added = [e for e in edits if e.kind == "add"]
        clamped = [e for e in edits if e.kind == "clamp"]
        decoder = sae.W_dec.detach()
        alphas = decoder.new_tensor([e.value for e in added])
        self._shift = alphas @ decoder[[e.feature for e in added]]
        self._clamped = [e.feature for e in clamped]
        self._wanted = decoder.new_tensor([e.value for e in clamped])
        self._rows = decoder[self._clamped]

    def __call__(self, states: Tensor) -> Tensor:
        # In half precision the sum is rounded once, not the change and then the sum.
        exact = states.to(torch.promote_types(states.dtype, torch.float32)) + self._shift.to(states.device)
        if self._clamped:
            change = (self._wanted - self._activations(states.flatten(0, -2))) @ self._rows
            exact = exact + change.to(states.device).view_as(states)
        return exact.to(states.dtype)

    def _activations(self, x: Tensor) -> Tensor:
        """[n, clamped] what the clamped features are in x [n, d]."""
        codes = self._sae.codes(x.detach().to(self._rows.device))
        rows = codes.rows
        found = self._rows.new_zeros(len(x), len(self._clamped))
        for column, feature in enumerate(self._clamped):
            here = codes.indices == feature
            found[rows[here], column] = codes.values[here].to(found.dtype)
        return found


def _check(edits: Sequence[Edit], width: int) -> None:
    for edit in edits:
        if not 0 <= edit.feature < width:
            raise ConfigError(f"no feature {edit.feature}; they go from 0 to {width - 1}")
        if not math.isfinite(edit.value):
            raise ConfigError(f"feature {edit.feature}: {edit.kind} {edit.value} is not a number to steer by")
    for feature, times in Counter(edit.feature for edit in edits).items():
        if times > 1:
            raise ConfigError(f"feature {feature} is edited {times} times; give it one edit")
