"""An index whose texts are read on a local cluster of two workers is that of one process."""

import os

import numpy as np
import pytest
import torch

pytest.importorskip("lance")
pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

import hourglass as hg
from corpus import documents, write_csv
from encoders import make_pair
from hourglass.errors import InputError, SourceError
from hourglass.uses.search import writing
from late_models import save_late

# Of Ray's own doings.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::FutureWarning:ray")


@pytest.fixture(scope="module")
def cluster():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = pytest.importorskip("ray")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so that two cores are two workers
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    for part in make_pair():
        part.save_pretrained(folder)
    return str(folder)


def table(index):
    return index.table.to_table().combine_chunks()


def test_the_same_rows_as_in_one_process(cluster, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_TEXTS_AT_ONCE", 8)
    monkeypatch.setattr(writing, "_DOCUMENTS_OF_A_BLOCK", 16)
    monkeypatch.setattr(writing, "_COMMITTED_AT_ONCE", 24)
    source = f"file://{write_csv(tmp_path / 'texts.csv', documents(60))}"
    made = [
        hg.index(
            source, out=tmp_path / engine, text="body", encoder=encoder, code="sign", engine=engine, progress=False
        )
        for engine in ("local", "ray")
    ]
    here, there = made
    assert table(here).equals(table(there))
    assert here.manifest == there.manifest
    assert len(there.table.get_fragments()) > 1
    assert sorted(file.name for file in (tmp_path / "ray").iterdir() if file.name[0] != ".") == [
        "documents.lance",
        "index.json",
    ]
    found = [index.search("penalty in the match", pipeline="bm25 | dense >> rrf").hits for index in made]
    assert [(hit.id, hit.score) for hit in found[0]] == [(hit.id, hit.score) for hit in found[1]]


def test_tokens_are_those_of_one_process(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_TEXTS_AT_ONCE", 8)
    monkeypatch.setattr(writing, "_DOCUMENTS_OF_A_BLOCK", 16)
    model = str(save_late(tmp_path / "model"))
    texts = [row["body"] for row in documents(40)]
    here, there = (
        hg.index(texts, out=tmp_path / engine, encoder=None, tokens=model, token_bits=4, engine=engine, progress=False)
        for engine in ("local", "ray")
    )
    assert table(here).equals(table(there))
    assert here.manifest == there.manifest
    found = [index.search("penalty in the match", pipeline="late").hits for index in (here, there)]
    assert [(hit.id, hit.score) for hit in found[0]] == [(hit.id, hit.score) for hit in found[1]]


def test_vectors_that_the_source_has_are_checked_before_workers_begin(cluster, tmp_path):
    rows = [{"text": f"text {i}", "v": [1.0, float(i)]} for i in range(20)]
    index = hg.index(rows, out=tmp_path / "ix", encoder=None, vectors="v", engine="ray", progress=False)
    assert np.allclose(np.linalg.norm(index.vectors(np.arange(20)), axis=1), 1, atol=1e-3)
    rows[7]["v"] = [1.0]
    with pytest.raises(SourceError, match="row 8, column 'v': a vector of 1 numbers; expected 2"):
        hg.index(rows, out=tmp_path / "bad", encoder=None, vectors="v", engine="ray", progress=False)
    assert not (tmp_path / "bad").exists()


def test_what_a_worker_cannot_do_names_the_documents_and_what_was_done_stays(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_TEXTS_AT_ONCE", 4)
    monkeypatch.setattr(writing, "_DOCUMENTS_OF_A_BLOCK", 4)
    monkeypatch.setattr(writing, "_COMMITTED_AT_ONCE", 4)
    fail = tmp_path / "fail"
    fail.touch()
    place = str(fail)

    def encode(texts):
        if os.path.exists(place) and "text 9" in texts:  # noqa: PTH110  # it goes to another process
            raise InputError("no room")
        return np.array([[len(text), 1.0] for text in texts], np.float32)

    texts = [f"text {i}" for i in range(16)]
    with pytest.raises(InputError, match="documents 9 to 12: no room"):
        hg.index(texts, out=tmp_path / "ix", encoder=encode, engine="ray", progress=False)
    fail.unlink()
    read = []

    def again(texts):
        read.extend(texts)
        return encode(texts)

    again.__name__ = "encode"
    index = hg.index(texts, out=tmp_path / "ix", encoder=again, engine="local", progress=False)
    assert index.texts(np.arange(16)) == texts
    assert read[1:] == texts[8:], "what was committed is not read again"


def test_an_unknown_engine_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no engine 'dask' \(there are: local, ray\)"):
        hg.index(["a text"], out=tmp_path / "ix", encoder=None, engine="dask", progress=False)
