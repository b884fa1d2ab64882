"""The kinds of sparse autoencoder, a file each; `seam.py` says what a kind is."""

from __future__ import annotations

from hourglass.bottlenecks.sparse.activations.abstopk import AbsTopK
from hourglass.bottlenecks.sparse.activations.batchtopk import BatchTopK
from hourglass.bottlenecks.sparse.activations.gated import Gated
from hourglass.bottlenecks.sparse.activations.jumprelu import JumpReLU
from hourglass.bottlenecks.sparse.activations.matryoshka import Matryoshka
from hourglass.bottlenecks.sparse.activations.relu import ReLU
from hourglass.bottlenecks.sparse.activations.seam import Activation, Decoder, Staged
from hourglass.bottlenecks.sparse.activations.topk import TopK

__all__ = ["ACTIVATIONS", "Activation", "Decoder", "Staged"]

ACTIVATIONS: dict[str, type[Activation]] = {
    "topk": TopK,
    "batchtopk": BatchTopK,
    "abstopk": AbsTopK,
    "matryoshka": Matryoshka,
    "relu": ReLU,
    "jumprelu": JumpReLU,
    "gated": Gated,
}
