"""Late interaction over an index: its table holds the tokens of each document, compressed, and a query is compared with them.

    index = SearchIndex.create("reviews.csv", "reviews.index", tokens="lightonai/LateOn")
    index.search("polite refusals", pipeline="late")                       # retrieves
    index.search("polite refusals", pipeline="bm25 % 200 >> late % 10")    # scores again what was found

The centroids are learned from the first documents when an index is made, and kept in its folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, final

import numpy as np
import pyarrow as pa

from hourglass.errors import FolderError
from hourglass.storage.places import Place
from hourglass.uses.search.encoding import SPECIMEN, first_numbers, require_same
from hourglass.uses.search.late_interaction import (
    KeptTokens,
    Tokens,
    check_probe,
    from_raw,
    lay_tokens,
    open_late,
)
from hourglass.uses.search.layout import CODEC
from hourglass.uses.search.residuals import Compressed, Residuals, check_bits, unit
from hourglass.uses.search.stages import Array, Query, Ranking, Scorer

if TYPE_CHECKING:
    from hourglass.uses.search.index import SearchIndex

T = TypeVar("T")

_LEARNED_FROM = 1 << 17
"""Tokens at the beginning that the centroids are learned from, and so many documents at most:"""
_LEARNED_DOCUMENTS = 4096
_TEXTS_AT_ONCE = 64
_DOCUMENTS_AT_ONCE = 1024
_COLUMNS = ("token_ids", "token_centroids", "token_rests")


@final
class TokenEncoder:
    """Vectors of the tokens of documents and queries, by a late-interaction model: a folder, or a Hub id.

    width  numbers of a vector
    """

    def __init__(self, name: str) -> None:
        self.name, self._model = name, open_late(name, dtype="auto")
        specimen = self.documents([SPECIMEN])[0].vectors
        self.width, self._revision = specimen.shape[1], first_numbers(specimen.mean(0))

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenEncoder, (self.name,)  # to another process it goes by name

    def documents(self, texts: Sequence[str]) -> list[Tokens]:
        return self._model.tokens(texts)

    def queries(self, texts: Sequence[str]) -> list[Array]:
        """[m, d] float32 of length 1, of each text."""
        return [unit(vectors) for vectors in self._model.encode_query(texts)]

    def settings(self, bits: int) -> dict[str, Any]:
        """What an index keeps of it; ConfigError where its vectors cannot be kept in so many bits."""
        check_bits(bits, self.width)
        return {"id": self.name, "width": self.width, "revision": self._revision, "bits": bits}

    def require(self, settings: dict[str, Any], index: str) -> None:
        """ConfigError where it is not the model of the index whose `settings` are given."""
        now = {"id": self.name, "width": self.width, "revision": self._revision}
        require_same(now, settings, index, "late-interaction model")


@final
class TokenColumns:
    """The columns of an index that hold the tokens of its documents.

    place  where the codec is, or will be
    """

    def __init__(self, encoder: TokenEncoder, place: Place, bits: int) -> None:
        self._encoder, self._place, self._bits = encoder, place, bits

    def learned(self, read: Iterator[T], texts: Callable[[T], list[str]]) -> Iterator[T]:
        """What is read, whole, after the codec has been learned from the texts at its beginning, unless it is there."""
        if self._place.is_file():
            return read
        first: list[T] = []
        vectors: list[Array] = []
        tokens = 0
        for batch in read:
            first.append(batch)
            for some in _few(texts(batch)):
                if tokens < _LEARNED_FROM and len(vectors) < _LEARNED_DOCUMENTS:
                    vectors += [each.vectors for each in self._encoder.documents(some)]
                    tokens = sum(map(len, vectors))
            if tokens >= _LEARNED_FROM or len(vectors) >= _LEARNED_DOCUMENTS:
                break
        if tokens:
            self._place.keep(Residuals.fit(np.concatenate(vectors), self._bits).save)
        return chain(first, read)

    @cached_property
    def _codec(self) -> Residuals:
        return read_codec(self._place)

    def arrow(self, texts: Sequence[str]) -> dict[str, pa.Array]:
        ids, kept, counts = [], [], [0]
        for some in _few(texts):
            read = self._encoder.documents(some)
            ids += [tokens.ids for tokens in read]
            counts += [len(tokens.ids) for tokens in read]
            kept.append(self._codec.encode(np.concatenate([tokens.vectors for tokens in read])))
        nearest, rest = (np.concatenate(parts) for parts in zip(*kept))
        ends = np.cumsum(counts)
        lists = pa.array(ends, pa.int32())
        rests = [pa.py_buffer((ends * rest.shape[1]).astype(np.int64)), pa.py_buffer(np.ascontiguousarray(rest))]
        made = (
            pa.ListArray.from_arrays(lists, pa.array(np.concatenate(ids), pa.int32())),
            pa.ListArray.from_arrays(lists, pa.array(nearest, pa.uint32())),
            pa.Array.from_buffers(pa.large_binary(), len(texts), [None, *rests]),
        )
        return dict(zip(_COLUMNS, made))


@final
class IndexTokens:
    """The tokens of the documents of an index, as a search reads them; made of one version, and kept.

    ids        [tokens] int32 of the vocabulary, in the order of `kept`
    documents  [vocabulary] in how many documents each is
    """

    def __init__(self, index: SearchIndex) -> None:
        index.require_tokens()
        self._index = index
        folder = index.cached("late", self._build)
        self.kept = KeptTokens(folder, self._codec)
        self.ids: Array = np.load(folder / "ids.npy", mmap_mode="r").view(np.ndarray)
        self.documents: Array = np.load(folder / "documents.npy")

    @cached_property
    def _codec(self) -> Residuals:
        return read_codec(self._index.home.file(CODEC))

    def of(self, rows: Array) -> Tokens:
        """The tokens of documents `rows`, one after another."""
        places, _ = self.kept.places(rows)
        return Tokens(self.ids[places], self.kept.vectors(places))

    def rarity(self, ids: Array) -> Array:
        """[n] log((N + 1) / (documents with the token + 1)) of tokens `ids` [n]."""
        return np.log((len(self.kept) + 1) / (self.documents[ids] + 1))

    def _build(self, folder: Path) -> None:
        having = np.zeros(0, np.int64)

        def read() -> Iterator[tuple[Compressed, Array]]:
            nonlocal having
            with (folder / "ids.raw").open("wb") as file:
                for batch in self._index.batches(_COLUMNS, _DOCUMENTS_AT_ONCE):
                    ids, centroids, rests = (batch.column(name) for name in _COLUMNS)
                    numbers = ids.flatten().to_numpy()
                    numbers.astype(np.int32).tofile(file)
                    counts = np.diff(ids.offsets.to_numpy()).astype(np.int64)
                    known = numbers >= 0
                    having = _added(having, numbers[known], np.repeat(np.arange(len(counts)), counts)[known])
                    rest = np.frombuffer(b"".join(rests.to_pylist()), np.uint8).reshape(len(numbers), -1)
                    yield Compressed(centroids.flatten().to_numpy(), rest), counts

        lay_tokens(read(), folder, self._codec)
        from_raw(folder, "ids", np.int32, ((folder / "ids.raw").stat().st_size // 4,))
        np.save(folder / "documents.npy", having)


def _few(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """So few at a time that their vectors have room before they are compressed."""
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        yield texts[start : start + _TEXTS_AT_ONCE]


def read_codec(place: Place) -> Residuals:
    """FolderError where it is missing or damaged."""
    if not place.is_file():
        raise FolderError(f"{place}: missing; make the index again")
    with place.fetched() as path:
        return Residuals.load(path)


def _added(having: Array, ids: Array, owners: Array) -> Array:
    """`having` with the documents `owners` [n] counted once for each of their tokens `ids` [n]."""
    size = max(len(having), int(ids.max(initial=-1)) + 1)
    once = np.bincount(np.unique(owners * size + ids) % max(1, size), minlength=size)
    return once + np.pad(having, (0, size - len(having)))


@final
class Late(Scorer):
    """Documents by late interaction: for each token of the query the nearest of theirs.

    probe  centroids that are looked at for each token of a query
    exact  look at every document instead

    ConfigError for an index without token vectors.
    """

    def __init__(self, index: SearchIndex, probe: int = 8, exact: bool = False) -> None:
        check_probe(probe)
        self.name, self._index, self._probe = "late", index, None if exact else probe
        index.require_tokens()

    def retrieve(self, queries: Sequence[Query], depth: int) -> list[Ranking]:
        asked, kept = self._index.encode_tokens(queries), self._tokens.kept
        return [kept.best(*query, depth, self._probe, self._index.selected) for query in asked]

    def score(self, query: Query, rows: Array) -> Array:
        return self._tokens.kept.scores(*self._index.encode_tokens([query])[0], rows)

    @cached_property
    def _tokens(self) -> IndexTokens:
        return IndexTokens(self._index)
