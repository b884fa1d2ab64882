"""What gives an index its vectors: one encoder for documents and queries, and how it is known again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, final

import numpy as np

from hourglass.errors import ConfigError
from hourglass.uses.probe.encoders import encode_documents, encode_queries, text_encoder, unit_length
from hourglass.uses.search.stages import Array
from hourglass.uses.vectors import Encoder, bit_coder, own_codes

Similarity = Literal["cosine", "dot"]
Precision = Literal["auto", "float32", "bfloat16"]
"""In which a network of transformers computes; "auto" is bfloat16 where the hardware multiplies it."""

SPECIMEN = "An index is known by what its encoder makes of this sentence."
_NUMBERS = 8


@final
class IndexEncoder:
    """Vectors of documents and queries [n, width] float32.

    model      "minilm", a folder of a trained model or of sentence-transformers, or a Hub id; or whatever `text_encoder` takes
    opened     a name to such a model, for those that sentence-transformers does not know
    precision  of a model of sentence-transformers
    name       what it is called
    code_bits  of the codes that belong to its vectors; None: they have none
    """

    def __init__(
        self, model: Any, opened: Callable[[str], Any] = lambda name: name, precision: Precision = "auto"
    ) -> None:
        self.precision = precision
        self.similarity: Similarity = "cosine"
        self._documents: Callable[[list[str]], Array]
        found = opened(model) if isinstance(model, str) else model
        if isinstance(found, str):
            encoder = Encoder(found, precision)
            self.name = found
            self._documents, self._queries = encoder, encoder.queries
            self.similarity = encoder.similarity
        else:
            other = text_encoder(found)
            self.name = model if isinstance(model, str) else str(getattr(model, "__name__", type(model).__name__))
            self._documents = lambda texts: _dense(encode_documents(other, texts))
            self._queries = lambda texts: _dense(encode_queries(other, texts))
        specimen = self._documents([SPECIMEN])[0]
        self.width = len(specimen)
        self._coder = None if isinstance(found, str) else bit_coder(found)
        self.code_bits = self._coder.code_bits if self._coder is not None else None
        self.revision = first_numbers(specimen)

    def documents(self, texts: Sequence[str]) -> Array:
        return np.asarray(self._documents(list(texts)), np.float32)

    def queries(self, texts: Sequence[str]) -> Array:
        return np.asarray(self._queries(list(texts)), np.float32)

    def own_codes(self, vectors: Array) -> Array:
        """[n, bytes] uint8 of vectors [n, width] that it has made; ConfigError where they have no codes."""
        if self._coder is None:
            raise ConfigError(f"the encoder {self.name!r} has no codes of its own")
        return own_codes(self._coder, vectors)

    def settings(self) -> dict[str, Any]:
        """What an index keeps of it; `revision` are the first numbers of its vector of one fixed sentence."""
        return {
            "id": self.name,
            "width": self.width,
            "revision": self.revision,
            "similarity": self.similarity,
            "precision": self.precision,
        }

    def require(self, settings: dict[str, Any], index: str) -> None:
        """ConfigError where it is not the encoder of the index whose `settings` are given."""
        require_same(self.settings(), settings, index, "encoder")


def first_numbers(vector: Array) -> list[float]:
    """By which a model is known: of its vector of one fixed sentence."""
    return [round(float(x), 4) for x in vector[:_NUMBERS]]


def require_same(now: dict[str, Any], settings: dict[str, Any], index: str, what: str) -> None:
    """ConfigError where `now` is not the model of an index with `settings`: {"id", "width", "revision"} of both."""
    scale = max(map(abs, now["revision"]))
    same = now["width"] == settings["width"] and np.allclose(now["revision"], settings["revision"], atol=0.02 * scale)
    if not same:
        given = f"{now['id']!r} ({now['width']} numbers)"
        if now["id"] == settings["id"]:
            given = f"it gives other vectors now ({now['width']} numbers): was it trained on?"
        raise ConfigError(
            f"{index}: made with the {what} {settings['id']!r} ({settings['width']} numbers), given is {given}; use the "
            "same, or make a new index"
        )


def compared(vectors: Array, similarity: str) -> Array:
    """As they are compared by an inner product."""
    return np.asarray(unit_length(vectors), np.float32) if similarity == "cosine" else vectors


def _dense(rows: Any) -> Array:
    return np.asarray(rows.toarray() if hasattr(rows, "toarray") else rows, np.float32)
