"""A workspace of another version, or of two processes at once: one line, and nothing that was there is lost."""

import json
import shutil
import subprocess
import sys

import pytest

import hourglass as hg
from corpus import documents, write_csv
from hourglass.cli import main
from hourglass.errors import FolderError

SMALL = {"text": "body", "by": "topic", "width": 32, "k": 4, "progress": False}
HOLD = (
    "import hourglass as hg, sys\n"
    "with hg.open(sys.argv[1]).writing():\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.read()\n"
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return hg.explore(documents(40), out=tmp_path_factory.mktemp("whole") / "ws", **SMALL).folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "ws")


@pytest.fixture
def more(tmp_path):
    return write_csv(tmp_path / "more.csv", [{**d, "id": f"n{d['id']}"} for d in documents(10, seed=1)])


@pytest.fixture
def another_process(folder):
    """Holds the workspace while a test runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.communicate()


def fails(capsys, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["hourglass", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit:
        main()
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return exit.value.code, lines[0]


def every_verb(folder, source):
    return {
        "diff": (folder, "--by", "topic"),
        "correlate": (folder,),
        "trend": (folder, "--by", "id"),
        "cluster": (folder,),
        "find": (folder, "onions"),
        "verify": (folder, "--by", "topic", "--a", "cooking"),
        "relabel": (folder, "http://127.0.0.1:9/v1", "--model", "m"),
        "embed": (folder, source),
        "features": (folder,),
        "export": (folder, folder / "x.parquet"),
        "report": (folder,),
    }


@pytest.mark.parametrize("format", [1, 99, None])
def test_another_version_is_named_by_every_verb(folder, more, capsys, monkeypatch, format):
    manifest = json.loads((folder / "workspace.json").read_text())
    (folder / "workspace.json").write_text(json.dumps({**manifest, "format": format}))
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}
    for verb, arguments in every_verb(folder, more).items():
        code, line = fails(capsys, monkeypatch, verb, *arguments)
        assert code == 2
        assert f"{folder}: a workspace of another version of Hourglass (format {format!r}, this one reads 2)" in line
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()} == before
    code, line = fails(capsys, monkeypatch, "explore", more, "--text", "body", "--out", folder)
    assert "explore its source again with --force, or another --out" in line
    assert len(hg.explore(documents(20), out=folder, force=True, **SMALL)) == 20


@pytest.mark.parametrize("verb", ["embed", "relabel", "explore"])
def test_a_second_process_is_told_to_wait(folder, more, another_process, capsys, monkeypatch, verb):
    calls = {**every_verb(folder, more), "explore": (more, "--text", "body", "--out", folder, "--force")}
    code, line = fails(capsys, monkeypatch, verb, *calls[verb])
    assert (code, line) == (
        2,
        f"hourglass: {folder}: another process is writing to it; wait for it to end",
    )
    assert len(hg.open(folder)) == 40  # and who reads is not in the way
    assert hg.open(folder).diff("topic")


def test_what_another_process_has_added_meanwhile_stays(folder, more):
    late = hg.open(folder)
    assert late.features is not None
    assert hg.open(folder).embed(more, progress=False) == 10
    late.embed([{**d, "id": f"l{d['id']}"} for d in documents(6, seed=2)], progress=False)
    ws = hg.open(folder)
    assert len(ws) == len(ws.documents) == len(set(ws.column("_id"))) == len(late) == 56
    assert [entry["documents"] for entry in ws.manifest["sources"]] == [40, 10, 6]
    assert ws.codes.shape[0] == 56


def test_two_explorations_into_one_new_folder(tmp_path, more, monkeypatch):
    """The second finds the first at work, or done: it never begins anew over it."""
    from hourglass.uses.explore import build

    def meanwhile(workspace):
        with pytest.raises(FolderError, match="another process is writing to it"):
            hg.explore(more, out=tmp_path / "ws", **SMALL)

    with monkeypatch.context() as patch:
        patch.setattr(build, "write_report", meanwhile)
        hg.explore(more, out=tmp_path / "ws", **SMALL)
    with pytest.raises(FolderError, match="holds a finished workspace"):
        hg.explore(more, out=tmp_path / "ws", **SMALL)
