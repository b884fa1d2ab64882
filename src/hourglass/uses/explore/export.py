"""A workspace's documents with all that was computed for them, as one table for other programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hourglass.errors import ConfigError, FolderError, MissingExtra
from hourglass.storage.places import Place
from hourglass.uses.explore.workspace import Workspace


def export(workspace: Workspace, to: str, *, force: bool = False) -> int:
    """Write all documents to a .parquet file or a .lance data set, a path or a URL; returns how many there are.

    Columns: those of the sources, `_row` and `_id`; `_tokens`, the document's; `_features` and `_strengths`, its features
    in rising order and the maximum of each; `_dense`, the mean of its token states, and `_middle`, of those in the middle of the
    model. Memory follows a shard. What is there
    already is replaced only with `force`, and a .parquet in one step.
    """
    place = Place.of(str(to))
    ending = place.suffixes[-1:]
    if ending == [".parquet"]:
        _write_parquet(workspace, place, force)
    elif ending == [".lance"]:
        _write_lance(workspace, place, force)
    else:
        raise ConfigError(f"{to}: expected a path or URL that ends in .parquet or .lance")
    return len(workspace)


def _write_parquet(workspace: Workspace, place: Place, force: bool) -> None:
    if place.is_file() and not force:
        raise _taken(place)
    schema = _schema(workspace)
    with place.replaced() as stream, pq.ParquetWriter(stream, schema) as file:
        for batch in _batches(workspace, schema):
            file.write_batch(batch)


def _write_lance(workspace: Workspace, place: Place, force: bool) -> None:
    try:
        import lance
    except ImportError:
        raise MissingExtra("a Lance data set", "lance") from None
    schema = _schema(workspace)
    rows = pa.RecordBatchReader.from_batches(schema, _batches(workspace, schema))
    try:
        lance.write_dataset(rows, place.path if place.is_local else place.name, mode="overwrite" if force else "create")
    except OSError as error:
        if "already exists" in str(error):
            raise _taken(place) from None
        raise FolderError(f"{place}: cannot be written ({str(error).splitlines()[0]})") from None


def _taken(place: Place) -> FolderError:
    return FolderError(f"{place}: exists; choose another place, or replace it with --force")


def _schema(workspace: Workspace) -> pa.Schema:
    """The columns of all shards: sources that came later may have others."""
    shards = [pq.read_schema(workspace.document_file(shard)).remove_metadata() for shard in workspace.shards]
    first = next(workspace.stored("dense", "middle"))
    computed = pa.schema(
        {
            "_tokens": pa.int32(),
            "_features": pa.list_(pa.int32()),
            "_strengths": pa.list_(pa.float32()),
            **{f"_{name}": pa.list_(pa.float32(), vectors.shape[1]) for name, vectors in first.items()},
        }
    )
    return pa.unify_schemas([*shards, computed], promote_options="permissive")


def _batches(workspace: Workspace, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """A batch a shard."""
    for shard, coded in zip(workspace.shards, workspace.coded()):
        codes, offsets = coded.codes, pa.array(coded.codes.indptr, pa.int32())
        computed = {
            "_tokens": pa.array(codes.tokens, pa.int32()),
            "_features": pa.ListArray.from_arrays(offsets, pa.array(codes.indices, pa.int32())),
            "_strengths": pa.ListArray.from_arrays(offsets, pa.array(codes.maximum.astype(np.float32))),
            "_dense": _vectors(coded.dense),
            "_middle": _vectors(coded.middle),
        }
        table = workspace.inside(shard)
        for name, column in computed.items():
            table = table.append_column(name, column)
        for name in schema.names:
            if name not in table.column_names:
                table = table.append_column(name, pa.nulls(table.num_rows))
        yield from table.select(schema.names).cast(schema).combine_chunks().to_batches()


def _vectors(rows: np.ndarray[Any, Any]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(rows.astype(np.float32).ravel(), rows.shape[1])
