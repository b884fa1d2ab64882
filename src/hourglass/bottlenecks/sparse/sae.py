"""The sparse autoencoder: a vector as a sum of a few directions out of very many.

In:  rows x [n, d_in] (sentence embeddings, token states, image patches: any vectors).
Out: codes [n, width], few of them active, all >= 0 (but those of abstopk); x is about codes @ W_dec + offset.

How it is learned
1. Rows are shifted to their geometric median and scaled so that their mean distance from it is sqrt(d_in).
2. Decoder rows start as whitened differences of random pairs of rows, the encoder as the multiple of its transpose whose
   codes reconstruct the first rows best, biases at zero.
3. Each step encodes, keeps the active latents, decodes, and takes the mean squared error, with a price for activity in
   the kinds without k; its gradients touch the active latents only.
4. Decoder rows stay on the unit sphere: gradients are tangent to it, and rows are renormalised after the step.
5. Once more than 1 % of the latents have been silent for `dead_after` rows, the `aux_k` largest of those
   reconstruct what the others left over (AuxK), which brings them back.

Kinds (`activations/`, a file each)
- topk        the k largest of a row. Gao et al., "Scaling and evaluating sparse autoencoders" (2024).
- batchtopk   the k * n largest of a batch of n rows. Bussmann et al., "BatchTopK sparse autoencoders" (2024).
- abstopk     the k of a row that are farthest from 0, with their sign.
- matryoshka  batchtopk whose first latents reconstruct alone, too. Bussmann et al., "Learning multi-level features
              with matryoshka sparse autoencoders" (2025).
- relu        all that are positive, L1 on them. Bricken et al., "Towards monosemanticity" (2023).
- jumprelu    all above learned thresholds; their number, or a tanh of them, is the price. Rajamanoharan et al.,
              "Jumping ahead" (2024); the tanh: Anthropic (January 2025).
- gated       a gate, with L1 on it, and a magnitude. Rajamanoharan et al., "Improving dictionary learning with gated
              sparse autoencoders" (2024).

Differences from the paper
- The loss is the mean over rows and columns of scaled inputs, not divided by the variance of each batch; prices are
  divided by the number of columns, so that coefficients are the papers'.
- The decoder starts at whitened differences of rows, not at random directions, and the encoder below its transpose: k
  directions that overlap overshoot with the whole. By how much is measured on the first rows (half, in the kinds without
  k): the wider the dictionary, the nearer the k nearest are to each other. On simulated rows, 96 steps at lr 0.01, it is
  0.59 at width 2048, 0.44 at 8192 and 0.28 at 32,768, and leaves 9.9, 9.4 and 11.3 % of the variance unexplained; half
  left 10.0, 9.7 and 16.2 %, and random directions with half 16.2, 16.5 and 19.2 %. Rows themselves do as well there, but
  on token states they make features that cannot be named (see docs/LOG.md).
- The kinds without k start where `target_l0` latents of a row are active (d_in / 8 without a target), not at half of
  them, which would fill the memory: by their thresholds (jumprelu) or their bias (relu, gated).
- AuxK is computed only while more than 1 % of the latents are dead: below that it changed nothing but the time. It
  serves every kind, in place of resampling (relu, gated) and of a loss on silent pre-activations (jumprelu's tanh).
- `target_l0` leads the price and, of relu and jumprelu, moves all thresholds together a little after each step, where
  Rajamanoharan et al. put the squared distance from the target into the loss.
- The loss of matryoshka is the mean over its prefixes, which are fixed shares of the dictionary.
- Pre-activations are bfloat16 where the hardware multiplies it faster; weights, gradients and the activations that
  `codes` returns are float32. In the kinds that are not plain top-k, bfloat16 only finds the pairs.
- No weight averaging (EMA).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hourglass.bottlenecks.sparse.coder import SparseCoder, SparseCoderConfig, as_rows, centred, whitened
from hourglass.bottlenecks.sparse.reconstruction import decode, unit_rows_
from hourglass.bottlenecks.sparse.selection import largest_by_size, largest_per_row
from hourglass.waist import Batch

_HALF = 0.5


@dataclass(frozen=True, kw_only=True)
class SparseAutoencoderConfig(SparseCoderConfig):
    """Settings of a sparse autoencoder: those of `SparseCoderConfig`, and

    apply_b_dec_to_input  the encoder sees x - b_dec; False: x
    """

    apply_b_dec_to_input: bool = True

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {"d_in": 16, "width": 64, "k": 4},
        "base": {"d_in": 384, "width": 4096, "k": 32},
        "paper": {"d_in": 4096, "width": 65_536, "k": 64, "activation": "batchtopk"},
    }


class SparseAutoencoder(SparseCoder):
    """A sparse autoencoder over rows of numbers; weights as in `SparseCoder`, with one `scale` and decoder rows of norm 1.

    Codes and reconstructions are in the units of the data.
    """

    Config = SparseAutoencoderConfig
    modality = "vectors"

    config: SparseAutoencoderConfig

    def __init__(self, config: SparseAutoencoderConfig) -> None:
        super().__init__(config)
        self.register_buffer("scale", torch.ones(()))
        with torch.no_grad():
            self.encoder.weight.copy_(_HALF * self.W_dec)
            self.encoder.bias.zero_()

    def collate(self, examples: Sequence[Any] | np.ndarray | Tensor) -> Batch:
        """Rows (array, tensor, or a list of 1-D rows, any float type) to {"x": float32 [n, d_in]}."""
        return {"x": as_rows(examples, self.config.d_in)}

    @torch.no_grad()
    def initialize(self, batches: Iterable[Batch]) -> None:
        """Set centre, scale and directions from the first 8,192 rows."""
        x, centre, spread = centred(self._first_rows(batches)["x"])
        if self.config.normalize and spread > 0:
            self.scale.copy_(math.sqrt(self.config.d_in) / spread)
        self.b_dec.copy_(centre * self.scale)
        pairs = torch.randint(len(x), (2, self.config.width), device=x.device)
        directions = whitened(x[pairs[0]] - x[pairs[1]], x)
        # A row that was paired with itself or its copy says nothing: that latent stays random.
        some = torch.linalg.vector_norm(directions, dim=1) > 0
        self.W_dec[some] = F.normalize(directions[some], dim=1)
        self.encoder.weight.copy_(self._multiple(x * self.scale) * self.W_dec)
        if not self.config.apply_b_dec_to_input:  # pre-activations start the same all the same
            self.encoder.bias.copy_(-(self.encoder.weight @ self.b_dec))
        self._start_activation(x * self.scale)

    def _multiple(self, x: Tensor) -> float:
        """What to multiply `W_dec` by, to encode, so that codes of scaled rows x [n, d_in] reconstruct them best."""
        if self.config.k is None:
            return _HALF
        x = x[: self._chunk]
        largest = largest_by_size if self.activation.signed else largest_per_row
        found = decode(largest(F.linear(x, self.W_dec), self.config.k), self.W_dec, torch.zeros_like(self.b_dec))
        square = float(found.square().sum())
        return float((x * found).sum()) / square if square > 0 else _HALF

    @property
    def unit(self) -> Tensor:
        """Scalar: the scale of the rows."""
        return self.scale

    @property
    def directions(self) -> Tensor:
        """[width, d_in], of norm 1."""
        return self.W_dec

    @property
    def offset(self) -> Tensor:
        """[d_in] what a row without active latents decodes to, in the units of the data."""
        return self.b_dec.detach() / self.scale

    @property
    def _centre(self) -> Tensor:
        return self.b_dec if self.config.apply_b_dec_to_input else torch.zeros_like(self.b_dec.detach())

    @property
    def _decoder(self) -> Tensor:
        return self.W_dec

    def _target(self, batch: Batch, x: Tensor) -> Tensor:
        return x

    def _normalize(self) -> None:
        unit_rows_(self.W_dec)
