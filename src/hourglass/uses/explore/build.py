"""How a workspace comes to be, in five stages: read, learn, code, name, done.

Every stage commits its work shard by shard, so that the same call after a crash goes on where it stopped.
Memory follows a shard (4,096 documents), never the corpus.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import hourglass
from hourglass.data import TextSource
from hourglass.errors import FolderError, SourceError
from hourglass.storage.atomic import atomic_file, clear_leftovers
from hourglass.uses.engines import Engine
from hourglass.uses.explore.coding import code
from hourglass.uses.explore.learning import MakeCoder, learn
from hourglass.uses.explore.naming import draw_map, name, refresh_frequencies
from hourglass.uses.explore.overview import write_report
from hourglass.uses.explore.reading import TOKENS
from hourglass.uses.explore.workspace import FORMAT, TextCoder, Workspace, is_workspace
from hourglass.uses.progress import Progress

Array = np.ndarray[Any, Any]

SHARD = 4096
"""Documents of a shard: what memory follows."""
ROW_GROUP = 256
"""Documents of a shard that are read together when a few are asked for."""


def begin(
    folder: Path,
    source: TextSource,
    settings: dict[str, Any],
    load_coder: Callable[[Path], TextCoder],
) -> Workspace:
    """Make an empty workspace in `folder`, or go on with an unfinished one of the same settings.

    Raises FolderError when the folder is taken.
    """
    settings = json.loads(json.dumps(settings))
    if is_workspace(folder):
        workspace = Workspace.open(folder, load_coder, finished=False)
        if workspace.manifest["stage"] == "done":
            raise FolderError(
                f"{folder}: holds a finished workspace; add documents with `hourglass embed {folder} SOURCE`, "
                "choose another --out, or replace it with --force"
            )
        for setting, value in settings.items():
            if workspace.settings.get(setting) != value:
                raise FolderError(
                    f"{folder}: an unfinished exploration with {setting} = {workspace.settings.get(setting)!r}, now {value!r}; "
                    "use the same settings to finish it, or --force to start anew"
                )
        return workspace
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderError(f"{folder}: exists and is not a workspace; choose another --out")
    for part in ("documents", "codes"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    manifest = {
        "format": FORMAT,
        "hourglass": hourglass.__version__,
        "stage": "reading",
        "settings": settings,
        "text_column": source.text_column,
        "sources": [],
        "shards": [],
    }
    workspace = Workspace(folder, manifest, load_coder)
    workspace.commit()
    return workspace


def run(
    workspace: Workspace, source: TextSource, make_coder: MakeCoder, engine: Engine, seed: int, progress: bool
) -> None:
    """Carry out the stages that are not done yet."""
    manifest = workspace.manifest
    with workspace.writing(), Progress(progress) as bar:
        clear_leftovers(workspace.folder)
        if manifest["stage"] == "reading":
            read(workspace, source, bar)
            _advance(workspace, "learning")
        if manifest["stage"] == "learning":
            coder = learn(workspace, make_coder, engine, seed, bar)
            manifest["width"] = coder.width
            _advance(workspace, "coding")
        if manifest["stage"] == "coding":
            code(workspace, bar, engine)
            _advance(workspace, "naming")
        if manifest["stage"] == "naming":
            # Naming keeps one core busy, and so does the map.
            with ThreadPoolExecutor(1) as beside:
                drawing = beside.submit(draw_map, workspace, seed, bar)
                name(workspace, seed, bar)
                drawing.result()
            write_report(workspace)
            _advance(workspace, "done")
    shutil.rmtree(workspace.folder / TOKENS, ignore_errors=True)
    shutil.rmtree(workspace.folder / "learning", ignore_errors=True)


def embed(workspace: Workspace, source: TextSource, engine: Engine, progress: bool) -> int:
    """Add the documents of `source` to a finished workspace without training; returns how many were added.

    Documents whose id is there already are passed over. The same call after a crash goes on where it stopped.
    """
    before = len(workspace)
    with workspace.writing(), Progress(progress) as bar:
        clear_leftovers(workspace.folder)
        read(workspace, source, bar)
        code(workspace, bar, engine)
        refresh_frequencies(workspace)
    return len(workspace) - before


def _advance(workspace: Workspace, stage: str) -> None:
    workspace.manifest["stage"] = stage
    workspace.commit()


# Reading --------------------------------------------------------------------------------------------


def read(workspace: Workspace, source: TextSource, bar: Progress) -> None:
    """Write the source's documents into shards; a source that was read half-way is read on."""
    manifest = workspace.manifest
    entry = next((s for s in manifest["sources"] if s["name"] == source.name and not s["coded"]), None)
    if entry is None:
        entry = {"name": source.name, "rows": 0, "documents": 0, "read": False, "coded": False, "trouble": []}
        manifest["sources"].append(entry)
    if entry["read"]:  # the stop came while its documents were being coded
        return
    number = manifest["sources"].index(entry)
    known = _known_ids(workspace) if number else set()
    task = bar.start("Reading", None)
    passed_over = 0
    for batch in source.batches(rows=SHARD, skip=entry["rows"]):
        table = pa.Table.from_batches([batch])
        if number > 0:
            table = _same_text_column(table, source, workspace.text_column)
            if source.id_column is None:  # row numbers are ids: keep those of several sources apart
                ids = pa.array([f"{number + 1}:{id}" for id in table["_id"].to_pylist()])
                table = table.set_column(table.column_names.index("_id"), "_id", ids)
            fresh = pa.array([id not in known for id in table["_id"].to_pylist()])
            passed_over += table.num_rows - pc.sum(fresh).as_py()
            table = table.filter(fresh)
        entry["rows"] = source.report.rows
        if table.num_rows:
            shard = {"name": f"{len(manifest['shards']):05d}", "documents": table.num_rows, "coded": False}
            with atomic_file(workspace.document_file(shard)) as temporary:
                pq.write_table(table, temporary, row_group_size=ROW_GROUP)
            manifest["shards"].append(shard)
            entry["documents"] += table.num_rows
        workspace.commit()
        bar.advance(task, table.num_rows)
    entry["read"] = True
    entry["trouble"] = source.report.lines()
    if passed_over:
        entry["trouble"].append(
            f"{source.name}: {passed_over:,} documents have ids that are already in the workspace and were passed over"
        )
    if not manifest["shards"]:
        raise SourceError(f"{source.name}: no document to explore")
    workspace.commit()


def _known_ids(workspace: Workspace) -> set[str]:
    """Ids of all documents read so far, coded or not."""
    files = [workspace.document_file(shard) for shard in workspace.manifest["shards"]]
    return {id for file in files for id in pq.read_table(file, columns=["_id"]).column(0).to_pylist()}


def _same_text_column(table: pa.Table, source: TextSource, name: str) -> pa.Table:
    """A later source's text goes by the name that the workspace's text has."""
    if source.text_column == name:
        return table
    if name in table.column_names:
        raise SourceError(
            f"{source.name}: has the text in {source.text_column!r} but also a column {name!r}, where this workspace keeps its text; rename one"
        )
    return table.rename_columns([name if c == source.text_column else c for c in table.column_names])
