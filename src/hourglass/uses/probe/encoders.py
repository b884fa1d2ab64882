"""One door for whatever makes a vector of a text: a function, a model of sentence-transformers, a system of ours, BM25.

encoder = text_encoder(model)
vectors = encode_documents(encoder, texts)     # [n, d], checked
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from hourglass.errors import ConfigError, InputError
from hourglass.waist import TextEncoder, Waist

Array = np.ndarray[Any, Any]
Rows = Any
"""[n, d] float32: an array, or rows of SciPy (csr_matrix)."""
Encode = Callable[[Sequence[str]], Any]

_TEXTS_AT_ONCE = 32


def text_encoder(model: TextEncoder | Waist | Encode) -> TextEncoder:
    """A `TextEncoder` of what can be one.

    model  has encode_query and encode_document; or is a system whose examples are texts and whose latent is a vector of each;
           or is a function of texts, for queries and documents alike

    Raises ConfigError for anything else.
    """
    if callable(getattr(model, "encode_query", None)) and callable(getattr(model, "encode_document", None)):
        return cast(TextEncoder, model)
    if isinstance(model, Waist):
        if model.modality != "text":
            raise ConfigError(f"{type(model).__name__} reads {model.modality!r}; expected a system that reads texts")
        return _Symmetric(_OfWaist(model))
    if callable(model):
        return _Symmetric(model)
    raise ConfigError(
        f"a {type(model).__name__} is no encoder; expected a function of texts, a system that reads texts, or an object with "
        "encode_query and encode_document"
    )


def encode_documents(encoder: TextEncoder, texts: Sequence[str]) -> Rows:
    """Vectors of documents [n, d], float32 or SciPy rows.

    Raises InputError for vectors of another shape or with numbers that are not finite.
    """
    return _checked(encoder.encode_document(list(texts)), texts, "document")


def encode_queries(encoder: TextEncoder, texts: Sequence[str]) -> Rows:
    """Vectors of queries, as `encode_documents`."""
    return _checked(encoder.encode_query(list(texts)), texts, "query")


def dense_vectors(model: TextEncoder | Waist | Encode, texts: Sequence[str]) -> Array:
    """[n, d] float32: documents, where each must have all of its coordinates."""
    rows = encode_documents(text_encoder(model), texts)
    return rows.toarray() if sparse.issparse(rows) else cast(Array, rows)


def unit_length(rows: Rows) -> Rows:
    """Rows of length 1, so that an inner product is a cosine; a row of zeros stays."""
    if sparse.issparse(rows):
        norms = np.sqrt(np.asarray(rows.multiply(rows).sum(1)).ravel())
        return sparse.csr_matrix(sparse.diags(1 / np.where(norms > 0, norms, 1)) @ rows)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1))


class _Symmetric:
    """Queries and documents are read in one way."""

    def __init__(self, encode: Encode) -> None:
        self.encode_query = self.encode_document = encode


class _OfWaist:
    """Texts to latents, in batches of like length."""

    def __init__(self, model: Waist) -> None:
        self._model = model

    def __call__(self, texts: Sequence[str]) -> Array:
        model, training = self._model, self._model.training
        model.eval()
        device = next(model.parameters()).device
        order = np.argsort([-len(text) for text in texts], kind="stable")
        parts = []
        with torch.inference_mode():
            for start in range(0, len(order), _TEXTS_AT_ONCE):
                batch = model.collate([texts[i] for i in order[start : start + _TEXTS_AT_ONCE]])
                parts.append(model.encode({name: t.to(device) for name, t in batch.items()}).float().cpu().numpy())
        model.train(training)
        return np.concatenate(parts)[np.argsort(order)]


def _checked(made: Any, texts: Sequence[str], what: str) -> Rows:
    if isinstance(made, Tensor):
        made = made.detach().float().cpu()
        if made.layout is not torch.strided:  # what a SparseEncoder of sentence-transformers gives
            made = made.to_sparse_coo().coalesce()
            made = sparse.coo_matrix((made.values().numpy(), made.indices().numpy()), shape=tuple(made.shape))
        else:
            made = made.numpy()
    rows: Rows = sparse.csr_matrix(made, dtype=np.float32) if sparse.issparse(made) else np.asarray(made, np.float32)
    if rows.ndim != 2 or rows.shape[0] != len(texts):
        raise InputError(f"the encoder gave shape {rows.shape} for {len(texts)} texts; expected [{len(texts)}, d]")
    finite = np.isfinite(rows.data if sparse.issparse(rows) else rows)
    if not finite.all():
        row = int(np.argmin(finite) if sparse.issparse(rows) else np.argmin(finite.all(1)))
        row = int(np.searchsorted(rows.indptr, row, "right")) - 1 if sparse.issparse(rows) else row
        raise InputError(
            f"the encoder gave numbers that are not finite for {what} {row} of {len(texts)}: {texts[row][:60]!r}"
        )
    return rows
