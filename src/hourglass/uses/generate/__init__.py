"""Writing from latents: how smooth a latent space is, and how much of it is needed.

A model here is anything with latents of texts, texts of latents and a diffusion between (`Writer`), as COSMOS.
"""

from hourglass.uses.generate.smoothness import Writer, decoder_robustness, interpolation, mismatch, spike_test
from hourglass.uses.generate.sweep import sweep_latents

__all__ = ["Writer", "decoder_robustness", "interpolation", "mismatch", "spike_test", "sweep_latents"]
