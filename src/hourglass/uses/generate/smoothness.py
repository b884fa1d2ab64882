"""Four probes of a latent space that is to be drawn from: a space that only copies can be full of holes.

    decoder_robustness(model, texts)       # what noise in the latents leaves of the text
    spike_test(model.diffusion, 64)        # whether a spike of noise on the way changes where it ends
    interpolation(model, pairs, perplexity)    # how texts between two read
    mismatch(model, 200)                   # how far drawn latents are from those of their own texts

All distances are in normalised latents, of mean 0 and variance 1 in each number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from hourglass.bottlenecks.diffusion import LatentDiffusion, moments
from hourglass.errors import InputError
from hourglass.metrics.generation import bleu as bleu_of
from hourglass.metrics.generation import trimmed_mean

Array = np.ndarray[Any, Any]

_DRAWN_AT_ONCE = 64


class Writer(Protocol):
    """Texts as latents, latents as texts, and a diffusion between."""

    @property
    def diffusion(self) -> LatentDiffusion: ...

    def latents(self, texts: Sequence[str]) -> Tensor:
        """[n, *shape] of texts."""
        ...

    def write(self, latent: Tensor) -> Tensor:
        """[n, L] tokens."""
        ...

    def decode(self, latent: Tensor) -> list[str]: ...

    def accuracy(self, texts: Sequence[str], written: Tensor | None = None) -> float:
        """Share of the tokens of texts that are in `written`."""
        ...

    def pieces(self, text: str) -> Any:
        """A text in pieces that fit."""
        ...


def decoder_robustness(
    model: Writer,
    texts: Sequence[str],
    sigmas: Sequence[float] = (0, 0.25, 0.5, 0.75, 1),
    *,
    bleu: bool = False,
    seed: int = 0,
) -> dict[float, dict[str, float]]:
    """{sigma: {"accuracy"}}: share of the tokens that are written of latents with noise of size sigma; with `bleu` (extra
    `generation`) also that. Latents are normalised by the statistics of these texts, so that no diffusion is needed."""
    latents = model.latents(texts)
    spread = moments([latents])[1].to(latents)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(latents.shape, generator=generator).to(latents)  # the same for every sigma, and for every model
    found = {}
    for sigma in sigmas:
        spoilt = latents + sigma * spread * noise
        found[float(sigma)] = {"accuracy": model.accuracy(texts, model.write(spoilt))}
        if bleu:
            found[float(sigma)]["bleu"] = bleu_of(texts, model.decode(spoilt))
    return found


def spike_test(
    diffusion: LatentDiffusion,
    n: int,
    sizes: Sequence[float] = (0.05, 0.1, 0.2, 0.5),
    times: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5),
    *,
    steps: int = 100,
    seed: int = 0,
) -> dict[tuple[float, float], float]:
    """{(size, time): mean squared distance} between what DDIM draws with noise of that size added once, at that time, and what
    it draws without, from the same noise."""
    start = torch.zeros((n, *diffusion.shape), device=diffusion.mean.device)

    def drawn(spike: tuple[float, float] | None) -> Tensor:
        return diffusion.normalised(diffusion.denoise_from(start, 1.0, seed=seed, steps=steps, spike=spike))

    without = drawn(None)
    return {(size, time): float((drawn((size, time)) - without).square().mean()) for size in sizes for time in times}


def interpolation(
    model: Writer,
    pairs: Sequence[tuple[str, str]],
    perplexity: Callable[[Sequence[str]], Array],
    times: Sequence[float] = (0, 0.1, 0.2, 0.3),
    *,
    seed: int = 0,
) -> dict[float, float]:
    """{time: perplexity}, a trimmed mean over the texts half way between two, noised up to that time and cleaned again (at 0: as
    they are). `perplexity` gives a number for each text, as `WittenBell(learned).perplexities`."""
    if not pairs:
        raise InputError("no pairs of texts: expected one or more to go between")
    half = (model.latents([a for a, _ in pairs]) + model.latents([b for _, b in pairs])) / 2
    found = {}
    for time in times:
        at = half if time == 0 else model.diffusion.denoise_from(half, time, seed=seed)
        found[float(time)] = trimmed_mean(perplexity(model.decode(at)))
    return found


def mismatch(model: Writer, n: int, *, steps: int = 100, seed: int = 0) -> dict[str, float]:
    """{"distance", "texts"}: mean squared distance between drawn latents and those of the texts they are written as, and of how
    many texts; the others are blank, or too long when they are read again."""
    drawn = torch.cat(
        [
            model.diffusion.sample(min(_DRAWN_AT_ONCE, n - start), seed=seed + start, steps=steps)
            for start in range(0, n, _DRAWN_AT_ONCE)
        ]
    )
    texts = model.decode(drawn)
    kept = [i for i, text in enumerate(texts) if len(list(model.pieces(text))) == 1]
    if not kept:
        return {"distance": float("nan"), "texts": 0}
    again = model.latents([texts[i] for i in kept])
    normalised = model.diffusion.normalised
    distance = float((normalised(drawn[kept]) - normalised(again)).square().mean())
    return {"distance": distance, "texts": len(kept)}
