"""An index whose making or changing is killed, or that two would write at once."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("lance")
pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

import hourglass as hg
from corpus import documents, write_csv
from hourglass.errors import FolderError
from hourglass.uses.search.layout import lock

DOCUMENTS = documents(400)
SLOW = """
import sys, time
import hourglass as hg
from hourglass.uses.search import writing
writing._TEXTS_AT_ONCE, writing._COMMITTED_AT_ONCE = 20, 40
shaped = writing._Columns.shaped
def slow(self, *given):
    time.sleep(0.05)
    print("batch", flush=True)
    return shaped(self, *given)
writing._Columns.shaped = slow
"""
BUILD = SLOW + "hg.index(sys.argv[1], out=sys.argv[2], text='body', encoder=None, progress=False)"
APPEND = SLOW + "hg.open_index(sys.argv[2]).append(sys.argv[1], text='body', progress=False)"


def killed_after(batches, code, source, folder):
    """Run `code` in a process of its own and kill it once it has made so many batches."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(source), str(folder)], stdout=subprocess.PIPE, text=True
    )
    for _ in range(batches):
        assert process.stdout.readline() == "batch\n"
    time.sleep(0.01 * (batches % 3))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def contents(index):
    rows = np.arange(len(index))
    return dict(zip(index.names(rows), index.texts(rows)))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    rows = [{**document, "id": f"d{i}"} for i, document in enumerate(DOCUMENTS)]
    return write_csv(tmp_path_factory.mktemp("source") / "texts.csv", rows)


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    return hg.index(source, out=tmp_path_factory.mktemp("whole") / "ix", text="body", encoder=None, progress=False)


def test_a_killed_build_goes_on_and_ends_with_the_same(source, whole, tmp_path):
    folder = tmp_path / "ix"
    for batches in (1, 5):
        killed_after(batches, BUILD, source, folder)
        with pytest.raises(FolderError, match="run the same command again"):
            hg.open_index(folder)
    index = hg.index(source, out=folder, text="body", encoder=None, progress=False)
    assert contents(index) == contents(whole)
    assert [hit.id for hit in index.search("penalty in the match").hits] == [
        hit.id for hit in whole.search("penalty in the match").hits
    ]
    assert sorted(place.name for place in tmp_path.iterdir()) == ["ix"]


def test_a_killed_append_leaves_what_there_was(source, tmp_path):
    folder = tmp_path / "ix"
    index = hg.index(["the first text"], out=folder, encoder=None, progress=False)
    before = contents(index)
    killed_after(12, APPEND, source, folder)
    assert contents(hg.open_index(folder)) == before
    assert index.append(source, text="body", progress=False) == 400
    assert len(hg.open_index(folder)) == 401
    assert index.compact()
    assert len(index.search("penalty", top=500)) > 10


def test_one_process_writes_at_a_time_and_others_read(source, tmp_path):
    folder = tmp_path / "ix"
    index = hg.index(["one text"], out=folder, encoder=None, progress=False)
    code = "import sys; from pathlib import Path; from hourglass.uses.search.layout import lock\nwith lock(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"in\n"
    with pytest.raises(FolderError, match="another process is writing to it"):
        index.append(source, text="body", progress=False)
    with pytest.raises(FolderError, match="another process is writing to it"):
        index.delete(where="_id = '0'")
    assert len(hg.open_index(folder).search("text")) == 1
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    other.stdin.close()
    other.stdout.close()
    with lock(folder):
        pass
    assert index.append(source, text="body", progress=False) == 400
