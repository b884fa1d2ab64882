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
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hourglass.bottlenecks.sparse.sae import SparseAutoencoder, SparseAutoencoderConfig
from hourglass.errors import ConfigError, FolderError

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
    k: int | None = None,
    threshold: Tensor | None = None,
    r_mag: Tensor | None = None,
    b_mag: Tensor | None = None,
    prefixes: tuple[float, ...] | None = None,
    centred: bool = True,
    by_norm: bool = False,
    scale: float = 1.0,
) -> SparseAutoencoder:
    """Our autoencoder that gives the same codes (for unit directions) and reconstructions, within float error.

    source         file that is named in errors
    kind           of ours; with thresholds, it is jumprelu where they differ and batchtopk or matryoshka where not
    encoder        [width, d], encoder_bias [width] (gated: of the gate), decoder [width, d], bias [d], any float type
    k              active latents of a row; None where a file with thresholds has none, which only learning on asks for
    threshold      a scalar or [width]: what is above it is active, without regard to k
    r_mag, b_mag   [width] of gated
    prefixes       of matryoshka
    centred        the encoder sees x - bias, not x
    by_norm        the k largest are chosen among activations times the norm of their decoder row
    scale          all of this holds for rows that are multiplied by it, and reconstructions are divided by it
    """
    encoder, encoder_bias, decoder, bias = (t.float() for t in (encoder, encoder_bias, decoder, bias))
    width, d = decoder.shape
    norms = torch.linalg.vector_norm(decoder, dim=1)
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
    settings: dict[str, Any] = {"k": k or min(_USUAL_K, width)} if kind in _WITH_K else {}
    if kind == "matryoshka" and prefixes is not None:
        settings["prefixes"] = prefixes
    sae = SparseAutoencoder(
        SparseAutoencoderConfig(
            d_in=d,
            width=width,
            activation=kind,
            apply_b_dec_to_input=centred,
            precision="float32",  # in bfloat16 it would choose others of the same codes
            **settings,
        )
    )
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
    own = sae.state_dict()
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)
        sae.scale.fill_(scale)
    return sae.eval()


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
