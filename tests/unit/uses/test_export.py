"""The table that other programs get."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from hourglass.data import open_texts
from hourglass.errors import ConfigError, FolderError, MissingExtra
from hourglass.storage.places import Place
from workspaces import WIDTH, make_workspace


@pytest.fixture
def workspace(tmp_path):
    maxima = np.random.default_rng(0).random((120, WIDTH)) * (np.random.default_rng(1).random((120, WIDTH)) < 0.4)
    texts, dense = [f"text {i}" for i in range(120)], np.random.default_rng(2).integers(-9, 9, (120, 4))
    return make_workspace(tmp_path / "ws", texts, {"topic": ["a", "b"] * 60}, maxima, dense=dense, middle=2 * dense)


@pytest.mark.parametrize("to", ["{tmp}/sub/x.parquet", "memory://exported/x.parquet", "file://{tmp}/x.parquet"])
def test_a_row_a_document_with_its_features(workspace, tmp_path, to):
    to = to.format(tmp=tmp_path)
    assert workspace.export(to) == 120
    with Place.of(to).open() as stream:
        table = pq.read_table(stream)
    assert table.column_names == [
        "text",
        "topic",
        "_row",
        "_id",
        "_tokens",
        "_features",
        "_strengths",
        "_dense",
        "_middle",
    ]
    assert table.select(range(4)).equals(workspace.documents)
    for i in (0, 49, 50, 119):  # on both sides of the border of a shard
        row = workspace.codes[i]
        assert table["_features"][i].as_py() == row.indices.tolist()
        assert table["_strengths"][i].as_py() == pytest.approx(row.data.tolist())
        assert table["_dense"][i].as_py() == pytest.approx(workspace.dense[i].tolist())
        assert table["_middle"][i].as_py() == pytest.approx((2 * workspace.dense[i]).tolist())
    with pytest.raises(FolderError, match=r"x\.parquet: exists; choose another place, or replace it with --force"):
        workspace.export(to)
    assert workspace.export(to, force=True) == 120
    again = open_texts(to, text="text")  # the table is a source too
    assert sum(batch.num_rows for batch in again.batches()) == 120


def test_shards_of_other_columns_are_one_table(workspace, tmp_path):
    file = workspace.document_file(workspace.shards[0])
    pq.write_table(pq.read_table(file).drop_columns(["topic"]), file)
    workspace.export(tmp_path / "x.parquet")
    assert pq.read_table(tmp_path / "x.parquet")["topic"].null_count == 50


def test_other_endings_and_what_lacks(workspace, tmp_path):
    with pytest.raises(ConfigError, match=r"expected a path or URL that ends in \.parquet or \.lance"):
        workspace.export(tmp_path / "x.csv")
    try:
        import lance  # noqa: F401
    except ImportError:
        for verb in (workspace.export, open_texts):
            with pytest.raises(MissingExtra, match=r"pip install 'hourglass-ai\[lance\]'"):
                verb(str(tmp_path / "x.lance"))


def test_lance(workspace, tmp_path):
    pytest.importorskip("lance")
    to = str(tmp_path / "x.lance")
    assert workspace.export(to) == 120
    with pytest.raises(FolderError, match=r"x\.lance: exists"):
        workspace.export(to)
    assert workspace.export(to, force=True) == 120
    batches = list(open_texts(to, text="text").batches())
    assert sum(batch.num_rows for batch in batches) == 120
    assert batches[0]["topic"].to_pylist()[:2] == ["a", "b"]
