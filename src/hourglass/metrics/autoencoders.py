"""What there is to say of a sparse autoencoder from rows alone."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from hourglass.errors import SourceError
from hourglass.metrics import sparsity
from hourglass.metrics.reconstruction import RunningFvu
from hourglass.metrics.sparsity import Codes

_ROWS_AT_ONCE = 8192


class Rows(Protocol):
    """Rows [n, d] of a tensor, an array, or a file that is read a slice at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Any: ...


class Coder(Protocol):
    """What is needed of an autoencoder: rows to sparse codes, and back."""

    def codes(self, x: Tensor) -> Any: ...

    def decode(self, latent: Any) -> Tensor: ...


def measure_sae(sae: Coder, rows: Rows) -> dict[str, Any]:
    """Reconstruction and sparsity of an autoencoder on rows [n, d] (held out, best), as values for JSON.

    rows                the number of rows
    width               the number of latents
    fvu                 fraction of variance unexplained: 0 is perfect, 1 no better than the mean row; null when all rows
                        are equal
    l0                  active latents in a row, on average
    dead, dead_share    latents that are active in none of the rows: their number, and as a share of all latents
    dense, dense_share  latents that are active in more than a tenth of the rows, likewise
    density_histogram   {"edges", "counts"}: latents by the log10 of the share of rows in which they are active

    Whether a latent is dead depends on the number of rows: one that is active once in a million looks dead in 10,000.
    Rows are read and coded a few thousand at a time. Raises SourceError when there is none.
    """
    if not len(rows):
        raise SourceError("no rows to measure on: expected at least one")
    kept, active, fired = RunningFvu(), 0, torch.zeros((), dtype=torch.int64)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        x = _tensor(rows[start : start + _ROWS_AT_ONCE])
        codes: Codes = sae.codes(x)
        kept.add(x, sae.decode(codes).to(x.device))
        fired = fired + sparsity.counts(codes)
        active += len(codes.indices)
    density = fired.double() / len(rows)
    dead, dense = int(sparsity.dead(density).sum()), int(sparsity.dense(density).sum())
    return {
        "rows": len(rows),
        "width": len(density),
        "fvu": kept.fvu,
        "l0": active / len(rows),
        "dead": dead,
        "dead_share": dead / len(density),
        "dense": dense,
        "dense_share": dense / len(density),
        "density_histogram": sparsity.log_density_histogram(density),
    }


def _tensor(rows: Any) -> Tensor:
    """float32 rows, a copy: an array may be a read-only memory map."""
    return rows.detach().float() if isinstance(rows, Tensor) else torch.from_numpy(np.array(rows, dtype=np.float32))
