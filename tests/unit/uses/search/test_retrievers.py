"""Every retriever finds what brute force finds, and scores given documents as it scores those that it finds."""

import numpy as np
import pytest
import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Router
from sentence_transformers.sparse_encoder.modules import MLMTransformer, SparseStaticEmbedding, SpladePooling

pytest.importorskip("lance")
pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

from indexes import bm25, counting, documents, masked_model, ordered

from encoders import WORDS as TINY_WORDS
from encoders import make_pair
from hourglass.errors import ConfigError
from hourglass.uses.search import hamming
from hourglass.uses.search.dense import Dense
from hourglass.uses.search.hamming import Hamming
from hourglass.uses.search.impacts import Impacts
from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.lexical import BM25
from hourglass.uses.search.stages import Query, Ranking
from hourglass.uses.search.term_weights import Coil, CoilConfig

DOCUMENTS = documents(400)
TEXTS = [document["text"] for document in DOCUMENTS]
QUERIES = [
    Query("1", "red stone red"),
    Query("2", "paris"),
    Query("3", "anna peter blue river bird"),
    Query("4", "xyzzy"),
]


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    return masked_model(tmp_path_factory.mktemp("masked"))


@pytest.fixture(scope="module")
def index(tmp_path_factory, masked):
    folder = tmp_path_factory.mktemp("index") / "ix"
    return SearchIndex.create(
        DOCUMENTS, folder, encoder=counting, sparse=str(masked), code="sign", dtype="float32", progress=False
    )


@pytest.fixture(scope="module", params=[None, "year >= 2012 AND lang = 'en'", "year > 3000"])
def view(index, request):
    return index if request.param is None else index.where(request.param)


@pytest.mark.parametrize("kind", [BM25, Dense, Hamming, Impacts])
@pytest.mark.parametrize("depth", [1, 7, 1000])
def test_given_documents_are_scored_as_those_that_are_found(view, kind, depth):
    retriever = kind(view)
    for query, ranking in zip(QUERIES, retriever.retrieve(QUERIES, depth)):
        assert len(ranking) <= depth
        assert np.array_equal(retriever.score(query, ranking.rows), ranking.scores)
        shuffled = np.random.default_rng(0).permutation(ranking.rows)
        assert np.array_equal(Ranking.of(shuffled, retriever.score(query, shuffled)).rows, ranking.rows)
        if view.selected is not None:
            assert np.isin(ranking.rows, view.selected).all()


@pytest.mark.parametrize(("k1", "b"), [(None, None), (0.9, 0.4), (0.0, 0.0)])
def test_bm25_is_its_formula(view, k1, b):
    own = BM25(view, k1, b)
    allowed = np.arange(len(TEXTS)) if view.selected is None else view.selected
    for query, ranking in zip(QUERIES, own.retrieve(QUERIES, 50)):
        expected = bm25(TEXTS, query.text, *((1.5, 0.75) if k1 is None else (k1, b)))
        assert np.allclose(own.score(query, np.arange(len(TEXTS))), expected, atol=1e-5)
        assert np.allclose(ranking.scores, np.sort(expected[allowed][expected[allowed] > 0])[::-1][:50], atol=1e-5)


def test_bm25_takes_the_weights_that_a_stage_has_given(index):
    own = BM25(index)
    weighed = own.score(Query("1", "anything", terms={"red": 0.5, "stone": 2.0, "xyzzy": 1.0}), np.arange(400))
    assert np.allclose(weighed, 0.5 * bm25(TEXTS, "red") + 2 * bm25(TEXTS, "stone"), atol=1e-5)


def test_dense_is_the_cosine_of_every_document(view):
    vectors = counting(TEXTS)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for query, ranking in zip(QUERIES, Dense(view).retrieve(QUERIES, 20)):
        asked = counting([query.text])[0]
        cosines = vectors @ (asked / np.linalg.norm(asked))
        assert np.allclose(ranking.scores, cosines[ordered(cosines, 20, view.selected)], atol=1e-6)


def test_dense_takes_the_vector_that_a_stage_has_given(index):
    first = Dense(index).retrieve([Query("1", "", vector=counting([TEXTS[17]])[0])], 1)[0]
    assert first.scores[0] == pytest.approx(1, abs=1e-6)


def test_hamming_counts_bits_and_keeps_to_its_radius(view):
    bits = counting(TEXTS) - 1 > 0
    codes = np.unpackbits(
        np.stack(view.take(np.arange(400), ["code"])["code"].to_numpy()).view("S2").view(np.uint8).reshape(400, 2),
        axis=1,
    )
    assert bits.shape[1] == 12
    asked = Query("1", "", vector=np.where(np.arange(12) % 2, 1.0, -1.0).astype(np.float32))
    distances = (codes[:, :12] != (asked.vector > 0)).sum(1)
    ranking = Hamming(view).retrieve([asked], 30)[0]
    assert ranking.rows.tolist() == ordered(-distances, 30, view.selected).tolist()
    assert ranking.scores.tolist() == (-distances[ranking.rows]).tolist()
    least = int(distances.min())
    near = Hamming(view, radius=least).retrieve([asked], 1000)[0]
    allowed = np.ones(400, bool) if view.selected is None else np.isin(np.arange(400), view.selected)
    assert near.rows.tolist() == np.flatnonzero((distances <= least) & allowed).tolist()


def best_scores(scores):
    return np.sort(scores[scores > 0])[::-1][:10]


@pytest.mark.parametrize("share", [16, 0])
def test_hamming_within_a_small_radius_looks_where_the_near_ones_are(view, monkeypatch, share):
    monkeypatch.setattr(hamming, "_SHARE", share)
    asked = [Query(str(i), "", vector=counting([TEXTS[i]])[0]) for i in range(5)]
    for ranking, every in zip(Hamming(view, radius=0).retrieve(asked, 3), Hamming(view).retrieve(asked, 400)):
        same = every.scores == 0
        assert ranking.rows.tolist() == every.rows[same][:3].tolist()


def test_impacts_are_inner_products_of_the_models_weights(index, masked):
    rows = index.weigher(TEXTS)
    for query, ranking in zip(QUERIES, Impacts(index).retrieve(QUERIES, 10)):
        scores = (rows @ index.weigher([query.text]).T).toarray().ravel()
        assert np.allclose(ranking.scores, best_scores(scores), rtol=1e-4)
    assert set(TINY_WORDS) & set(index.take(np.array([0]), ["tokens"])["tokens"].to_pylist()[0]) is not None


def test_a_query_is_weighed_as_unicoil_weighs_queries(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Coil(CoilConfig(max_tokens=64, dropout=0.0), make_pair("bert")).eval()
    model.tokens_linear.bias.data.fill_(3.0)
    model.save_pretrained(tmp_path / "unicoil")
    folder = str(tmp_path / "unicoil")
    index = SearchIndex.create(DOCUMENTS, tmp_path / "ix", encoder=None, sparse=folder, progress=False)
    expected = model.similarity([query.text for query in QUERIES], TEXTS)
    assert index.weigh([QUERIES[0]])[0]["red"] > model.weigh([QUERIES[0].text])[0]["red"], "twice there"
    for scores, ranking in zip(expected, Impacts(index).retrieve(QUERIES, 10)):
        assert np.allclose(ranking.scores, best_scores(scores), rtol=1e-4)
    assert index.weigh([Query("1", "red", terms={"red": 2.0})]) == [{"red": 2.0}]


def test_a_query_is_weighed_as_a_splade_with_a_side_of_its_own_weighs_queries(tmp_path, masked):
    tokenizer = make_pair("bert")[1]
    rarity = torch.linspace(0.1, 5, len(tokenizer))
    query = SparseStaticEmbedding(tokenizer, weight=rarity, frozen=True)
    document = [MLMTransformer(str(masked)), SpladePooling()]
    SparseEncoder(
        modules=[Router.for_query_document(query_modules=[query], document_modules=document)], device="cpu"
    ).save_pretrained(str(tmp_path / "splade"))
    folder = str(tmp_path / "splade")
    index = SearchIndex.create(DOCUMENTS[:50], tmp_path / "ix", encoder=None, sparse=folder, progress=False)
    number = tokenizer.convert_tokens_to_ids("red")
    assert index.weigh([Query("1", "red")])[0] == {"red": pytest.approx(float(rarity[number]))}
    model = SparseEncoder(folder, device="cpu")
    asked, read = model.encode_query([QUERIES[0].text]).to_dense(), model.encode_document(TEXTS[:50]).to_dense()
    ranking = Impacts(index).retrieve(QUERIES[:1], 10)[0]
    assert np.allclose(ranking.scores, best_scores((read @ asked.T).cpu().numpy().ravel()), rtol=1e-4)


def test_vectors_in_half_precision_are_found_alike(tmp_path):
    index = SearchIndex.create(DOCUMENTS, tmp_path / "ix", encoder=counting, progress=False)
    vectors = counting(TEXTS)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = Dense(index).retrieve(QUERIES, 10)[0]
    asked = counting([QUERIES[0].text])[0]
    assert np.allclose(found.scores, (vectors @ (asked / np.linalg.norm(asked)))[found.rows], atol=2e-3)


def test_what_an_index_lacks_is_said(tmp_path):
    index = SearchIndex.create(DOCUMENTS[:5], tmp_path / "ix", encoder=None, progress=False)
    for kind, line in ((Dense, "without vectors"), (Impacts, "without weights"), (Hamming, "without binary codes")):
        with pytest.raises(ConfigError, match=f"an index {line}"):
            kind(index)
    with pytest.raises(ConfigError, match="expected 0 or more, and from 0 to 1"):
        BM25(index, b=2)
