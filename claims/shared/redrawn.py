"""Corpora drawn anew from an explored one, without reading anything again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import hourglass as hg
from hourglass.storage.atomic import write_json
from hourglass.uses.explore.naming import refresh_frequencies
from hourglass.uses.explore.pooling import PooledCodes
from hourglass.uses.explore.workspace import CodedDocuments

Array = np.ndarray[Any, Any]

NAMES = ("features.parquet", "examples.parquet", "labels.safetensors", "words.json")


def redrawn(workspace: hg.Workspace, rows: Array, folder: Path) -> hg.Workspace:
    """A workspace of the documents at `rows`, in this order, with ids 0, 1 ...: as if `embed` had read them.

    Autoencoder, names and the scale of each feature are those of `workspace`.
    """
    for part in ("documents", "codes"):
        (folder / part).mkdir(parents=True)
    for name in NAMES:
        shutil.copy(workspace.folder / name, folder / name)
    shutil.copytree(workspace.folder / "coder", folder / "coder")
    table = workspace.rows(rows.tolist(), workspace.columns)
    at = table.column_names.index("_id")
    table = table.set_column(at, "_id", pa.array([str(i) for i in range(len(rows))]))
    pq.write_table(table, folder / "documents" / "00000.parquet", row_group_size=256)
    _coded(workspace, rows).save(folder / "codes" / "00000.safetensors")
    shard = {"name": "00000", "documents": len(rows), "coded": True}
    write_json(folder / "workspace.json", {**workspace.manifest, "shards": [shard]})
    drawn = hg.open(folder)
    refresh_frequencies(drawn)
    return drawn


def _coded(workspace: hg.Workspace, rows: Array) -> CodedDocuments:
    """The codes of the documents at `rows`."""
    parts = list(workspace.coded())
    codes = PooledCodes.concatenate([part.codes for part in parts])
    words = np.concatenate([np.diff(part.words.indptr) for part in parts])
    starts = np.concatenate([[0], np.cumsum(words)])
    word_indices = np.concatenate([part.words.indices for part in parts])
    entries, indptr = _entries(codes.indptr, rows)
    picked = {name: getattr(codes, name)[entries] for name in ("indices", "maximum", "total", "count")}
    own, word_indptr = _entries(starts, rows)
    presence = parts[0].words.__class__(
        (np.ones(len(own), np.float32), word_indices[own], word_indptr), shape=(len(rows), parts[0].words.shape[1])
    )
    dense = np.concatenate([part.dense for part in parts])[rows]
    return CodedDocuments(PooledCodes(indptr, **picked, tokens=codes.tokens[rows], width=codes.width), presence, dense)


def _entries(indptr: Array, rows: Array) -> tuple[Array, Array]:
    """Places of the entries of these rows of a CSR matrix, and their own indptr."""
    sizes = indptr[rows + 1] - indptr[rows]
    new = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    places = np.arange(new[-1]) - np.repeat(new[:-1], sizes) + np.repeat(indptr[rows], sizes)
    return places, new
