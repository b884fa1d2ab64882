"""How many latents of a sparse autoencoder are active, and how often each is.

Codes come in sparse, as the autoencoder gives them: nothing here makes a dense matrix of rows and latents. What is said
of one latent follows from its density, the share of the rows in which it is active, so that a corpus can be counted a
batch at a time.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

DENSE = 0.1
"""Density above which a latent counts as dense: it fires too often to mean one thing."""
EDGES = tuple(np.linspace(-6, 0, 25).tolist())
"""Borders of the histogram of log10 density, in quarters of a decade."""


class Codes(Protocol):
    """What is needed of sparse codes, see `hourglass.bottlenecks.sparse.SparseCodes`: the active latents of each row.

    indices  [nnz] int, one entry for each latent that is active in a row
    width    number of latents
    """

    @property
    def indices(self) -> Tensor: ...

    @property
    def width(self) -> int: ...

    def __len__(self) -> int: ...


def l0(codes: Codes) -> float:
    """Mean number of active latents in a row; NaN when there is no row."""
    return len(codes.indices) / len(codes) if len(codes) else float("nan")


def counts(codes: Codes) -> Tensor:
    """[width] int64, the rows in which each latent is active."""
    return torch.bincount(codes.indices.long(), minlength=codes.width)


def density(codes: Codes) -> Tensor:
    """[width] float64, the share of the rows in which each latent is active; NaN when there is no row."""
    return counts(codes).double() / len(codes)


def dead(density: Tensor) -> Tensor:
    """[width] bool: latents that are active in none of the rows."""
    return density == 0


def dense(density: Tensor, above: float = DENSE) -> Tensor:
    """[width] bool: latents that are active in more than the share `above` of the rows."""
    return density > above


def log_density_histogram(density: Tensor, edges: tuple[float, ...] = EDGES) -> dict[str, list[Any]]:
    """Latents by the log10 of their density: {"edges": [m + 1] log10 of a share, "counts": [m] latents}.

    Each bin holds its lower edge, the last one both. What lies beyond the edges is counted in the outermost bins; dead
    latents, whose logarithm there is not, in none.
    """
    alive = density[density > 0].double().log10().cpu().numpy()
    found, _ = np.histogram(np.clip(alive, edges[0], edges[-1]), bins=edges)
    return {"edges": list(edges), "counts": found.tolist()}
