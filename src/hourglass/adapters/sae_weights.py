"""From anybody's sparse autoencoder to ours: files checked against their config, and the algebra.

Others compute, with f the activations of x and n_i the norm of decoder row i,

    pre = W (x - bias) + encoder_bias     or W x + encoder_bias
    f   = the k largest of pre, or of n * pre; or what of pre is above a threshold
    x   ~ bias + f @ decoder

Ours takes the bias off x always and has decoder rows of norm 1: the other's direction is divided by its norm and the
activation multiplied by it. Where that would change which latents are active, the file is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hourglass.bottlenecks.sparse.sae import SparseAutoencoder, SparseAutoencoderConfig
from hourglass.errors import ConfigError, FolderError

NEARLY = 1e-2
"""Norms that differ by less are equal: weights kept in bfloat16 have no better."""


def fold(
    source: Path,
    *,
    encoder: Tensor,
    encoder_bias: Tensor,
    decoder: Tensor,
    bias: Tensor,
    k: int,
    threshold: Tensor | None = None,
    centred: bool = True,
    by_norm: bool = False,
    scale: float = 1.0,
) -> SparseAutoencoder:
    """Our autoencoder that gives the same codes (for unit directions) and reconstructions, within float error.

    source         file that is named in errors
    encoder        [width, d], encoder_bias [width], decoder [width, d], bias [d], any float type
    k              active latents of a row
    threshold      None: the k largest of a row are active; a scalar or [width]: what is above it, without regard to k
    centred        the encoder sees x - bias, not x
    by_norm        the k largest are chosen among activations times the norm of their decoder row
    scale          all of this holds for rows that are multiplied by it, and reconstructions are divided by it
    """
    encoder, encoder_bias, decoder, bias = (t.float() for t in (encoder, encoder_bias, decoder, bias))
    if not centred:
        encoder_bias = encoder_bias + encoder @ bias
    norms = torch.linalg.vector_norm(decoder, dim=1)
    if by_norm or (norms - 1).abs().max() > NEARLY:
        if not by_norm and threshold is None and not _equal(norms):
            raise ConfigError(
                f"{source}: decoder rows have norms from {norms.min():.3g} to {norms.max():.3g} and the {k} largest are chosen "
                "before these count, which an autoencoder with unit rows cannot do"
            )
        decoder = decoder / norms.clamp_min(torch.finfo(norms.dtype).tiny)[:, None]
        encoder, encoder_bias = encoder * norms[:, None], encoder_bias * norms
        threshold = None if threshold is None else threshold.float() * norms
    sae = SparseAutoencoder(
        SparseAutoencoderConfig(
            d_in=decoder.shape[1],
            width=decoder.shape[0],
            k=k,
            activation="topk" if threshold is None else "batchtopk",
            precision="float32",  # in bfloat16 it would choose others of the same codes
        )
    )
    with torch.no_grad():
        sae.encoder.weight.copy_(encoder)
        sae.encoder.bias.copy_(encoder_bias)
        sae.W_dec.copy_(decoder)
        sae.b_dec.copy_(bias)
        sae.scale.fill_(scale)
        if threshold is not None:
            sae.activation.threshold.copy_(_least_above(source, threshold))  # type: ignore[operator]
    return sae.eval()


def _least_above(source: Path, threshold: Tensor) -> Tensor:
    """The least number that is active: theirs are above the threshold, ours reach it."""
    if not _equal(threshold):
        raise ConfigError(
            f"{source}: thresholds go from {threshold.min():.3g} to {threshold.max():.3g} (for unit directions); "
            "an autoencoder with one threshold for all latents cannot do that"
        )
    # A threshold below zero lets through what is positive, as zero does.
    one = threshold.flatten()[0].float().clamp_min(0)
    return torch.nextafter(one, torch.full_like(one, math.inf))


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
        values = torch.load(file, map_location="cpu", weights_only=True)
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
    """Every tensor of `shapes` has that shape, and there is no tensor beside these and `others`.

    said    where the shapes come from, for the message
    """
    for name, shape in shapes.items():
        if not isinstance(tensors.get(name), Tensor):
            raise FolderError(f"{file}: no tensor {name!r}; it has: {', '.join(sorted(tensors))}")
        found = tuple(tensors[name].shape)
        if found != shape:
            raise FolderError(f"{file}: {name} has shape {list(found)}, but {said}, which makes {list(shape)}")
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
