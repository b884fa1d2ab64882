"""PreTTR: documents first is the same as all at once, and with nothing computed before it is the plain cross-encoder."""

import numpy as np
import pytest
import torch
from corpora import Counts
from crosses import LAYERS, cross, saved

pytest.importorskip("lance")
pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

from encoders import POSITIONS, WORDS, make_pair
from hourglass.errors import ConfigError
from hourglass.nn.attention import attention_mask
from hourglass.training import TrainConfig, fit
from hourglass.uses.finetune import Pair
from hourglass.uses.search.cross import CrossEncoder
from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.prettr import Precomputed, PreTTR, PreTTRConfig
from hourglass.uses.search.stages import Query

RANDOM = np.random.default_rng(0)
TEXTS = [" ".join(RANDOM.choice(WORDS, n)) for n in (3, 1, 12, 7, 5, 9)] + [""]
QUERY = Query("q", "red bird")
SMALL = {"max_tokens": 64, "query_tokens": 8}


def made(joint_from, kind="bert", **more):
    return PreTTR(PreTTRConfig(joint_from=joint_from, **{**SMALL, **more}), cross(kind)).eval()


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra"])
def test_with_nothing_before_it_is_the_plain_cross_encoder(kind, tmp_path):
    scores = made(0, kind).score_texts(QUERY, TEXTS)
    network, tokenizer = cross(kind)
    with torch.no_grad():
        rows = [tokenizer([QUERY.text], [text], return_tensors="pt") for text in TEXTS]
        own = np.array([float(network(**row).logits) for row in rows])
    assert np.abs(scores - own).max() < 1e-5 and np.ptp(own) > 0.05
    ordered = CrossEncoder(saved(tmp_path / "cross", kind)).score_texts(QUERY, TEXTS)
    assert np.argsort(ordered).tolist() == np.argsort(scores).tolist()


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra"])
@pytest.mark.parametrize("joint_from", [1, 3])
@torch.no_grad()
def test_documents_first_is_the_formula(kind, joint_from):
    model = made(joint_from, kind)
    states = model.documents(TEXTS)
    joined = model.join(QUERY.text, states)
    assert np.abs(joined - model.score_texts(QUERY, TEXTS)).max() < 1e-5
    # By hand: query and document alone, then both.
    network, tokenizer = cross(kind)
    body = network.base_model
    first = tokenizer.convert_tokens_to_ids([tokenizer.cls_token, *tokenizer.tokenize(QUERY.text), tokenizer.sep_token])
    offset = tokenizer.pad_token_id + 1 if kind == "roberta" else 0

    def begun(ids, types, places):
        made = body.embeddings(
            input_ids=torch.tensor([ids]),
            token_type_ids=torch.full((1, len(ids)), types),
            position_ids=torch.tensor([places]) + offset,
        )
        return body.embeddings_project(made) if kind == "electra" else made

    def through(states, layers):
        real = torch.ones(states.shape[:2], dtype=torch.bool)
        for layer in layers:
            states = layer(states, attention_mask(real, "bidirectional", states.dtype))
        return states

    for text, score, kept in zip(TEXTS, joined, states):
        second = tokenizer.convert_tokens_to_ids([*tokenizer.tokenize(text), tokenizer.sep_token])
        query = through(begun(first, 0, range(len(first))), body.encoder.layer[:joint_from])
        document = through(
            begun(second, int(kind != "roberta"), range(10, 10 + len(second))), body.encoder.layer[:joint_from]
        )
        assert np.abs(kept - document[0].numpy()).max() < 1e-4
        last = through(torch.cat([query, document], 1), body.encoder.layer[joint_from:])
        own = network.classifier(body.pooler(last)) if kind == "bert" else network.classifier(last)
        assert score == pytest.approx(float(own), abs=1e-4)


def test_a_documents_states_do_not_hang_on_the_query_nor_on_its_neighbours():
    model = made(2)
    alone = [model.documents([text])[0] for text in TEXTS]
    for one, other in zip(alone, model.documents(TEXTS)):
        assert one == pytest.approx(other, abs=1e-5)
    assert np.abs(made(2).score_texts(QUERY, TEXTS) - made(0).score_texts(QUERY, TEXTS)).max() > 1e-3


def test_long_queries_and_documents_are_cut():
    model = made(1)
    long = " ".join(WORDS * 6)
    batch = model.pairs([long], [long])
    assert batch["ids"].shape[1] == 64 and int(batch["places"].max()) == 63
    assert np.isfinite(model.join(long, model.documents([long, ""]))).all()


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    rows = [{"id": f"d{i}", "text": f"{text} red"} for i, text in enumerate(TEXTS)]
    return SearchIndex.create(rows, tmp_path_factory.mktemp("ix") / "ix", encoder=None, progress=False)


@pytest.mark.parametrize(("dtype", "near"), [("float32", 1e-5), ("float16", 1e-2)])
def test_states_are_kept_with_the_index(index, dtype, near, monkeypatch):
    model = made(2)
    plain = dict(enumerate(model.score_texts(QUERY, index.texts(range(len(TEXTS)))).tolist()))
    stage = Counts(index) >> Precomputed(index, model, dtype=dtype)
    found = stage.run([QUERY])[0]
    assert dict(zip(found.rows.tolist(), found.scores.tolist())) == pytest.approx(plain, abs=near)
    kept = [
        path for path in (index.folder / "cache").iterdir() if path.name.startswith("prettr-") and dtype in path.name
    ]
    tokens = sum(len(state) for state in model.documents(index.texts(range(len(TEXTS)))))
    assert [(path / "states.bin").stat().st_size for path in kept] == [tokens * 32 * (4 if dtype == "float32" else 2)]
    monkeypatch.setattr(model, "documents", None)  # nothing is computed again
    again = (Counts(index) >> Precomputed(index, model, dtype=dtype)).run([QUERY])[0]
    assert again.scores.tolist() == found.scores.tolist()


def test_other_weights_are_other_states_but_not_those_of_the_layers_after():
    model, same = made(2), made(2)
    assert model.fingerprint() == same.fingerprint() != made(1).fingerprint()
    with torch.no_grad():
        same.encoder.network.bert.encoder.layer[3].output.dense.weight.add_(1)
        assert model.fingerprint() == same.fingerprint()
        same.encoder.network.bert.encoder.layer[1].output.dense.weight.add_(1)
    assert model.fingerprint() != same.fingerprint()


def test_by_name_in_a_pipeline(index, tmp_path):
    folder = saved(tmp_path / "cross")
    plain = made(0, max_tokens=POSITIONS).score_texts(QUERY, index.texts(range(len(TEXTS))))
    found = index.pipeline(f'bm25 >> prettr("{folder}", joint_from=0)').run([QUERY])[0]
    assert found.scores == pytest.approx(np.sort(plain)[::-1], abs=1e-5)
    assert len(index.pipeline(f'bm25 % 5 >> prettr("{folder}", joint_from=2)').run([QUERY])[0]) == 5
    with pytest.raises(ConfigError, match="a plain cross-encoder; say how many layers read documents alone"):
        index.pipeline(f'bm25 >> prettr("{folder}")')
    with pytest.raises(
        ConfigError, match="joint_from 4: of 4 layers one or more must read query and document together"
    ):
        index.pipeline(f'bm25 >> prettr("{folder}", joint_from={LAYERS})')


def test_it_learns_apart_and_comes_back_from_its_folder(tmp_path):
    def pair():
        def document(word):
            others = RANDOM.choice([w for w in WORDS if w not in ("red", "blue")], 3).tolist()
            others[RANDOM.integers(3)] = word
            return " ".join(others)

        return Pair("stone", document("red"), (document("blue"),))

    model = PreTTR(PreTTRConfig(joint_from=1, dropout=0.0, **SMALL), make_pair("bert"))
    fit(
        model,
        [pair() for _ in range(64)],
        TrainConfig(steps=60, batch_size=16, lr=3e-3, log_every=1),
        out=tmp_path,
        progress=False,
    )
    again = PreTTR.from_pretrained(tmp_path / "model")
    assert again.config == model.config
    held_out = [pair() for _ in range(20)]
    scores = [again.join("stone", model.documents([p.document, *p.negatives])) for p in held_out]
    assert sum(s[0] > s[1] for s in scores) >= 16


def test_settings_that_do_not_fit_are_named(index):
    with pytest.raises(ConfigError, match="joint_from -1"):
        made(-1)
    with pytest.raises(ConfigError, match="no room for a document"):
        made(1, query_tokens=62)
    with pytest.raises(ConfigError, match="joint_from 0: no layer reads documents alone"):
        made(0).documents(["red"])
    with pytest.raises(ConfigError, match="dtype 'int8': expected float16 or float32"):
        Precomputed(index, made(1), dtype="int8")
