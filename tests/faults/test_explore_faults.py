"""An exploration that is killed, starved of disk, or given next to nothing."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import hourglass as hg
from corpus import documents, write_csv
from hourglass.errors import FolderError, InputError, SourceError

SMALL = {"text": "body", "by": "topic", "width": 32, "k": 4, "progress": False}
EXPLORE = (
    "import hourglass as hg, sys; hg.explore(sys.argv[1], out=sys.argv[2], text='body', by='topic', width=32, k=4)"
)
EMBED = "import hourglass as hg, sys; hg.open(sys.argv[2]).embed(sys.argv[1])"


def killed(code, source, folder, when):
    """Run `code` in a process of its own and kill it as soon as `when()` is true; whether it was killed in time."""
    process = subprocess.Popen([sys.executable, "-c", code, str(source), str(folder)], stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if when():
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.002)
    return False


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_csv(tmp_path_factory.mktemp("source") / "texts.csv", documents(80))


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    return hg.explore(source, out=tmp_path_factory.mktemp("whole") / "ws", **SMALL)


@pytest.mark.parametrize("stage", ["learning", "coding", "naming"])
def test_a_kill_at_any_stage_then_the_same_call(source, whole, tmp_path, stage):
    folder = tmp_path / "ws"
    manifest = folder / "workspace.json"
    assert killed(EXPLORE, source, folder, lambda: manifest.exists() and f'"stage": "{stage}"' in manifest.read_text())
    with pytest.raises(FolderError, match="run the same explore command again"):
        hg.open(folder)
    again = hg.explore(source, out=folder, **SMALL)
    assert (again.codes != whole.codes).nnz == 0
    assert again.documents.equals(whole.documents)
    assert again.features["label"].tolist() == whole.features["label"].tolist()
    assert not list(folder.rglob("*.tmp"))


def test_other_settings_do_not_take_over_an_unfinished_run(source, tmp_path):
    folder = tmp_path / "ws"
    manifest = folder / "workspace.json"
    assert killed(EXPLORE, source, folder, manifest.exists)
    with pytest.raises(FolderError, match="unfinished exploration with k = 4, now 5"):
        hg.explore(source, out=folder, **{**SMALL, "k": 5})


@pytest.mark.parametrize("wrong", [{"activation": "topk2"}, {"layer": 99}, {"encoder": "./no-such-model"}])
def test_settings_that_do_not_fit_leave_nothing_behind(source, tmp_path, wrong):
    with pytest.raises(InputError):
        hg.explore(source, out=tmp_path / "ws", **SMALL, **wrong)
    assert not (tmp_path / "ws").exists()


def test_embed_killed_half_way_adds_every_document_once(source, whole, tmp_path):
    folder = tmp_path / "ws"
    hg.explore(source, out=folder, **SMALL)
    more = write_csv(tmp_path / "more.csv", [{**d, "id": f"n{d['id']}"} for d in documents(50, seed=1)])
    manifest = folder / "workspace.json"
    assert killed(EMBED, more, folder, lambda: "more.csv" in manifest.read_text())
    ws = hg.open(folder)
    assert len(ws.documents) == len(ws) in (80, 130)
    hg.open(folder).embed(more, progress=False)
    ws = hg.open(folder)
    assert len(ws) == 130
    assert len(set(ws.column("_id"))) == 130
    assert (ws.codes[:80] != whole.codes).nnz == 0
    assert hg.open(folder).embed(more, progress=False) == 0  # all there already: passed over and counted
    assert "50 documents have ids that are already" in hg.open(folder).manifest["sources"][-1]["trouble"][0]


def test_a_full_disk_is_one_line_and_the_run_goes_on_afterwards(source, whole, tmp_path, monkeypatch):
    from hourglass.uses.explore import workspace

    def full(arrays, path, metadata=None):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(workspace, "save_file", full)
        with pytest.raises(FolderError, match="the disk is full; what was there before is intact"):
            hg.explore(source, out=tmp_path / "ws", **SMALL)
    again = hg.explore(source, out=tmp_path / "ws", **SMALL)
    assert (again.codes != whole.codes).nnz == 0


def test_force_keeps_the_old_workspace_until_the_new_one_is_done(source, tmp_path, monkeypatch):
    folder = tmp_path / "ws"
    hg.explore(source, out=folder, **SMALL)
    from hourglass.uses.explore import build

    with monkeypatch.context() as patch:
        patch.setattr(build, "write_report", lambda workspace: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            hg.explore(source, out=folder, force=True, **{**SMALL, "k": 5})
    assert hg.open(folder).settings["k"] == 4
    hg.explore(source, out=folder, force=True, **{**SMALL, "k": 5})
    assert hg.open(folder).settings["k"] == 5
    assert [p.name for p in tmp_path.iterdir()] == ["ws"]


def test_two_writers_at_once_are_refused(source, whole, tmp_path):
    with whole.writing(), pytest.raises(FolderError, match="another process is writing"):
        hg.open(whole.folder).embed(["one more text"])


@pytest.mark.parametrize("number", [1, 3])
def test_a_corpus_of_next_to_nothing(tmp_path, number):
    ws = hg.explore(documents(number), out=tmp_path / "ws", text="body", by="topic", progress=False)
    assert len(ws) == number
    assert ws.features["label"].isna().all()
    report = (tmp_path / "ws" / "report.html").read_text()
    assert "are few" in report
    with pytest.raises(InputError, match="a difference needs two"):
        ws.diff("topic")


def test_a_group_of_one_document(tmp_path):
    rows = documents(60)
    rows[7]["topic"] = "lonely"
    ws = hg.explore(rows, out=tmp_path / "ws", **SMALL)
    assert {d.a for d in ws.diff("topic")} == {"cooking", "football"}
    with pytest.raises(InputError, match=r"group 'lonely' of column 'topic' has 1 document\(s\); at least 5"):
        ws.diff("topic", "lonely")


def test_texts_without_a_token(tmp_path):
    with pytest.raises(SourceError, match="no token"):
        hg.explore(["\u200b\u200b", "\u200b"], out=tmp_path / "ws", progress=False)
    ws = hg.explore([*(d["body"] for d in documents(40)), "\u200b"], out=tmp_path / "b", width=32, k=4, progress=False)
    assert ws.codes[40].nnz == 0
    assert np.isfinite(ws.dense).all()


def test_one_long_document_is_not_cut(tmp_path, monkeypatch):
    from hourglass.uses.explore import windows

    monkeypatch.setattr(windows, "WINDOW_CHARACTERS", 4_000)
    filler = " ".join(d["body"] for d in documents(160))
    short = [d["body"] for d in documents(40)]
    for place in (40, 20, 0):  # the others are lost neither before nor behind it
        texts = [*short[:place], filler, *short[place:]]
        ws = hg.explore(texts, out=tmp_path / f"ws{place}", width=32, k=4, progress=False)
        tokens = np.concatenate([coded.codes.tokens for coded in ws.coded()])
        assert tokens[place] > 2000
        assert len(tokens) == 41
        assert all(0 < number < 100 for number in np.delete(tokens, place))
        codes = ws.codes
        assert codes[place].nnz >= codes.getnnz(1).max()


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_codes_that_are_not_whole_are_named(source, tmp_path, damage):
    ws = hg.explore(source, out=tmp_path / "ws", **SMALL)
    file = ws.code_file(ws.shards[0])
    if damage == "cut":
        os.truncate(file, file.stat().st_size - 100)
    else:
        file.unlink()
    for verb in (lambda: ws.diff("topic"), lambda: ws.find(features={1: 1.0}), lambda: ws.dense, lambda: ws.codes):
        with pytest.raises(FolderError, match=r"codes/00000\.safetensors: missing or damaged; explore"):
            verb()
