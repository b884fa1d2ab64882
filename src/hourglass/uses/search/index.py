"""A search index: a folder that holds documents, their vectors and whatever else a search reads, in versions.

    index = SearchIndex.create("reviews.csv", "reviews.index", encoder="minilm")
    index.search("polite refusals", top=10)
    index.append("more.csv"); index.update("corrected.csv"); index.delete(where="year < 2010"); index.compact()

    DIR/index.json       format, encoder, settings
    DIR/documents.lance  a Lance data set: _id, text, the source's columns, and on request vector, tokens and weights, code, and
                         token_ids, token_centroids, token_rests
    DIR/*.safetensors    what was learned of the first documents: the hasher of codes, the codec of token vectors
    DIR/cache            what retrievers make of one version; made again when it is missing

DIR may be the URL of an object store; the cache is then on this machine (`homes.py`).

Every change is one commit: after a kill at any moment the index is that of the last call that returned. One process writes at a
time, its lock dies with it; who has the index open goes on reading the version that was opened.
"""

from __future__ import annotations

import copy
import re
import shutil
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hourglass.errors import ConfigError, FolderError
from hourglass.storage.atomic import atomic_folder, clear_leftovers
from hourglass.uses.search import writing
from hourglass.uses.search.coding import CODES, Coder, index_coder
from hourglass.uses.search.encoding import IndexEncoder, Precision, compared
from hourglass.uses.search.homes import Store, home_of
from hourglass.uses.search.late import TokenEncoder
from hourglass.uses.search.layout import (
    HASHER,
    OWN,
    is_damage,
    open_table,
    reason,
    rows_of_lists,
    unreadable,
)
from hourglass.uses.search.stages import Array, Query, Stage
from hourglass.uses.search.words import Words
from hourglass.uses.vectors import Weigher

if TYPE_CHECKING:
    from hourglass.uses.search.results import Results

Kept = TypeVar("Kept")

_READ_AT_ONCE = 16_384
_QUERIES_KEPT = 10_000


@final
class SearchIndex:
    """An index as it was when it was opened. Documents are rows, numbered from 0 within the version.

    manifest  what index.json says
    version   of the Lance data set
    trouble   what the last writing had to say about its source, a line for each kind
    selected  rows that `where` has left, or None for all
    """

    def __init__(
        self,
        folder: str | Path,
        encoder: Any = None,
        weigher: Callable[[str], Any] = lambda name: name,
        opened: Callable[[str], Any] = lambda name: name,
    ) -> None:
        self.home = home_of(folder)
        self.folder = self.home.folder
        if not self.home.is_index():
            unfinished = " (one was begun; run the same command again)" if self.home.is_unfinished() else ""
            raise FolderError(f"{folder}: no search index{unfinished}; make one: hourglass index SOURCE --out {folder}")
        self.manifest = self.home.manifest()
        self.selected: Array | None = None
        self._whole: SearchIndex | None = None
        self.trouble: list[str] = []
        self._given, self._weigher_of, self._opened = encoder, weigher, opened
        # What a model has made of a query once is what every stage sees: in another batch the last digits differ.
        self._encoded: dict[str, Array] = {}
        self._weighed: dict[str, dict[str, float]] = {}
        self._token_vectors: dict[str, Array] = {}
        self._kept: dict[str, Any]
        self._open()

    @classmethod
    def create(cls, source: Any, out: str | Path, **options: Any) -> Self:
        """Make an index; options as of `writing.create`. A build that was killed goes on when it is called again."""
        trouble = writing.create(source, home_of(out), **options)
        made = cls(out, **{name: options[name] for name in ("encoder", "weigher", "opened") if name in options})
        made.trouble = trouble
        return made

    def _open(self) -> None:
        """Take up the newest version, and say so to whoever would clean it away."""
        self._reading = weakref.finalize(self, self.home.begin_reading())
        self.table = open_table(self.home.table(), self.folder)
        self.version = int(self.table.version)
        self._kept = {}
        with self._reading_errors():
            self._rows = int(self.table.count_rows())

    # Reading --------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Documents of the version, those that `where` leaves out among them: rows keep their numbers."""
        return self._rows

    @property
    def columns(self) -> list[str]:
        """Of the source, beside its text."""
        return [name for name in self.table.schema.names if name not in OWN]

    def texts(self, rows: Array) -> list[str]:
        """Of documents `rows` [n]."""
        return self.take(rows, ["text"])["text"].to_pylist()

    def names(self, rows: Array) -> list[str]:
        """Of documents `rows` [n]."""
        return self._names.take(pa.array(np.asarray(rows, np.int64))).to_pylist()

    def rows_of(self, names: Sequence[str]) -> Array:
        """Rows of documents by their names; ConfigError for one that there is not."""
        found = pc.index_in(pa.array(names, pa.string()), self._names)
        if found.null_count:
            raise ConfigError(f"{self.folder}: no document {names[found.is_null().to_pylist().index(True)]!r}")
        return found.to_numpy().astype(np.int64)

    def take(self, rows: Array, columns: Sequence[str]) -> pa.Table:
        """Columns of documents `rows` [n], in their order."""
        with self._reading_errors():
            return self.table.take(np.asarray(rows, np.int64).tolist(), columns=list(columns))

    def batches(self, columns: Sequence[str], rows: int = _READ_AT_ONCE) -> Iterator[pa.RecordBatch]:
        """Columns of all documents, in order, at most so many rows at once."""
        with self._reading_errors():
            yield from self.table.scanner(columns=list(columns), batch_size=rows, scan_in_order=True).to_batches()

    def vectors(self, rows: Array) -> Array:
        """[n, d] float32 of documents `rows` [n], of length 1 where they are compared by cosine."""
        self.require_vectors()
        column = self.take(rows, ["vector"])["vector"].combine_chunks()
        return compared(rows_of_lists(column), self.similarity)

    def where(self, filter: str) -> SearchIndex:
        """The index of which retrievers see only documents for which `filter`, as SQL writes it, holds: `year >= 2020`.

        A column of text (all are, of a .csv) that is compared with a number is read as numbers; what is none does not match.
        Rows keep their numbers. ConfigError, in one line, for what is no condition on the columns that there are.
        """
        all_rows = [batch.column("_rowaddr").to_numpy() for batch in self._addresses(None)]
        matching = [batch.column("_rowaddr").to_numpy() for batch in self._addresses(filter)]
        addresses = np.concatenate(all_rows) if all_rows else np.zeros(0, np.uint64)
        order = np.argsort(addresses, kind="stable")
        found = np.concatenate(matching) if matching else np.zeros(0, np.uint64)
        rows = np.sort(order[np.searchsorted(addresses[order], found)]).astype(np.int64)
        view = copy.copy(self)
        view._whole = self  # whose lock it needs
        view.selected = rows if self.selected is None else np.intersect1d(self.selected, rows)
        return view

    def _addresses(self, filter: str | None) -> list[pa.RecordBatch]:
        if filter is not None:
            filter = self._checked_filter(filter)
        with self._reading_errors():
            return list(
                self.table.scanner(
                    columns=[], filter=filter, with_row_address=True, batch_size=1 << 20, scan_in_order=True
                ).to_batches()
            )

    def _checked_filter(self, filter: str) -> str:
        """As Lance takes it."""
        try:
            if not filter.strip():
                raise ValueError("it is empty")
            if ";" in re.sub(r"'[^']*'", "", filter):
                raise ValueError("there is a ';' in it")  # what follows would be dropped without a word
            made = self._with_numbers(filter)
            self.table.scanner(columns=["_id"], filter=made, limit=1).to_table()
            return made
        except (OSError, ValueError, TypeError) as error:
            if is_damage(error):
                raise unreadable(self.folder, error) from None
            raise ConfigError(
                f"filter {filter!r}: {reason(error)}; expected a condition on columns, as year >= 2020 and lang = 'en' "
                f"(columns: {', '.join(['_id', 'text', *self.columns])})"
            ) from None

    def _with_numbers(self, filter: str) -> str:
        """Columns of text as numbers where a bare number is compared with them; what is in quotes stays."""
        text = [field.name for field in self.table.schema if pa.types.is_string(field.type)]
        if not text:
            return filter
        name = "|".join(map(re.escape, sorted(text, key=len, reverse=True)))
        column, number = rf"(?<![\w`])(?:`(?:{name})`|(?:{name})(?![\w`]))", r"[-+]?(?:\d|\.\d)"
        before = re.compile(rf"({number}[\d.]*\s*[<>=!]+\s*)({column})", re.I)
        after = re.compile(rf"()({column})(?=\s*(?:[<>=!]+|(?:NOT\s+)?(?:BETWEEN|IN\s*\())\s*{number})", re.I)
        parts = re.split(r"('(?:[^']|'')*')", filter)
        for pattern in (before, after):
            parts = [p if p.startswith("'") else pattern.sub(r"\1TRY_CAST(\2 AS DOUBLE)", p) for p in parts]
        return "".join(parts)

    @cached_property
    def _names(self) -> pa.Array:
        return pa.chunked_array([batch.column("_id") for batch in self.batches(["_id"])], pa.string()).combine_chunks()

    @contextmanager
    def _reading_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, pa.ArrowException) as error:
            raise unreadable(self.folder, error) from None

    # What retrievers need -------------------------------------------------------------------------------

    @property
    def has_vectors(self) -> bool:
        return self.manifest["vectors"] is not None

    @property
    def answers_vectors(self) -> bool:
        """Whether there are vectors, and an encoder for queries."""
        return self.has_vectors and (self.manifest["encoder"] is not None or self._given is not None)

    def require_vectors(self) -> None:
        if not self.has_vectors:
            raise ConfigError(f"{self.folder}: an index without vectors; make one with --encoder, or search by bm25")

    def require_weights(self) -> None:
        if self.manifest["sparse"] is None:
            raise ConfigError(f"{self.folder}: an index without weights of words; make one with --sparse MODEL")

    def require_codes(self) -> None:
        if self.manifest["code"] is None:
            raise ConfigError(f"{self.folder}: an index without binary codes; make one with --code {'|'.join(CODES)}")

    @property
    def has_tokens(self) -> bool:
        """Whether there are vectors of the tokens of documents."""
        return self.manifest.get("tokens") is not None  # older ones do not say

    def require_tokens(self) -> None:
        if not self.has_tokens:
            raise ConfigError(f"{self.folder}: an index without vectors of tokens; make one with --tokens MODEL")

    @property
    def similarity(self) -> str:
        self.require_vectors()
        return str(self.manifest["vectors"]["similarity"])

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        self.require_vectors()
        return int(self.manifest["vectors"]["width"])

    @cached_property
    def words(self) -> Words:
        """Texts to the terms of the index of words."""
        return Words(self.manifest["bm25"]["stem"], self.manifest["bm25"]["stop_words"])

    @cached_property
    def encoder(self) -> IndexEncoder:
        """ConfigError where the index has none, or where it is not the one that it was made with."""
        self.require_vectors()
        known = self.manifest["encoder"]
        if known is None and self._given is None:
            raise ConfigError(
                f"{self.folder}: its vectors were given, and no encoder of queries with them; make it with --encoder"
            )
        precision: Precision = known.get("precision", "auto") if known is not None else "auto"
        encoder = IndexEncoder(self._given if self._given is not None else known["id"], self._opened, precision)
        if known is not None:
            encoder.require(known, str(self.folder))
        elif encoder.width != self.width:
            raise ConfigError(
                f"{self.folder}: vectors of {self.width} numbers, the encoder {encoder.name!r} gives {encoder.width}"
            )
        return encoder

    def encode(self, queries: Sequence[Query]) -> Array:
        """[n, d] float32: the vector that a query carries, else that of its text; of length 1 where compared by cosine."""
        return compared(self._vectors_of(queries), self.similarity)

    def codes(self, queries: Sequence[Query]) -> Array:
        """[n, bytes] uint8: codes of the vectors of queries; ConfigError where the index has no codes."""
        return self.coder.codes(self._vectors_of(queries))

    def _vectors_of(self, queries: Sequence[Query]) -> Array:
        """[n, d] float32, as the encoder gives them."""
        new = _unseen(self._encoded, (query.text for query in queries if query.vector is None))
        if new:
            self._encoded.update(zip(new, self.encoder.queries(new)))
        made = [self._encoded[query.text] if query.vector is None else query.vector for query in queries]
        return np.array(made, np.float32).reshape(-1, self.width)

    def compare(self, query: Query, texts: Sequence[str]) -> Array:
        """[n] inner products of the query's vector and those that the encoder gives for texts: a `TextScorer`."""
        vectors = compared(self.encoder.documents(texts), self.similarity)
        return np.asarray(vectors @ self.encode([query])[0])

    def forget_queries(self) -> None:
        """Forget what models have made of queries: a search that is timed next pays for it."""
        for known in (self._encoded, self._weighed, self._token_vectors):
            known.clear()

    def weigh(self, queries: Sequence[Query]) -> list[dict[str, float]]:
        """Weights of terms that a query carries, else those that the model of the documents' weights gives a query of its text."""
        new = _unseen(self._weighed, (query.text for query in queries if query.terms is None))
        if new:
            self._weighed.update(zip(new, self.weigher.queries(new)))
        return [self._weighed[query.text] if query.terms is None else query.terms for query in queries]

    def encode_tokens(self, queries: Sequence[Query]) -> list[tuple[Array, Array]]:
        """(vectors of tokens [m, d], weights [m]) that a query carries, else those of its text, each counting 1."""
        new = _unseen(self._token_vectors, (query.text for query in queries if query.tokens is None))
        if new:
            self._token_vectors.update(zip(new, self.token_encoder.queries(new)))
        made = []
        for query in queries:
            if query.tokens is not None:
                made.append(query.tokens)
            else:
                vectors = self._token_vectors[query.text]
                made.append((vectors, np.ones(len(vectors), np.float32)))
        return made

    @cached_property
    def token_encoder(self) -> TokenEncoder:
        """ConfigError where the index has no token vectors, or where its model is not the one that it was made with."""
        self.require_tokens()
        encoder = TokenEncoder(self.manifest["tokens"]["id"])
        encoder.require(self.manifest["tokens"], str(self.folder))
        return encoder

    @cached_property
    def weigher(self) -> Weigher:
        """Of the words of queries, as of the documents'; ConfigError where the index has no weights."""
        self.require_weights()
        return Weigher(self._weigher_of(self.manifest["sparse"]["id"]))

    @cached_property
    def coder(self) -> Coder:
        """ConfigError where the index has no codes."""
        self.require_codes()
        return index_coder(self.home.file(HASHER), self.manifest, lambda: self.encoder)

    def cached(self, name: str, build: Callable[[Path], None]) -> Path:
        """The folder that `build` fills from this version; kept, and those of older versions removed."""
        place = self.home.cache / f"{name}@{self.version}"
        if not place.is_dir():
            with atomic_folder(place) as part:
                build(part)
            for other in place.parent.glob(f"{name}@*"):
                if int(other.name.rpartition("@")[2]) < self.version:
                    shutil.rmtree(other, ignore_errors=True)
        return place

    def kept(self, name: str, build: Callable[[Path], None], read: Callable[[Path], Kept]) -> Kept:
        """What `read` makes of the folder of `cached`: once for the version, whichever stage asks."""
        if name not in self._kept:
            self._kept[name] = read(self.cached(name, build))
        made: Kept = self._kept[name]
        return made

    # Searching ------------------------------------------------------------------------------------------

    def pipeline(self, spec: str | None = None) -> Stage:
        """What `spec` names; by default words and vectors side by side, fused, or words alone where there are no vectors."""
        from hourglass.uses.search.pipelines import pipeline  # retrievers are made of an index

        return pipeline(self, spec)

    def search(self, query: str, *, pipeline: str | Stage | None = None, top: int = 10) -> Results:
        """The best `top` documents, each with the passage that answers best; ConfigError for an empty query."""
        from hourglass.uses.search.results import search

        return search(self, query, pipeline, top)

    # Writing --------------------------------------------------------------------------------------------

    def append(self, source: Any, **options: Any) -> int:
        """Add the documents of a source, all or none; returns how many. Options: text, id, limit, progress.

        SourceError for an id that is there already, with its row.
        """
        return self._write(source, "append", **options)

    def update(self, source: Any, **options: Any) -> int:
        """Put documents in the place of those with the same id, and add the others; options as of `append`."""
        return self._write(source, "update", **options)

    def _write(self, source: Any, how: str, **options: Any) -> int:
        with self.home.lock():
            self._again()
            number, self.trouble = writing.add(self, source, how, **options)
            self._again()
        return number

    def delete(self, ids: Sequence[str] = (), *, where: str | None = None) -> int:
        """Remove documents by id, or all for which a condition holds; returns how many.

        ConfigError for an id that there is not; nothing is removed then.
        """
        if bool(ids) == (where is not None):
            raise ConfigError("delete: give ids, or a condition")
        with self.home.lock():
            self._again()
            before = len(self)
            if where is not None:
                those = self._checked_filter(where)
            else:
                self.rows_of(list(ids))
                those = _among(ids)
            with self._reading_errors():
                self.table.delete(those)
            self._again()
        return before - len(self)

    def compact(self) -> bool:
        """Join the files of many writings; versions that nobody reads are removed. False where somebody reads one, or may.

        In an object store, where that is not known, versions older than two weeks are removed.
        """
        with self.home.lock():
            self._again()
            with self._reading_errors():
                self.table.optimize.compact_files()
            self._reading()  # this one reads the newest
            if isinstance(self.home, Store):
                with self._reading_errors():
                    self.table.cleanup_old_versions()
            with self.home.exclusive() as alone:
                if alone:
                    with self._reading_errors():
                        self.table.cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)
            self._again()
            if alone:
                clear_leftovers(self.home.cache)
                for place in self.home.cache.glob("*@*"):
                    if int(place.name.rpartition("@")[2]) < self.version:
                        shutil.rmtree(place, ignore_errors=True)
        return alone

    def _again(self) -> None:
        """Go on with the newest version."""
        if self.selected is not None:
            raise ConfigError("a view of an index is only read; write to the index itself")
        self._reading()
        vars(self).pop("_names", None)
        self._open()


def _among(ids: Sequence[str]) -> str:
    quoted = ", ".join("'" + str(id).replace("'", "''") + "'" for id in ids)
    return f"_id IN ({quoted})"


def _unseen(known: dict[str, Any], texts: Iterable[str]) -> list[str]:
    """Those texts that are not known, once each; what is known is forgotten when it has become much."""
    if len(known) > _QUERIES_KEPT:
        known.clear()
    return [text for text in dict.fromkeys(texts) if text not in known]
