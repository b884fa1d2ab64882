"""Sparse codes: the native form of what a sparse autoencoder says about a batch of rows.

Rows are stored one after another (compressed sparse rows); an entry that is stored is active, a silent
latent is not stored. Dense tensors are made on demand only: at width 65,536 and k 64 they are 500 times larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor


@dataclass(frozen=True)
class SparseCodes:
    """Active latents of n rows.

    indices  [nnz] int32 or int64, the active latents of row 0, then of row 1, ...; ascending inside a row
    values   [nnz] float, their activations
    offsets  [n + 1] int64, row i owns entries offsets[i] : offsets[i + 1]
    width    number of latents
    """

    indices: Tensor
    values: Tensor
    offsets: Tensor
    width: int

    @classmethod
    def from_topk(cls, indices: Tensor, values: Tensor, width: int) -> SparseCodes:
        """From the k largest of each row, both [n, k]. Values <= 0 are silent (the activation is a ReLU) and are dropped."""
        rows, k = indices.shape
        if values.numel() == 0 or bool(values.min() > 0):
            offsets = torch.arange(rows + 1, device=indices.device) * k
            return cls(indices.reshape(-1), values.reshape(-1), offsets, width)
        active = values > 0
        return cls(indices[active], values[active], _offsets(active.sum(1)), width)

    @classmethod
    def from_dense(cls, dense: Tensor) -> SparseCodes:
        """From [n, width]; what is not zero is active."""
        rows, indices = dense.nonzero(as_tuple=True)
        return cls(indices, dense[rows, indices], _offsets((dense != 0).sum(1)), dense.shape[1])

    @classmethod
    def concatenate(cls, parts: Sequence[SparseCodes]) -> SparseCodes:
        """The rows of several codes of one width, one part after another."""
        return cls(
            torch.cat([part.indices for part in parts]),
            torch.cat([part.values for part in parts]),
            _offsets(torch.cat([part.offsets.diff() for part in parts])),
            parts[0].width,
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, rows: slice) -> SparseCodes:
        """A run of rows, `codes[10:20]`; shares memory with the whole."""
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise IndexError(f"codes are sliced in steps of 1, not {step}")
        offsets = self.offsets[start : max(start, stop) + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        return SparseCodes(self.indices[first:last], self.values[first:last], offsets - first, self.width)

    def where(self, kept: Tensor) -> SparseCodes:
        """The entries for which `kept` [nnz] holds."""
        offsets = torch.cat([kept.new_zeros(1, dtype=torch.int64), kept.cumsum(0)])[self.offsets]
        return SparseCodes(self.indices[kept], self.values[kept], offsets, self.width)

    def active(self) -> SparseCodes:
        """The same without entries of value 0 (or NaN)."""
        kept = self.values.abs() > 0
        return self if bool(kept.all()) else self.where(kept)

    def with_values(self, values: Tensor) -> SparseCodes:
        """The same entries with other values [nnz]."""
        return SparseCodes(self.indices, values, self.offsets, self.width)

    @property
    def rows(self) -> Tensor:
        """[nnz] int64, the row of each entry."""
        return torch.repeat_interleave(
            torch.arange(len(self), device=self.offsets.device), self.offsets.diff(), output_size=len(self.indices)
        )

    def to_dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """[n, width], zeros where a latent is silent."""
        dense = self.values.new_zeros(len(self), self.width, dtype=dtype or self.values.dtype)
        dense[self.rows, self.indices.long()] = self.values.to(dense.dtype)
        return dense

    def largest(self, offsets: Tensor) -> Tensor:
        """[n, width] largest activation of each latent over rows offsets[i] : offsets[i + 1], 0 where none is above 0."""
        run = torch.repeat_interleave(
            torch.arange(len(offsets) - 1, device=offsets.device), self.offsets[offsets].diff()
        )
        best = self.values.new_zeros((len(offsets) - 1) * self.width)
        best.scatter_reduce_(0, run * self.width + self.indices.long(), self.values, "amax")
        return best.view(-1, self.width)

    def to_scipy(self) -> sparse.csr_matrix:
        """The same as a scipy CSR matrix [n, width]; float values, memory shared where the device allows."""
        values = self.values.detach().cpu()
        if values.dtype in (torch.bfloat16, torch.float16):
            values = values.float()
        offsets = self.offsets.cpu().numpy()
        if len(values) <= np.iinfo(np.int32).max and self.indices.dtype == torch.int32:
            offsets = offsets.astype(np.int32)
        return sparse.csr_matrix(
            (values.numpy(), self.indices.cpu().numpy(), offsets), shape=(len(self), self.width), copy=False
        )


def _offsets(lengths: Tensor) -> Tensor:
    return torch.cat([lengths.new_zeros(1, dtype=torch.int64), lengths.cumsum(0, dtype=torch.int64)])
