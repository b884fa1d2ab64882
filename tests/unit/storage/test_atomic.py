"""A write is there whole or not at all."""

import errno

import pytest

from hourglass.errors import FolderError
from hourglass.storage.atomic import atomic_file, atomic_folder, read_json, replace_folder, write_json


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    with pytest.raises(FolderError, match="disk is full"), atomic_file(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert read_json(path) == {"x": 1}


def test_a_folder_takes_the_place_of_the_old_one_whole(tmp_path):
    path = tmp_path / "model"
    for name in ("one", "two"):
        with atomic_folder(path) as folder:
            (folder / name).write_text(name)
    assert [p.name for p in path.iterdir()] == ["two"]
    with pytest.raises(RuntimeError), atomic_folder(path) as folder:
        (folder / "three").write_text("half")
        raise RuntimeError
    assert [p.name for p in path.iterdir()] == ["two"]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_replace_folder_with_and_without_an_old_one(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    replace_folder(tmp_path / "a", tmp_path / "b")
    replace_folder(tmp_path / "b", tmp_path / "c")
    assert [p.name for p in tmp_path.rglob("*")] == ["c", "a"]


def test_json_errors_name_the_file(tmp_path):
    with pytest.raises(FolderError, match=r"gone\.json: no such file"):
        read_json(tmp_path / "gone.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(FolderError, match=r"bad\.json: not valid JSON"):
        read_json(tmp_path / "bad.json")
