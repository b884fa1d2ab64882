"""A vector for each text of a source, in one table: what `hourglass encode` writes.

Any model that sentence-transformers opens will do, ours among them. A text longer than the model is read in windows of equal
length, and its vector is their mean, weighted by tokens (of length 1 where the model's are): no text is cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hourglass.adapters.huggingface_loading import backend, loading_errors, resolve
from hourglass.adapters.huggingface_loading import encode as tokenize
from hourglass.data import open_texts
from hourglass.errors import ConfigError, FolderError
from hourglass.storage.places import Place
from hourglass.uses.explore.progress import Progress

_TEXTS_AT_ONCE = 1024
_LONGEST = 512  # tokens, of a model that does not say

Array = np.ndarray[Any, Any]


def write_vectors(
    model: str,
    source: Any,
    to: str,
    *,
    text: str | None = None,
    id: str | None = None,
    limit: int | None = None,
    force: bool = False,
    progress: bool = True,
) -> dict[str, int]:
    """Write the ids and vectors of a source's texts to a .parquet file, a path or URL; memory follows the batch.

    model                   "minilm", the folder of a trained model or of sentence-transformers, or a Hub id
    source, text, id, limit as for `explore`

    Returns {"documents", "width", "windowed"}, the last the number of texts longer than the model. Columns: `_id` and
    `vector`. The file is there whole or not at all, and one that exists is replaced only with `force`.

    Raises InputError for bad input, in one line.
    """
    place = Place.of(str(to))
    if place.suffixes[-1:] != [".parquet"]:
        raise ConfigError(f"{to}: expected a path or URL that ends in .parquet")
    if place.is_file() and not force:
        raise FolderError(f"{to}: exists; choose another place, or replace it with --force")
    encoder = Encoder(model)
    texts = open_texts(source, text=text, id=id)
    if limit is not None:
        texts = texts.limited(limit)
    schema = pa.schema({"_id": pa.string(), "vector": pa.list_(pa.float32(), encoder.width)})
    documents = 0
    with Progress(progress) as bars, place.replaced() as stream, pq.ParquetWriter(stream, schema) as file:
        task = bars.start("encoding", limit, "texts")
        for batch in texts.batches(_TEXTS_AT_ONCE):
            vectors = encoder(batch.column(texts.text_column).to_pylist())
            column = pa.FixedSizeListArray.from_arrays(vectors.ravel(), encoder.width)
            file.write_batch(pa.record_batch([batch.column("_id").cast(pa.string()), column], schema=schema))
            documents += len(vectors)
            bars.advance(task, len(vectors))
    return {"documents": documents, "width": encoder.width, "windowed": encoder.windowed}


class Encoder:
    """Texts to vectors [n, width] float32 by a model of sentence-transformers, long texts in windows.

    windowed   how many of the texts so far were longer than the model
    """

    def __init__(self, model: str) -> None:
        from sentence_transformers import SentenceTransformer

        with loading_errors(model, "model"):
            self._model = SentenceTransformer(resolve(model) if model == "minilm" else model, trust_remote_code=False)
        self.width = int(self._model.encode(["a"], show_progress_bar=False).shape[1])
        self._tokenizer = backend(self._model.tokenizer)
        special = self._model.tokenizer.num_special_tokens_to_add()
        self._room = (self._model.max_seq_length or _LONGEST) - special
        self._unit = type(self._model[-1]).__name__ == "Normalize"
        self.windowed = 0

    def __call__(self, texts: list[str]) -> Array:
        pieces, owners, weights = [], [], []
        for number, (text, encoding) in enumerate(zip(texts, tokenize(self._tokenizer, texts))):
            windows = list(self._windows(text, encoding))
            self.windowed += len(windows) > 1
            for piece, tokens in windows:
                pieces.append(piece)
                owners.append(number)
                weights.append(tokens)
        vectors = self._model.encode(pieces, batch_size=32, show_progress_bar=False, convert_to_numpy=True)
        if len(pieces) == len(texts):
            return np.asarray(vectors, np.float32)
        made = np.zeros((len(texts), self.width))
        np.add.at(made, owners, vectors * np.array(weights)[:, None])
        made /= np.linalg.norm(made, axis=1, keepdims=True) if self._unit else np.bincount(owners, weights)[:, None]
        return made.astype(np.float32)

    def _windows(self, text: str, encoding: Any) -> Iterator[tuple[str, int]]:
        """The text, or parts of it that the model takes, with their numbers of tokens."""
        number = len(encoding.ids)
        if number <= self._room:
            yield text, max(number, 1)
            return
        borders = np.linspace(0, number, -(-number // self._room) + 1).astype(int)
        for start, stop in pairwise(borders):
            yield text[encoding.offsets[start][0] : encoding.offsets[stop - 1][1]], int(stop - start)
