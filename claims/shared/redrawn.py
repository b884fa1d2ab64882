"""Corpora drawn anew from an explored one, without reading anything again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import vstack

import hourglass as hg
from hourglass.storage.atomic import write_json
from hourglass.uses.explore.naming import refresh_frequencies
from hourglass.uses.explore.pooling import PooledCodes
from hourglass.uses.explore.workspace import CodedDocuments

Array = np.ndarray[Any, Any]

NAMES = ("features.parquet", "labels.safetensors", "words.json")


def redrawn(workspace: hg.Workspace, rows: Array, folder: Path) -> hg.Workspace:
    """A workspace of the documents at `rows`, in this order, with ids 0, 1 ...: as if `embed` had read them.

    Names, the scale of each feature and the model are those of `workspace`.
    """
    for part in ("documents", "codes"):
        (folder / part).mkdir(parents=True)
    for name in NAMES:
        shutil.copy(workspace.folder / name, folder / name)
    (folder / "coder").symlink_to((workspace.folder / "coder").resolve())
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
    # Row by row, the places of all entries; zeros that are stored stay.
    sizes = np.diff(codes.indptr)[rows]
    indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    entries = np.arange(indptr[-1]) + np.repeat(codes.indptr[rows] - indptr[:-1], sizes)
    picked = {name: getattr(codes, name)[entries] for name in ("indices", "maximum", "total", "count")}
    pooled = PooledCodes(indptr, **picked, tokens=codes.tokens[rows], width=codes.width)
    words = vstack([part.words for part in parts], format="csr")[rows]
    dense, middle = (np.concatenate([getattr(part, name) for part in parts])[rows] for name in ("dense", "middle"))
    return CodedDocuments(pooled, words, dense, middle)
