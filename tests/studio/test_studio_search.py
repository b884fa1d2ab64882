"""What the search page and the page of the index say, without a browser."""

import pytest

import hourglass as hg
from hourglass.errors import ConfigError, FolderError, InputError
from hourglass.studio import index as index_page
from hourglass.studio import search
from hourglass.studio.app import Studio
from hourglass.studio.corpus import Corpus
from hourglass.studio.library import Column, Library
from hourglass.studio.views import duration, size, view
from studio_workspace import HOSTILE


@pytest.fixture(scope="module")
def library(indexed):
    return Library(indexed)


@pytest.fixture(scope="module")
def corpus(hostile):
    return Corpus(hostile)


def harmless(html):
    assert "<script" not in html and "<img" not in html
    return html


def found(library, corpus, query, *pipelines, where="", top=10):
    columns = library.search(query, pipelines or library.pipelines, where, top)
    return harmless(search.page(library, corpus, columns)), columns


def test_results_are_marked_and_nothing_of_them_runs(library, corpus):
    html, (column,) = found(library, corpus, "document 7 refund", "bm25")
    assert column.results[0].id == "id7"
    assert "<mark>refund</mark>" in html and "&lt;script&gt;alert(1)" in html
    assert "Title of id7" in html and "bm25 <b>1</b>" in html
    html, _ = found(library, corpus, "document 7 refund")
    assert "rrf <b>1</b>" in html


def test_every_pipeline_of_the_menu_can_be_run(library):
    assert {"bm25", "dense", "bm25 | dense >> rrf", "bm25 >> rm3 >> bm25"} <= set(library.menu)
    for column in library.search("refund", library.menu, "", 5):
        assert column.trouble is None, (column.spec, column.trouble)


def test_a_page_opens_no_model_that_was_not_named_at_the_start(indexed, library):
    for spec in (
        "bm25 >> cross(/etc)",
        "bm25 >> passages(some/model)",
        "bm25 >> parade(model=x)",
        "bm25 >> ceqe >> bm25",
    ):
        (column,) = library.search("refund", [spec], "", 5)
        assert "the studio opens no model" in str(column.trouble)
    named = Library(indexed, ["bm25 >> cross(nowhere)", "bm25"])
    assert named.pipelines == ["bm25 >> cross(nowhere)", "bm25"] and "bm25 >> cross(nowhere)" in named.menu
    (column,) = named.search("refund", ["bm25 >> cross(nowhere)"], "", 5)
    assert "cross-encoder" in str(column.trouble) and "the studio opens" not in str(column.trouble)


def test_what_is_wrong_with_one_pipeline_is_said_in_its_column_with_the_place(library, corpus):
    html, (first, second) = found(library, corpus, "refund", "bm25", "bm25 >> dnse % 5")
    assert first.trouble is None and second.trouble.at == 8
    assert "Character 9: no stage &#39;dnse&#39;" in html
    assert "bm25 &gt;&gt; <mark>dnse</mark>" in html
    assert "&lt;/script&gt;" in found(library, corpus, "refund", f"bm25 >> {HOSTILE}")[0]
    html, _ = found(library, corpus, "refund", "bm25 >>")
    assert "<mark>…</mark>" in html
    html, _ = found(library, corpus, "refund", "bm25 | dense")
    assert "fuse them first" in html


def test_a_pipeline_within_a_time_opens_no_other_model_either(library):
    (column,) = library.search("refund", ["within(bm25 % 20 >> dense, 1000)"], "", 5)
    assert column.trouble is None and len(column.results) == 5
    (column,) = library.search("refund", ["within(bm25 >> cross(/etc), 1000)"], "", 5)
    assert "the studio opens no model" in str(column.trouble)


def test_a_condition_that_is_none_and_an_empty_query_are_one_line(library):
    with pytest.raises(ConfigError, match="No field named colour"):
        library.search("refund", ["bm25"], "colour = 'red'", 5)
    with pytest.raises(ConfigError, match="the query is empty"):
        library.search("  ", ["bm25"], "", 5)


def test_a_condition_leaves_documents_out(library, corpus):
    html, (column,) = found(library, corpus, "refund", "bm25", where="year < 2003", top=50)
    assert len(column.results) == 3 and "3 ranked of 3" in html


def test_a_document_in_several_columns_has_its_rank_in_the_others(library, corpus):
    html, columns = found(library, corpus, "document 7 refund", "bm25", "dense", top=50)
    rows = [search.rows_of(column) for column in columns]
    shared = set(rows[0]) & set(rows[1])
    assert f"{len(shared)} of 50 in both" in html
    assert html.count("result shared") == 2 * len(shared)
    row = rows[1][3]
    before = search.rank_in(columns[0].results, row)
    card = html.split(f'data-row="{row}"')[-1].split("</li>")[0]
    assert f">A</span>{'–' if before is None else before}</span>" in card
    move = None if before is None else before - 4
    assert ("new" if move is None else f"↑{move}" if move > 0 else f"↓{-move}" if move < 0 else "=") in card


def test_a_column_without_results_compares_with_nothing(library, corpus):
    html, _ = found(library, corpus, "refund", "dnse", "bm25")
    assert 'class="new"' not in html and "in both" not in html


def test_nothing_found_is_said(library, corpus):
    assert "No document has any of these words" in found(library, corpus, "zebra", "bm25")[0]


def test_concepts_are_those_of_the_same_document_in_the_workspace(corpus, library):
    texts = corpus.workspace.documents["text"].to_pylist()
    assert corpus.positions_of(["id3", "nobody", "id5"], [texts[3], "x", "another text"]) == [3, None, None]
    concepts = corpus.concepts([5, 1])
    assert {feature for feature, _, _ in concepts[1]} >= {1, 2, 3}
    assert 2 in {feature for feature, _, _ in concepts[5]}
    html, _ = found(library, corpus, "document 1 refund", "bm25", top=1)
    assert "refund, &lt;/script&gt;" in html and "data-send='{\"concept\": 2}'" in html
    last, (column,) = found(library, corpus, "another text", "bm25", top=1)
    assert column.results[0].id == "id79" and "concept" not in last


def test_a_document_is_shown_with_what_is_nearest_in_it(library, corpus):
    _, columns = found(library, corpus, "document 7 refund", "dense", top=3)
    html = harmless(search.document(library, corpus, columns, [0, 1]))
    assert "Nearest to the query" in html and "Read it token by token" in html
    assert '<mark class="near">refund</mark>' in html
    alone = harmless(search.document(library, None, columns, [0, 1]))
    assert "token by token" not in alone
    for wrong in ([0, 3], [1, 0], [0, -1], "x", None, [0]):
        with pytest.raises(InputError, match="no result"):
            search.document(library, corpus, columns, wrong)


def test_pieces_of_a_text_are_the_text(library):
    _, (column,) = found(library, None, "document 7 refund", "dense")
    hit, why = column.results[0], library.explain(column.results, 0)
    assert "".join(text for text, _, _ in search.read(library, "document 7 refund", hit, why)) == hit.text
    assert "".join(text for text, _ in search.parts(hit.passage.text, hit.marks)) == hit.passage.text


def test_time_is_that_of_the_search_alone_once_all_is_loaded(library):
    library.search("refund", ["dense"], "", 5)
    (column,) = library.search("document", ["dense"], "", 5)
    assert not column.loading and 0 < column.ms < 60_000


def test_the_index_is_described(library):
    html = harmless(index_page.page(library))
    assert "80" in html and "BM25, k1 1.5, b 0.75" in html and "32 numbers" in html
    assert "<bdi>team</bdi>" in html and "&lt;script&gt;" in html


def test_an_index_that_is_written_to_goes_on_being_read(changing):
    library = Library(changing)
    before = len(library)
    assert not library.changed
    hg.open_index(changing).append(
        [{"id": "new", "text": "zebra", "title": "", "team": "b", "year": 1}], text="text", id="id", progress=False
    )
    assert library.changed and len(library) == before
    assert not len(library.search("zebra", ["bm25"], "", 5)[0].results)
    library.open_newest()
    assert not library.changed
    assert library.search("zebra", ["bm25"], "", 5)[0].results[0].id == "new"


def test_numbers_are_written_for_people():
    assert [size(n) for n in (0, 999, 1_234_567, 123_456_789)] == ["0 bytes", "999 bytes", "1.2 MB", "123 MB"]
    assert [duration(ms) for ms in (0.26, 14.4, 2100)] == ["0.3\u00a0ms", "14\u00a0ms", "2.1\u00a0s"]
    assert "Nothing" in view("message", "Nothing")
    assert Column("bm25").ms == 0


def test_what_cannot_be_opened_together_is_said(hostile, indexed, tmp_path):
    with pytest.raises(ConfigError, match="is an index itself"):
        Studio(indexed, index=indexed, port=0)
    with pytest.raises(ConfigError, match="stands beside a workspace"):
        Studio(indexed, other=hostile.folder, port=0)
    with pytest.raises(ConfigError, match="pipelines are of an index"):
        Studio(hostile.folder, pipelines=["bm25"], port=0)
    with pytest.raises(ConfigError, match="expected 3 or fewer"):
        Library(indexed, ["bm25"] * 4)
    with pytest.raises(ConfigError, match="no stage 'bm'"):
        Library(indexed, ["bm"])
    with pytest.raises(FolderError, match="no search index"):
        Studio(hostile.folder, index=tmp_path, port=0)
