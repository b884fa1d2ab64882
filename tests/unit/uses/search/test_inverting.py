"""Postings that are made in runs on disk are those that are made in memory, whatever the size of a run."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

pytest.importorskip("lance")
pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

import bm25s
from indexes import documents

from hourglass.uses.search import inverting, lexical
from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.inverting import Inverter
from hourglass.uses.search.lexical import BM25
from hourglass.uses.search.postings import Postings

FILES = ("terms.json", "ends.npy", "documents.npy", "weights.npy")


def files(folder):
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    return [(folder / name).read_bytes() for name in FILES]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.integers(0, 12), max_size=9), max_size=25), st.integers(1, 40), st.booleans())
def test_runs_of_any_size_give_the_postings_of_the_whole(tmp_path_factory, texts, at_once, weighted):
    tmp_path = tmp_path_factory.mktemp("postings")
    counts = [len(terms) for terms in texts]
    rows, terms = np.repeat(np.arange(len(texts)), counts), np.array(list(chain.from_iterable(texts)), np.int64)
    weights = (1 + np.arange(len(rows)) % 7).astype(np.float32) if weighted else None
    vocabulary = [f"w{i}" for i in range(13)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inverting, "_AT_ONCE", at_once)
        (tmp_path / "own").mkdir()
        inverter = Inverter(tmp_path / "own")
        for row in range(len(texts)):
            of = rows == row
            inverter.add(rows[of], terms[of], None if weights is None else weights[of])
        inverter.write(len(texts), vocabulary)
    values = np.ones(len(rows), np.float32) if weights is None else weights
    whole = csr_matrix((values, (rows, terms)), shape=(len(texts), 13))
    (tmp_path / "whole").mkdir()
    Postings.of(whole.tocsc(), vocabulary).save(tmp_path / "whole")
    assert files(tmp_path / "own") == files(tmp_path / "whole")
    opened = Postings.open(tmp_path / "own")
    assert np.array_equal(opened.scores({"w3": 2.0}, np.arange(len(texts))), 2 * whole[:, 3].toarray().ravel())


@pytest.mark.parametrize(("k1", "b"), [(1.5, 0.75), (0.9, 0.4), (0.0, 0.0)])
def test_weights_of_words_are_those_of_bm25s_to_the_bit(tmp_path, monkeypatch, k1, b):
    texts = [d["text"] for d in documents(300)] + ["...", "red " * 300]
    index = SearchIndex.create(texts, tmp_path / "ix", encoder=None, progress=False)
    monkeypatch.setattr(inverting, "_AT_ONCE", 100)
    monkeypatch.setattr(lexical, "_TERMS_AT_ONCE", 30)
    (tmp_path / "own").mkdir()
    BM25(index, k1, b)._build(tmp_path / "own")

    vocabulary = {}
    ids = [[vocabulary.setdefault(term, len(vocabulary)) for term in index.words(text)] for text in texts]
    peer = bm25s.BM25(method="lucene", k1=k1, b=b)
    peer.index((ids, vocabulary), create_empty_token=False, show_progress=False)
    data, rows, ends = (np.asarray(peer.scores[part]) for part in ("data", "indices", "indptr"))
    kept = [np.load(tmp_path / "own" / name) for name in FILES[1:]]
    assert np.array_equal(kept[0], ends)
    for term in range(len(vocabulary)):
        part = slice(ends[term], ends[term + 1])
        order = np.argsort(rows[part])
        assert np.array_equal(kept[1][part], rows[part][order])
        assert np.array_equal(kept[2][part], data[part][order])
