"""A vector, or weights of words, for each text of a source, in one table: what `hourglass encode` writes.

Any model that sentence-transformers opens will do, ours among them. A text longer than the model is read in windows of equal
length, and its vector is their mean, weighted by tokens (of length 1 where the model's are), the weight of a word the largest of
any window: no text is cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from scipy.sparse import csr_matrix, vstack

from hourglass.adapters.huggingface_loading import backend, compute_dtype, loading_errors, resolve
from hourglass.adapters.huggingface_loading import encode as tokenize
from hourglass.adapters.pretrained import load_network
from hourglass.adapters.sentence_transformers_reading import compute_in
from hourglass.data import open_texts
from hourglass.errors import ConfigError, FolderError
from hourglass.metrics.codes import pack
from hourglass.storage.atomic import read_json
from hourglass.storage.places import Place
from hourglass.uses.probe.encoders import encode_documents, encode_queries, text_encoder
from hourglass.uses.progress import Progress
from hourglass.waist import BitCoder, Waist, WordWeigher

_TEXTS_AT_ONCE = 1024
_LONGEST = 512  # tokens, of a model that does not say

Array = np.ndarray[Any, Any]


def write_vectors(
    model: str | WordWeigher | Waist,
    source: Any,
    to: str,
    *,
    sparse: bool = False,
    dtype: Literal["auto", "float32", "bfloat16"] = "float32",
    text: str | None = None,
    id: str | None = None,
    limit: int | None = None,
    force: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """As `api.encode`; a `WordWeigher` only with `sparse`, a system that reads texts only without."""
    place = Place.of(str(to))
    if place.suffixes[-1:] != [".parquet"]:
        raise ConfigError(f"{to}: expected a path or URL that ends in .parquet")
    if place.is_file() and not force:
        raise FolderError(f"{to}: exists; choose another place, or replace it with --force")
    encoder: Weigher | SystemEncoder | Encoder
    if sparse:
        encoder = Weigher(cast(str | WordWeigher, model))
    else:
        encoder = SystemEncoder(model) if isinstance(model, Waist) else Encoder(str(model), dtype)
    texts = open_texts(source, text=text, id=id)
    if limit is not None:
        texts = texts.limited(limit)
    schema = pa.schema({"_id": pa.string(), **encoder.columns})
    documents = 0
    with Progress(progress) as bars, place.replaced() as stream, pq.ParquetWriter(stream, schema) as file:
        task = bars.start("encoding", limit, "texts")
        for batch in texts.batches(_TEXTS_AT_ONCE):
            columns = encoder.arrow(batch.column(texts.text_column).to_pylist())
            file.write_batch(pa.record_batch([batch.column("_id").cast(pa.string()), *columns], schema=schema))
            documents += len(batch)
            bars.advance(task, len(batch))
    made = {"documents": documents, "width": encoder.width, "windowed": encoder.windowed}
    return made | ({"weights": encoder.weights / max(1, documents)} if isinstance(encoder, Weigher) else {})


class Encoder:
    """Texts to vectors [n, width] float32 by a model of sentence-transformers, long texts in windows.

    dtype       that its network computes in: "float32", "bfloat16", or "auto", bfloat16 where the hardware multiplies it
    windowed    how many of the texts so far were longer than the model
    similarity  that the model is made for, "cosine" where it does not say
    """

    def __init__(self, model: str, dtype: Literal["auto", "float32", "bfloat16"] = "float32") -> None:
        from sentence_transformers import SentenceTransformer

        if _ours(model).get("representation") == "lexical":
            raise ConfigError(f"{model}: has weights of words and no vector; write them with --sparse")
        with loading_errors(model, "model"):
            self._model = SentenceTransformer(resolve(model) if model == "minilm" else model, trust_remote_code=False)
        compute_in(self._model, compute_dtype(dtype, self._model.device))
        self.width = int(self._model.encode(["a"], show_progress_bar=False).shape[1])
        self._windows = Windows(self._model.tokenizer, self._model.max_seq_length)
        self._unit = type(self._model[-1]).__name__ == "Normalize"
        self.similarity: Literal["cosine", "dot"] = "dot" if self._model.similarity_fn_name == "dot" else "cosine"
        self.columns = {"vector": pa.list_(pa.float32(), self.width)}

    def queries(self, texts: list[str]) -> Array:
        """[n, width] float32 of questions, which some models read in another way; what is longer than the model is cut."""
        return np.asarray(self._model.encode_query(texts, batch_size=32, show_progress_bar=False), np.float32)

    @property
    def windowed(self) -> int:
        return self._windows.windowed

    def __call__(self, texts: list[str]) -> Array:
        pieces, owners, weights = self._windows(texts)
        vectors = self._model.encode_document(pieces, batch_size=32, show_progress_bar=False, convert_to_numpy=True)
        if len(pieces) == len(texts):
            return np.asarray(vectors, np.float32)
        made = np.zeros((len(texts), self.width))
        np.add.at(made, owners, vectors * weights[:, None])
        made /= np.linalg.norm(made, axis=1, keepdims=True) if self._unit else np.bincount(owners, weights)[:, None]
        return made.astype(np.float32)

    def arrow(self, texts: list[str]) -> list[pa.Array]:
        return [pa.FixedSizeListArray.from_arrays(self(texts).ravel(), self.width)]


class SystemEncoder:
    """Texts to vectors [n, width] float32, whole, by a system of ours that reads them without a network of transformers."""

    windowed = 0

    def __init__(self, model: Waist) -> None:
        self._model, self._encode = model, text_encoder(model)
        self.width = int(encode_documents(self._encode, ["a"]).shape[1])
        self.columns: dict[str, pa.DataType] = {"vector": pa.list_(pa.float32(), self.width)}
        self._coder = bit_coder(model)
        if self._coder is not None and self._coder.code_bits is not None:
            self.columns["code"] = pa.binary(-(-self._coder.code_bits // 8))

    def arrow(self, texts: list[str]) -> list[pa.Array]:
        vectors = np.ascontiguousarray(encode_documents(self._encode, texts))
        made = [pa.FixedSizeListArray.from_arrays(vectors.ravel(), self.width)]
        if self._coder is not None:
            codes = own_codes(self._coder, vectors)
            known = [bool(row.any()) for row in vectors]  # what the model cannot read has no code
            made.append(pa.array([c.tobytes() if k else None for c, k in zip(codes, known)], self.columns["code"]))
        return made


def bit_coder(model: Any) -> BitCoder | None:
    """The model where its vectors have codes."""
    has = isinstance(model, Waist) and "codes" in model.tags and cast(BitCoder, model).code_bits is not None
    return cast(BitCoder, model) if has else None


def own_codes(model: BitCoder, vectors: Array) -> Array:
    """[n, bytes] uint8, packed, of vectors [n, d] that the model has made."""
    device = next(cast(Waist, model).parameters()).device
    rows = torch.from_numpy(np.ascontiguousarray(vectors, np.float32)).to(device)
    return pack(model.bits_of(rows).cpu().numpy())


class Weigher:
    """Texts to weights of the vocabulary's tokens [n, width], rows of SciPy, long texts in windows.

    windowed   how many of the texts so far were longer than the model
    weights    how many weights they have together
    """

    columns = {"tokens": pa.list_(pa.string()), "weights": pa.list_(pa.float32())}  # noqa: RUF012

    def __init__(self, model: str | WordWeigher) -> None:
        if isinstance(model, str):
            self._model, tokenizer, longest, self._k = _lexical_model(model)
        else:
            self._model, self._k = _Sides(model), model.kept_words
            tokenizer, longest = model.tokenizer, model.config.max_tokens
        self._windows = Windows(tokenizer, longest)
        self.width = int(encode_documents(self._model, ["a"]).shape[1])
        self._tokens = np.array(tokenizer.convert_ids_to_tokens(range(self.width)), object)
        self.weights = 0

    @property
    def windowed(self) -> int:
        return self._windows.windowed

    def __call__(self, texts: list[str]) -> csr_matrix:
        pieces, owners, _ = self._windows(texts)
        rows = encode_documents(self._model, pieces)
        if len(pieces) == len(texts):
            return rows
        starts = np.searchsorted(owners, np.arange(len(texts) + 1))
        return vstack([rows[a:b].max(axis=0) for a, b in pairwise(starts)], "csr")

    def queries(self, texts: list[str]) -> list[dict[str, float]]:
        """{token: weight} of questions, as the model weighs these; what is longer than the model is cut."""
        rows = encode_queries(self._model, texts)
        return [
            dict(zip(self._tokens[rows.indices[begin:end]], rows.data[begin:end].tolist()))
            for begin, end in pairwise(rows.indptr)
        ]

    def arrow(self, texts: list[str]) -> list[pa.Array]:
        rows = self(texts)
        ids, weights = [], []
        for begin, end in pairwise(rows.indptr):
            # What is among the largest of all windows is among the largest of its own, so that none is missing here.
            heaviest = begin + np.argsort(-rows.data[begin:end], kind="stable")[: self._k]
            ids.append(self._tokens[rows.indices[heaviest]])
            weights.append(rows.data[heaviest])
        self.weights += sum(map(len, ids))
        ends = np.cumsum([0, *map(len, ids)], dtype=np.int32)
        return [
            pa.ListArray.from_arrays(ends, pa.array(np.concatenate(column), kind))
            for column, kind in ((ids, pa.string()), (weights, pa.float32()))
        ]


class _Sides:
    """A `WordWeigher` as a `TextEncoder`."""

    def __init__(self, model: WordWeigher) -> None:
        self.encode_query, self.encode_document = model.weigh_queries, model.weigh_words


def _lexical_model(model: str) -> tuple[Any, Any, int | None, int | None]:
    """(encoder of documents, its tokenizer, its longest text in tokens, weights that a text keeps).

    Raises ConfigError for a model without weights of words.
    """
    from hourglass.uses.finetune.retriever import Retriever, RetrieverConfig
    from hourglass.uses.search.term_weights.coil import Coil

    ours, modules = _ours(model), Path(model) / "modules.json"
    if system_of(model) == Coil.system_name():
        coil = Coil.from_pretrained(model)
        return _Sides(coil), coil.tokenizer, coil.config.max_tokens, coil.kept_words
    # A model with a network for each side has the kinds of its modules in another file.
    splade = modules.is_file() and any(kind in modules.read_text(encoding="utf-8") for kind in ("Splade", "Router"))
    if ours.get("system") == Retriever.system_name():
        retriever = Retriever.from_pretrained(model).lexical()
    elif splade or (model != "minilm" and not Path(model).is_dir()):
        return _sparse_encoder(model)
    else:
        tokenizer, network = load_network(model, "masked")
        if network.new_head:
            raise ConfigError(
                f"{model}: has no weights of words; name the folder of a masked language model with its head (a dupmae), of a "
                "text2token, of a retriever with a lexical part, or of a SparseEncoder"
            )
        longest = ours.get("max_tokens") or min(tokenizer.model_max_length, _LONGEST)
        settings = RetrieverConfig(representation="lexical", similarity="dot", max_tokens=longest)
        retriever = Retriever(settings, (network, tokenizer)).eval()
    return retriever, retriever.tokenizer, retriever.config.max_tokens, retriever.config.k


def _ours(model: str) -> dict[str, Any]:
    """The settings of a model of ours that a folder holds; none of another."""
    path = Path(model) / "config.json"
    settings: dict[str, Any] = read_json(path).get("hourglass", {}) if path.is_file() else {}
    return settings


def system_of(model: str) -> str | None:
    """The head that a folder holds; None of a network of transformers."""
    path = Path(model) / "config.json"
    return read_json(path).get("system") if path.is_file() else None


def _sparse_encoder(model: str) -> tuple[Any, Any, int | None, int | None]:
    from sentence_transformers import SparseEncoder

    with loading_errors(model, "model"):
        encoder = SparseEncoder(model, trust_remote_code=False)
    return encoder, encoder.tokenizer, encoder.max_seq_length, encoder.max_active_dims


class Windows:
    """Texts, or parts of them that a model takes.

    windowed   how many of the texts so far were longer than the model
    """

    def __init__(self, tokenizer: Any, longest: int | None) -> None:
        self._tokenizer = backend(tokenizer)
        self._room = (longest or _LONGEST) - tokenizer.num_special_tokens_to_add()
        self.windowed = 0

    def __call__(self, texts: list[str]) -> tuple[list[str], Array, Array]:
        """(pieces, the text that each is of, its number of tokens)."""
        pieces, owners, weights = [], [], []
        for number, (text, encoding) in enumerate(zip(texts, tokenize(self._tokenizer, texts))):
            windows = list(self._windows(text, encoding))
            self.windowed += len(windows) > 1
            for piece, tokens in windows:
                pieces.append(piece)
                owners.append(number)
                weights.append(tokens)
        return pieces, np.array(owners), np.array(weights)

    def _windows(self, text: str, encoding: Any) -> Iterator[tuple[str, int]]:
        number = len(encoding.ids)
        if number <= self._room:
            yield text, max(number, 1)
            return
        borders = np.linspace(0, number, -(-number // self._room) + 1).astype(int)
        for start, stop in pairwise(borders):
            yield text[encoding.offsets[start][0] : encoding.offsets[stop - 1][1]], int(stop - start)
