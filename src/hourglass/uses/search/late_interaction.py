"""Late interaction: a vector for each token, and a document is worth what the best of its tokens is for each of the query's.

    model = open_late("lightonai/LateOn")                        # whatever sentence-transformers opens as MultiVectorEncoder
    kept = keep_tokens(texts, model, folder, bits=2)
    search = MaxSim(kept, model)                                 # retrieves by itself, or scores what was found

s(q, d) = sum over the query's tokens of the largest inner product with a token of d, all vectors of length 1; Khattab and Zaharia
2020 (arXiv 2004.12832). Tokens are kept compressed (`residuals`). Retrieving looks only at documents that have a token near one of
the `probe` centroids nearest to a token of the query, and of these only at those that are best where each token is taken for its
centroid, as PLAID does (Santhanam et al. 2022, arXiv 2205.09707); these it scores on what was kept of them. PLAID prunes once more,
by the centroids that are near the query alone; that is not made. A few thousand documents are all scored.

An index keeps the same in its table: `late`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, final

import numba
import numpy as np

from hourglass.adapters.huggingface_loading import compute_dtype, loading_errors, resolve
from hourglass.adapters.sentence_transformers_reading import compute_in
from hourglass.errors import ConfigError, FolderError
from hourglass.storage.atomic import atomic_folder, read_json, write_json
from hourglass.uses.search.residuals import Compressed, Residuals, unit
from hourglass.uses.search.scanning import in_parts
from hourglass.uses.search.stages import Array, Query, Ranking, Scorer
from hourglass.uses.vectors import Windows, system_of

_TEXTS_AT_ONCE = 256
_SAMPLE = 4_000
"""Texts at the beginning whose tokens the centroids are learned from."""
_SCORED = 4096
"""Documents that are scored on what was kept of them, at the least."""


class Tokens(NamedTuple):
    """Of a text: numbers in the vocabulary [m] int32, -1 of what is no one token, and vectors [m, d] float32."""

    ids: Array
    vectors: Array


class LateModel(Protocol):
    """What a MultiVectorEncoder does: [tokens, d] float32 for each text, queries and documents in their own way."""

    def encode_query(self, texts: Sequence[str]) -> list[Array]: ...

    def encode_document(self, texts: Sequence[str]) -> list[Array]: ...


def open_late(
    model: str, device: str | None = None, dtype: Literal["auto", "float32", "bfloat16"] = "float32"
) -> LateEncoder:
    """A folder or a Hub id of ColBERT's kind, or a plain encoder, which gets an untrained projection, always the same.

    Raises FolderError where there is no such model, ConfigError for a head of ours that is none.
    """
    import torch
    from sentence_transformers import MultiVectorEncoder

    if (system := system_of(model)) is not None:
        raise ConfigError(
            f"{model}: a {system}, and no late-interaction model; name one of ColBERT's kind, or an encoder (COIL scores "
            "again what was found: bm25 >> coil(FOLDER))"
        )
    with loading_errors(model, "late-interaction model"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        opened = MultiVectorEncoder(resolve(model) if model == "minilm" else model, device=device)
    compute_in(opened, compute_dtype(dtype, opened.device))
    return LateEncoder(opened)


class LateEncoder:
    """A `LateModel` by a MultiVectorEncoder. Documents that are longer than it are read in windows, one after another."""

    def __init__(self, model: Any) -> None:
        self._model = model
        longest = getattr(model[0], "document_length", None) or model.max_seq_length
        prompt = next(
            (model.prompts[name] for name in ("document", "passage", "corpus") if model.prompts.get(name)), ""
        )
        before = len(model.tokenizer(prompt, add_special_tokens=False)["input_ids"]) if prompt else 0
        self._windows = Windows(model.tokenizer, longest and longest - before)

    def encode_query(self, texts: Sequence[str]) -> list[Array]:
        made = self._model.encode_query(list(texts), convert_to_numpy=True, show_progress_bar=False)
        return [np.asarray(vectors, np.float32) for vectors in made]

    def encode_document(self, texts: Sequence[str]) -> list[Array]:
        return [tokens.vectors for tokens in self.tokens(texts)]

    def tokens(self, texts: Sequence[str]) -> list[Tokens]:
        """Of documents."""
        pieces, owners, _ = self._windows(list(texts))
        read = [
            _tokens(each) for each in self._model.encode_document(pieces, output_value=None, show_progress_bar=False)
        ]
        ends = np.searchsorted(owners, np.arange(len(texts) + 1))
        return [
            read[a] if b == a + 1 else Tokens(*(np.concatenate(parts) for parts in zip(*read[a:b])))
            for a, b in zip(ends[:-1].tolist(), ends[1:].tolist())
        ]


def _tokens(read: dict[str, Any]) -> Tokens:
    kept = read["attention_mask"].bool().cpu()
    vectors = read["token_embeddings"].float().cpu()[kept].numpy()
    ids = read.get("input_ids")
    if ids is None or len(ids) != len(kept):  # tokens that were pooled are none of the vocabulary
        return Tokens(np.full(len(vectors), -1, np.int32), vectors)
    return Tokens(ids.cpu()[kept].numpy().astype(np.int32), vectors)


class KeptTokens:
    """Token vectors of documents on disk, compressed.

    offsets  [documents + 1] int64: whose tokens are where
    codec    how they are kept; None: it lies in the same folder
    """

    def __init__(self, folder: Path, codec: Residuals | None = None) -> None:
        state = read_json(folder / "tokens.json")
        self.codec = codec or Residuals.load(folder / "codec.safetensors")
        try:
            self.offsets: Array = np.load(folder / "offsets.npy")
            self._nearest = np.load(folder / "nearest.npy", mmap_mode="r").view(np.ndarray)
            self._rest = np.load(folder / "rest.npy", mmap_mode="r").view(np.ndarray)
            self._documents_at = np.load(folder / "documents_at.npy", mmap_mode="r").view(np.ndarray)
            self._ends: Array = np.load(folder / "ends.npy")
        except (OSError, ValueError, EOFError) as error:
            raise FolderError(
                f"{folder}: its token vectors cannot be read ({error}); remove it, and make them again"
            ) from None
        if not len(self._nearest) == len(self._rest) == state["tokens"] == self.offsets[-1]:
            raise FolderError(f"{folder}: holds other tokens than it says; remove it, and make them again")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def places(self, rows: Array) -> tuple[Array, Array]:
        """(where the tokens of documents `rows` are, one after another, [len(rows)] how many each has)."""
        counts = self.offsets[rows + 1] - self.offsets[rows]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.repeat(self.offsets[rows], counts) + within, counts

    def vectors(self, places: Array) -> Array:
        """[n, d] float32 of the tokens that are there."""
        return self.codec.decode(Compressed(self._nearest[places], self._rest[places]))

    def near(self, query: Array, probe: int) -> Array:
        """Rows of documents with a token at one of the `probe` centroids nearest to each of the query's vectors [tokens, d]."""
        documents, offsets = self._documents_at, self._ends
        probe = min(probe, len(self.codec.centroids))
        best = np.unique(np.argpartition(query @ -self.codec.centroids.T, probe - 1, axis=1)[:, :probe])
        return np.unique(np.concatenate([documents[offsets[i] : offsets[i + 1]] for i in best]))

    def best(
        self, query: Array, weights: Array, depth: int, probe: int | None = None, among: Array | None = None
    ) -> Ranking:
        """The best `depth` documents for a query's vectors [m, d], each counting by its weight [m].

        probe  as of `MaxSim`; among: rows that count, all by default
        """
        rows = np.arange(len(self)) if among is None else among
        scored = max(4 * depth, _SCORED)
        if probe is not None and len(rows) > scored and len(query):
            rows = self.near(query, probe) if among is None else np.intersect1d(self.near(query, probe), among)
            if len(rows) > scored:
                products = np.ascontiguousarray(self.codec.centroids @ query.T, np.float32)
                roughly = self._summed(_score_centroids, rows, weights, self._nearest, products)
                rows = Ranking.of(rows, roughly, scored).rows
        return Ranking.of(rows, self.scores(query, weights, rows), depth)

    def scores(self, query: Array, weights: Array, rows: Array) -> Array:
        """[n] float32 of documents `rows` [n], 0 of one without tokens; none hangs on which others are asked for."""
        by_dimension = np.ascontiguousarray(query.T, np.float32)
        codec = self.codec
        return self._summed(
            _score_tokens,
            rows,
            weights,
            self._nearest,
            self._rest,
            codec.centroids,
            codec.values,
            codec.bits,
            by_dimension,
        )

    def _summed(self, loop: Callable[..., None], rows: Array, weights: Array, *given: Any) -> Array:
        rows, made = np.asarray(rows, np.int64), np.zeros(len(rows), np.float32)
        weights = np.ascontiguousarray(weights, np.float32)
        if len(rows):
            tokens = float(len(self._nearest)) / max(1, len(self))
            in_parts(
                len(rows),
                tokens * len(weights) * self._rest.shape[1],
                lambda start, stop: loop(self.offsets, rows[start:stop], weights, made[start:stop], *given),
            )
        return made


def keep_tokens(
    texts: Iterable[str], model: LateModel, folder: Path, *, bits: int = 2, centroids: int | None = None, seed: int = 0
) -> KeptTokens:
    """Encode documents and keep their token vectors in `folder`, which is there whole or not at all.

    bits, centroids, seed  of the codec, which is learned from the first 4,000 texts

    Memory is that of the sample's vectors, then of a batch, and at the end some 24 bytes a token. Raises ConfigError where no text has a token.
    """
    left = iter(texts)
    with atomic_folder(folder) as new:
        sample = list(islice(left, _SAMPLE))
        first = [vectors for batch in _batches(sample) for vectors in model.encode_document(batch)]
        if not any(map(len, first)):
            raise ConfigError(f"none of the first {len(sample):,} texts has a token to keep a vector of")
        codec = Residuals.fit(np.concatenate(first), bits, centroids, seed)
        codec.save(new / "codec.safetensors")

        def compressed() -> Iterator[tuple[Compressed, Array]]:
            yield _kept(codec, first)
            first.clear()
            for batch in _batches(left):
                yield _kept(codec, model.encode_document(batch))

        lay_tokens(compressed(), new, codec)
    return KeptTokens(folder)


def lay_tokens(made: Iterable[tuple[Compressed, Array]], folder: Path, codec: Residuals) -> None:
    """Write what `KeptTokens` reads, but for the codec, of (tokens, how many of them each document has) in batches."""
    lengths = [np.zeros(0, np.int64)]
    with (folder / "nearest.raw").open("wb") as nearest, (folder / "rest.raw").open("wb") as rest:
        for kept, counts in made:
            kept.nearest.astype(np.uint32).tofile(nearest)
            kept.rest.tofile(rest)
            lengths.append(counts)
    offsets = np.append(0, np.cumsum(np.concatenate(lengths))).astype(np.int64)
    np.save(folder / "offsets.npy", offsets)
    width = codec.centroids.shape[1] * codec.bits // 8
    from_raw(folder, "nearest", np.uint32, (int(offsets[-1]),))
    from_raw(folder, "rest", np.uint8, (int(offsets[-1]), width))
    documents_at, ends = _by_centroid(np.load(folder / "nearest.npy", mmap_mode="r"), offsets, len(codec.centroids))
    np.save(folder / "documents_at.npy", documents_at)
    np.save(folder / "ends.npy", ends)
    write_json(folder / "tokens.json", {"tokens": int(offsets[-1]), "documents": len(offsets) - 1, "bits": codec.bits})


def from_raw(folder: Path, name: str, kind: Any, shape: tuple[int, ...]) -> None:
    """NAME.raw becomes NAME.npy."""
    raw = folder / f"{name}.raw"
    np.save(folder / f"{name}.npy", np.memmap(raw, kind, "r", shape=shape) if shape[0] else np.zeros(shape, kind))
    raw.unlink()


@final
class MaxSim(Scorer):
    """Late interaction over kept tokens.

    probe  centroids that are looked at for each token of a query; None: every document is scored, exactly
    """

    def __init__(self, tokens: KeptTokens, model: LateModel, probe: int | None = 8, name: str = "maxsim") -> None:
        check_probe(probe)
        self.name, self._tokens, self._model, self._probe = name, tokens, model, probe

    def retrieve(self, queries: Sequence[Query], depth: int) -> list[Ranking]:
        asked = [unit(np.asarray(each, np.float32)) for each in self._model.encode_query([q.text for q in queries])]
        return [self._tokens.best(vectors, np.ones(len(vectors)), depth, self._probe) for vectors in asked]

    def score(self, query: Query, rows: Array) -> Array:
        asked = unit(np.asarray(self._model.encode_query([query.text])[0], np.float32))
        return self._tokens.scores(asked, np.ones(len(asked)), rows)


def check_probe(probe: int | None) -> None:
    if probe is not None and probe < 1:
        raise ConfigError(f"probe {probe}: expected 1 centroid or more")


def _kept(codec: Residuals, made: Sequence[Array]) -> tuple[Compressed, Array]:
    return codec.encode(np.concatenate([codec.centroids[:0], *made])), np.array(list(map(len, made)), np.int64)


def _by_centroid(nearest: Array, offsets: Array, centroids: int) -> tuple[Array, Array]:
    """(documents, ends [centroids + 1]): those with a token at each centroid, one after another."""
    number = len(offsets) - 1
    owners = np.repeat(np.arange(number), np.diff(offsets))
    pairs = np.unique(nearest.astype(np.int64) * number + owners)
    at, documents = np.divmod(pairs, max(1, number))
    return documents.astype(np.int32), np.searchsorted(at, np.arange(centroids + 1))


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    left = iter(texts)
    while batch := list(islice(left, _TEXTS_AT_ONCE)):
        yield batch


@numba.njit(cache=True, nogil=True)
def _score_tokens(
    offsets: Any,
    rows: Any,
    weights: Any,
    made: Any,
    nearest: Any,
    rest: Any,
    centroids: Any,
    values: Any,
    bits: Any,
    query: Any,
) -> None:
    """Scores of documents for a query [d, m], its tokens side by side so that a processor takes many at a time."""
    m, each, mask = query.shape[1], 8 // bits, (1 << bits) - 1
    best, products = np.empty(m, np.float32), np.empty(m, np.float32)
    for i in range(len(rows)):
        best[:] = -np.inf
        for token in range(offsets[rows[i]], offsets[rows[i] + 1]):
            products[:] = 0
            squares = np.float32(0)
            near = nearest[token]
            for byte in range(rest.shape[1]):
                packed = np.int64(rest[token, byte])
                for part in range(each):
                    j = byte * each + part
                    value = centroids[near, j] + values[packed >> part * bits & mask]
                    squares += value * value
                    for q in range(m):
                        products[q] += value * query[j, q]
            length = np.sqrt(squares)
            if length > 0:
                for q in range(m):
                    products[q] /= length
            for q in range(m):
                best[q] = max(best[q], products[q])
        made[i] = _weighed(best, weights, offsets[rows[i] + 1] > offsets[rows[i]])


@numba.njit(cache=True, nogil=True)
def _score_centroids(offsets: Any, rows: Any, weights: Any, made: Any, nearest: Any, products: Any) -> None:
    """The same where each token is its centroid, of products [centroids, m] of these and the query's vectors."""
    m = products.shape[1]
    best = np.empty(m, np.float32)
    for i in range(len(rows)):
        best[:] = -np.inf
        for token in range(offsets[rows[i]], offsets[rows[i] + 1]):
            near = nearest[token]
            for q in range(m):
                best[q] = max(best[q], products[near, q])
        made[i] = _weighed(best, weights, offsets[rows[i] + 1] > offsets[rows[i]])


@numba.njit(cache=True, nogil=True)
def _weighed(best: Any, weights: Any, has_tokens: Any) -> Any:
    summed = np.float32(0)
    if has_tokens:
        for q in range(len(weights)):
            summed += weights[q] * best[q]
    return summed
