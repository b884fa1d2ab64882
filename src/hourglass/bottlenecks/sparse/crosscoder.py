"""The crosscoder: one sparse code for the states of several places, layers of one model or models that read the same tokens.

In:  rows [n, d_in]: the states a^1 ... a^P of a token at P places, side by side, `parts` numbers wide.
Out: codes f [n, width], few of them active; a^l is about f @ W_dec^l + b_dec^l for every place l at once.

    f = act(sum_l W_enc^l a^l + b_enc)                        the price of f_j is f_j sum_l |W_dec_j^l|

Lindsey, Templeton, Marcus, Conerly, Batson and Olah, "Sparse crosscoders for cross-layer features and model diffing"
(Anthropic, October 2024). Choice of the k by activation times sum of norms: Minder, Dumas, Juang, Chughtai and Nanda,
"Overcoming sparsity artifacts in crosscoders to interpret chat-tuning" (2025).

How it is learned
1. The states of each place are shifted to their geometric median and scaled to mean distance sqrt(their width), so that
   all places count alike, by columns. Then it is the sparse autoencoder of the states side by side, but for the norms.
2. A latent may be made larger and its decoder rows smaller without any effect. So the norms of a latent's rows, one a
   place, are held at the sum sqrt(P): then price and choice of the k, which go by activation times sum of norms, go by
   activations alone, and every kind of activation serves as it is. How the norms are shared out is learned
   (`relative_norms`): a latent of one place alone has 1 there and 0 elsewhere.
3. The loss sees W_dec_j sqrt(P) / sum_l |W_dec_j^l|, whose gradient keeps to that sum; rows are brought back to it
   after the step. Encoder rows start as half the decoder's, which are whitened differences of random pairs.

Differences from the papers
- Lindsey et al. leave the sum of norms free and price it; here it is fixed, which is the same up to the size of a
  latent. Their lambda is `sparsity` / sqrt(P), for normalised states.
- Codes are in scaled units, since places differ in theirs; reconstructions are in the units of the data.
- `sae.py` has the differences that are shared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from hourglass.bottlenecks.sparse.coder import SparseCoder, SparseCoderConfig, as_rows, centred, whitened
from hourglass.errors import ConfigError
from hourglass.waist import Batch


@dataclass(frozen=True, kw_only=True)
class CrosscoderConfig(SparseCoderConfig):
    """Settings of a crosscoder: those of `SparseCoderConfig`, and

    parts  widths of the states at each place, which make up d_in
    """

    parts: tuple[int, ...]

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {"d_in": 16, "parts": (10, 6), "width": 64, "k": 4},
        "base": {"d_in": 768, "parts": (384, 384), "width": 4096, "k": 32},
        "paper": {"d_in": 4608, "parts": (2304, 2304), "width": 73_728, "k": 100, "activation": "batchtopk"},
    }

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))  # JSON has lists
        super().__post_init__()
        if not self.parts or min(self.parts) < 1 or sum(self.parts) != self.d_in:
            raise ConfigError(f"parts {self.parts}: expected widths of 1 or more that sum to d_in {self.d_in}")


class Crosscoder(SparseCoder):
    """One code for several states side by side; weights as in `SparseCoder`, with a `scale` [d_in] that each part shares.

    Codes are in scaled units, reconstructions in those of the data.
    """

    Config = CrosscoderConfig
    modality = "vectors"
    tangent = False

    config: CrosscoderConfig

    def __init__(self, config: CrosscoderConfig) -> None:
        super().__init__(config)
        self.register_buffer("scale", torch.ones(config.d_in))
        with torch.no_grad():
            self._normalize()
            self._tie()

    def collate(self, examples: Sequence[Any] | np.ndarray | Tensor) -> Batch:
        """Rows (array, tensor, or a list of 1-D rows, any float type) to {"x": float32 [n, d_in]}."""
        return {"x": as_rows(examples, self.config.d_in)}

    @torch.no_grad()
    def initialize(self, batches: Iterable[Batch]) -> None:
        """Set centres, scales and directions from the first 8,192 rows."""
        first = self._first_rows(batches)["x"]
        pairs = torch.randint(len(first), (2, self.config.width), device=first.device)
        rows, directions = [], []
        for part, scale, bias in zip(*(t.split(self.config.parts, dim=-1) for t in (first, self.scale, self.b_dec))):
            x, centre, spread = centred(part)
            if self.config.normalize and spread > 0:
                scale.fill_(math.sqrt(part.shape[1]) / spread)
            bias.copy_(centre * scale)
            directions.append(whitened((x[pairs[0]] - x[pairs[1]]) * scale, x * scale))
            rows.append(x * scale)
        # A row that was paired with itself or its copy says nothing: that latent stays random.
        some = torch.stack([torch.linalg.vector_norm(part, dim=1) > 0 for part in directions]).all(0)
        self.W_dec[some] = torch.cat(
            [part / torch.linalg.vector_norm(part, dim=1, keepdim=True) for part in directions], 1
        )[some]
        self._normalize()
        self._tie()
        self._start_activation(torch.cat(rows, 1))

    @property
    @torch.no_grad()
    def relative_norms(self) -> Tensor:
        """[width, parts] each place's share of the norms of a latent's decoder rows, in scaled units; they sum to 1."""
        norms = self._norms()
        return norms / norms.sum(1, keepdim=True).clamp_min(torch.finfo(norms.dtype).tiny)

    @property
    def unit(self) -> Tensor:
        """Scalar 1: codes are in scaled units."""
        return torch.ones_like(self.scale[0])

    @property
    def directions(self) -> Tensor:
        """[width, d_in] what a latent of code 1 adds to each place, in the units of the data."""
        return self.W_dec / self.scale

    @property
    def offset(self) -> Tensor:
        """[d_in] what a row without active latents decodes to, in the units of the data."""
        return self.b_dec.detach() / self.scale

    @property
    def _centre(self) -> Tensor:
        return self.b_dec

    @property
    def _decoder(self) -> Tensor:
        return self.W_dec * self._to_norm()

    def _target(self, batch: Batch, x: Tensor) -> Tensor:
        return x

    def _normalize(self) -> None:
        self.W_dec.mul_(self._to_norm())

    def _to_norm(self) -> Tensor:
        """[width, 1] what rows of `W_dec` are multiplied by so that their norms sum to sqrt(P)."""
        sums = self._norms().sum(1, keepdim=True)
        return math.sqrt(len(self.config.parts)) / sums.clamp_min(torch.finfo(sums.dtype).tiny)

    def _norms(self) -> Tensor:
        """[width, parts]"""
        return torch.stack([torch.linalg.vector_norm(w, dim=1) for w in self.W_dec.split(self.config.parts, dim=1)], 1)

    def _tie(self) -> None:
        """The encoder starts at half the decoder."""
        self.encoder.weight.copy_(0.5 * self.W_dec)
        self.encoder.bias.zero_()
