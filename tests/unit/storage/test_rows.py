"""Rows on disk: read back as written, and whole after a kill between any two writes."""

import os

import numpy as np
import pytest
import torch

from hourglass.errors import FolderError
from hourglass.storage.rows import RowFile, RowWriter, SideBySide


def rows(n, start=0, width=5):
    states = torch.arange(start, start + n * width).reshape(n, width) / 8
    return states, np.arange(start, start + n), np.stack([np.arange(n), np.arange(n) + 1], 1)


def test_appends_are_read_back(tmp_path):
    with RowWriter(tmp_path / "r", 5) as writer:
        writer.append(*rows(3))
    with RowWriter(tmp_path / "r", 5) as writer:
        writer.append(*rows(2, 3))
        writer.append(*rows(0))
    file = RowFile(tmp_path / "r")
    assert len(file) == 5
    assert file.rows[[4, 0]].tolist() == [[*(torch.arange(8, 13) / 8).tolist()], [0, 0.125, 0.25, 0.375, 0.5]]
    assert file.documents.tolist() == [0, 1, 2, 3, 4]
    assert file.spans.shape == (5, 2)


@pytest.mark.parametrize("index", [slice(2, 5), slice(None, None, 3), slice(0, 0), [6, 2, 3, 3], np.array([], int)])
def test_any_rows_are_read_as_from_memory(tmp_path, index):
    with RowWriter(tmp_path / "r", 5) as writer:
        writer.append(*rows(7))
    expected = rows(7)[0].numpy().astype(np.float16)
    assert np.array_equal(RowFile(tmp_path / "r").rows[index], expected[index])


def test_rows_beyond_the_end_are_refused(tmp_path):
    with RowWriter(tmp_path / "r", 5) as writer:
        writer.append(*rows(3))
    for index in ([0, 3], [-1]):
        with pytest.raises(IndexError, match="of 3"):
            RowFile(tmp_path / "r").rows[index]


def test_a_read_that_stops_early_goes_on(tmp_path, monkeypatch):
    """One call of the system reads 2 GiB at most."""
    with RowWriter(tmp_path / "r", 5) as writer:
        writer.append(*rows(7))
    file, preadv = RowFile(tmp_path / "r"), os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, parts, start: preadv(fd, [parts[0][:4]], start))
    assert np.array_equal(file.rows[1:6], rows(7)[0].numpy().astype(np.float16)[1:6])
    os.truncate(tmp_path / "r" / "rows.f16", 12)
    with pytest.raises(FolderError, match="became shorter while it was read"):
        file.rows[1:6]


def test_nothing_yet_is_a_file_without_rows(tmp_path):
    with RowWriter(tmp_path / "r", 5):
        pass
    assert RowFile.exists(tmp_path / "r")
    assert len(RowFile(tmp_path / "r")) == 0


def test_what_a_killed_append_left_is_forgotten(tmp_path):
    with RowWriter(tmp_path / "r", 5) as writer:
        writer.append(*rows(3))
    for name in ("rows.f16", "documents.i64"):  # data written, rows.json not yet
        with (tmp_path / "r" / name).open("ab") as file:
            file.write(b"xyz" * 7)
    assert len(RowFile(tmp_path / "r")) == 3
    with RowWriter(tmp_path / "r", 5) as writer:
        writer.append(*rows(2, 3))
    assert RowFile(tmp_path / "r").documents.tolist() == [0, 1, 2, 3, 4]


def test_work_that_is_done_is_counted_with_its_rows(tmp_path):
    with RowWriter(tmp_path / "r", 5) as writer:
        assert writer.done == 0
        writer.append(*rows(3), done=4)
        writer.append(*rows(2, 3))
        assert writer.done == 4
    with RowWriter(tmp_path / "r", 5) as writer:
        assert writer.done == 4
        writer.append(*rows(1, 5), done=7)
    with RowWriter(tmp_path / "r", 5) as writer:
        assert writer.done == 7


def test_what_does_not_fit_is_refused(tmp_path):
    with RowWriter(tmp_path / "r", 5) as writer:
        writer.append(*rows(3))
        with pytest.raises(FolderError, match="too large for half precision"):
            writer.append(torch.full((1, 5), 1e6), np.array([9]), np.zeros((1, 2)))
    with pytest.raises(FolderError, match="rows of width 5, now 6"):
        RowWriter(tmp_path / "r", 6)
    assert len(RowFile(tmp_path / "r")) == 3


@pytest.mark.parametrize("name", ["rows.f16", "documents.i64", "spans.i32"])
def test_rows_that_have_gone_are_missed(tmp_path, name):
    """By reader and writer alike: a writer that went on would fill the gap with zeros."""
    with RowWriter(tmp_path / "r", 5) as writer:
        writer.append(*rows(3))
    with (tmp_path / "r" / name).open("r+b") as file:
        file.truncate(4)
    for act in (lambda: RowFile(tmp_path / "r"), lambda: RowWriter(tmp_path / "r", 5)):
        with pytest.raises(FolderError, match=f"{name}: missing or shorter than the 3 rows"):
            act()
    (tmp_path / "r" / name).unlink()
    with pytest.raises(FolderError, match=r"remove .* and read again"):
        RowFile(tmp_path / "r")


def test_half_precision_is_kept_from_any_number_format(tmp_path):
    with RowWriter(tmp_path / "r", 4) as writer:
        writer.append(torch.full((2, 4), 0.1, dtype=torch.bfloat16), np.zeros(2), np.zeros((2, 2)))
        writer.append(torch.full((1, 4), 65504.0), np.ones(1), np.zeros((1, 2)))
    file = RowFile(tmp_path / "r")
    assert file.rows[:].dtype == np.float16
    assert file.rows[:][:, 0].tolist() == [np.float16(0.10009765625)] * 2 + [65504.0]


def test_rows_side_by_side(tmp_path):
    for name, width in (("a", 5), ("b", 3)):
        with RowWriter(tmp_path / name, width) as writer:
            writer.append(*rows(7, width=width))
    parts = [RowFile(tmp_path / name).rows for name in ("a", "b")]
    both = SideBySide(parts)
    assert len(both) == 7
    for index in (slice(1, 4), [6, 2, 2]):
        assert np.array_equal(both[index], np.hstack([part[index] for part in parts]))
    assert np.array_equal(both.__getitems__([5, 0]), both[[5, 0]])
