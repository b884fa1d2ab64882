"""What the sparse waists have in common: codes from rows, rows from codes, and how both are learned.

The sparse autoencoder (`sae.py`) reconstructs the rows that it reads, the transcoder (`transcoder.py`) other rows, the
crosscoder (`crosscoder.py`) rows of several places at once. Codes, kinds of activation, closed-form gradients, AuxK and
the counting of silent latents do not know which.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hourglass.bottlenecks.sparse.activations import ACTIVATIONS, Activation, Decoder, Staged
from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.bottlenecks.sparse.geometric_median import geometric_median
from hourglass.bottlenecks.sparse.reconstruction import decode, squared_error
from hourglass.bottlenecks.sparse.selection import largest_by_size, largest_per_row
from hourglass.bottlenecks.sparse.stages import pre_activations
from hourglass.errors import ConfigError, SourceError, nearest
from hourglass.waist import Batch, Losses, Waist, WaistConfig

_SAMPLE_ROWS = 8192
_CHUNK_NUMBERS = 2**24
_DEAD_SHARE = 0.01
_CALIBRATIONS = 40
_CALIBRATED = 0.002  # share of the target by which the number of active latents may be off then


@dataclass(frozen=True, kw_only=True)
class SparseCoderConfig(WaistConfig):
    """Settings of a sparse waist. A field that belongs to some kinds only is refused by the others.

    d_in        width of a row
    width       number of latents
    k           active latents per row (of batchtopk and matryoshka on average); None for the kinds without it
    activation  the kind: topk, batchtopk, abstopk, matryoshka, relu, jumprelu, gated
    normalize   scale rows to mean distance sqrt(their width) from their centre, so that learning rates carry over
    aux_k       dead latents that reconstruct what is left over; None: half the width of what is reconstructed, as in
                the paper; 0: never
    aux_weight  weight of that loss
    dead_after  rows without firing after which a latent counts as dead
    precision   of the encoder's products: "auto" takes bfloat16 where the hardware has it

    Of relu, jumprelu and gated, with d the width of what is reconstructed:
    sparsity         weight of the penalty against the squared error of a row, summed over columns (the papers' lambda);
                     None: 0.1 sqrt(d), of jumprelu 0.01 d, which suit rows that are normalized
    sparsity_warmup  steps in which it rises linearly from 0
    target_l0        active latents per row to which the weight and, of relu and jumprelu, all thresholds are led in training;
                     None leaves them to the loss

    Of jumprelu:
    penalty     "l0": the number of active latents; "tanh": the sum of tanh(steepness * activation)
    bandwidth   width of the window around a threshold from which it learns, in scaled units
    steepness   of the tanh

    Of matryoshka:
    prefixes    shares of the dictionary that reconstruct a row on their own, rising to 1
    """

    d_in: int
    width: int
    k: int | None = None
    activation: Literal["topk", "batchtopk", "abstopk", "matryoshka", "relu", "jumprelu", "gated"] = "topk"
    normalize: bool = True
    aux_k: int | None = None
    aux_weight: float = 1 / 32
    dead_after: int = 200_000
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    sparsity: float | None = None
    sparsity_warmup: int = 100
    target_l0: float | None = None
    penalty: Literal["l0", "tanh"] = "l0"
    bandwidth: float = 0.5
    steepness: float = 4.0
    prefixes: tuple[float, ...] = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)

    @property
    def columns(self) -> int:
        """Width of what is reconstructed."""
        return self.d_in

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefixes", tuple(self.prefixes))  # JSON has lists
        if self.activation not in ACTIVATIONS:
            raise ConfigError(f"no activation {self.activation!r}{nearest(self.activation, ACTIVATIONS)}")
        for field in dataclasses.fields(self):
            kinds = [name for name, kind in ACTIVATIONS.items() if field.name in kind.settings]
            if kinds and self.activation not in kinds and getattr(self, field.name) != field.default:
                raise ConfigError(
                    f"activation {self.activation!r} has no {field.name}: leave it at {field.default!r} "
                    f"(it belongs to {', '.join(kinds)})"
                )
        if "k" in ACTIVATIONS[self.activation].settings and self.k is None:
            raise ConfigError(f"activation {self.activation!r} needs k, the number of active latents per row")
        if min(self.d_in, self.width, 1 if self.k is None else self.k) < 1:
            raise ConfigError(f"d_in {self.d_in}, width {self.width} and k {self.k} must be at least 1")
        if self.k is not None and self.k > self.width:
            raise ConfigError(f"k {self.k} is larger than width {self.width}; at most all latents can be active")
        for name, choices in (("precision", ("auto", "float32", "bfloat16")), ("penalty", ("l0", "tanh"))):
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(f"no {name} {value!r}{nearest(str(value), choices)}")
        for name in ("sparsity", "target_l0", "bandwidth", "steepness"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name} {value!r}: expected a positive number")
        if self.target_l0 is not None and self.target_l0 > self.width:
            raise ConfigError(f"target_l0 {self.target_l0} is larger than width {self.width}")
        if self.sparsity_warmup < 0:
            raise ConfigError(f"sparsity_warmup {self.sparsity_warmup}: expected 0 steps or more")
        rising = all(a < b for a, b in pairwise((0, *self.prefixes)))
        if not (self.prefixes and rising and self.prefixes[-1] == 1):
            raise ConfigError(f"prefixes {self.prefixes}: expected shares above 0 that rise to 1")


class SparseCoder(Waist, ABC):
    """Rows [n, d_in] to sparse codes [n, width], and codes to rows [n, columns].

    Weights, in scaled units: `encoder.weight` [width, d_in], `encoder.bias` [width], `W_dec` [width, columns], `b_dec`
    [columns], and what rows are multiplied by: `scale`, a scalar or [d_in]. Both matrices keep a latent's direction
    contiguous, which is what sparse gradients need; `W_enc` is the transposed view under the usual name.
    """

    tags = frozenset({"decodes"})

    tangent: ClassVar[bool] = True
    """Whether decoder rows have norm 1, so that the part of their gradient along them is taken out."""

    Config: ClassVar[type[SparseCoderConfig]]
    config: SparseCoderConfig
    scale: Tensor
    since_fired: Tensor

    def __init__(self, config: SparseCoderConfig) -> None:
        super().__init__(config)
        self.encoder = nn.Linear(config.d_in, config.width)
        self.W_dec = nn.Parameter(F.normalize(torch.randn(config.width, config.columns), dim=1))
        self.b_dec = nn.Parameter(torch.zeros(config.columns))
        self.activation: Activation = ACTIVATIONS[config.activation](config)
        self.register_buffer("since_fired", torch.zeros(config.width, dtype=torch.int64))
        self._fired: Tensor | None = None
        self._rows_seen = 0

    @property
    def W_enc(self) -> Tensor:
        """[d_in, width], a view."""
        return self.encoder.weight.T

    @property
    def b_enc(self) -> Tensor:
        """[width]"""
        return self.encoder.bias

    @property
    def dead(self) -> Tensor:
        """[width] bool: latents that have not fired for `dead_after` rows of training."""
        return self.since_fired > self.config.dead_after

    # What a final class says --------------------------------------------------------------------------

    @property
    @abstractmethod
    def unit(self) -> Tensor:
        """Scalar: a code is a scaled activation divided by it."""

    @property
    @abstractmethod
    def directions(self) -> Tensor:
        """[width, columns] what a latent of code 1 adds, in the units of the data."""

    @property
    @abstractmethod
    def offset(self) -> Tensor:
        """[columns] what a row without active latents decodes to, in the units of the data."""

    @property
    @abstractmethod
    def _centre(self) -> Tensor:
        """[d_in] what the encoder takes off scaled rows."""

    @property
    @abstractmethod
    def _decoder(self) -> Tensor:
        """[width, columns] `W_dec` as the loss sees it."""

    @abstractmethod
    def _target(self, batch: Batch, x: Tensor) -> Tensor:
        """[n, columns] scaled rows that the codes of the scaled rows x [n, d_in] are to reconstruct."""

    @abstractmethod
    def _normalize(self) -> None:
        """Bring the rows of `W_dec` back to their norm, in place."""

    # Learning ---------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> Losses:
        """{"reconstruction": mean squared error per scaled row and column, "aux": while latents are dead}.

        Kinds add "sparsity", the price of activity, and "gate", the error of gated's gate alone.
        """
        x = batch["x"].to(self.W_dec.dtype) * self.scale
        with torch.autocast(x.device.type, enabled=False):
            low = self._low(x)
            centre, decoder, target = self._centre, self._decoder, self._target(batch, x)
            with torch.no_grad():
                centred = (x - centre).to(low)
                pre = F.linear(centred, self.encoder.weight.to(low), self.encoder.bias.to(low))
                codes = self._as_trained(self.activation.select(pre))
            weights = (self.encoder.weight, self.encoder.bias, decoder)
            losses: dict[str, Tensor]
            if isinstance(self.activation, Staged):
                z = pre_activations(x, centre, self.encoder.weight, self.encoder.bias, codes)
                values = self.activation.values(z, codes, self.encoder.bias)
                through = Decoder(decoder, self.b_dec, target, low, self.tangent)
                staged, error = self.activation.losses(z, values, codes, through)
                losses, codes = dict(staged), codes.with_values(values.detach()).active()
            else:
                reconstruction, error = squared_error(
                    x, centre, target, codes, *weights, self.b_dec, tangent=self.tangent, products=low
                )
                losses = {"reconstruction": reconstruction}
            self._count(codes)
            if self.training and self.config.aux_k != 0:
                dead = self.dead.nonzero().squeeze(1)
                if len(dead) > _DEAD_SHARE * self.config.width:
                    with torch.no_grad():
                        codes = self._as_trained(self._dead_codes(centred, dead))
                    aux, _ = squared_error(x, centre, -error, codes, *weights, None, tangent=self.tangent, products=low)
                    losses["aux"] = self.config.aux_weight * aux
        return losses

    def _dead_codes(self, centred: Tensor, dead: Tensor) -> SparseCodes:
        low = centred.dtype
        pre = F.linear(centred, self.encoder.weight[dead].to(low), self.encoder.bias[dead].to(low))
        aux_k = self.config.columns // 2 if self.config.aux_k is None else self.config.aux_k
        largest = largest_by_size if self.activation.signed else largest_per_row
        codes = largest(pre, max(1, min(aux_k, len(dead))))
        return SparseCodes(dead[codes.indices.long()], codes.values, codes.offsets, self.config.width)

    def _as_trained(self, codes: SparseCodes) -> SparseCodes:
        return codes.with_values(codes.values.to(self.W_dec.dtype))

    def _count(self, codes: SparseCodes) -> None:
        if not self.training:
            return
        if self._fired is None:
            self._fired = torch.zeros_like(self.since_fired, dtype=torch.bool)
        self._fired[codes.indices.long()] = True
        self._rows_seen += len(codes)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Decoder rows back to their norm; counters of silence and the threshold move on."""
        self._normalize()
        self.activation.after_step(self.encoder.bias)
        if self._fired is None:
            return
        rows = self._rows_seen
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            counts = torch.cat([self._fired.long(), self._fired.new_tensor([rows], dtype=torch.int64)])
            torch.distributed.all_reduce(counts)
            self._fired, rows = counts[:-1] > 0, int(counts[-1])
        self.since_fired += rows
        self.since_fired.masked_fill_(self._fired, 0)
        self._fired, self._rows_seen = None, 0

    def _first_rows(self, batches: Iterable[Batch]) -> dict[str, Tensor]:
        """The first 8,192 rows of each tensor of the batches."""
        parts: list[Batch] = []
        for batch in batches:
            parts.append({name: rows.to(self.W_dec) for name, rows in batch.items()})
            if sum(len(part["x"]) for part in parts) >= _SAMPLE_ROWS:
                break
        if not parts:
            raise SourceError("no rows to start from: expected at least one batch")
        return {name: torch.cat([part[name] for part in parts])[:_SAMPLE_ROWS] for name in parts[0]}

    def _start_activation(self, x: Tensor) -> None:
        """Set what the kind learns from scaled rows x [n, d_in] less their centre."""
        if isinstance(self.activation, Staged):
            pre = F.linear(x[: self._chunk], self.encoder.weight)
            self.activation.initialize(pre, self.encoder.bias)

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """After training: move all thresholds together until `target_l0` latents of rows x [n, d_in] are active on average.

        On rows that were not learned from a few per cent more are active than on the others, so take such rows. Kinds
        without a target stay as they are.
        """
        if self.config.target_l0 is None or not isinstance(self.activation, Staged):
            return
        for _ in range(_CALIBRATIONS):
            codes = self.codes(x)
            off = math.log(max(len(codes.indices), 1) / len(x) / self.config.target_l0)
            if abs(off) < _CALIBRATED:
                return
            value = codes.values.mean() * self.unit if len(codes.values) else self.unit
            # A part of the way at a time: by how much the number falls depends on how thresholds and values are spread.
            self.activation.raise_thresholds(value.new_tensor(0.3 * max(-1.0, min(1.0, off))), value, self.encoder.bias)

    # Use --------------------------------------------------------------------------------------------

    def encode(self, batch: Batch) -> Tensor:
        """Dense codes [n, width], in the units of the data; `codes` is the sparse door for many rows."""
        return self.codes(batch["x"]).to_dense()

    @torch.no_grad()
    def codes(self, x: Tensor) -> SparseCodes:
        """Sparse codes of x [n, d_in] (any float type). A row's code does not depend on the other rows."""
        if x.ndim != 2 or x.shape[1] != self.config.d_in:
            raise SourceError(f"rows of shape {tuple(x.shape)}: expected [n, {self.config.d_in}]")
        low = self._low(x)
        weight, bias = self.encoder.weight.to(low), self.encoder.bias.to(low)
        parts = []
        with torch.autocast(self.W_dec.device.type, enabled=False):
            for rows in x.split(self._chunk) if len(x) else (x,):
                centred = torch.addcmul(-self._centre, rows.to(self.W_dec), self.scale)
                chosen = self.activation.infer(F.linear(centred.to(low), weight, bias))
                z = pre_activations(centred, None, self.encoder.weight, self.encoder.bias, chosen)
                exact = chosen.with_values(self.activation.values(z, chosen, self.encoder.bias)).active()
                parts.append(exact.with_values(exact.values / self.unit))
        return parts[0] if len(parts) == 1 else SparseCodes.concatenate(parts)

    @torch.no_grad()
    def decode(self, latent: Tensor | SparseCodes) -> Tensor:
        """Codes, dense [n, width] or sparse, to rows [n, columns] in the units of the data."""
        if isinstance(latent, Tensor):
            return latent.to(self.W_dec) @ self.directions + self.offset
        return decode(latent, self.directions, self.offset)

    @property
    def _chunk(self) -> int:
        """Rows whose pre-activations fit into memory."""
        return max(64, _CHUNK_NUMBERS // self.config.width)

    def _low(self, x: Tensor) -> torch.dtype:
        """The number format of the encoder's products."""
        if self.W_dec.dtype != torch.float32 or self.config.precision == "float32":
            return self.W_dec.dtype
        if self.config.precision == "bfloat16" or _has_fast_bfloat16(self.W_dec.device):
            return torch.bfloat16
        return torch.float32


def centred(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(rows less their geometric median, the median [d], the mean distance from it) of rows x [n, d]."""
    centre = geometric_median(x)
    x = x - centre
    return x, centre, torch.linalg.vector_norm(x, dim=1).mean()


def whitened(directions: Tensor, x: Tensor) -> Tensor:
    """`directions` [n, d] in coordinates in which the rows x [m, d] vary alike in all directions."""
    values, axes = torch.linalg.eigh(x.T @ x / len(x))
    least = 1e-6 * values[-1].clamp_min(torch.finfo(x.dtype).tiny)  # directions in which nothing varies stay out of it
    return directions @ (axes / values.clamp_min(least).sqrt()) @ axes.T


def as_rows(examples: Sequence[Any] | np.ndarray | Tensor, width: int) -> Tensor:
    """[n, width] float32, one row at least and all numbers finite; the first row that is not so is named."""
    x = _as_rows(examples, width)
    if len(x) == 0:
        raise SourceError(f"no rows: expected at least one row of {width} numbers")
    if not math.isfinite(x.sum()):
        # A sum of large finite numbers overflows too, so look before refusing.
        rows = (~torch.isfinite(x)).any(1).nonzero()
        if len(rows):
            raise SourceError(f"row {int(rows[0])} holds NaN or infinity; leave the row out or mend it")
    return x


def _as_rows(examples: Sequence[Any] | np.ndarray | Tensor, width: int) -> Tensor:
    if isinstance(examples, Sequence):
        rows = []
        for i, example in enumerate(examples):
            try:
                row = torch.as_tensor(example)
            except (TypeError, ValueError, RuntimeError):
                raise SourceError(f"row {i} is a {type(example).__name__}: expected {width} numbers") from None
            rows.append(row)
            if row.shape != (width,):
                raise SourceError(f"row {i} has shape {tuple(row.shape)}: expected {width} numbers")
        return torch.stack(rows).float() if rows else torch.empty(0, width)
    if isinstance(examples, np.ndarray):
        # A copy: the array may be a read-only memory map.
        x = torch.from_numpy(np.array(examples, dtype=np.float32))
    else:
        x = examples.detach().float()
    if x.ndim != 2 or x.shape[1] != width:
        raise SourceError(f"rows of shape {tuple(x.shape)}: expected [n, {width}]")
    return x


def _has_fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return device.type == "cuda" and torch.cuda.is_bf16_supported()
