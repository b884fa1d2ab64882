"""An index is made, changed and read: versions, views, errors."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("lance")
pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

from indexes import bm25, counting, documents

from encoders import make_pair
from hourglass.errors import ConfigError, FolderError, InputError, SourceError
from hourglass.uses.search import writing
from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.lexical import BM25
from hourglass.uses.search.postings import Postings
from hourglass.uses.search.stages import Query

DOCUMENTS = documents(60)


def made(out, source=DOCUMENTS, **options):
    return SearchIndex.create(source, out, **{"encoder": None, "progress": False, **options})


def contents(index):
    """{id: text} of all documents, and whether words find the same."""
    rows = np.arange(len(index))
    texts = index.texts(rows)
    found = BM25(index).score(Query("1", "red apple"), rows)
    assert np.allclose(found, bm25(texts, "red apple"), atol=1e-5)
    return dict(zip(index.names(rows), texts))


def test_documents_come_as_they_are_with_the_columns_of_the_source(tmp_path):
    index = made(tmp_path / "ix", encoder=counting)
    assert contents(index) == {d["id"]: d["text"] for d in DOCUMENTS}
    assert index.columns == ["id", "year", "lang"]
    assert index.take(np.array([5, 2]), ["year"])["year"].to_pylist() == [2005, 2002]
    lengths = np.linalg.norm(index.vectors(np.array([3, 1])), axis=1)
    assert np.allclose(lengths, 1, atol=1e-3)
    assert json.loads((tmp_path / "ix" / "index.json").read_text())["encoder"]["id"] == "counting"
    assert not (tmp_path / ".ix.new").exists()


def test_adding_replacing_removing_and_joining(tmp_path):
    index = made(tmp_path / "ix")
    expected = {d["id"]: d["text"] for d in DOCUMENTS}
    assert index.append([{"id": "new", "text": "red apple"}], progress=False) == 1
    expected["new"] = "red apple"
    assert contents(index) == expected
    changed = [{"id": "d3", "text": "quite other"}, {"id": "newer", "text": "apple apple"}]
    assert index.update(changed, progress=False) == 2
    expected |= {"d3": "quite other", "newer": "apple apple"}
    assert contents(index) == expected
    assert index.delete(["d7", "new"]) == 2
    assert index.delete(where="year = 2001") == 3
    for gone in ("d7", "new", "d1", "d21", "d41"):
        del expected[gone]
    assert contents(index) == expected
    assert index.compact()
    assert contents(index) == expected == contents(SearchIndex(tmp_path / "ix"))
    assert len(list((tmp_path / "ix/documents.lance/data").iterdir())) == 1
    assert [place.name for place in (tmp_path / "ix/cache").iterdir()] == [f"bm25-1.5-0.75@{index.version}"]


def test_a_reader_keeps_the_version_that_it_has_opened(tmp_path):
    writer = made(tmp_path / "ix", encoder=counting)
    reader = SearchIndex(tmp_path / "ix", encoder=counting)
    writer.update([{"id": "d0", "text": "changed"}], progress=False)
    writer.delete(["d1"])
    assert not writer.compact(), "somebody reads an old version"
    assert contents(reader) == {d["id"]: d["text"] for d in DOCUMENTS}
    assert reader.search("red", pipeline="bm25 | dense >> rrf").searched == 60
    del reader
    assert writer.compact()
    assert len(contents(writer)) == 59


def test_a_view_has_only_what_matches(tmp_path):
    index = made(tmp_path / "ix")
    index.delete(["d0", "d30"])
    view = index.where("year >= 2010").where("lang = 'de'")
    years = view.take(view.selected, ["year", "lang"]).to_pylist()
    assert years == [
        {"year": d["year"], "lang": "de"}
        for d in DOCUMENTS
        if d["year"] >= 2010 and d["lang"] == "de" and d["id"] != "d30"
    ]
    assert view.search("red", top=50).searched == len(view.selected)
    with pytest.raises(ConfigError, match="a view of an index is only read"):
        view.delete(["d2"])


@pytest.mark.parametrize(
    ("filter", "rows"),
    [
        ("year >= 2012", [1, 2]),
        ("2012 <= year", [1, 2]),
        ("year = 2012.0 OR year < 2000", [1, 3]),
        ("year BETWEEN 2010 AND 2012", [0, 1]),
        ("year NOT IN (2010, 2012)", [2, 3]),
        ("year = '2012'", [1]),
        ("`year` > 2012 AND lang = 'year > 3'", []),
        ("lang = 'fr' and YEAR >= 2012", [2]),
        ("year_of >= 7", [2]),
    ],
)
def test_texts_are_compared_with_numbers_as_numbers(tmp_path, filter, rows):
    table = [("2010", "de", "1"), ("2012", "en", "2"), ("10000", "fr", "7"), ("99", "de", ""), ("soon", "de", "")]
    source = tmp_path / "texts.csv"
    lines = [f"d{i},red stone {i},{year},{lang},{of}" for i, (year, lang, of) in enumerate(table)]
    source.write_text("\n".join(["id,text,year,lang,year_of", *lines]) + "\n")
    index = made(tmp_path / "ix", str(source))
    assert index.where(filter).selected.tolist() == rows
    assert index.delete(where=filter) == len(rows)


@pytest.mark.parametrize("filter", ["yeer > 3", "year >", "year", "", "year >= 'x'", "year > 3; drop"])
def test_a_bad_filter_is_one_line_that_names_the_columns(tmp_path, filter):
    index = made(tmp_path / "ix", DOCUMENTS[:3])
    with pytest.raises(ConfigError, match=r"expected a condition .*columns: _id, text, id, year, lang\)$") as error:
        index.where(filter)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="expected a condition"):
        index.delete(where=filter)


def test_ids_must_differ(tmp_path):
    twice = [{"id": "a", "text": "one"}, {"id": "b", "text": "two"}, {"id": "a", "text": "three"}]
    with pytest.raises(SourceError, match="id 'a' is there twice, in rows 1 and 3"):
        made(tmp_path / "ix", twice)
    assert list(tmp_path.iterdir()) == []
    index = made(tmp_path / "ix")
    for write in (index.append, index.update):
        with pytest.raises(SourceError, match="id 'a' is there twice, in rows 1 and 3"):
            write(twice, progress=False)
    with pytest.raises(SourceError, match="row 2: id 'd5' is in the index already; use update"):
        index.append([{"id": "x", "text": "one"}, {"id": "d5", "text": "two"}], progress=False)
    with pytest.raises(SourceError, match="no column of ids to update by"):
        index.update(["one"], progress=False)
    assert contents(SearchIndex(tmp_path / "ix")) == {d["id"]: d["text"] for d in DOCUMENTS}


def test_ids_of_beir_are_taken(tmp_path):
    index = made(tmp_path / "ix", [{"_id": "q", "text": "one"}, {"_id": "r", "text": "two"}])
    assert index.names(np.array([1, 0])) == ["r", "q"]


def test_a_build_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_COMMITTED_AT_ONCE", 20)
    monkeypatch.setattr(writing, "_TEXTS_AT_ONCE", 10)
    read = []

    def encode(texts):
        read.extend(texts)
        if len(read) in range(45, 60):
            raise KeyboardInterrupt
        return counting(texts)

    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "ix", encoder=encode)
    with pytest.raises(FolderError, match="one was begun; run the same command again"):
        SearchIndex(tmp_path / "ix")
    read = ["from here on"] * 100
    index = made(tmp_path / "ix", encoder=encode)
    assert len(read) == 100 + 1 + 20, "the encoder is tried with one sentence before it begins"
    assert contents(index) == {d["id"]: d["text"] for d in DOCUMENTS}
    whole = made(tmp_path / "whole", encoder=counting)
    assert np.array_equal(index.vectors(np.arange(60)), whole.vectors(np.arange(60)))


def test_vectors_may_be_given(tmp_path):
    source = [{**d, "embedding": counting([d["text"]])[0].tolist()} for d in DOCUMENTS]
    index = made(tmp_path / "ix", source, vectors="embedding", dtype="float32")
    own = made(tmp_path / "own", encoder=counting, dtype="float32")
    assert np.array_equal(index.vectors(np.arange(60)), own.vectors(np.arange(60)))
    with pytest.raises(ConfigError, match="its vectors were given, and no encoder of queries"):
        index.search("red", pipeline="dense")
    asked = SearchIndex(tmp_path / "ix", encoder=counting)
    assert [h.id for h in asked.search("red").hits] == [h.id for h in own.search("red").hits]
    for bad, line in (
        ([1.0, 2.0], "row 1, column 'embedding': a vector of 2 numbers; expected 12"),
        ("x", "'x' is no vector; expected a list of numbers"),
        (None, "is no vector"),
    ):
        with pytest.raises(SourceError, match=line):
            index.append([{"id": "n", "text": "t", "embedding": bad}], progress=False)


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
@pytest.mark.parametrize("lists", [pa.list_, pa.large_list, lambda kind: pa.list_(kind, 12)])
def test_given_vectors_of_every_arrow_type_are_those_of_the_source(tmp_path, kind, lists):
    vectors = counting([d["text"] for d in DOCUMENTS]).astype(kind.to_pandas_dtype())
    table = pa.table({"text": [d["text"] for d in DOCUMENTS], "embedding": pa.array(list(vectors), lists(kind))})
    pq.write_table(table, tmp_path / "texts.parquet")
    for number, source in enumerate((table.slice(7), str(tmp_path / "texts.parquet"))):
        index = made(tmp_path / f"ix{number}", source, vectors="embedding", dtype="float32", similarity="dot")
        expected = vectors[7:] if number == 0 else vectors
        assert np.array_equal(index.vectors(np.arange(len(expected))), expected.astype(np.float32))
        assert index.columns == []


@pytest.mark.parametrize(
    ("bad", "line"),
    [
        (None, "row 6, column 'embedding': 'None' is no vector; expected a list of numbers"),
        ([1.0, float("nan"), 2.0], r"row 6, column 'embedding': '\[1.0, nan, 2.0\]' is no vector"),
        ([1.0, None, 2.0], r"row 6, column 'embedding': '\[1.0, None, 2.0\]' is no vector"),
        ([1e300, 1.0, 1.0], r"row 6, column 'embedding': '\[1e\+300, 1.0, 1.0\]' is no vector"),
        ([], r"row 6, column 'embedding': '\[\]' is no vector"),
        ([1.0, 2.0], "row 6, column 'embedding': a vector of 2 numbers; expected 3"),
    ],
)
def test_the_row_of_a_bad_vector_is_named(tmp_path, bad, line):
    vectors = [[1.0, 2.0, 3.0]] * 10
    vectors[5] = bad
    table = pa.table({"text": ["red"] * 10, "embedding": pa.array(vectors, pa.list_(pa.float64()))})
    for source in (table, table.to_pylist()):
        with pytest.raises(SourceError, match=line):
            made(tmp_path / "ix", source, vectors="embedding")
    assert not (tmp_path / "ix").exists()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two tiny encoders."""
    made = []
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp("encoder")
        for part in make_pair(seed=seed):
            part.save_pretrained(folder)
        made.append(str(folder))
    return made


def test_another_encoder_is_refused_and_both_are_named(tmp_path, folders):
    index = made(tmp_path / "ix", DOCUMENTS[:8], encoder=folders[0])
    assert index.search(DOCUMENTS[3]["text"], pipeline="dense")[0].id == "d3"
    assert SearchIndex(tmp_path / "ix").append([{"id": "n", "text": "red"}], progress=False) == 1
    other = SearchIndex(tmp_path / "ix", encoder=folders[1])
    with pytest.raises(ConfigError) as error:
        other.append([{"id": "m", "text": "red"}], progress=False)
    assert folders[0] in str(error.value)
    assert folders[1] in str(error.value)
    assert len(SearchIndex(tmp_path / "ix")) == 9


def test_the_precision_of_the_encoder_is_kept_with_the_index(tmp_path, folders):
    made(tmp_path / "ix", DOCUMENTS[:4], encoder=folders[0], precision="float32")
    opened = SearchIndex(tmp_path / "ix")
    assert opened.manifest["encoder"]["precision"] == opened.encoder.precision == "float32"
    del opened.manifest["encoder"]["precision"]  # as an index has it that was made before there was a choice
    del opened.encoder
    assert opened.encoder.precision == "auto"
    with pytest.raises(ConfigError, match="'float8': expected auto, float32 or bfloat16"):
        made(tmp_path / "other", DOCUMENTS[:4], encoder=folders[0], precision="float8")


def test_columns_that_differ_are_told(tmp_path):
    index = made(tmp_path / "ix")
    index.append([{"id": "x", "text": "one", "colour": "red"}], progress=False)
    assert index.trouble == ["the list: column 'colour' was left out; the index has no such column"]
    assert index.take(index.rows_of(["x"]), ["year"])["year"].to_pylist() == [None]
    with pytest.raises(SourceError, match="column 'year' is string, in the index int64"):
        index.append([{"id": "y", "text": "one", "year": "soon"}], progress=False)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"dtype": "int8"}, "dtype 'int8'"),
        ({"similarity": "l2"}, "similarity 'l2'"),
        ({"k1": -1.0}, "k1 -1.0"),
        ({"stem": "klingon"}, "no stems of 'klingon'"),
        ({"code": "sign"}, "a binary code is made of vectors"),
        ({"encoder": counting, "code": "sgn"}, r"no code 'sgn' \(did you mean 'sign'\?\)"),
        ({"vectors": "nope"}, "no column 'nope'"),
        ({"text": "nope"}, "no column 'nope'"),
    ],
)
def test_bad_settings_are_one_line_and_leave_nothing(tmp_path, options, line):
    with pytest.raises(InputError, match=line) as error:
        made(tmp_path / "ix", **options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ix").exists()


def test_an_index_is_replaced_only_when_forced(tmp_path):
    made(tmp_path / "ix")
    with pytest.raises(FolderError, match="exists; choose another --out, or replace it with --force"):
        made(tmp_path / "ix")
    assert len(made(tmp_path / "ix", DOCUMENTS[:5], force=True)) == 5
    (tmp_path / "other").mkdir()
    with pytest.raises(FolderError, match="is no search index"):
        made(tmp_path / "other", force=True)


def test_an_index_from_which_all_was_removed_finds_nothing(tmp_path):
    index = made(tmp_path / "ix", DOCUMENTS[:5], encoder=counting, code="sign")
    index.delete(where="year > 0")
    assert len(index) == 0
    for spec in ("bm25", "dense", "hamming", None):
        assert len(index.search("red", pipeline=spec)) == 0
    index.append(DOCUMENTS[:2], progress=False)
    assert len(index.search("red", pipeline="dense")) == 2


def test_a_damaged_cache_is_one_line_that_says_what_to_remove(tmp_path):
    made(tmp_path / "ix", encoder=counting, code="sign")

    def found(spec):
        return [hit.id for hit in SearchIndex(tmp_path / "ix", encoder=counting).search("red", pipeline=spec).hits]

    for spec, place, file in (
        ("bm25", "bm25-1.5-0.75@1", "weights.npy"),
        ("dense", "dense@1", "vectors"),
        ("hamming", "codes@1", "codes"),
    ):
        before = found(spec)
        path = tmp_path / "ix/cache" / place / file
        path.write_bytes(path.read_bytes()[:-8])
        with pytest.raises(FolderError, match=r"cache.*remove") as error:
            found(spec)
        assert "\n" not in str(error.value)
        for part in path.parent.iterdir():
            part.unlink()
        path.parent.rmdir()
        assert found(spec) == before


def test_what_is_read_of_a_version_is_read_once(tmp_path, monkeypatch):
    index = made(tmp_path / "ix")
    opened = []
    read = Postings.open
    monkeypatch.setattr(Postings, "open", lambda folder: opened.append(folder.name) or read(folder))
    for searched in (index, index, index.where("year > 2005")):
        assert len(searched.search("red", pipeline="bm25 >> rm3 >> bm25")) == 10
    assert opened == ["bm25-1.5-0.75@1"]
    index.append([{"id": "new", "text": "red red red"}], progress=False)
    assert index.search("red", pipeline="bm25")[0].id == "new"
    assert opened == ["bm25-1.5-0.75@1", "bm25-1.5-0.75@2"]
