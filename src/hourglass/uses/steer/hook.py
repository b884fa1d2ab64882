"""Edits on the output of the block whose states the autoencoder has learned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from hourglass.bottlenecks.sparse.sae import SparseAutoencoder
from hourglass.uses.replacing import replacing
from hourglass.uses.steer.edits import Change, Edit


@contextmanager
def steering(
    model: nn.Module, layer: int | None, sae: SparseAutoencoder, edits: Sequence[Edit], *, after: int = 0
) -> Iterator[nn.Module]:
    """While inside, every token that passes `layer` of a transformers model is edited; afterwards the model is as before.

    layer   as in `HuggingFaceReader`: n is the raw output of block n, 0 the embeddings, -1 the last block
    after   the first so many tokens of a sequence stay as they are: the length of a prompt, padding included, leaves
            the prompt alone and edits what is written after it

    Raises ConfigError, in one line, where layer, autoencoder and edits do not fit the model.
    """
    with replacing(model, layer, Change(sae, edits), width=sae.config.d_in, after=after):
        yield model
