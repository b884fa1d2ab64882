"""The folder in which an explored corpus lives.

    workspace.json          what is here: format, settings, sources read, shards, how far the exploration has come
    documents/00000.parquet the documents as they were read, with `_row` (row of the source) and `_id`
    codes/00000.safetensors their pooled codes (CSR), word presence (CSR) and dense vectors
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_matrix, vstack
from torch import Tensor

from hourglass.adapters.chat_endpoint import ChatEndpoint
from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.data import open_texts
from hourglass.errors import ConfigError, FolderError, InputError, nearest
from hourglass.storage.atomic import atomic_file, read_json, write_json
from hourglass.uses.explore.diff import Differences, DiffOptions, difference, differences
from hourglass.uses.explore.find import FindOptions, Found, find
from hourglass.uses.explore.pooling import PooledCodes
from hourglass.waist import TextReader

if TYPE_CHECKING:
    from hourglass.uses.explore.judges import Judge
    from hourglass.uses.explore.relabel import Relabelled
    from hourglass.uses.explore.verify import Verified

Array = np.ndarray[Any, Any]
Options = TypeVar("Options")

FORMAT = 1
STAGES = ("reading", "learning", "coding", "naming", "done")


class TextCoder(Protocol):
    """What an exploration needs of a model: it reads texts and turns token states into sparse codes."""

    @property
    def width(self) -> int: ...

    @property
    def reader(self) -> TextReader: ...

    @property
    def sae(self) -> Any: ...

    @property
    def trained(self) -> bool: ...

    def codes(self, states: Tensor) -> SparseCodes: ...

    def save_pretrained(self, save_directory: str | Path) -> Any: ...


@dataclass(frozen=True)
class CodedDocuments:
    """Everything computed for the documents of one shard.

    codes   pooled feature codes of the n documents
    words   [n, vocabulary] 1 where the document has the word
    dense   [n, d] float16, mean of the document's token states
    """

    codes: PooledCodes
    words: csr_matrix
    dense: Array

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
        }
        with atomic_file(path) as temporary:
            save_file(arrays, temporary, {"width": str(codes.width), "words": str(self.words.shape[1])})

    @classmethod
    def load(cls, path: Path, width: int, words: int) -> CodedDocuments:
        a = load_file(path)
        codes = PooledCodes(a["indptr"], a["indices"], a["maximum"], a["total"], a["count"], a["tokens"], width)
        ones = np.ones(len(a["word_indices"]), np.float32)
        presence = csr_matrix((ones, a["word_indices"], a["word_indptr"]), shape=(len(codes), words))
        return cls(codes, presence, a["dense"])


class Workspace:
    """An explored corpus on disk. Everything is read when it is asked for; big things come shard by shard."""

    def __init__(self, folder: Path, manifest: dict[str, Any], load_coder: Callable[[Path], TextCoder]) -> None:
        self.folder = folder
        self.manifest = manifest
        self._load_coder = load_coder

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
            raise FolderError(f"{folder}: workspace format {manifest.get('format')!r}, this version reads {FORMAT}")
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
        return np.concatenate([coded.dense for coded in self.coded()]).astype(np.float32)

    @cached_property
    def features(self) -> pd.DataFrame:
        """A row a feature, the index is the feature: label (None where none is good enough), score, frequency ..."""
        return pd.read_parquet(self.folder / "features.parquet")

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

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The documents of each shard, only the columns asked for (null where a shard's source lacks one)."""
        for shard in self.shards:
            file = pq.ParquetFile(self.document_file(shard))
            if columns is None:
                yield file.read()
                continue
            table = file.read([c for c in columns if c in file.schema_arrow.names])
            for column in columns:
                if column not in table.column_names:
                    table = table.append_column(column, pa.nulls(table.num_rows))
            yield table.select(list(columns))

    def texts(self) -> Iterator[list[str]]:
        """The texts of each shard."""
        for table in self.tables([self.text_column]):
            yield table.column(0).to_pylist()

    def coded(self) -> Iterator[CodedDocuments]:
        """The codes of each shard, one shard in memory at a time."""
        for shard in self.shards:
            yield CodedDocuments.load(self.code_file(shard), self.manifest["width"], len(self.words))

    def column(self, name: str) -> Array:
        """One column over all documents as an object array of strings; None where null.

        Raises InputError naming the columns there are.
        """
        known = self.columns
        if name not in known:
            raise InputError(f"{self.folder}: no column {name!r}{nearest(name, known)}")
        values: list[Any] = []
        for table in self.tables([name]):
            values += table.column(0).to_pylist()
        return np.array([None if v is None else str(v) for v in values], object)

    @property
    def columns(self) -> list[str]:
        names: dict[str, None] = {}
        for shard in self.shards:
            names.update(dict.fromkeys(pq.read_schema(self.document_file(shard)).names))
        return list(names)

    def rows(self, positions: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """The documents at `positions` (in the order given), read from the shards that hold them."""
        wanted = np.asarray(positions, np.int64)
        order = np.argsort(wanted, kind="stable")
        parts, start = [], 0
        for shard, table in zip(self.shards, self.tables(columns), strict=True):
            inside = wanted[order][(wanted[order] >= start) & (wanted[order] < start + shard["documents"])]
            if len(inside):
                parts.append(table.take(pa.array(inside - start)))
            start += shard["documents"]
        together = pa.concat_tables(parts, promote_options="permissive")
        return together.take(pa.array(np.argsort(order, kind="stable")))

    def positions(self, ids: Sequence[str]) -> Array:
        """Where the documents with these ids stand; InputError names the first that does not exist."""
        where = {id: i for i, id in enumerate(self.column("_id"))}
        for id in ids:
            if str(id) not in where:
                raise InputError(f"{self.folder}: no document with id {str(id)!r}")
        return np.array([where[str(id)] for id in ids], np.int64)

    # The verbs ---------------------------------------------------------------------------------------

    def diff(self, by: str, a: str | None = None, b: str | None = None, **options: Any) -> Differences:
        """How the groups of column `by` differ: `a` against `b`, `a` against the rest, or each against the rest.

        `options` are the fields of `DiffOptions`.
        """
        chosen = _options(DiffOptions, options)
        if a is None and b is not None:
            raise InputError("diff: group b is given without group a")
        return Differences(differences(self, by, chosen) if a is None else [difference(self, by, a, b, chosen)])

    def find(
        self,
        query: str | None = None,
        *,
        like: Sequence[str] = (),
        unlike: Sequence[str] = (),
        features: Mapping[int, float] | None = None,
        **options: Any,
    ) -> Found:
        """Documents that have a property, by a text query, by ids of examples, or by features with weights.

        `options` are the fields of `FindOptions`.
        """
        return find(self, query, like=like, unlike=unlike, features=features, options=_options(FindOptions, options))

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

        of_diff = {field.name for field in dataclasses.fields(DiffOptions)}
        diff = _options(DiffOptions, {name: value for name, value in options.items() if name in of_diff})
        rest = {name: value for name, value in options.items() if name not in of_diff}
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

    def embed(self, source: Any, *, text: str | None = None, id: str | None = None, progress: bool = True) -> int:
        """Add the documents of `source` without training again; returns how many were added.

        The same call after a crash goes on where it stopped.
        """
        from hourglass.uses.explore import build  # build makes workspaces, so it cannot be imported above

        # A list of texts has no columns to choose from.
        bare = isinstance(source, (list, tuple)) and all(isinstance(item, str) for item in source[:1])
        columns = {} if bare else {"text": text or self.settings["text"], "id": id or self.settings["id"]}
        return build.embed(self, open_texts(source, **columns), progress)

    # Writing -----------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Make what the manifest says true on disk."""
        write_json(self.folder / "workspace.json", self.manifest)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep a second writer out; the lock dies with the process."""
        try:
            with FileLock(self.folder / ".lock", blocking=False):
                yield
        except Timeout:
            raise FolderError(f"{self.folder}: another process is writing to it; wait for it to end") from None


def _options(kind: type[Options], given: Mapping[str, Any]) -> Options:
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]  # any dataclass of options
    for name in given:
        if name not in known:
            raise ConfigError(f"no option {name!r}{nearest(name, known)}")
    return kind(**given)


def is_workspace(folder: Path) -> bool:
    return (Path(folder) / "workspace.json").is_file()
