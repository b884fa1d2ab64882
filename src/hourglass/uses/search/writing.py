"""How documents come into an index: read in batches, encoded, and committed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from hourglass.data import TextSource, open_texts
from hourglass.errors import ConfigError, FolderError, SourceError, nearest
from hourglass.storage.atomic import disk_errors
from hourglass.storage.places import Place
from hourglass.uses import engines
from hourglass.uses.engines import Engine
from hourglass.uses.progress import Progress
from hourglass.uses.search.coding import (
    Coder,
    add_learned_codes,
    arrow_codes,
    code_settings,
    index_coder,
    is_learned,
    settle_bits,
)
from hourglass.uses.search.encoding import IndexEncoder, Precision
from hourglass.uses.search.homes import Building, Home
from hourglass.uses.search.late import TokenColumns, TokenEncoder
from hourglass.uses.search.layout import (
    CODEC,
    FORMAT,
    OWN,
    import_lance,
    open_table,
    unreadable,
)
from hourglass.uses.search.stages import Array
from hourglass.uses.search.words import Words
from hourglass.uses.vectors import Weigher

if TYPE_CHECKING:
    from hourglass.uses.search.index import SearchIndex

_TEXTS_AT_ONCE = 1024
_COMMITTED_AT_ONCE = 16_384
_DOCUMENTS_OF_A_BLOCK = 4096
_BYTES_AT_ONCE = 128 * 2**20
_SECONDS_AT_ONCE = 60
_Read = tuple[pa.RecordBatch, int]
"""Documents, and the rows of the source up to them."""
_DTYPES = {"float16": pa.float16(), "float32": pa.float32()}


def create(
    source: Any,
    home: Home,
    *,
    encoder: Any = "minilm",
    sparse: str | None = None,
    code: str | None = None,
    bits: int | None = None,
    tokens: str | None = None,
    token_bits: int = 2,
    vectors: str | None = None,
    similarity: str | None = None,
    dtype: str = "float16",
    stem: str | None = "english",
    stop_words: str | None = "english",
    k1: float = 1.5,
    b: float = 0.75,
    precision: Precision = "auto",
    engine: str = "local",
    text: str | None = None,
    id: str | None = None,
    limit: int | None = None,
    force: bool = False,
    weigher: Callable[[str], Any] = lambda name: name,
    opened: Callable[[str], Any] = lambda name: name,
    progress: bool = True,
) -> list[str]:
    """Write an index of the source's texts to `home`; returns what there is to say about the source.

    encoder     "minilm", a folder or a Hub id; or whatever `text_encoder` takes; None: no vectors
    sparse      a model with weights of words, as for `hourglass encode --sparse`
    code        "sign", "median", "hyperplanes" or "itq": also a binary code of each vector, learned from a sample of them; "own": that
                of the encoder, which is the default of one that has codes
    bits        of a code; by default as many as the vectors have numbers
    tokens      a late-interaction model: also vectors of the tokens of each text, `token_bits` (1, 2, 4 or 8) a number
    vectors     column of the source that holds the vectors, as lists of numbers; the encoder is then of the queries only
    similarity  "cosine" or "dot"; by default what the encoder was made for
    dtype       of the vectors on disk: "float16" or "float32"
    stem, stop_words, k1, b    of the index of words
    precision   of the encoder's network: "auto", "float32" or "bfloat16"
    engine      where models read: "local", or "ray", a cluster
    weigher     makes of the name of `sparse` what `Weigher` takes; opened: of that of `encoder` what `IndexEncoder` takes

    It is put to its home when it is whole. After a kill the same call goes on from the last commit; with
    other settings it begins again. Raises InputError for bad input, in one line; nothing is left then.
    """
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype {dtype!r}{nearest(dtype, _DTYPES)}")
    if similarity not in (None, "cosine", "dot"):
        raise ConfigError(f"similarity {similarity!r}{nearest(str(similarity), ('cosine', 'dot'))}")
    if not (k1 >= 0 and 0 <= b <= 1):
        raise ConfigError(f"k1 {k1}, b {b}: expected 0 or more, and from 0 to 1")
    import_lance()
    Words(stem, stop_words)
    workers = engines.engine(engine)
    home.require_free(force)
    texts = _opened(source, text, id, limit, vectors)
    models = _Models(encoder, opened, precision, sparse, weigher, tokens)
    reads, weighs = models.encoder, models.weigher
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "encoder": reads.settings() if reads else None,
        "vectors": {
            "width": reads.width if reads else None,
            "dtype": dtype,
            "similarity": similarity or (reads.similarity if reads else "cosine"),
            "column": vectors,
        }
        if reads or vectors
        else None,
        "sparse": {"id": sparse, "width": weighs.width} if weighs else None,
        "code": code_settings(code, bits, reads),
        "tokens": models.token_encoder.settings(token_bits) if models.token_encoder else None,
        "bm25": {"k1": k1, "b": b, "stem": stem, "stop_words": stop_words},
    }
    if manifest["code"] and not manifest["vectors"]:
        raise ConfigError("a binary code is made of vectors: name an encoder, or the column of vectors")
    settle_bits(manifest)
    with home.building(force) as building:
        settings = {
            "source": texts.name,
            "head": texts.fingerprint(),
            "text": text,
            "id": id,
            "limit": limit,
            **manifest,
        }
        build = _Build(building, settings)
        columns = _Columns(manifest, texts, models, building)
        try:
            with Progress(progress) as bars, disk_errors(Path(building.where)):
                build.run(texts, columns, source, workers if engine != "local" else None, bars, limit)
                if manifest["code"] and is_learned(manifest["code"]):
                    add_learned_codes(building, manifest)
        except (SourceError, ConfigError):
            building.discard()
            raise
        building.finish(columns.manifest)
    return [*texts.report.lines(), *columns.trouble]


def add(
    index: SearchIndex,
    source: Any,
    how: str,
    *,
    text: str | None = None,
    id: str | None = None,
    limit: int | None = None,
    progress: bool = True,
) -> tuple[int, list[str]]:
    """(documents written, what there is to say about the source): all in one commit, or none."""
    manifest = index.manifest
    texts = _opened(source, text, id, limit, manifest["vectors"] and manifest["vectors"]["column"])
    if how == "update" and texts.id_column is None:
        raise SourceError(f"{texts.name}: no column of ids to update by; name it (--id)")
    columns = _Columns(manifest, texts, index, index.home, index.table.schema)
    there = _Known(index) if how == "append" else None
    written = 0
    failed: list[BaseException] = []

    def rows() -> Iterator[pa.RecordBatch]:
        nonlocal written
        try:
            for batch in texts.batches(_TEXTS_AT_ONCE):
                _require_unique(batch, texts, source)
                if there is not None:
                    there.require_new(batch, texts)
                yield columns.of(batch)
                written += len(batch)
                bars.advance(task, len(batch))
        except BaseException as error:
            failed.append(error)  # Lance makes a text of it
            raise

    with Progress(progress) as bars, disk_errors(Path(index.folder)):
        task = bars.start("adding", limit, "texts")
        reader = pa.RecordBatchReader.from_batches(index.table.schema, rows())
        try:
            if how == "append":
                import_lance().write_dataset(reader, index.home.table(), mode="append")
            else:
                merge = index.table.merge_insert("_id").when_matched_update_all().when_not_matched_insert_all()
                merge.execute(reader)
        except OSError as error:
            raise failed[0] if failed else _unwritten(index.folder, error) from None
    return written, [*texts.report.lines(), *columns.trouble]


def _unwritten(where: Path | str, error: OSError) -> Exception:
    """What Lance says when it cannot write, in a line; a full disk stays what it is."""
    return error if "No space left" in str(error) else unreadable(where, error)


@final
class _Build:
    """A build that goes on where a killed one stopped.

    Before each commit it is kept how many documents and rows of the source there are with and without it: the number of
    documents of the data set then says which of the two is true.
    """

    def __init__(self, building: Building, settings: dict[str, Any]) -> None:
        self._building, self._settings = building, json.loads(json.dumps(settings))
        self._passed = self._documents = self._version = 0
        self._schema: pa.Schema | None = None
        if not building.has_table():
            building.begin_again()  # what was learned before the first commit was learned for who knows which settings
            return
        kept, table = building.kept(), open_table(building.table, building.where)
        number = int(table.count_rows())
        step = next((step for step in kept.get("steps", ()) if step[0] == number), None)
        if kept.get("settings") == self._settings and step is not None:
            self._documents, self._passed = step
            self._schema, self._version = table.schema, int(table.version)
        else:
            building.begin_again()

    def run(
        self,
        texts: TextSource,
        columns: _Columns,
        source: Any,
        workers: Engine | None,
        bars: Progress,
        limit: int | None,
    ) -> None:
        """Read, encode (here, or by `workers`) and commit what has not been yet."""
        task = bars.start("indexing", limit, "texts")
        bars.advance(task, self._documents)
        if self._schema is not None:
            columns.go_on(self._schema)
        waiting: list[pa.RecordBatch] = []
        since, passed = time.monotonic(), self._passed

        def read() -> Iterator[_Read]:
            for batch in texts.batches(_TEXTS_AT_ONCE, skip=self._passed):
                _require_unique(batch, texts, source)
                yield batch, texts.report.rows

        def advance(number: int) -> None:
            bars.advance(task, number)

        learned = columns.learned(read())
        made = _here(learned, columns) if workers is None else self._there(learned, columns, workers)
        for batches, passed in made:
            waiting += [columns.shaped(batch) for batch in batches]
            advance(sum(map(len, batches)))
            full = sum(map(len, waiting)) >= _COMMITTED_AT_ONCE or sum(b.nbytes for b in waiting) >= _BYTES_AT_ONCE
            if full or time.monotonic() - since > _SECONDS_AT_ONCE:
                self._commit(waiting, passed)
                waiting, since = [], time.monotonic()
        if waiting:
            self._commit(waiting, passed)

    def _there(
        self, read: Iterator[_Read], columns: _Columns, workers: Engine
    ) -> Iterator[tuple[list[pa.RecordBatch], int]]:
        """What workers make of the texts, which are put where they can read them first."""
        blocks = list(_blocks(read, columns, self._building))
        for block, made in zip(blocks, workers(_Work(columns), blocks, lambda number: None)):
            yield made, block.passed

    def _commit(self, batches: list[pa.RecordBatch], passed: int) -> None:
        documents = self._documents + sum(map(len, batches))
        steps = [[self._documents, self._passed], [documents, passed]]
        self._building.keep({"settings": self._settings, "steps": steps})
        mode = "append" if self._documents else "create"
        try:
            table = import_lance().write_dataset(pa.Table.from_batches(batches), self._building.table, mode=mode)
        except OSError as error:
            raise _unwritten(self._building.where, error) from None
        if int(table.version) != self._version + 1:
            raise FolderError(f"{self._building.where}: another process builds it at the same time; wait for it to end")
        self._documents, self._passed, self._version = documents, passed, int(table.version)


def _here(read: Iterator[_Read], columns: _Columns) -> Iterator[tuple[list[pa.RecordBatch], int]]:
    """(rows that were made, rows of the source passed by then)."""
    for batch, passed in read:
        yield [columns.made(batch)], passed


@dataclass(frozen=True)
class _Block:
    """Texts for a worker.

    name       of the file that they are in, batch by batch
    documents  before it, and with it
    passed     rows of the source with it
    """

    name: str
    documents: tuple[int, int]
    passed: int

    def __str__(self) -> str:
        return f"documents {self.documents[0] + 1:,} to {self.documents[1]:,}"


def _blocks(read: Iterator[_Read], columns: _Columns, building: Building) -> Iterator[_Block]:
    """Files of texts, batches kept as they came: what is encoded together is the same for one machine and for many."""
    waiting: list[pa.RecordBatch] = []
    number = documents = passed = 0

    def block() -> _Block:
        nonlocal number, documents
        place = building.block(f"{number:05d}.arrow")
        with place.replaced() as stream, pa.ipc.new_stream(stream, waiting[0].schema) as file:
            for batch in waiting:
                file.write_batch(batch)
        before, number = documents, number + 1
        documents += sum(map(len, waiting))
        return _Block(place.name, (before, documents), passed)

    for batch, rows in read:
        columns.check(batch)
        full = sum(map(len, waiting)) >= _DOCUMENTS_OF_A_BLOCK or sum(b.nbytes for b in waiting) >= _BYTES_AT_ONCE
        if waiting and (full or batch.schema != waiting[0].schema):
            yield block()
            waiting = []
        waiting.append(batch)
        passed = rows
    if waiting:
        yield block()


@final
class _Work:
    """Makes the rows of a block, in a process of its own."""

    def __init__(self, columns: _Columns) -> None:
        self._columns = columns

    def __call__(self, block: _Block, advance: Callable[[int], None]) -> list[pa.RecordBatch]:
        with Place.of(block.name).open() as stream, pa.ipc.open_stream(stream) as batches:
            return [self._columns.made(batch) for batch in batches]


@final
class _Models:
    """The encoder and the weigher of an index that is made; each process loads its own."""

    def __init__(
        self,
        encoder: Any,
        opened: Callable[[str], Any],
        precision: Precision,
        sparse: str | None,
        weigher: Callable[[str], Any],
        tokens: str | None,
    ) -> None:
        self._given = encoder, opened, precision, sparse, weigher, tokens

    def __reduce__(self) -> tuple[Any, ...]:
        return _Models, self._given

    @cached_property
    def encoder(self) -> IndexEncoder | None:
        encoder, opened, precision, *_ = self._given
        return IndexEncoder(encoder, opened, precision) if encoder is not None else None

    @cached_property
    def weigher(self) -> Weigher | None:
        *_, sparse, weigher, _ = self._given
        return Weigher(weigher(sparse)) if sparse is not None else None

    @cached_property
    def token_encoder(self) -> TokenEncoder | None:
        tokens = self._given[-1]
        return TokenEncoder(tokens) if tokens is not None else None


@final
class _Columns:
    """The rows of an index of those of a source.

    schema   of the index; None until the first rows have come
    trouble  columns that the index has no place for
    """

    def __init__(
        self,
        manifest: dict[str, Any],
        texts: TextSource,
        models: _Models | SearchIndex,
        home: Building | Home,
        schema: pa.Schema | None = None,
    ) -> None:
        self.manifest, self.schema = manifest, schema
        self.trouble: list[str] = []
        self._source, self._text, self._models = texts.name, texts.text_column, models
        self._tokens: TokenColumns | None = None
        if manifest.get("tokens"):
            assert models.token_encoder is not None
            self._tokens = TokenColumns(models.token_encoder, home.file(CODEC), manifest["tokens"]["bits"])
        self._left_out: set[str] = set()

    def go_on(self, schema: pa.Schema) -> None:
        """Take up the schema of the rows that there are."""
        self.schema = schema
        if self.manifest["vectors"]:
            self.manifest["vectors"]["width"] = schema.field("vector").type.list_size

    def learned(self, read: Iterator[_Read]) -> Iterator[_Read]:
        """All that is read; what the columns are made by is learned from its beginning first."""
        if self._tokens is None:
            return read
        return self._tokens.learned(read, lambda batch: batch[0].column(self._text).to_pylist())

    def of(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return self.shaped(self.made(batch))

    def check(self, batch: pa.RecordBatch) -> None:
        """SourceError for a vector that the source has and that is none; the width is known then."""
        if self._column is not None:
            self._given(batch, self._column)

    def made(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Everything that the index has of rows of the source, under its names."""
        text = batch.column(self._text)
        made: dict[str, pa.Array] = {"_id": batch.column("_id").cast(pa.string()), "text": text}
        given = self._column
        skipped = {"_id", "_row", self._text, given}
        for name in batch.schema.names:
            if name not in skipped:
                made[_column(name)] = batch.column(name)
        if self.manifest["vectors"]:
            vectors = self._given(batch, given) if given else self._encoded(text.to_pylist())
            made["vector"] = self._stored(vectors, batch)
            if self._coded_now():
                made["code"] = arrow_codes(self._coder.codes(vectors))
        if self.manifest["sparse"]:
            weigher = self._models.weigher
            assert weigher is not None
            made["tokens"], made["weights"] = weigher.arrow(text.to_pylist())
        if self._tokens is not None:
            made |= self._tokens.arrow(text.to_pylist())
        return pa.RecordBatch.from_pydict(made)

    @property
    def _column(self) -> str | None:
        """Of the source, that holds the vectors."""
        return self.manifest["vectors"]["column"] if self.manifest["vectors"] else None

    def _encoded(self, texts: list[str]) -> Array:
        return self._encoder().documents(texts)

    def _encoder(self) -> IndexEncoder:
        encoder = self._models.encoder
        assert encoder is not None
        return encoder

    def _coded_now(self) -> bool:
        """Whether rows get their code; one that is learned from the vectors comes when all of them are there."""
        code, schema = self.manifest["code"], self.schema
        return code is not None and (not is_learned(code) or (schema is not None and "code" in schema.names))

    @cached_property
    def _coder(self) -> Coder:
        return (
            index_coder(None, self.manifest, self._encoder) if isinstance(self._models, _Models) else self._models.coder
        )

    def _given(self, batch: pa.RecordBatch, column: str) -> Array:
        """Vectors that the source has, of equal length; SourceError with the row of one that is none."""
        if column not in batch.schema.names:
            raise SourceError(f"{self._source}: no column {column!r}{nearest(column, batch.schema.names)}")
        lists = batch.column(column)
        if pa.types.is_string(lists.type):
            lists = _parsed(lists)
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
        with np.errstate(over="ignore"):  # what float32 cannot hold is not finite
            numbers = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        width = self.manifest["vectors"]["width"] or int(lengths[0])
        none = lengths == 0
        none[np.repeat(np.arange(len(lengths)), lengths)[~np.isfinite(numbers)]] = True
        bad = np.flatnonzero(none | (lengths != width))
        if len(bad):
            first = int(bad[0])
            where = f"{self._source}: row {batch.column('_row')[first].as_py()}, column {column!r}"
            if none[first]:
                value = str(batch.column(column)[first].as_py())
                raise SourceError(f"{where}: {value[:40]!r} is no vector; expected a list of numbers")
            raise SourceError(f"{where}: a vector of {lengths[first]} numbers; expected {width}")
        self.manifest["vectors"]["width"] = width
        settle_bits(self.manifest)
        return np.asarray(numbers.reshape(-1, width))

    def _stored(self, vectors: Array, batch: pa.RecordBatch) -> pa.Array:
        dtype = self.manifest["vectors"]["dtype"]
        kept = vectors.astype(dtype)
        bad = ~np.isfinite(kept).all(1)
        if bad.any():
            row = batch.column("_row")[int(bad.argmax())].as_py()
            raise SourceError(
                f"{self._source}: row {row}: a vector with numbers that {dtype} cannot hold; use --dtype float32"
            )
        return pa.FixedSizeListArray.from_arrays(pa.array(kept.ravel(), _DTYPES[dtype]), kept.shape[1])

    def shaped(self, made: pa.RecordBatch) -> pa.RecordBatch:
        """In the schema of the index: what it lacks is left out and told, what the source lacks is null."""
        if self.schema is None:
            self.schema = made.schema
        schema = self.schema
        for name in made.schema.names:
            if name not in schema.names and name not in self._left_out:
                self._left_out.add(name)
                self.trouble.append(f"{self._source}: column {name!r} was left out; the index has no such column")
        arrays = []
        for field in schema:
            if field.name not in made.schema.names:
                arrays.append(pa.nulls(len(made), field.type))
                continue
            array = made.column(field.name)
            if array.type != field.type:
                try:
                    array = array.cast(field.type)
                except pa.ArrowException as error:
                    raise SourceError(
                        f"{self._source}: column {field.name!r} is {array.type}, in the index {field.type} ({error})"
                    ) from None
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, schema=schema)


@final
class _Known:
    """Whether an id is in an index; 8 bytes of each are kept."""

    def __init__(self, index: SearchIndex) -> None:
        self._index = index
        hashes = [_hashes(batch.column("_id")) for batch in index.batches(["_id"])]
        self._hashes = np.sort(np.concatenate(hashes)) if hashes else np.zeros(0, np.uint64)

    def require_new(self, batch: pa.RecordBatch, texts: TextSource) -> None:
        """SourceError for a row whose id is there."""
        if not len(self._hashes):
            return
        own = _hashes(batch.column("_id"))
        places = np.minimum(np.searchsorted(self._hashes, own), len(self._hashes) - 1)
        for number in np.flatnonzero(self._hashes[places] == own):
            name = batch.column("_id")[int(number)].as_py()
            quoted = name.replace("'", "''")
            if self._index.table.count_rows(filter=f"_id = '{quoted}'"):
                row = batch.column("_row")[int(number)].as_py()
                hint = "" if texts.id_column else "; name a column of ids, or they are the numbers of the rows"
                raise SourceError(
                    f"{texts.name}: row {row}: id {name!r} is in the index already; use update to replace it{hint}"
                )


def _parsed(texts: pa.Array) -> pa.Array:
    """The lists of numbers that are written in texts, null for what is none."""
    made = []
    for text in texts.to_pylist():
        try:
            vector = np.array(json.loads(text), np.float64)
            made.append(vector if vector.ndim == 1 else None)
        except (TypeError, ValueError):
            made.append(None)
    return pa.array(made, pa.list_(pa.float64()))


def _hashes(ids: pa.Array) -> Array:
    return np.asarray(pd.util.hash_array(np.array(ids.to_pylist(), object), categorize=False))


def _opened(source: Any, text: str | None, id: str | None, limit: int | None, vectors: str | None = None) -> TextSource:
    texts = open_texts(source, text=text, id=id, vectors=vectors)
    if texts.id_column is None and "_id" in texts.columns:
        texts.id_column = "_id"  # as BEIR and our own tables have it
    return texts if limit is None else texts.limited(limit)


def _require_unique(batch: pa.RecordBatch, texts: TextSource, source: Any) -> None:
    """SourceError, with both rows, for an id that the source has twice."""
    if texts.id_column is None:
        return
    given, used = batch.column(_own(texts.id_column, batch)), batch.column("_id")
    given = pa.array([str(value) for value in given.to_pylist()])
    again = pc.and_(pc.not_equal(given, used), pc.is_valid(batch.column(_own(texts.id_column, batch))))
    if not pc.any(again).as_py():
        return
    number = again.to_pylist().index(True)
    name, row = given[number].as_py(), batch.column("_row")[number].as_py()
    first = _first_row(source, texts, name)
    both = f"rows {first} and {row}" if first is not None and first != row else f"row {row} and one before"
    raise SourceError(f"{texts.name}: id {name!r} is there twice, in {both}; ids must differ (--id names their column)")


def _first_row(source: Any, texts: TextSource, name: str) -> int | None:
    """The first row of a source with an id; None where the source cannot be read twice."""
    try:
        again = open_texts(source, text=texts.text_column, id=texts.id_column)
        for batch in again.batches(_TEXTS_AT_ONCE):
            at = pc.index(batch.column("_id"), name).as_py()
            if at >= 0:
                return int(batch.column("_row")[at].as_py())
    except SourceError:
        pass
    return None


def _own(column: str, batch: pa.RecordBatch) -> str:
    """A column under the name that the reader gives it: `_id` is kept free for ours."""
    return column if column != "_id" and column in batch.schema.names else f"{column}_"


def _column(name: str) -> str:
    """A name that a filter can say, and that is not one of ours."""
    plain = name.replace(".", "_").replace("`", "_").replace('"', "_")
    return f"{plain}_" if plain in OWN else plain
