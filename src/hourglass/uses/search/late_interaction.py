"""Late interaction: a vector for each token, and a document is worth what the best of its tokens is for each of the query's.

    model = open_late("lightonai/LateOn")                        # whatever sentence-transformers opens as MultiVectorEncoder
    kept = keep_tokens(texts, model, folder, bits=2)
    search = MaxSim(kept, model)                                 # retrieves by itself, or scores what was found

s(q, d) = sum over the query's tokens of the largest inner product with a token of d, all vectors of length 1; Khattab and Zaharia
2020 (arXiv 2004.12832). Tokens are kept compressed (`residuals`). Retrieving looks only at documents that have a token near one of
the `probe` centroids nearest to a token of the query, as PLAID does (Santhanam et al. 2022, arXiv 2205.09707), and then scores these exactly,
on what was kept of them; PLAID's two rounds of pruning by centroids alone are not made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np

from hourglass.adapters.huggingface_loading import loading_errors
from hourglass.errors import ConfigError, FolderError
from hourglass.storage.atomic import atomic_folder, read_json, write_json
from hourglass.uses.search.residuals import Compressed, Residuals, unit
from hourglass.uses.search.stages import Array, Query, Ranking, Scorer

_TEXTS_AT_ONCE = 256
_SAMPLE = 4_000
"""Texts at the beginning whose tokens the centroids are learned from."""
_TOKENS_AT_ONCE = 65_536


class LateModel(Protocol):
    """What a MultiVectorEncoder does: [tokens, d] float32 for each text, queries and documents in their own way."""

    def encode_query(self, texts: Sequence[str]) -> list[Array]: ...

    def encode_document(self, texts: Sequence[str]) -> list[Array]: ...


def open_late(model: str, device: str | None = None) -> LateModel:
    """A folder or a Hub id of ColBERT's kind, or a plain encoder, which gets an untrained projection.

    Raises FolderError where there is no such model.
    """
    from sentence_transformers import MultiVectorEncoder

    with loading_errors(model, "late-interaction model"):
        return _Opened(MultiVectorEncoder(model, device=device))


class _Opened:
    def __init__(self, model: Any) -> None:
        self._model = model

    def encode_query(self, texts: Sequence[str]) -> list[Array]:
        return self._made(self._model.encode_query, texts)

    def encode_document(self, texts: Sequence[str]) -> list[Array]:
        return self._made(self._model.encode_document, texts)

    @staticmethod
    def _made(encode: Callable[..., Any], texts: Sequence[str]) -> list[Array]:
        made: list[Array] = encode(list(texts), convert_to_numpy=True, show_progress_bar=False)
        return made


class KeptTokens:
    """Token vectors of documents on disk, compressed.

    offsets  [documents + 1] int64: whose tokens are where
    codec    how they are kept
    """

    def __init__(self, folder: Path) -> None:
        state = read_json(folder / "tokens.json")
        self.codec = Residuals.load(folder / "codec.safetensors")
        try:
            self.offsets: Array = np.load(folder / "offsets.npy")
            self._nearest = np.load(folder / "nearest.npy", mmap_mode="r")
            self._rest = np.load(folder / "rest.npy", mmap_mode="r")
            self._documents_at = np.load(folder / "documents_at.npy", mmap_mode="r")
            self._ends: Array = np.load(folder / "ends.npy")
        except (OSError, ValueError) as error:
            raise FolderError(f"{folder}: its token vectors cannot be read ({error}); make them again") from None
        if not len(self._nearest) == len(self._rest) == state["tokens"] == self.offsets[-1]:
            raise FolderError(f"{folder}: holds other tokens than it says; make them again")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def vectors(self, rows: Array) -> tuple[Array, Array]:
        """([tokens, d] float32, [len(rows)] how many each has) of documents `rows`, one after another."""
        counts = self.offsets[rows + 1] - self.offsets[rows]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        at = np.repeat(self.offsets[rows], counts) + within
        return self.codec.decode(Compressed(self._nearest[at], self._rest[at])), counts

    def near(self, query: Array, probe: int) -> Array:
        """Rows of documents with a token at one of the `probe` centroids nearest to each of the query's vectors [tokens, d]."""
        documents, offsets = self._documents_at, self._ends
        probe = min(probe, len(self.codec.centroids))
        best = np.unique(np.argpartition(query @ -self.codec.centroids.T, probe - 1, axis=1)[:, :probe])
        return np.unique(np.concatenate([documents[offsets[i] : offsets[i + 1]] for i in best]))


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
        lengths: list[int] = []
        with (new / "nearest.raw").open("wb") as nearest, (new / "rest.raw").open("wb") as rest:

            def write(made: Sequence[Array]) -> None:
                kept = codec.encode(np.concatenate([codec.centroids[:0], *made]))
                kept.nearest.tofile(nearest)
                kept.rest.tofile(rest)
                lengths.extend(map(len, made))

            write(first)
            del first
            for batch in _batches(left):
                write(model.encode_document(batch))
        offsets = np.append(0, np.cumsum(lengths)).astype(np.int64)
        np.save(new / "offsets.npy", offsets)
        for name, kind, shape in (
            ("nearest", np.uint32, (offsets[-1],)),
            ("rest", np.uint8, (offsets[-1], codec.centroids.shape[1] * bits // 8)),
        ):
            raw = np.memmap(new / f"{name}.raw", kind, "r", shape=tuple(map(int, shape)))
            np.save(new / f"{name}.npy", raw)
            (new / f"{name}.raw").unlink()
        documents_at, ends = _by_centroid(np.load(new / "nearest.npy", mmap_mode="r"), offsets, len(codec.centroids))
        np.save(new / "documents_at.npy", documents_at)
        np.save(new / "ends.npy", ends)
        write_json(new / "tokens.json", {"tokens": int(offsets[-1]), "documents": len(lengths), "bits": bits})
    return KeptTokens(folder)


@final
class MaxSim(Scorer):
    """Late interaction over kept tokens.

    probe  centroids that are looked at for each token of a query; None: every document is scored, exactly
    """

    def __init__(self, tokens: KeptTokens, model: LateModel, probe: int | None = 8, name: str = "maxsim") -> None:
        if probe is not None and probe < 1:
            raise ConfigError(f"probe {probe}: expected 1 centroid or more, or None for all documents")
        self.name, self._tokens, self._model, self._probe = name, tokens, model, probe

    def retrieve(self, queries: Sequence[Query], depth: int) -> list[Ranking]:
        made = []
        for vectors in self._model.encode_query([query.text for query in queries]):
            asked = unit(np.asarray(vectors, np.float32))
            everything = self._probe is None or not len(asked)
            rows = np.arange(len(self._tokens)) if everything else self._tokens.near(asked, self._probe or 0)
            made.append(Ranking.of(rows, self._scores(asked, rows), depth))
        return made

    def score(self, query: Query, rows: Array) -> Array:
        asked = unit(np.asarray(self._model.encode_query([query.text])[0], np.float32))
        return self._scores(asked, rows)

    def _scores(self, query: Array, rows: Array) -> Array:
        counts = self._tokens.offsets[rows + 1] - self._tokens.offsets[rows]
        parts = np.split(rows, np.flatnonzero(np.diff(np.cumsum(counts) // _TOKENS_AT_ONCE)) + 1)
        return np.concatenate([max_sim(query, *self._tokens.vectors(part)) for part in parts])


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


def max_sim(query: Array, tokens: Array, counts: Array) -> Array:
    """[n] scores of documents with `counts` [n] of the `tokens` [sum, d] each, for a query [m, d]; one without tokens has 0."""
    made = np.zeros(len(counts), np.float32)
    full = counts > 0
    if full.any() and len(query):
        starts = (np.cumsum(counts) - counts)[full]
        made[full] = np.maximum.reduceat(tokens @ query.T, starts, axis=0).sum(1)
    return made
