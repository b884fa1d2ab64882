"""Why a document was found: terms that sum to its score, and its rank at each stage."""

import math
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("lance")
pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

from indexes import WORDS, bm25, counting, documents, masked_model

from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.stages import Query


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explained")
    return SearchIndex.create(
        documents(60),
        folder / "ix",
        encoder=counting,
        sparse=str(masked_model(folder / "masked")),
        stem=None,
        stop_words=None,
        progress=False,
    )


def test_what_terms_add_sums_to_the_score_of_bm25(index):
    texts, query = index.texts(np.arange(60)), "red stone river red"
    found, oracle = index.search(query, pipeline="bm25", top=60), bm25(index.texts(np.arange(60)), query)
    assert len(found) > 20
    for place, hit in enumerate(found.hits):
        (why,) = found.explain(place).places
        assert (why.stage, why.rank, why.score) == ("bm25", place + 1, hit.score)
        assert sum(term.score for term in why.terms) == pytest.approx(hit.score, rel=1e-5)
        assert hit.score == pytest.approx(oracle[texts.index(hit.text)], rel=1e-5)
        counts = Counter(hit.text.replace(".", "").split())
        assert {term.term: term.times for term in why.terms} == {w: counts[w] for w in set(query.split()) & set(counts)}
        assert {term.term: term.query for term in why.terms}.get("red", 2.0) == 2.0
        for term in why.terms:
            assert term.documents == sum(term.term in text.replace(".", "").split() for text in texts)
        assert [t.score for t in why.terms] == sorted((t.score for t in why.terms), reverse=True)


def test_terms_of_a_widened_query_are_its_weights(index):
    found = index.search("red stone", pipeline="bm25 >> rm3(terms=3) >> bm25", top=10)
    ((stage, terms),) = found.widened
    assert stage == "rm3" and math.isclose(sum(terms.values()), 1, rel_tol=1e-6)
    assert list(terms.values()) == sorted(terms.values(), reverse=True)
    for place, hit in enumerate(found.hits):
        before, after = found.explain(place).places
        assert before.stage == after.stage == "bm25" and after.rank == place + 1
        assert sum(term.score for term in after.terms) == pytest.approx(hit.score, rel=1e-5)
        assert all(term.query == terms[term.term] for term in after.terms)


def test_a_word_is_shown_as_the_document_writes_it(tmp_path):
    source = [{"id": "a", "text": "Running, he RUNS; runs on."}, {"id": "b", "text": "nothing here"}]
    index = SearchIndex.create(source, tmp_path / "ix", encoder=None, progress=False)
    (term,) = index.search("run").explain(0).places[0].terms
    assert (term.term, term.word, term.times, term.documents) == ("run", "Running", 3, 1)


def test_learned_weights_sum_to_the_score(index):
    found = index.search("red stone river", pipeline="impacts", top=20)
    assert len(found) == 20
    for place, hit in enumerate(found.hits):
        (why,) = found.explain(place).places
        assert sum(term.score for term in why.terms) == pytest.approx(hit.score, rel=1e-4)
        assert all((term.word, term.times) == (term.term, None) for term in why.terms)


def test_the_rank_at_each_stage_is_that_of_the_stage_alone(index):
    found = index.search("red stone", pipeline="bm25 | dense >> rrf", top=60)
    alone = {name: index.pipeline(name).run([Query("1", "red stone")])[0].rows.tolist() for name in ("bm25", "dense")}
    for place in range(len(found)):
        row = int(found.ranking.rows[place])
        places = found.explain(place, near=False).places
        assert [p.stage for p in places] == ["bm25", "dense", "rrf"]
        for each in places[:2]:
            ranks = alone[each.stage]
            assert each.rank == (ranks.index(row) + 1 if row in ranks else None) and each.among == len(ranks)
        assert (places[2].rank, places[2].score) == (place + 1, pytest.approx(found[place].score))
    assert any(p.rank is None for place in range(len(found)) for p in found.explain(place, near=False).places)


def test_where_a_document_is_cut_off_is_told(index):
    found = index.search("red stone", pipeline="(bm25 | dense) % 5 >> rrf", top=60)
    cut = [[p for p in found.explain(i, near=False).places if p.stage == "% 5"] for i in range(len(found))]
    assert any(cut) and not all(cut)
    assert all((p.rank, p.among) == (None, 5) for places in cut for p in places)


def test_the_nearest_sentences_are_told_where_a_stage_goes_by_vectors(index):
    found = index.search("river", pipeline="dense", top=3)
    why = found.explain(0)
    assert why.near and why.places[0].terms == []
    for near in why.near:
        assert found[0].text[near.start : near.stop] == near.text
        assert near.score == pytest.approx(float(index.compare(Query("1", "river"), [near.text])[0]))
    assert found.explain(0, near=False).near == []
    assert index.search("river", pipeline="bm25").explain(0).near == []
    assert WORDS[5] == "river"


def test_json_says_why_only_where_it_is_asked(index):
    found = index.search("red", pipeline="bm25 >> rm3 >> bm25", top=2)
    assert "widened" not in found.to_dict() and "why" not in found.to_dict()["hits"][0]
    told = found.to_dict(explain=True)
    assert told["widened"][0]["stage"] == "rm3"
    assert told["hits"][0]["why"]["places"][1]["rank"] == 1
    assert set(told["hits"][0]["why"]) == {"places", "near"}


def test_queries_that_are_forgotten_are_encoded_again(index):
    index.encode([Query("1", "one of its own")])
    assert "one of its own" in index._encoded
    index.where("year > 2000").forget_queries()
    assert "one of its own" not in index._encoded
