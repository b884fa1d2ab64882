"""A studio that answers, over a workspace whose documents would like to be pages."""

import subprocess
import sys
from pathlib import Path

import pytest

import studio_workspace


@pytest.fixture(scope="session")
def hostile(tmp_path_factory):
    return studio_workspace.workspace_in(tmp_path_factory.mktemp("studio") / "ws")


@pytest.fixture(scope="session")
def address(hostile):
    """Where a studio over it answers: a process of its own, so that what gradio leaves open ends with it."""
    command = [sys.executable, Path(studio_workspace.__file__), hostile.folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as studio:
        yield studio.stdout.readline().strip()
        studio.terminate()
