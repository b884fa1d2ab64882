"""From anybody's sparse autoencoder to ours: files checked against their config, and the algebra.

Others compute, with f the activations of x and n_i the norm of decoder row i,

    pre = W (x - bias) + encoder_bias     or W x + encoder_bias
    f   = the k largest of pre, or of n * pre; what of pre is above 0 or a threshold; or, where pre is above 0, what is
          above 0 of exp(r_mag) (pre - encoder_bias) + b_mag
    x   ~ bias + f @ decoder

Ours has decoder rows of norm 1: the other's direction is divided by its norm and the activation multiplied by it, as
encoder, biases and thresholds are. Where that would change which latents are active, the file is refused.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hourglass.bottlenecks.sparse.coder import SparseCoder
from hourglass.bottlenecks.sparse.crosscoder import Crosscoder
from hourglass.bottlenecks.sparse.sae import SparseAutoencoder
from hourglass.bottlenecks.sparse.transcoder import Transcoder
from hourglass.errors import ConfigError, FolderError

C = TypeVar("C", bound=SparseCoder)
Kind = Literal["topk", "abstopk", "batchtopk", "matryoshka", "relu", "jumprelu", "gated"]

NEARLY = 1e-2
"""Norms that differ by less are equal: weights kept in bfloat16 have no better."""
_USUAL_K = 64
_BY_COUNT = ("topk", "abstopk")
_WITH_K = (*_BY_COUNT, "batchtopk", "matryoshka")


def fold(
    source: Path,
    kind: Kind,
    *,
    encoder: Tensor,
    encoder_bias: Tensor,
    decoder: Tensor,
    bias: Tensor,
    centred: bool = True,
    scale: float = 1.0,
    **chosen: Any,
) -> SparseAutoencoder:
    """Our autoencoder that gives the same codes (for unit directions) and reconstructions, within float error.

    source         file that is named in errors
    kind           of ours; with thresholds, it is jumprelu where they differ and batchtopk or matryoshka where not
    encoder        [width, d], encoder_bias [width] (gated: of the gate), decoder [width, d], bias [d], any float type
    centred        the encoder sees x - bias, not x
    scale          all of this holds for rows that are multiplied by it, and reconstructions are divided by it
    chosen         which latents are active: as of `_fill`
    """
    settings = {"d_in": decoder.shape[1], "apply_b_dec_to_input": centred}
    norms = torch.linalg.vector_norm(decoder.float(), dim=1)
    sae = _fill(source, kind, SparseAutoencoder, settings, encoder, encoder_bias, decoder, bias, norms, **chosen)
    sae.scale.fill_(scale)
    return sae


def fold_transcoder(
    source: Path,
    kind: Kind,
    *,
    encoder: Tensor,
    encoder_bias: Tensor,
    decoder: Tensor,
    bias: Tensor,
    skip: Tensor | None = None,
    scale: float = 1.0,
    **chosen: Any,
) -> Transcoder:
    """As `fold`, for f of x that is to be y ~ bias + f @ decoder + skip x; skip [d_out, d_in], scale of x alone.

    Where the k largest are chosen before decoder rows of different norms count, the rows stay as they are: codes are then
    those of the file, and training on would begin by bringing rows to norm 1.
    """
    settings = {"d_in": encoder.shape[1], "d_out": decoder.shape[1], "skip": skip is not None}
    norms = torch.linalg.vector_norm(decoder.float(), dim=1)
    if kind in _BY_COUNT and not chosen.get("by_norm") and not _equal(norms):
        norms = torch.ones_like(norms)
    coder = _fill(source, kind, Transcoder, settings, encoder, encoder_bias, decoder, bias, norms, **chosen)
    coder.scale.fill_(scale)
    if coder.W_skip is not None and skip is not None:
        with torch.no_grad():
            coder.W_skip.copy_(skip)
    return coder


def fold_crosscoder(
    source: Path,
    kind: Kind,
    *,
    encoder: Tensor,
    encoder_bias: Tensor,
    decoder: Tensor,
    bias: Tensor,
    **chosen: Any,
) -> Crosscoder:
    """As `fold`, for places side by side: encoder and decoder [P, width, d], bias [P, d]; the encoder sees x.

    Codes are those of decoder rows whose norms sum to sqrt(P).
    """
    places, _, d = decoder.shape
    norms = torch.linalg.vector_norm(decoder.float(), dim=2).sum(0) / math.sqrt(places)
    encoder, decoder = (t.float().transpose(0, 1).flatten(1) for t in (encoder, decoder))
    bias = bias.float().flatten()
    encoder_bias = encoder_bias.float() + encoder @ bias  # ours sees x - bias
    settings = {"d_in": places * d, "parts": (d,) * places}
    return _fill(source, kind, Crosscoder, settings, encoder, encoder_bias, decoder, bias, norms, **chosen)


def _fill(
    source: Path,
    kind: Kind,
    cls: Callable[[Any], C],
    settings: dict[str, Any],
    encoder: Tensor,
    encoder_bias: Tensor,
    decoder: Tensor,
    bias: Tensor,
    norms: Tensor,
    *,
    k: int | None = None,
    threshold: Tensor | None = None,
    r_mag: Tensor | None = None,
    b_mag: Tensor | None = None,
    prefixes: tuple[float, ...] | None = None,
    by_norm: bool = False,
) -> C:
    """A coder of ours with these weights, its decoder rows divided by their `norms` [width].

    k              active latents of a row; None where a file with thresholds has none, which only learning on asks for
    threshold      a scalar or [width]: what is above it is active, without regard to k
    r_mag, b_mag   [width] of gated
    prefixes       of matryoshka
    by_norm        the k largest are chosen among activations times the norm of their decoder row
    """
    encoder, encoder_bias, decoder, bias = (t.float() for t in (encoder, encoder_bias, decoder, bias))
    width = len(decoder)
    if by_norm or (norms - 1).abs().max() > NEARLY:
        if kind in _BY_COUNT and not by_norm and not _equal(norms):
            raise ConfigError(
                f"{source}: decoder rows have norms from {norms.min():.3g} to {norms.max():.3g} and the {k} largest are chosen "
                "before these count, which an autoencoder with unit rows cannot do"
            )
        decoder = decoder / norms.clamp_min(torch.finfo(norms.dtype).tiny)[:, None]
        encoder, encoder_bias = encoder * norms[:, None], encoder_bias * norms
        threshold = None if threshold is None else threshold.float() * norms
        b_mag = None if b_mag is None else b_mag.float() * norms
    if threshold is not None:
        # A threshold below zero lets through what is positive, as zero does.
        threshold = threshold.float().clamp_min(0)
        one = "matryoshka" if kind == "matryoshka" else "batchtopk"
        kind = one if _equal(threshold) else "jumprelu"  # type: ignore[assignment]
    if kind in _WITH_K:
        settings["k"] = k or min(_USUAL_K, width)
    if kind == "matryoshka" and prefixes is not None:
        settings["prefixes"] = prefixes
    # In bfloat16 it would choose others of the same codes.
    coder = cls(cls.Config.from_dict({"width": width, "activation": kind, "precision": "float32", **settings}))  # type: ignore[attr-defined]
    values = {"encoder.weight": encoder, "encoder.bias": encoder_bias, "W_dec": decoder, "b_dec": bias}
    if kind == "gated":
        values |= {"activation.r_mag": r_mag, "activation.b_mag": b_mag}  # type: ignore[dict-item]
    elif kind == "jumprelu" and threshold is not None:
        tiny = torch.finfo(threshold.dtype).tiny
        values["activation.log_threshold"] = threshold.clamp_min(tiny).log()
    elif threshold is not None:
        # Theirs are above the threshold, ours reach it.
        least = threshold.flatten()[0]
        name = "activation.threshold" if kind == "batchtopk" else "activation.batch.threshold"
        values[name] = torch.nextafter(least, torch.full_like(least, math.inf))
    own = coder.state_dict()
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)
    return coder.eval()


def _equal(values: Tensor) -> bool:
    values = values.float()
    spread = float(values.max() - values.min())
    return spread <= 1e-5 * float(values.abs().max())


# Files --------------------------------------------------------------------------------------------------


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a file; FolderError, in one line, where it is missing or broken."""
    try:
        return load_file(file)
    except FileNotFoundError:
        raise FolderError(f"{file}: no such file") from None
    except (OSError, SafetensorError) as error:
        raise FolderError(f"{file}: not a safetensors file ({str(error).splitlines()[0]})") from None


def read_pickle(file: Path) -> dict[str, Any]:
    """The dict of a .pt file. Only tensors and plain values are read: code in it is refused, not run."""
    try:
        values = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except FileNotFoundError:
        raise FolderError(f"{file}: no such file") from None
    except Exception as error:  # pickles break in many ways
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise FolderError(f"{file}: not a file of tensors alone ({reason[:200]})") from None
    if not isinstance(values, dict):
        raise FolderError(f"{file}: holds a {type(values).__name__}, expected tensors by name")
    return values


def require_tensors(
    file: Path, tensors: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], said: str, others: Iterable[str] = ()
) -> None:
    """Every tensor of `shapes` has that shape and finite numbers, and there is no tensor beside these and `others`.

    said    where the shapes come from, for the message
    """
    for name, shape in shapes.items():
        if not isinstance(tensors.get(name), Tensor):
            raise FolderError(f"{file}: no tensor {name!r}; it has: {', '.join(sorted(tensors))}")
        found = tuple(tensors[name].shape)
        if found != shape:
            raise FolderError(f"{file}: {name} has shape {list(found)}, but {said}, which makes {list(shape)}")
        if not bool(torch.isfinite(tensors[name]).all()):
            raise FolderError(f"{file}: {name} holds NaN or infinity")
    unknown = sorted(set(tensors) - set(shapes) - set(others))
    if unknown:
        raise ConfigError(f"{file}: holds {', '.join(unknown)}, which this kind of autoencoder does not have")


def setting(file: Path, config: Mapping[str, Any], *names: str) -> int:
    """A whole number of a config, under the first of `names` that is there."""
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    raise FolderError(f"{file}: no {' or '.join(names)}; expected a whole number")


def unknown_kind(file: Path, what: str, kind: Any, known: Iterable[str]) -> ConfigError:
    """The error for an architecture that is not read."""
    return ConfigError(f"{file}: {what} {kind!r} cannot be read; known are: {', '.join(sorted(known))}")
