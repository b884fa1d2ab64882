"""What there is to say of a sparse autoencoder from rows alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


class Transcoding(Coder, Protocol):
    """A transcoder, whose reconstruction has a part that does not go through the code."""

    def skipped(self, x: Tensor) -> Tensor: ...


def measure_sae(sae: Coder, rows: Rows, parts: Sequence[int] = ()) -> dict[str, Any]:
    """Reconstruction and sparsity of an autoencoder on rows [n, d] (held out, best), as values for JSON.

    parts  widths of the parts of a row that a crosscoder reconstructs, each of which counts alike

    rows                the number of rows
    width               the number of latents
    fvu                 fraction of variance unexplained: 0 is perfect, 1 no better than the mean row; null when all rows
                        are equal. With parts, their mean, and fvu_parts has that of each
    l0                  active latents in a row, on average
    dead, dead_share    latents that are active in none of the rows: their number, and as a share of all latents
    dense, dense_share  latents that are active in more than a tenth of the rows, likewise
    density_histogram   {"edges", "counts"}: latents by the log10 of the share of rows in which they are active

    Whether a latent is dead depends on the number of rows: one that is active once in a million looks dead in 10,000.
    Rows are read and coded a few thousand at a time. Raises SourceError when there is none.
    """
    return _measure(sae, rows, rows, lambda x, codes: sae.decode(codes), parts)


def measure_transcoder(transcoder: Transcoding, rows: Rows, targets: Rows) -> dict[str, Any]:
    """As `measure_sae`: how much of `targets` [n, d_out] the codes of rows [n, d_in] (and the skip connection) leave."""
    return _measure(transcoder, rows, targets, lambda x, codes: transcoder.decode(codes) + transcoder.skipped(x), ())


def _measure(
    coder: Coder, rows: Rows, targets: Rows, restored: Callable[[Tensor, Any], Tensor], parts: Sequence[int]
) -> dict[str, Any]:
    if not len(rows):
        raise SourceError("no rows to measure on: expected at least one")
    widths = list(parts) or [_tensor(targets[:1]).shape[1]]
    kept, active, fired = [RunningFvu() for _ in widths], 0, torch.zeros((), dtype=torch.int64)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        x, exact = (_tensor(some[start : start + _ROWS_AT_ONCE]) for some in (rows, targets))
        codes: Codes = coder.codes(x)
        made = restored(x, codes).to(exact.device)
        for part, *pair in zip(kept, exact.split(widths, dim=1), made.split(widths, dim=1)):
            part.add(*pair)
        fired = fired + sparsity.counts(codes)
        active += len(codes.indices)
    by_part = [part.fvu for part in kept]
    fvus = [fvu for fvu in by_part if fvu is not None]
    density = fired.double() / len(rows)
    dead, dense = int(sparsity.dead(density).sum()), int(sparsity.dense(density).sum())
    return {
        "rows": len(rows),
        "width": len(density),
        "fvu": sum(fvus) / len(fvus) if len(fvus) == len(by_part) else None,
        **({"fvu_parts": by_part} if parts else {}),
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
