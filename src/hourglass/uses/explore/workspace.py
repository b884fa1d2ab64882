"""The folder in which an explored corpus lives.

    workspace.json          what is here: format, settings, sources read, shards, how far the exploration has come
    documents/00000.parquet the documents as they were read, with `_row` (row of the source) and `_id`
    codes/00000.safetensors their pooled codes (CSR), word presence (CSR) and two dense vectors
    coder/                  the trained model: encoder by name, sparse autoencoder by weight
    features.parquet        a row a feature: label, score, frequency, scale, terms
    examples.parquet        the contexts on which each feature fires, marked token by token
    labels.safetensors      a dense vector for each feature's label
    words.json              vocabulary of the word matrix
    map.parquet             two coordinates a document, for at most a few thousand
    answers.sqlite          what language models answered, by the hash of the question
    report.html             the report

A file counts only once workspace.json says so, and workspace.json is replaced in one rename: a kill at any
moment leaves what was there before.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_matrix, vstack
from torch import Tensor

from hourglass.adapters.chat_endpoint import ChatEndpoint
from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.data import open_texts
from hourglass.errors import ConfigError, FolderError, InputError, nearest
from hourglass.storage.atomic import atomic_file, read_json, write_json
from hourglass.uses import engines
from hourglass.uses.explore.cluster import ClusterOptions, Clusters, cluster
from hourglass.uses.explore.correlate import CorrelateOptions, Correlations, correlate
from hourglass.uses.explore.diff import Differences, DiffOptions, difference, differences
from hourglass.uses.explore.find import FindOptions, Found, find
from hourglass.uses.explore.parts import Part
from hourglass.uses.explore.pooling import PooledCodes
from hourglass.uses.explore.trend import Trended, TrendOptions, trend
from hourglass.uses.progress import Report

if TYPE_CHECKING:
    from hourglass.uses.explore.judges import Judge
    from hourglass.uses.explore.reading import DocumentReader
    from hourglass.uses.explore.relabel import Relabelled
    from hourglass.uses.explore.verify import Verified

Array = np.ndarray[Any, Any]
Options = TypeVar("Options")

FORMAT = 2
STAGES = ("reading", "learning", "coding", "naming", "done")


class TextCoder(Protocol):
    """What an exploration needs of a model: it reads texts and turns token states into sparse codes."""

    @property
    def width(self) -> int: ...

    @property
    def reader(self) -> DocumentReader: ...

    @property
    def sae(self) -> Any: ...

    @property
    def trained(self) -> bool: ...

    @property
    def reconstructs(self) -> bool: ...

    def codes(self, states: Tensor) -> SparseCodes: ...

    def save_pretrained(self, save_directory: str | Path) -> Any: ...


@dataclass(frozen=True)
class CodedDocuments:
    """Everything computed for the documents of one shard.

    codes   pooled feature codes of the n documents
    words   [n, vocabulary] 1 where the document has the word
    dense   [n, d] float16, mean of the document's token states
    middle  [n, d] float16, the same of states in the middle of the model
    """

    codes: PooledCodes
    words: csr_matrix
    dense: Array
    middle: Array

    def save(self, path: Path) -> None:
        codes = self.codes
        arrays = {
            "indptr": codes.indptr,
            "indices": codes.indices,
            "maximum": codes.maximum,
            "total": codes.total,
            "count": codes.count,
            "tokens": codes.tokens,
            "word_indptr": self.words.indptr.astype(np.int64),
            "word_indices": self.words.indices.astype(np.int32),
            "dense": self.dense,
            "middle": self.middle,
        }
        with atomic_file(path) as temporary:
            save_file(arrays, temporary, {"shape": f"{codes.width} features, {self.words.shape[1]} words"})

    @classmethod
    def load(cls, path: Path, width: int, words: int) -> CodedDocuments:
        with _code_file(path) as file:
            a = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no dictionary)
        codes = PooledCodes(a["indptr"], a["indices"], a["maximum"], a["total"], a["count"], a["tokens"], width)
        ones = np.ones(len(a["word_indices"]), np.float32)
        presence = csr_matrix((ones, a["word_indices"], a["word_indptr"]), shape=(len(codes), words))
        return cls(codes, presence, a["dense"], a["middle"])


class Workspace:
    """An explored corpus on disk. Everything is read when it is asked for; big things come shard by shard."""

    def __init__(self, folder: Path, manifest: dict[str, Any], load_coder: Callable[[Path], TextCoder]) -> None:
        self.folder = folder
        self.manifest = manifest
        self._load_coder = load_coder

    def __reduce__(self) -> tuple[Any, ...]:
        # To another process it goes by its folder; what was read of it is read there.
        return Workspace, (self.folder.absolute(), self.manifest, self._load_coder)

    @classmethod
    def open(cls, folder: str | Path, load_coder: Callable[[Path], TextCoder], *, finished: bool = True) -> Workspace:
        """Open a workspace; one that is not finished is refused unless `finished` is False."""
        folder = Path(folder)
        if not is_workspace(folder):
            raise FolderError(
                f"{folder}: not a workspace (no workspace.json); make one with: hourglass explore SOURCE --out {folder}"
            )
        manifest = read_json(folder / "workspace.json")
        if manifest.get("format") != FORMAT:
            raise FolderError(
                f"{folder}: a workspace of another version of Hourglass (format {manifest.get('format')!r}, this one reads "
                f"{FORMAT}); explore its source again with --force, or another --out"
            )
        if finished and manifest["stage"] != "done":
            raise FolderError(
                f"{folder}: the exploration stopped while {manifest['stage']}; run the same explore command again to finish it"
            )
        return cls(folder, manifest, load_coder)

    # What is in it ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        return sum(shard["documents"] for shard in self.shards)

    def __repr__(self) -> str:
        named = int(self.features["label"].notna().sum()) if self.manifest["stage"] == "done" else 0
        return f"<Workspace {str(self.folder)!r}: {len(self):,} documents, {named:,} named features>"

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.manifest["settings"]

    @property
    def shards(self) -> list[dict[str, Any]]:
        """The shards that are complete: documents read and coded (while reading or learning: read)."""
        everything = self.manifest["shards"]
        if self.manifest["stage"] in ("reading", "learning"):
            return everything
        return [shard for shard in everything if shard["coded"]]

    @property
    def text_column(self) -> str:
        return str(self.manifest["text_column"])

    @property
    def documents(self) -> pa.Table:
        """All documents with the columns of their source, `_row` and `_id`."""
        tables = [pq.read_table(self.document_file(shard)) for shard in self.shards]
        return pa.concat_tables(tables, promote_options="permissive")

    @property
    def codes(self) -> csr_matrix:
        """Documents x features, max-pooled, float32. The whole corpus in memory: use `coded` to go shard by shard."""
        return vstack([coded.codes.matrix("max") for coded in self.coded()], format="csr")

    @property
    def dense(self) -> Array:
        """[documents, d] float32, mean of the token states of each document."""
        return np.concatenate([arrays["dense"] for arrays in self.stored("dense")]).astype(np.float32)

    @cached_property
    def features(self) -> pd.DataFrame:
        """A row a feature, the index is the feature: label (None where none is good enough), score, frequency ..."""
        table = pd.read_parquet(self.folder / "features.parquet")
        # pandas reads missing texts as NaN.
        return table.assign(label=table["label"].astype(object).where(table["label"].notna(), None))

    def labels(self, features: Sequence[int] | Array) -> Array:
        """The names of these features as an object array, None where there is none."""
        labels = self.features["label"].iloc[list(features)]
        return labels.astype(object).where(labels.notna(), None).to_numpy(object)

    @cached_property
    def examples(self) -> pd.DataFrame:
        """Marked contexts: feature, rank, document (id), value, pieces [text ...], strengths [0..1 ...]."""
        return pd.read_parquet(self.folder / "examples.parquet")

    @cached_property
    def words(self) -> list[str]:
        return list(read_json(self.folder / "words.json"))

    @cached_property
    def label_vectors(self) -> Array:
        """[features, d] float32 unit vectors of the labels; zero where a feature has none."""
        return load_file(self.folder / "labels.safetensors")["vectors"]

    @cached_property
    def word_vectors(self) -> dict[str, Array]:
        """[d] dense vectors of the words that were read in this session; `cluster` adds those that it reads."""
        return {}

    @cached_property
    def coder(self) -> TextCoder:
        """The trained model, loaded once."""
        return self._load_coder(self.folder / "coder")

    @property
    def sae(self) -> Any:
        """The sparse autoencoder inside the coder."""
        return self.coder.sae

    # Shard by shard ----------------------------------------------------------------------------------

    def document_file(self, shard: Mapping[str, Any]) -> Path:
        return self.folder / "documents" / f"{shard['name']}.parquet"

    def code_file(self, shard: Mapping[str, Any]) -> Path:
        return self.folder / "codes" / f"{shard['name']}.safetensors"

    def parts(self) -> list[Part]:
        """All shards that are read, coded or not."""
        shards = self.manifest["shards"]
        starts = np.cumsum([0, *(shard["documents"] for shard in shards)]).tolist()
        return [Part(shard, start) for shard, start in zip(shards, starts)]

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The documents of each shard, only the columns asked for (null where a shard's source lacks one)."""
        for shard in self.shards:
            yield self.inside(shard, columns)

    def inside(
        self, shard: Mapping[str, Any], columns: Sequence[str] | None = None, rows: Array | None = None
    ) -> pa.Table:
        """Documents of one shard: all, or those at `rows` (rising), of which only the row groups are read."""
        path = self.document_file(shard)
        try:
            file = pq.ParquetFile(path)
        except FileNotFoundError:
            raise FolderError(f"{path}: no such file on {platform.node()}, where it is read") from None
        if rows is None:
            return _with_columns(file.read(_present(file, columns)), columns)
        sizes = np.array([file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)])
        group = np.searchsorted(np.cumsum(sizes), rows, side="right")
        read, place = np.unique(group, return_inverse=True)
        before = (np.cumsum(sizes) - sizes)[group] - (np.cumsum(sizes[read]) - sizes[read])[place]
        table = file.read_row_groups(read.tolist(), _present(file, columns))
        return _with_columns(table, columns).take(pa.array(rows - before))

    def texts(self) -> Iterator[list[str]]:
        """The texts of each shard."""
        for table in self.tables([self.text_column]):
            yield table.column(0).to_pylist()

    def coded(self) -> Iterator[CodedDocuments]:
        """The codes of each shard, one shard in memory at a time."""
        for shard in self.shards:
            yield CodedDocuments.load(self.code_file(shard), self.manifest["width"], len(self.words))

    def stored(self, *names: str) -> Iterator[dict[str, Array]]:
        """These arrays alone of each shard's codes, by the names under which `CodedDocuments` saves them."""
        for shard in self.shards:
            yield self._stored(shard, names)

    def shards_of(self, rows: Array, *names: str) -> Iterator[tuple[dict[str, Array], Array]]:
        """The same for the shards that hold documents at `rows`, with their rows inside the shard, in rising order."""
        for shard, inside in self._inside(rows):
            yield self._stored(shard, names), inside

    def files_of(self, rows: Array) -> Iterator[tuple[Any, Array]]:
        """The open code files of these shards, of which slices can be read, with the rows inside, in rising order."""
        for shard, inside in self._inside(rows):
            with _code_file(self.code_file(shard)) as file:
                yield file, inside

    def _stored(self, shard: Mapping[str, Any], names: Sequence[str]) -> dict[str, Array]:
        with _code_file(self.code_file(shard)) as file:
            return {name: file.get_tensor(name) for name in names}

    def _inside(self, rows: Array) -> Iterator[tuple[dict[str, Any], Array]]:
        """The shards that hold any of `rows`, each with these rows as counted inside it, in rising order."""
        rows, start = np.sort(np.asarray(rows, np.int64)), 0
        for shard in self.shards:
            stop = start + shard["documents"]
            first, last = np.searchsorted(rows, [start, stop])
            if last > first:
                yield shard, rows[first:last] - start
            start = stop

    def values(self, name: str) -> list[Any]:
        """One column over all documents, as it was read; InputError names the columns there are."""
        known = self.columns
        if name not in known:
            raise InputError(f"{self.folder}: no column {name!r}{nearest(name, known)}")
        values: list[Any] = []
        for table in self.tables([name]):
            values += table.column(0).to_pylist()
        return values

    def column(self, name: str) -> Array:
        """The same as an object array of strings; None where null."""
        return np.array([None if v is None else str(v) for v in self.values(name)], object)

    @property
    def columns(self) -> list[str]:
        names: dict[str, None] = {}
        for shard in self.shards:
            names.update(dict.fromkeys(pq.read_schema(self.document_file(shard)).names))
        return list(names)

    def rows(self, positions: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """The documents at `positions` (in the order given), read from the shards that hold them."""
        wanted = np.asarray(positions, np.int64)
        parts = [self.inside(shard, columns, inside) for shard, inside in self._inside(wanted)]
        together = pa.concat_tables(parts, promote_options="permissive")
        back = np.argsort(np.argsort(wanted, kind="stable"), kind="stable")
        return together.take(pa.array(back))

    def positions(self, ids: Sequence[str]) -> Array:
        """Where the documents with these ids stand; InputError names the first that does not exist."""
        if not len(ids):
            return np.zeros(0, np.int64)
        names, named = np.unique(np.array([str(id) for id in ids], object), return_inverse=True)
        where, wanted, start = np.full(len(names), -1, np.int64), pa.array(names, pa.string()), 0
        for table in self.tables(["_id"]):
            found = pc.index_in(table.column(0).cast(pa.string()), wanted).fill_null(-1).to_numpy()
            inside = np.flatnonzero(found >= 0)
            where[found[inside]] = start + inside
            start += len(table)
        positions = where[named]
        if (positions < 0).any():
            raise InputError(f"{self.folder}: no document with id {str(ids[int(np.argmin(positions))])!r}")
        return positions

    # The verbs ---------------------------------------------------------------------------------------

    def diff(self, by: str, a: str | None = None, b: str | None = None, **options: Any) -> Differences:
        """How the groups of column `by` differ: `a` against `b`, `a` against the rest, or each against the rest.

        `options` are the fields of `DiffOptions`.
        """
        chosen = _options(DiffOptions, options)
        if a is None and b is not None:
            raise InputError("diff: group b is given without group a")
        return Differences(differences(self, by, chosen) if a is None else [difference(self, by, a, b, chosen)])

    def correlate(
        self,
        other: Workspace | None = None,
        *,
        judge: str | ChatEndpoint | Judge | Callable[[str, str], Any] | None = None,
        progress: bool | Report = True,
        **options: Any,
    ) -> Correlations:
        """Which features and words go together, or which of these go with which of `other`, the same documents' other text.

        judge   who checks on documents that did not select the pairs whether the labels go together too: "rule", the address
                of a chat endpoint, or what `verify` takes besides; None: nobody
        progress  a bar; a function in its place is told each stage, how much of it is done, and of how much

        `options` are the fields of `CorrelateOptions` and, with a judge, of `JudgedPairsOptions`.
        """
        from hourglass.uses.explore import pairs  # it needs workspaces, so it cannot be imported above

        chosen, rest = _shared_options(CorrelateOptions, options)
        if judge is None:
            return correlate(self, other, _options(CorrelateOptions, options), progress)
        if "seed" in options:
            rest["seed"] = options["seed"]
        of_judge = _options(pairs.JudgedPairsOptions, rest)
        found = correlate(self, other, chosen, progress)
        return pairs.judged_pairs(self, other, found, judge, of_judge, progress)

    def trend(self, by: str, **options: Any) -> Trended:
        """Which features rise or fall along column `by`: numbers, dates, or values in an order that is given.

        `options` are the fields of `TrendOptions`.
        """
        return trend(self, by, _options(TrendOptions, options))

    def find(
        self,
        query: str | None = None,
        *,
        like: Sequence[str] = (),
        unlike: Sequence[str] = (),
        features: Mapping[int, float] | None = None,
        without: Sequence[int] = (),
        **options: Any,
    ) -> Found:
        """Documents that have a property, by a text query, by ids of examples, or by features with weights.

        Beside a query or examples, `features` and `without` edit what these have turned into. `options` are the
        fields of `FindOptions`.
        """
        chosen = _options(FindOptions, options)
        return find(self, query, like=like, unlike=unlike, features=features, without=without, options=chosen)

    def cluster(
        self,
        axis: str | Sequence[str] = (),
        *,
        features: Sequence[int] = (),
        **options: Any,
    ) -> Clusters:
        """Clusters of the documents along an axis: key phrases, features chosen by hand, or (neither) all features.

        `options` are the fields of `ClusterOptions`.
        """
        phrases = [axis] if isinstance(axis, str) else list(axis)
        return cluster(self, phrases, features=features, options=_options(ClusterOptions, options))

    def verify(
        self,
        by: str,
        a: str | None = None,
        b: str | None = None,
        *,
        judge: str | ChatEndpoint | Judge | Callable[[str, str], Any] = "rule",
        hypotheses: Sequence[str] = (),
        documents: Any = None,
        progress: bool = True,
        **options: Any,
    ) -> Verified:
        """Let a judge check, on documents that did not select them, what is said to differ between groups of column `by`.

        judge       "rule" (words of the names), "rule:REGEX" (which is the hypothesis), "local" (the encoder), the address of
                    a chat endpoint or a `ChatEndpoint`, a function of statement and text, or a `Judge`
        hypotheses  statements of one's own, said of `a`, in place of those that are made of the differences
        documents   fresh documents with column `by` (any source of texts); default: the half that did not select

        `options` are the fields of `VerifyOptions` and of `DiffOptions`. The same call after a stop asks a language model only
        what is not answered yet.
        """
        from hourglass.uses.explore import verify  # it needs workspaces, so it cannot be imported above

        diff, rest = _shared_options(DiffOptions, options)
        chosen = _options(verify.VerifyOptions, {**rest, "diff": diff})
        return verify.verify(
            self, by, a, b, judge=judge, hypotheses=hypotheses, documents=documents, options=chosen, progress=progress
        )

    def relabel(
        self, endpoint: str | ChatEndpoint, *, features: Sequence[int] = (), progress: bool = True, **options: Any
    ) -> Relabelled:
        """Let a language model name features, and keep of its name and the offline one that which holds better.

        endpoint  address of a chat endpoint, or a `ChatEndpoint`
        features  by number; default: those that tell most documents apart

        `options` are the fields of `RelabelOptions`. The same call after a stop goes on where it stopped.
        """
        from hourglass.uses.explore import relabel  # it needs workspaces, so it cannot be imported above

        return relabel.relabel(self, endpoint, features, _options(relabel.RelabelOptions, options), progress)

    def embed(
        self,
        source: Any,
        *,
        text: str | None = None,
        id: str | None = None,
        engine: str = "local",
        progress: bool = True,
    ) -> int:
        """Add the documents of `source` without training again; returns how many were added.

        engine  "local", or "ray" for a cluster whose machines all see the folder

        The same call after a crash goes on where it stopped.
        """
        from hourglass.uses.explore import build  # build makes workspaces, so it cannot be imported above

        # A list of texts has no columns to choose from.
        bare = isinstance(source, (list, tuple)) and all(isinstance(item, str) for item in source[:1])
        columns = {} if bare else {"text": text or self.settings["text"], "id": id or self.settings["id"]}
        return build.embed(self, open_texts(source, **columns), engines.engine(engine), progress)

    def export(self, to: str | Path, *, force: bool = False) -> int:
        """Write all documents with their codes and dense vectors to a .parquet or .lance, a path or URL; returns their number.

        What is there already is replaced only with `force`.
        """
        from hourglass.uses.explore import export  # it needs workspaces, so it cannot be imported above

        return export.export(self, str(to), force=force)

    # Writing -----------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Make what the manifest says true on disk."""
        write_json(self.folder / "workspace.json", self.manifest)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep a second writer out; the lock dies with the process. What another has written since is there inside."""
        with writing(self.folder):
            self._read_again()
            yield

    def _read_again(self) -> None:
        """Take up a manifest that another process has written, and let go of what was read under the one before."""
        manifest = read_json(self.folder / "workspace.json")
        if manifest != self.manifest:
            self.manifest.clear()
            self.manifest.update(manifest)
            for name in ("features", "examples", "words", "label_vectors", "coder"):
                vars(self).pop(name, None)


def _options(kind: type[Options], given: Mapping[str, Any]) -> Options:
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]  # any dataclass of options
    for name in given:
        if name not in known:
            raise ConfigError(f"no option {name!r}{nearest(name, known)}")
    return kind(**given)


def _shared_options(kind: type[Options], given: Mapping[str, Any]) -> tuple[Options, dict[str, Any]]:
    """The options of one kind among those given, and the others."""
    own = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]  # any dataclass of options
    rest = {name: value for name, value in given.items() if name not in own}
    return kind(**{name: value for name, value in given.items() if name in own}), rest


def _present(file: pq.ParquetFile, columns: Sequence[str] | None) -> list[str] | None:
    """Those of `columns` that the file has; None for all."""
    return None if columns is None else [c for c in columns if c in file.schema_arrow.names]


def _with_columns(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    """The table with exactly these columns, null where its source lacks one."""
    if columns is None:
        return table
    for column in columns:
        if column not in table.column_names:
            table = table.append_column(column, pa.nulls(table.num_rows))
    return table.select(list(columns))


@contextmanager
def _code_file(path: Path) -> Iterator[Any]:
    """The open codes of a shard; FolderError for a file that is not there or not whole."""
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (FileNotFoundError, SafetensorError):
        raise FolderError(
            f"{path}: missing or damaged; explore its source again with --force, or put back a copy of the file"
        ) from None


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Keep other writers out of a workspace, of whatever version; FolderError where there is one."""
    try:
        with FileLock(folder / ".lock", blocking=False):
            yield
    except Timeout:
        raise FolderError(f"{folder}: another process is writing to it; wait for it to end") from None


def is_workspace(folder: Path) -> bool:
    return (Path(folder) / "workspace.json").is_file()
