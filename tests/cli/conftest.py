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


@pytest.fixture(scope="session")
def explored_causal(tmp_path_factory, causal_folder):
    """A workspace over the output of block 2 of a causal model."""
    folder = tmp_path_factory.mktemp("explored-causal")
    hg.explore(
        [d["body"] for d in documents(30)],
        out=folder / "ws",
        encoder=str(causal_folder / "llama"),
        layer=2,
        width=32,
        k=4,
        progress=False,
    )
    return folder / "ws"
