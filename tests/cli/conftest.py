"""One explored workspace for all tests of verbs that only read."""

import pytest

import hourglass as hg
from corpus import documents, write_csv


@pytest.fixture(scope="session")
def explored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explored")
    source = write_csv(folder / "texts.csv", documents(160))
    hg.explore(source, text="body", by="topic", out=folder / "ws", width=128, k=8, progress=False)
    return folder / "ws"
