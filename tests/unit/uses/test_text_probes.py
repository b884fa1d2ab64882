"""Probes of text encoders, against brute force and scikit-learn; any encoder comes in by the same door."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.stats import spearmanr
from sklearn.metrics import f1_score
from torch import nn

from causal_models import make_readers
from hourglass.data.judged import Judged
from hourglass.errors import ConfigError, InputError, SourceError
from hourglass.metrics.classification import accuracy, macro_f1
from hourglass.systems.dupmae import DupMAE
from hourglass.uses.probe import (
    BM25,
    clustering,
    linear_probe,
    retrieval,
    search,
    text_encoder,
    text_similarity,
)
from hourglass.uses.probe.encoders import dense_vectors
from hourglass.waist import Waist, WaistConfig

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def counts(texts):
    """A vector of the letters of each text."""
    return np.array([[text.count(letter) for letter in LETTERS] for text in texts], np.float32)


@dataclass(frozen=True)
class LettersConfig(WaistConfig):
    presets = {"tiny": {}}  # noqa: RUF012


class Letters(Waist):
    """The letters of a text, added up token by token: batches are padded."""

    Config, modality = LettersConfig, "text"

    def __init__(self, config):
        super().__init__(config)
        self.scale = nn.Parameter(torch.ones(1))

    def collate(self, examples):
        width = max(map(len, examples))
        return {"ids": torch.tensor([[LETTERS.find(c) for c in text.ljust(width)] for text in examples])}

    def loss(self, batch):
        raise NotImplementedError

    def encode(self, batch):
        return self.scale * (batch["ids"][:, :, None] == torch.arange(26)).sum(1)


@pytest.fixture(scope="module")
def judged():
    """300 documents of random letters, few distinct ones, so that many are tied."""
    random = np.random.default_rng(0)
    corpus = {f"d{i}": "".join(random.choice(list("abcd"), 4)) for i in range(300)}
    queries = {f"q{i}": "".join(random.choice(list("abcd"), 4)) for i in range(20)}
    qrels = {q: {str(d): int(random.integers(0, 4)) for d in random.choice(list(corpus), 20)} for q in queries}
    return Judged(corpus, queries, qrels)


def test_search_is_exact_and_orders_ties_as_trec_eval_whatever_the_block(judged):
    names = list(judged.corpus)
    documents, asked = counts(judged.corpus.values()), counts(judged.queries.values())
    scores = asked @ documents.T
    for block in (7, 64, 4096):
        run = search(counts, judged.corpus, judged.queries, similarity="dot", depth=30, block=block)
        for row, query in enumerate(judged.queries):
            expected = sorted(range(300), key=lambda i: (scores[row, i], names[i]), reverse=True)[:30]
            assert list(run[query]) == [names[i] for i in expected]
            assert list(run[query].values()) == scores[row, expected].tolist()


def test_retrieval_measures_what_was_found(judged):
    found = retrieval(counts, judged)
    assert found.queries == list(judged.queries)
    cosines = [
        search(lambda t: counts(t) / np.linalg.norm(counts(t), axis=1, keepdims=True), judged.corpus, judged.queries)
    ]
    assert list(found.run["q0"]) == list(cosines[0]["q0"])
    mean = found.means()["ndcg@10"]
    assert mean.value == pytest.approx(found.values["ndcg@10"].mean())
    assert mean.low < mean.value < mean.high
    perfect = Judged({"a": "aaa", "b": "bbb"}, {"q": "a", "r": "b"}, {"q": {"a": 1}, "r": {"b": 2}})
    assert all(value.value == 1 for value in retrieval(counts, perfect).means().values())


def test_every_kind_of_encoder_comes_in_by_one_door(judged):
    texts = [*list(judged.corpus.values())[:70], "z" * 40, ""]

    class Pair:
        encode_document = encode_query = staticmethod(counts)

    ways = [
        counts,
        Pair(),
        Letters(LettersConfig()),
        lambda t: torch.from_numpy(counts(t)),
        lambda t: torch.from_numpy(counts(t)).to_sparse_coo(),
        lambda t: sparse.csr_matrix(counts(t)),
    ]
    for way in ways:
        assert np.array_equal(dense_vectors(way, texts), counts(texts))
        assert retrieval(way, judged, block=100).run.keys() == judged.queries.keys()
    with pytest.raises(ConfigError, match="a str is no encoder"):
        text_encoder("minilm")


def test_a_model_of_sentence_transformers_comes_in_by_the_same_door(tmp_path, judged):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    folder = make_readers(tmp_path)
    model = SentenceTransformer(
        modules=[Transformer(str(folder / "bert")), Pooling(32, pooling_mode="mean")], device="cpu"
    )
    found = retrieval(model, judged)
    assert found.values["mrr@10"].shape == (20,)


def test_a_system_of_ours_that_learns_on_texts_comes_in_by_the_same_door():
    model = DupMAE(DupMAE.Config.preset("tiny")).train()
    texts = ["a short one", "", "one that is longer than the others, by far " * 3, "another"]
    vectors = dense_vectors(model, texts)
    assert model.training
    model.eval()
    for text, vector in zip(texts, vectors):
        with torch.no_grad():
            alone = model.encode(model.collate([text]))[0].numpy()
        assert vector == pytest.approx(alone, abs=1e-5)


def test_what_an_encoder_gives_is_checked():
    for way in (lambda t: np.zeros(3), lambda t: np.zeros((1, 2))):
        with pytest.raises(InputError, match=r"for 2 texts; expected \[2, d\]"):
            dense_vectors(way, ["a", "b"])
    broken = np.array([[1.0, 2], [0, np.nan]])
    for way in (lambda t: broken, lambda t: sparse.csr_matrix(broken)):
        with pytest.raises(InputError, match="not finite for document 1 of 2: 'b'"):
            dense_vectors(way, ["a", "b"])
    with pytest.raises(ConfigError, match="similarity 'cosin'"):
        search(counts, {"a": "x"}, {"q": "x"}, similarity="cosin")


def test_bm25_is_the_formula():
    corpus = ["the cat sat", "the dog sat on the mat", "birds"]
    scores = (BM25(corpus).encode_query(["cat sat"]) @ BM25(corpus).encode_document(corpus).T).toarray()[0]
    mean = 10 / 3

    def weight(tf, df, length):
        return np.log(1 + (3 - df + 0.5) / (df + 0.5)) * tf / (tf + 1.2 * (1 - 0.75 + 0.75 * length / mean))

    assert scores == pytest.approx([weight(1, 1, 3) + weight(1, 2, 3), weight(1, 2, 6), 0])
    with pytest.raises(SourceError, match="no word"):
        BM25(["..."])


def test_text_similarity_is_spearmans_correlation():
    random = np.random.default_rng(1)
    first, second = (["".join(random.choice(list("abcde"), 6)) for _ in range(80)] for _ in range(2))
    a, b = counts(first), counts(second)
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    scores = np.round(cosines * 5 + random.normal(0, 1, 80))
    found = text_similarity(counts, first, second, scores)
    assert found.spearman.value == pytest.approx(spearmanr(found.cosines, scores).statistic)
    assert found.cosines == pytest.approx(cosines, abs=1e-6)
    assert 0 < found.spearman.low < found.spearman.value < found.spearman.high < 1
    with pytest.raises(SourceError, match="expected as many"):
        text_similarity(counts, first, second[:-1], scores)
    with pytest.raises(SourceError, match="not all equal"):
        text_similarity(counts, first, second, np.ones(80))


def labelled(n, seed):
    random = np.random.default_rng(seed)
    labels = random.choice(["x", "y", "z"], n).tolist()
    texts = ["".join(random.choice(list({"x": "abcd", "y": "cdef", "z": "efgh"}[label]), 5)) for label in labels]
    return texts, labels


def test_clustering_finds_labels_that_lie_apart():
    texts, labels = labelled(150, 2)
    found = clustering(counts, texts, labels)
    assert found.clusters == 3
    assert 0.3 < found.v_measure.value <= 1
    assert len(found.by_seed) == 5
    mixed = clustering(counts, texts, np.random.default_rng(3).permutation(labels))
    assert mixed.v_measure.value < 0.1
    with pytest.raises(SourceError, match="1 labels"):
        clustering(counts, texts, ["x"] * 150)


def test_the_linear_probe_tells_labels():
    found = linear_probe(counts, labelled(200, 4), labelled(200, 5))
    truth = labelled(200, 5)[1]
    assert found.accuracy.value == np.mean(np.array(truth) == found.predicted) > found.majority + 0.3
    assert found.macro_f1.value == pytest.approx(f1_score(truth, found.predicted, average="macro"))
    assert found.accuracy.low < found.accuracy.value < found.accuracy.high
    # Labels without meaning are told no better than by chance.
    random = np.random.default_rng(6)
    noise = linear_probe(counts, (labelled(200, 4)[0], random.permutation(labelled(200, 4)[1])), labelled(200, 5))
    assert noise.accuracy.value < found.accuracy.value - 0.2
    with pytest.raises(SourceError, match="label 'w' is not in train"):
        linear_probe(counts, labelled(200, 4), (["a"], ["w"]))
    with pytest.raises(SourceError, match="the only label"):
        linear_probe(counts, (["a", "b"], ["x", "x"]), (["a"], ["x"]))
    with pytest.raises(SourceError, match="too few texts"):
        linear_probe(counts, (["a", "b"], ["x", "y"]), (["a"], ["x"]))


def test_accuracy_and_macro_f1():
    random = np.random.default_rng(7)
    truth = random.integers(0, 5, 300)
    said = np.where(random.random(300) < 0.7, truth, random.integers(0, 4, 300))
    assert accuracy(truth, said).value == np.mean(truth == said)
    estimate = macro_f1(truth, said)
    assert estimate.value == pytest.approx(f1_score(truth, said, average="macro"))
    drawn = []
    for _ in range(400):
        rows = random.integers(0, 300, 300)
        drawn.append(f1_score(truth[rows], said[rows], average="macro"))
    assert (estimate.low, estimate.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.02)
