"""The transcoder: what a part of a network does, as a sum of a few directions out of very many.

In:  rows x [n, d_in] that go into a part of a network, rows y [n, d_out] that come out of it (of an MLP, usually).
Out: codes [n, width], few of them active; y is about codes @ W_dec + offset, and with `skip` an affine function of x more.

It is the sparse autoencoder whose target is another row than the one it reads. Dunefsky, Chlenski and Nanda,
"Transcoders find interpretable LLM feature circuits" (2024); with the skip connection: Paulo, Shabalin and Belrose,
"Transcoders beat sparse autoencoders for interpretability" (2025).

How it is learned
1. Inputs and targets are shifted to their geometric medians and scaled to mean distance sqrt(width), each by its own.
2. An encoder row starts as half the whitened difference of a random pair of inputs, its decoder row as the whitened
   difference of the two targets; the skip connection starts at zero.
3. The rest is the autoencoder's: kinds, price of activity, AuxK on what is left of the target, decoder rows of norm 1.

Differences from the papers
- The decoder does not start at zero (Paulo et al.), which rows of norm 1 cannot. On 125,000 states of MiniLM's third
  block, width 2048, k 32, 150 steps: 34.4 % of the variance of the feed-forward part's output unexplained (29.2 % with
  a skip connection), 38.8 % from random directions, 39.9 % from what goes with each latent in the sample.
- The encoder sees inputs less a fixed centre, which keeps products in bfloat16 exact enough; on paper it is a part of
  its bias. So does the skip connection.
- Dunefsky et al. train with ReLU and L1, Paulo et al. with top-k: here every kind of the autoencoder serves. `sae.py`
  has the differences that are shared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hourglass.bottlenecks.sparse.coder import SparseCoder, SparseCoderConfig, as_rows, centred, whitened
from hourglass.bottlenecks.sparse.reconstruction import unit_rows_
from hourglass.errors import ConfigError
from hourglass.waist import Batch


@dataclass(frozen=True, kw_only=True)
class TranscoderConfig(SparseCoderConfig):
    """Settings of a transcoder: those of `SparseCoderConfig`, and

    d_out  width of a target; None: d_in
    skip   add an affine function of the input to the reconstruction
    """

    d_out: int | None = None
    skip: bool = False

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {"d_in": 16, "d_out": 12, "width": 64, "k": 4, "skip": True},
        "base": {"d_in": 384, "width": 4096, "k": 32},
        "paper": {"d_in": 768, "width": 24_576, "k": 32, "skip": True},
    }

    @property
    def columns(self) -> int:
        return self.d_in if self.d_out is None else self.d_out

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.columns < 1:
            raise ConfigError(f"d_out {self.d_out}: must be at least 1")


class Transcoder(SparseCoder):
    """Codes of inputs that reconstruct targets; weights as in `SparseCoder`, with decoder rows of norm 1.

    Beside these: `centre` [d_in] of the scaled inputs, `target_scale`, and `W_skip` [d_out, d_in] or None. Codes and
    reconstructions are in the units of the target. An example is an input and its target side by side, [d_in + d_out].
    """

    Config = TranscoderConfig
    modality = "pairs"

    config: TranscoderConfig
    centre: Tensor
    target_scale: Tensor

    def __init__(self, config: TranscoderConfig) -> None:
        super().__init__(config)
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("target_scale", torch.ones(()))
        self.register_buffer("centre", torch.zeros(config.d_in))
        self.W_skip = nn.Parameter(torch.zeros(config.columns, config.d_in)) if config.skip else None
        with torch.no_grad():
            self.encoder.weight.copy_(0.5 * F.normalize(self.encoder.weight, dim=1))
            self.encoder.bias.zero_()

    def collate(self, examples: Sequence[Any] | np.ndarray | Tensor) -> Batch:
        """Rows [n, d_in + d_out] (array, tensor, or a list) to {"x": float32 [n, d_in], "target": [n, d_out]}."""
        rows = as_rows(examples, self.config.d_in + self.config.columns)
        return {"x": rows[:, : self.config.d_in], "target": rows[:, self.config.d_in :]}

    @torch.no_grad()
    def initialize(self, batches: Iterable[Batch]) -> None:
        """Set centres, scales and directions from the first 8,192 rows."""
        first = self._first_rows(batches)
        x, centre, spread = centred(first["x"])
        y, target_centre, target_spread = centred(first["target"])
        if self.config.normalize and spread > 0:
            self.scale.copy_(math.sqrt(self.config.d_in) / spread)
        if self.config.normalize and target_spread > 0:
            self.target_scale.copy_(math.sqrt(self.config.columns) / target_spread)
        self.centre.copy_(centre * self.scale)
        self.b_dec.copy_(target_centre * self.target_scale)
        pairs = torch.randint(len(x), (2, self.config.width), device=x.device)
        for rows, weight, size in ((x, self.encoder.weight, 0.5), (y, self.W_dec, 1.0)):
            directions = whitened(rows[pairs[0]] - rows[pairs[1]], rows)
            some = torch.linalg.vector_norm(directions, dim=1) > 0
            weight[some] = size * F.normalize(directions[some], dim=1)
        self._start_activation(x * self.scale)

    @torch.no_grad()
    def skipped(self, x: Tensor) -> Tensor:
        """[n, d_out] what the skip connection adds to `decode(codes(x))`, in the units of the target; zero without."""
        if self.W_skip is None:
            return self.b_dec.new_zeros(len(x), self.config.columns)
        return (x.to(self.W_skip) * self.scale - self.centre) @ self.W_skip.T / self.target_scale

    @property
    def unit(self) -> Tensor:
        """Scalar: the scale of the targets."""
        return self.target_scale

    @property
    def directions(self) -> Tensor:
        """[width, d_out], of norm 1."""
        return self.W_dec

    @property
    def offset(self) -> Tensor:
        """[d_out] what a row without active latents decodes to, in the units of the target."""
        return self.b_dec.detach() / self.target_scale

    @property
    def _centre(self) -> Tensor:
        return self.centre

    @property
    def _decoder(self) -> Tensor:
        return self.W_dec

    def _target(self, batch: Batch, x: Tensor) -> Tensor:
        target = batch["target"].to(self.W_dec.dtype) * self.target_scale
        return target if self.W_skip is None else target - (x - self.centre) @ self.W_skip.T

    def _normalize(self) -> None:
        unit_rows_(self.W_dec)
