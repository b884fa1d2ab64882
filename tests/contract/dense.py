"""The smallest system: a dense linear autoencoder of vectors, noised in `collate` and in `loss`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from hourglass.errors import SourceError
from hourglass.waist import Waist, WaistConfig


@dataclass(frozen=True, kw_only=True)
class DenseConfig(WaistConfig):
    """Widths, noise added to the input, share of the latent that is dropped."""

    d_in: int = 8
    width: int = 4
    noise: float = 0.0
    dropout: float = 0.0

    presets = {"tiny": {}, "base": {"width": 6}, "paper": {"width": 7}}  # noqa: RUF012


class DenseAutoencoder(Waist):
    """Vectors to `width` numbers and back."""

    Config = DenseConfig
    modality = "vectors"
    tags = frozenset({"decodes"})

    def __init__(self, config: DenseConfig) -> None:
        super().__init__(config)
        self.encoder = nn.Linear(config.d_in, config.width)
        self.decoder = nn.Linear(config.width, config.d_in)
        self.register_buffer("mean", torch.zeros(config.d_in))

    def collate(self, examples):
        try:
            x = torch.from_numpy(np.array(examples, dtype=np.float32))
        except (TypeError, ValueError) as error:
            raise SourceError(f"not rows of numbers: {error}") from None
        if len(x) == 0 or x.shape[1:] != (self.config.d_in,):
            raise SourceError(f"rows of shape {tuple(x.shape)}: expected [n, {self.config.d_in}]")
        if not torch.isfinite(x).all():
            raise SourceError("a row holds NaN or infinity")
        return {"x": x, "noised": x + self.config.noise * torch.randn_like(x)}

    def initialize(self, batches):
        self.mean.copy_(next(iter(batches))["x"].mean(0))

    def loss(self, batch):
        latent = nn.functional.dropout(self.encoder(batch["noised"] - self.mean), self.config.dropout, self.training)
        restored = self.decoder(latent) + self.mean
        return {"reconstruction": (restored - batch["x"]).square().mean(), "size": 1e-3 * latent.square().mean()}

    def encode(self, batch):
        """[n, width]"""
        return self.encoder(batch["x"] - self.mean)

    def decode(self, latent):
        return self.decoder(latent) + self.mean
