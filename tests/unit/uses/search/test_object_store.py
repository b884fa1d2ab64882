"""An index in an object store is made, changed and searched as one in a folder is."""

import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("lance")
pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")
pytest.importorskip("moto.server")

import lance
from indexes import counting, documents

from hourglass.errors import FolderError, SourceError
from hourglass.storage.places import Place
from hourglass.uses.search import writing
from hourglass.uses.search.index import SearchIndex

DOCUMENTS = documents(60)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A bucket of a server of S3 on this machine."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "one",
        "AWS_SECRET_ACCESS_KEY": "two",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        client = boto3.client("s3", endpoint_url=variables["AWS_ENDPOINT_URL"])
        client.create_bucket(Bucket="bucket")
        yield client
    server.stop()


@pytest.fixture
def bucket(store):
    """Empty."""
    yield "s3://bucket"
    for key in keys(store):
        store.delete_object(Bucket="bucket", Key=key)


def keys(store, prefix=""):
    """Of files; that of a folder ends in a slash."""
    found = store.list_objects_v2(Bucket="bucket", Prefix=prefix).get("Contents", [])
    return [entry["Key"] for entry in found if not entry["Key"].endswith("/")]


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level("ERROR", "werkzeug")


def made(out, source=DOCUMENTS, **options):
    return SearchIndex.create(source, out, **{"encoder": counting, "progress": False, **options})


def contents(index):
    rows = np.arange(len(index))
    return dict(zip(index.names(rows), index.texts(rows)))


def test_it_finds_what_an_index_in_a_folder_finds(bucket, store, tmp_path):
    there, here = made(f"{bucket}/x.index"), made(tmp_path / "ix")
    assert contents(there) == contents(here)
    for spec in ("bm25", "dense", "bm25 | dense >> rrf"):
        found = SearchIndex(f"{bucket}/x.index", encoder=counting).search("red apple", pipeline=spec)
        expected = here.search("red apple", pipeline=spec)
        assert [(hit.id, hit.score) for hit in found.hits] == [(hit.id, hit.score) for hit in expected.hits]
    assert there.home.cache.is_dir()
    assert {key.split("/")[1].split("-")[0] for key in keys(store)} == {"index.json", "documents"}
    assert there.where("year >= 2010").search("red", top=60).searched == 30


def test_it_is_changed_by_commits_and_who_has_it_open_keeps_its_version(bucket, store):
    index = made(f"{bucket}/x.index")
    reader = SearchIndex(f"{bucket}/x.index", encoder=counting)
    expected = {d["id"]: d["text"] for d in DOCUMENTS}
    assert contents(reader) == expected
    assert index.append([{"id": "new", "text": "red apple"}], progress=False) == 1
    assert index.update([{"id": "d3", "text": "quite other"}], progress=False) == 1
    assert index.delete(["d7"]) == 1
    assert not index.compact(), "nobody knows who reads"
    assert contents(reader) == expected
    expected |= {"new": "red apple", "d3": "quite other"}
    del expected["d7"]
    assert contents(index) == contents(SearchIndex(f"{bucket}/x.index")) == expected
    with pytest.raises(SourceError, match="id 'new' is in the index already"):
        index.append([{"id": "new", "text": "again"}], progress=False)


def test_of_two_that_change_the_same_documents_one_is_refused(bucket):
    first = made(f"{bucket}/x.index")
    other = SearchIndex(f"{bucket}/x.index", encoder=counting)
    taken = other.table.merge_insert("_id").when_matched_update_all()
    taken.conflict_retries(0)
    first.update([{"id": "d3", "text": "by the first"}], progress=False)
    old = pa.Table.from_pylist([{"_id": "d3", "text": "by the other"}], other.table.schema)
    with (
        pytest.raises(FolderError, match="another process wrote to it at the same time") as error,
        other._reading_errors(),
    ):
        taken.execute(old)
    assert "\n" not in str(error.value)
    assert contents(SearchIndex(f"{bucket}/x.index"))["d3"] == "by the first"


def test_a_build_that_was_stopped_goes_on_and_is_no_index_before(bucket, store, monkeypatch):
    monkeypatch.setattr(writing, "_TEXTS_AT_ONCE", 10)
    monkeypatch.setattr(writing, "_COMMITTED_AT_ONCE", 20)
    read = []

    def encode(texts):
        read.extend(texts)
        if len(read) in range(45, 60):
            raise KeyboardInterrupt
        return counting(texts)

    with pytest.raises(KeyboardInterrupt):
        made(f"{bucket}/x.index", encoder=encode)
    with pytest.raises(FolderError, match="one was begun; run the same command again"):
        SearchIndex(f"{bucket}/x.index")
    read = ["from here on"] * 100
    index = made(f"{bucket}/x.index", encoder=encode)
    assert len(read) == 100 + 1 + 20, "the encoder is tried with one sentence before it begins"
    assert contents(index) == {d["id"]: d["text"] for d in DOCUMENTS}
    assert len({key.split("/")[1] for key in keys(store)}) == 2


def test_of_two_that_build_the_same_index_none_gets_rows_of_the_other(bucket, store, monkeypatch):
    monkeypatch.setattr(writing, "_TEXTS_AT_ONCE", 10)
    monkeypatch.setattr(writing, "_COMMITTED_AT_ONCE", 20)
    read = []

    def encode(texts):
        read.extend(texts)
        if len(read) == 41:
            table = next(key.split("/")[1] for key in keys(store, "x.index/documents"))
            lance.dataset(f"{bucket}/x.index/{table}").delete("_id = 'nobody'")
        return counting(texts)

    with pytest.raises(FolderError, match="another process builds it at the same time; wait for it to end"):
        made(f"{bucket}/x.index", encoder=encode)
    assert contents(made(f"{bucket}/x.index")) == {d["id"]: d["text"] for d in DOCUMENTS}


def test_it_is_replaced_only_when_forced_and_bad_input_leaves_nothing(bucket, store):
    before = made(f"{bucket}/x.index", encoder=None)
    with pytest.raises(FolderError, match="exists; choose another --out, or replace it with --force"):
        made(f"{bucket}/x.index", encoder=None)
    again = made(f"{bucket}/x.index", DOCUMENTS[:5], encoder=None, force=True)
    assert len(again) == 5
    assert again.home.cache != before.home.cache, "its versions begin anew"
    twice = [{"id": "a", "text": "one"}, {"id": "a", "text": "two"}]
    with pytest.raises(SourceError, match="rows 1 and 2"):
        made(f"{bucket}/y.index", twice, encoder=None)
    assert keys(store, "y.index") == []
    assert len(made(f"{bucket}/y.index", DOCUMENTS[:3], encoder=None)) == 3
    with pytest.raises(FolderError, match="no search index; make one"):
        SearchIndex(f"{bucket}/z.index")
    store.put_object(Bucket="bucket", Key="z.index/other", Body=b"")
    with pytest.raises(FolderError, match="is no search index"):
        made(f"{bucket}/z.index")


def test_the_command_line_takes_a_url(bucket, tmp_path):
    source = tmp_path / "texts.csv"
    source.write_text("id,text\na,red stone\nb,a blue river\n")
    for words in (
        ["index", str(source), "--out", f"{bucket}/x.index", "--encoder", "none"],
        ["search", f"{bucket}/x.index", "river"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "hourglass", *words], env=os.environ, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert "b" in done.stdout
    with Place.of(f"{bucket}/x.index/index.json").open() as stream:
        assert b"documents-" in stream.read()
