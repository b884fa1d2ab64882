"""Studios that answer, over a workspace and an index whose documents would like to be pages."""

import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

import studio_workspace


@pytest.fixture(scope="session")
def hostile(tmp_path_factory):
    return studio_workspace.workspace_in(tmp_path_factory.mktemp("studio") / "ws")


@pytest.fixture(scope="session")
def other_text(tmp_path_factory):
    return studio_workspace.other_in(tmp_path_factory.mktemp("other") / "replies")


@pytest.fixture(scope="session")
def indexed(tmp_path_factory, hostile):
    """The folder of an index of the same documents."""
    for library in ("lance", "bm25s", "Stemmer"):
        pytest.importorskip(library)
    return studio_workspace.index_in(tmp_path_factory.mktemp("indexed"), hostile).folder


@contextmanager
def answering(*folders):
    """Where a studio over them answers: a process of its own, so that what gradio leaves open ends with it."""
    command = [sys.executable, Path(studio_workspace.__file__), *folders]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as studio:
        yield studio.stdout.readline().strip()
        studio.terminate()


@pytest.fixture(scope="session")
def address(hostile):
    with answering(hostile.folder) as address:
        yield address


@pytest.fixture(scope="session")
def two_address(hostile, other_text):
    """Of the workspace with another text."""
    with answering(hostile.folder, other_text.folder) as address:
        yield address


@pytest.fixture(scope="session")
def both_address(hostile, indexed):
    """Of the workspace with the index."""
    with answering(hostile.folder, indexed) as address:
        yield address


@pytest.fixture(scope="session")
def changing(indexed, tmp_path_factory):
    """The folder of a copy of the index, to be written to."""
    return Path(shutil.copytree(indexed, tmp_path_factory.mktemp("changing") / "index"))


@pytest.fixture(scope="session")
def index_address(changing):
    """Of the copy alone."""
    with answering(changing) as address:
        yield address
