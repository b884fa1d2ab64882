"""The graph finds nearly what the exact search finds, with its scores, whatever a filter leaves; what is damaged is said."""

import sys

import numpy as np
import pytest

pytest.importorskip("faiss")
pytest.importorskip("lance")

from hourglass.errors import ConfigError, FolderError, MissingExtra
from hourglass.uses.search import approximate
from hourglass.uses.search.approximate import Approximate
from hourglass.uses.search.dense import Dense
from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.scanning import in_order, room
from hourglass.uses.search.stages import Query, Ranking

NUMBER, WIDTH = 3000, 24
CENTRES = np.random.default_rng(1).standard_normal((60, WIDTH))


def near_topics(texts):
    """[n, 24] a topic by the number that a text is, and something of its own."""
    rows = []
    for text in texts:
        number = int(text) if text.lstrip("-").isdigit() else 0
        rng = np.random.default_rng(abs(number) + 10**6 * (number < 0))
        rows.append(CENTRES[rng.integers(60)] + 0.7 * rng.standard_normal(WIDTH))
    return np.array(rows, np.float32)


DOCUMENTS = [{"text": str(i), "year": 2000 + i % 20} for i in range(NUMBER)]
QUERIES = [Query(str(i), str(-i)) for i in range(1, 41)]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return SearchIndex.create(
        DOCUMENTS, tmp_path_factory.mktemp("near") / "ix", encoder=near_topics, code=None, progress=False
    )


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch):
    monkeypatch.setattr(approximate, "_EXACT", 50)


def recall(found, exact):
    return np.mean([np.isin(true.rows, own.rows).mean() for own, true in zip(found, exact)])


@pytest.fixture
def walks(monkeypatch):
    """How often the graph was walked."""
    done = []
    walk = Approximate._walk
    monkeypatch.setattr(Approximate, "_walk", lambda *given: done.append(1) or walk(*given))
    return done


@pytest.mark.parametrize("filter", [None, "year >= 2010", "year = 2003 OR year = 2004"])
@pytest.mark.parametrize("depth", [1, 10, 100])
def test_it_finds_nearly_what_the_exact_search_finds_with_its_scores(index, walks, filter, depth):
    view = index if filter is None else index.where(filter)
    exact = Dense(view).retrieve(QUERIES, depth)
    found = Approximate(view).retrieve(QUERIES, depth)
    assert recall(found, exact) > 0.95
    for query, own in zip(QUERIES, found):
        assert len(own) == depth
        assert view.selected is None or np.isin(own.rows, view.selected).all()
        again = Ranking.of(own.rows, Dense(view).score(query, own.rows))
        assert np.array_equal(own.rows, again.rows)
        assert np.array_equal(own.scores, again.scores)
    assert len(walks) == 1


@pytest.mark.parametrize("lengths", ["alike", "apart"])
def test_inner_products_of_vectors_of_any_length_are_found(tmp_path, lengths):
    def encoder(texts):
        rows = near_topics(texts)
        if lengths == "alike":
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows * np.array([[1 + len(text) if lengths == "apart" else 3] for text in texts], np.float32)

    index = SearchIndex.create(DOCUMENTS, tmp_path / "ix", encoder=encoder, similarity="dot", code=None, progress=False)
    exact, found = (kind(index).retrieve(QUERIES, 10) for kind in (Dense, Approximate))
    assert recall(found, exact) > 0.95


def test_more_candidates_find_more(index):
    exact = Dense(index).retrieve(QUERIES, 10)
    few, many = (recall(Approximate(index, ef, 4, 20).retrieve(QUERIES, 10), exact) for ef in (1, 500))
    assert few < many
    assert many > 0.97


@pytest.mark.parametrize("filter", ["year = 2003", "_id = '7'", "year > 3000"])
def test_where_few_are_left_all_are_looked_at(index, walks, filter):
    view = index.where(filter)
    found, exact = Approximate(view).retrieve(QUERIES, 10), Dense(view).retrieve(QUERIES, 10)
    assert [own.rows.tolist() for own in found] == [own.rows.tolist() for own in exact]
    assert not walks


def test_a_walk_that_ends_too_early_is_made_up_for(index, monkeypatch):
    monkeypatch.setattr(Approximate, "_walk", lambda self, asked, depth: [in_order(room(len(asked), 4))])
    found, exact = Approximate(index).retrieve(QUERIES, 10), Dense(index).retrieve(QUERIES, 10)
    assert [own.rows.tolist() for own in found] == [own.rows.tolist() for own in exact]


def test_all_documents_can_be_asked_for(index):
    assert sorted(Approximate(index).retrieve(QUERIES[:1], 5000)[0].rows) == list(range(NUMBER))


def test_a_graph_is_kept_and_other_settings_make_another(index, monkeypatch):
    index.pipeline("near(ef=20, m=8, ef_construction=30) % 5").run(QUERIES[:1])
    made = {place.name for place in (index.folder / "cache").glob("near-*")}
    assert f"near-bytes-8-30@{index.version}" in made
    monkeypatch.setattr(Approximate, "_build", None)
    Approximate(SearchIndex(index.folder, encoder=near_topics), 10, 8, 30).retrieve(QUERIES[:1], 5)


def test_a_new_version_has_a_graph_of_its_own(tmp_path):
    index = SearchIndex.create(DOCUMENTS[:500], tmp_path / "ix", encoder=near_topics, progress=False)
    assert Approximate(index).retrieve([Query("", "600")], 1)[0].scores[0] < 0.999
    index.append([{"id": "new", "text": "600", "year": 1}], id="id", progress=False)
    found = Approximate(index).retrieve([Query("", "600")], 1)[0]
    assert index.names(found.rows) == ["new"]
    assert len(list((tmp_path / "ix" / "cache").glob("near-*"))) == 1


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("spoil", [damage, lambda path: path.write_bytes(b""), lambda path: path.unlink()])
def test_a_damaged_graph_is_one_line_and_is_made_again_when_removed(tmp_path, spoil):
    index = SearchIndex.create(DOCUMENTS[:300], tmp_path / "ix", encoder=near_topics, progress=False)
    before = Approximate(index).retrieve(QUERIES[:2], 5)
    folder = next((tmp_path / "ix" / "cache").glob("near-*"))
    spoil(folder / "graph.faiss")
    with pytest.raises(FolderError, match=r"graph.faiss: missing or damaged; remove .*near-bytes-16-200@") as error:
        Approximate(index).retrieve(QUERIES[:2], 5)
    assert "\n" not in str(error.value)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    assert len(Approximate(index).retrieve(QUERIES[:2], 5)) == len(before)


def test_an_index_without_documents_finds_nothing(tmp_path):
    index = SearchIndex.create(DOCUMENTS[:2], tmp_path / "ix", encoder=near_topics, progress=False)
    index.delete(where="year > 0")
    assert [len(own) for own in Approximate(index).retrieve(QUERIES[:2], 5)] == [0, 0]
    assert Approximate(index).retrieve([], 5) == []


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"ef": 0}, "ef 0: expected"),
        ({"m": 1}, "m 1: expected"),
        ({"ef_construction": 2.5}, "ef_construction 2.5: expected"),
    ],
)
def test_bad_settings_are_named(index, settings, line):
    with pytest.raises(ConfigError, match=line):
        Approximate(index, **settings)


def test_without_vectors_or_without_faiss_is_one_line(index, tmp_path, monkeypatch):
    words = SearchIndex.create(DOCUMENTS[:5], tmp_path / "ix", encoder=None, progress=False)
    with pytest.raises(ConfigError, match="an index without vectors"):
        words.pipeline("near")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(
        MissingExtra, match=r"approximate search needs an optional part: pip install 'hourglass-ai\[search\]'"
    ):
        Approximate(index)
