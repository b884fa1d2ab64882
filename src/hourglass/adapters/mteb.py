"""MTEB's own protocol for any of our encoders: tasks as the package `mteb` (2.x) runs them.

    import mteb
    model = mteb_model(text_encoder(encoder), "me/my-encoder")
    mteb.evaluate(model, mteb.get_tasks(["STSBenchmark", "SciFact"]))

Queries of retrieval tasks go to `encode_query`, everything else to `encode_document`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from hourglass.errors import ConfigError, InputError, MissingExtra
from hourglass.waist import TextEncoder

Array = np.ndarray[Any, Any]


def mteb_model(
    encoder: TextEncoder, name: str, *, revision: str = "local", similarity: Literal["cosine", "dot"] = "cosine"
) -> Any:
    """What `mteb.evaluate` takes as a model.

    name        "owner/model": under it, and `revision`, mteb keeps its results, and does not run again what it has
    similarity  of two vectors: "cosine", or "dot" for the inner product

    Raises MissingExtra where mteb is not installed, ConfigError for a name without an owner.
    """
    try:
        from mteb.models import ModelMeta
    except ImportError:
        raise MissingExtra("MTEB's protocol", "mteb") from None
    if name.count("/") != 1 or not all(name.split("/")):
        raise ConfigError(f"name {name!r}: expected 'owner/model', under which mteb keeps results")
    meta = ModelMeta.create_empty(
        overwrites={"name": name, "revision": revision, "similarity_fn_name": similarity, "modalities": ["text"]}
    )
    return _Model(encoder, meta, similarity)


class _Model:
    """An encoder as mteb's EncoderProtocol has it."""

    def __init__(self, encoder: TextEncoder, meta: Any, similarity: str) -> None:
        self.mteb_model_meta = meta
        self._encoder, self._cosine = encoder, similarity == "cosine"

    def encode(
        self, inputs: Iterable[Mapping[str, Sequence[Any]]], *, prompt_type: str | None = None, **_: Any
    ) -> Array:
        """[n, d] of the texts of all batches, in their order; what else mteb tells (task, split, batch size) does not matter."""
        texts: list[str] = []
        for batch in inputs:
            if "text" not in batch:
                raise InputError(f"a batch of {', '.join(map(repr, batch))} without 'text'; choose tasks of texts")
            texts += batch["text"]
        made = (self._encoder.encode_query if prompt_type == "query" else self._encoder.encode_document)(texts)
        if sparse.issparse(made):
            raise ConfigError("the encoder gives sparse rows; mteb takes dense vectors only")
        return made.detach().float().cpu().numpy() if isinstance(made, Tensor) else np.asarray(made, np.float32)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """[n, m] of each of [n, d] with each of [m, d]; a vector [d] counts as one row."""
        return self._scaled(embeddings1) @ self._scaled(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """[n] of each with its like."""
        return (self._scaled(embeddings1) * self._scaled(embeddings2)).sum(1)

    def _scaled(self, vectors: Any) -> Tensor:
        rows = torch.atleast_2d(torch.as_tensor(vectors).float())
        return torch.nn.functional.normalize(rows, dim=1) if self._cosine else rows
