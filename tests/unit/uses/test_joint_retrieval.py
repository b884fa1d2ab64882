"""Retrieval by a vector, by weights of words and by both: scores by hand, what learns, exact search, and the folders others open."""

import copy

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM

from encoders import WORDS, make_pair
from hourglass.data.judged import Judged
from hourglass.errors import ConfigError, FolderError, SourceError
from hourglass.nn.lexical import keep_largest, lexical_weights
from hourglass.systems.dupmae import DupMAE, DupMAEConfig
from hourglass.training import TrainConfig, fit
from hourglass.uses.finetune import JointRows, Pair, Retriever, RetrieverConfig, mine_negatives, with_teacher
from hourglass.uses.probe import retrieval
from hourglass.uses.probe.retrieval import search

JOINT = {"representation": "both", "similarity": "dot", "temperature": 2.0, "reduced": 6, "k": 4, "dropout": 0.0}
PAIRS = [
    Pair("red", "red stone", ("blue stone", "green"), (2.0, 1.0, -1.0)),
    Pair("blue", "blue bird", ("red stone", "river"), (0.5, 0.0, 0.0)),
    Pair("heavy", "red stone", ("apple", "light"), (1.0, 2.0, 3.0)),  # the document of the first as well
]
TEXTS = [*(pair.document for pair in PAIRS), "a heavy engine in paris", "x"]


@pytest.fixture(scope="module")
def source():
    network, tokenizer = make_pair()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        words = AutoModelForMaskedLM.from_config(network.config).eval()
        # Logits that are above and below 0, and not about the same for every text.
        words.cls.predictions.transform.dense.weight.data.mul_(20)
        words.cls.predictions.bias.data.normal_(std=0.3)
    return words, tokenizer


def made(source, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = Retriever(RetrieverConfig(**{**JOINT, "max_tokens": 32, **settings}), source).eval()
    if head.representation.log_scale is not None:
        with torch.no_grad():
            head.representation.log_scale.fill_(0.5)
    return head


def parts_by_hand(source, head, text):
    """(vector, weights of all tokens) of a text, by the network alone."""
    network, tokenizer = source
    given = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        states = network.bert(**given).last_hidden_state[0]
        logits = network(**given).logits[0, 1:-1].amax(0)  # neither [CLS] nor [SEP]
    pooled = states[0] if head.config.pooling == "cls" else states.mean(0)
    linear = head.representation.linear
    vector = pooled if linear is None else linear.weight.detach() @ pooled
    weights = logits.relu().log1p() if head.config.activation == "log1p_relu" else logits.clone()
    weights[tokenizer.all_special_ids] = 0
    return vector.numpy(), weights.numpy()


@pytest.mark.parametrize("activation", ["log1p_relu", "raw"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("representation", ["dense", "lexical", "both"])
def test_scores_and_losses_by_hand(source, representation, pooling, activation):
    head = made(
        source,
        representation=representation,
        pooling=pooling,
        activation=activation,
        negatives=2,
        contrastive=0.5,
        distillation=2.0,
    )
    scale = np.exp(0.5) if representation == "both" else 1.0
    documents = [text for e in PAIRS for text in (e.document, *e.negatives)]
    scores = np.zeros((3, 9))
    for i, pair in enumerate(PAIRS):
        vector, weights = parts_by_hand(source, head, pair.query)
        for j, text in enumerate(documents):
            of_document, its_weights = parts_by_hand(source, head, text)
            kept = np.argsort(-its_weights)[: head.config.k]
            if representation != "lexical":
                scores[i, j] += vector @ of_document
            if representation != "dense":
                scores[i, j] += scale * (weights[kept] @ its_weights[kept])
    rows, texts = head.rows([pair.query for pair in PAIRS], "query"), head.rows(documents)
    ours = rows.dense @ texts.dense.T + (rows.lexical @ texts.lexical.T).toarray()
    assert ours == pytest.approx(scores, rel=1e-4, abs=1e-4)
    stacked = head.encode_query([pair.query for pair in PAIRS]) @ head.encode_document(documents).T
    assert np.asarray(stacked if representation == "dense" else stacked.toarray()) == pytest.approx(scores, abs=1e-3)
    with torch.no_grad():
        losses = head.loss(head.collate(PAIRS))
    scores /= 2.0
    wrong, divergence = [], []
    for i, pair in enumerate(PAIRS):
        counted = [j for j, text in enumerate(documents) if j == 3 * i or text != pair.document]
        wrong.append(np.log(np.exp(scores[i, counted]).sum()) - scores[i, 3 * i])
        said = scores[i, 3 * i : 3 * i + 3] - np.log(np.exp(scores[i, 3 * i : 3 * i + 3]).sum())
        teacher = np.exp(pair.teacher) / np.exp(pair.teacher).sum()
        divergence.append((teacher * (np.log(teacher) - said)).sum())
    assert float(losses["contrastive"]) == pytest.approx(0.5 * np.mean(wrong), rel=1e-3)
    assert float(losses["distillation"]) == pytest.approx(2 * np.mean(divergence), rel=1e-3)


def test_everything_learns_and_a_document_learns_by_what_it_keeps(source):
    head = made(source).train()
    sum(head.loss(head.collate(PAIRS)).values()).backward()
    without = [name for name, p in head.named_parameters() if p.grad is None or not p.grad.any()]
    # Types and positions beyond the texts have none; all others have.
    assert all("embeddings" in name for name in without), without
    weights = torch.tensor([[3.0, 1.0, 2.0]], requires_grad=True)
    keep_largest(weights, 2).sum().backward()
    assert weights.grad.tolist() == [[1.0, 0.0, 1.0]]
    nothing = torch.full((1, 4), -torch.inf)
    assert not lexical_weights(nothing, [0]).any() and not lexical_weights(nothing, [0], "raw").any()


def test_scores_keep_their_digits_under_autocast(source):
    head = made(source, k=None, negatives=2)
    batch = head.collate(PAIRS)
    with torch.no_grad():
        exact = head.loss(batch)["contrastive"]
        with torch.autocast("cpu", torch.bfloat16):
            parts = head._query(batch["query_ids"], batch["query_mask"], batch["query_types"])
            scores = head.representation.scores(parts, parts)
            assert scores.dtype == torch.float32
            assert torch.allclose(scores, scores.T)
            assert float(head.loss(batch)["contrastive"]) == pytest.approx(float(exact), abs=0.1)


def described(n, seed):
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        words = random.permutation(WORDS)[:6]
        rows.append(Pair(" ".join(random.permutation(words)[:3]), " ".join(words)))
    return rows


def test_it_learns_from_mined_negatives_and_a_teacher(source, tmp_path):
    rows, others = described(200, 0), described(60, 1)
    judged = Judged(
        {f"d{i}": row.document for i, row in enumerate(others)},
        {f"q{i}": row.query for i, row in enumerate(others)},
        {f"q{i}": {f"d{i}": 1} for i in range(len(others))},
    )
    head = made(source, pooling="cls", negatives=2, distillation=0.5, temperature=1.0, k=24)
    mined = mine_negatives(head, rows, [row.document for row in rows], 2, last=20, similarity="dot")
    taught = with_teacher(lambda asked: [len(set(q.split()) & set(d.split())) for q, d in asked], mined)
    before = head.score(judged).value
    settings = TrainConfig(steps=100, batch_size=16, lr=3e-3, schedule="linear", warmup=0.1)
    fit(head, taught, settings, progress=False, out=tmp_path / "run")
    after = head.score(judged)
    assert after.value > before + 0.2
    assert retrieval(head, judged, similarity="dot").means()["ndcg@10"] == after
    assert float(head.representation.scale.detach()) != pytest.approx(np.exp(0.5))
    assert Retriever.from_pretrained(tmp_path / "run" / "model").score(judged) == after


def test_the_search_of_rows_is_that_of_texts(source):
    head = made(source, k=20)
    corpus = {f"{i:03}": " ".join(np.random.default_rng(i).permutation(WORDS)[:5]) for i in range(70)}
    asked = {f"q{i}": " ".join(np.random.default_rng(100 + i).permutation(WORDS)[:2]) for i in range(67)}
    queries, documents = head.rows(list(asked.values()), "query"), head.rows(list(corpus.values()))
    found, scores = queries.search(documents, 10)
    assert found.shape == scores.shape == (67, 10)
    by_texts = search(head, corpus, asked, similarity="dot", depth=10)
    for query, row, values in zip(asked, found, scores):
        assert [f"{i:03}" for i in row] == list(by_texts[query])
        assert values == pytest.approx(list(by_texts[query].values()), rel=1e-5)
    assert queries.search(documents)[0].shape == (67, 70)
    same = JointRows(np.ones((3, 2), np.float32), documents.lexical[:3] * 0)
    assert same.search(same, 2)[0].tolist() == [[0, 1]] * 3
    with pytest.raises(ConfigError, match="dense: queries have 2 columns, documents 6"):
        same.search(documents)


def test_bytes_of_a_document(source):
    rows = made(source, k=5).rows(TEXTS)
    assert rows.bytes_per_text() == {"dense": 24.0, "values": 20.0, "ids": 20.0, "total": 64.0}
    assert rows.dense.nbytes + rows.lexical.data.nbytes + rows.lexical.indices.nbytes == 64 * len(TEXTS)
    assert made(source, representation="dense").rows(TEXTS).bytes_per_text()["total"] == 24
    assert made(source, representation="lexical", k=5).rows(TEXTS).bytes_per_text()["total"] == 40


@pytest.mark.parametrize(
    "settings",
    [
        {"representation": "dense", "similarity": "cosine", "pooling": "mean", "reduced": None},
        {"representation": "dense", "similarity": "cosine", "pooling": "cls"},
        {"representation": "dense", "pooling": "cls"},
        {"representation": "lexical"},
        {},
    ],
)
def test_others_open_the_folder(source, settings, tmp_path):
    from sentence_transformers import SentenceTransformer, SparseEncoder
    from transformers import AutoModel, AutoTokenizer

    head = made(source, **settings)
    head.save_pretrained(tmp_path / "tuned")
    rows, again = head.rows(TEXTS), Retriever.from_pretrained(tmp_path / "tuned")
    assert again.config == head.config
    for ours, theirs in zip(vars(head.rows(TEXTS, "query")).values(), vars(again.rows(TEXTS, "query")).values()):
        assert abs(ours - theirs).max(initial=0) == 0 if isinstance(ours, np.ndarray) else (ours != theirs).nnz == 0
    given = AutoTokenizer.from_pretrained(tmp_path / "tuned")(TEXTS[:1], return_tensors="pt")
    with torch.no_grad():
        theirs = AutoModel.from_pretrained(tmp_path / "tuned")(**given).last_hidden_state
        batch = head.tokens(TEXTS[:1])
        assert float((theirs - head.encoder(**batch)).abs().max()) < 1e-5
    if head.config.representation != "lexical":
        vectors = SentenceTransformer(str(tmp_path / "tuned"), device="cpu").encode(TEXTS)
        assert np.abs(vectors - rows.dense).max() < 1e-5
    if head.config.representation != "dense":
        head.save_sparse(tmp_path / "sparse")
        encoder = SparseEncoder(str(tmp_path / "sparse"), device="cpu")
        assert np.abs(encoder.encode_document(TEXTS).to_dense().numpy() - rows.lexical.toarray()).max() < 1e-5
        words = dict(encoder.decode(encoder.encode_document(TEXTS[0])))
        assert len(words) == 4


@pytest.mark.parametrize("kind", ["gpt2", "bart"])
def test_what_others_would_read_otherwise_is_for_us_alone(kind, tmp_path):
    head = Retriever(RetrieverConfig(max_tokens=32, reduced=5), make_pair(kind)).eval()
    head.save_pretrained(tmp_path / "tuned")
    assert not (tmp_path / "tuned" / "modules.json").exists()
    again = Retriever.from_pretrained(tmp_path / "tuned")
    assert np.array_equal(again.encode_query(TEXTS), head.encode_query(TEXTS))


def test_of_a_dupmae_the_weights_are_its_own(tmp_path):
    torch.manual_seed(0)
    model = DupMAE(DupMAEConfig.preset("tiny")).eval()
    head = Retriever(RetrieverConfig.preset("dupmae", max_tokens=48, reduced=8, k=5), model).eval()
    with torch.no_grad():
        ours = model.lexical(model.collate(TEXTS), 5).numpy()
    assert np.abs(head.rows(TEXTS).lexical.toarray() - ours).max() < 1e-6
    before = copy.deepcopy(model.state_dict())
    head.save_sparse(tmp_path / "sparse")
    head.save_pretrained(tmp_path / "tuned")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    # The tuned encoder can go on learning without labels.
    assert DupMAE.from_checkpoint(str(tmp_path / "tuned"), max_tokens=48).config.network["hidden_size"] == 32


def test_what_cannot_be_is_named(source, tmp_path):
    for settings, message in (
        ({"representation": "sparse"}, "representation 'sparse'"),
        ({"activation": "relu"}, "activation 'relu'"),
        ({"similarity": "cosine"}, "weights of words are compared by 'dot'"),
        ({"k": 0}, "k 0: expected 1 or more"),
        ({"reduced": 0}, "reduced 0: expected 1 or more"),
    ):
        with pytest.raises(ConfigError, match=message):
            RetrieverConfig(**{**JOINT, **settings})
    for kind in ("bert", "gpt2", "bart"):
        with pytest.raises(ConfigError, match="weights of words need a masked language model"):
            Retriever(RetrieverConfig(**JOINT, max_tokens=32), make_pair(kind))
    with pytest.raises(
        ConfigError, match="representation 'dense', activation 'log1p_relu': expected 'lexical' or 'both'"
    ):
        made(source, representation="dense").save_sparse(tmp_path / "x")
    with pytest.raises(ConfigError, match="activation 'raw'"):
        made(source, activation="raw").save_sparse(tmp_path / "x")
    with pytest.raises(SourceError, match="no texts"):
        made(source).rows([])
    head = made(source)
    head.save_pretrained(tmp_path / "tuned")
    (tmp_path / "tuned" / "hourglass.safetensors").unlink()
    with pytest.raises(FolderError, match=r"hourglass\.safetensors: cannot be read"):
        Retriever.from_pretrained(tmp_path / "tuned")
    source[0].save_pretrained(tmp_path / "other")
    with pytest.raises(FolderError, match="holds the system None, expected 'retriever'"):
        Retriever.from_pretrained(tmp_path / "other")


def test_it_goes_on_where_it_stopped(source, tmp_path, monkeypatch):
    rows = described(40, 3)
    settings = TrainConfig(steps=8, batch_size=8, lr=1e-3, save_every=2)

    def learned(out):
        head = made(source, pooling="cls", dropout=0.1).train()
        return fit(head, rows, settings, progress=False, out=out).model.state_dict()

    whole = learned(tmp_path / "whole")
    loss, calls = Retriever.loss, iter(range(100))

    def stops(self, batch):
        if next(calls) == 5:
            raise KeyboardInterrupt
        return loss(self, batch)

    monkeypatch.setattr(Retriever, "loss", stops)
    with pytest.raises(KeyboardInterrupt):
        learned(tmp_path / "cut")
    monkeypatch.setattr(Retriever, "loss", loss)
    again = learned(tmp_path / "cut")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
