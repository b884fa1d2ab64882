"""Pairs under a judge, and features that a model picks: a small server, its faults, and what it costs."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from chat_server import chat_server
from hourglass.adapters.chat_endpoint import ChatEndpoint
from hourglass.errors import ConfigError, EndpointError
from hourglass.waist import TokenStates
from workspaces import make_workspace

NAMES = [None, "lamp", "box", "tax", "rain"]


def blind_coder():
    """Reads every text as one token of which it sees nothing."""

    def read(texts):
        return TokenStates(torch.zeros(len(texts), 4), torch.arange(len(texts) + 1), torch.empty(0, 2))

    return SimpleNamespace(reader=SimpleNamespace(read=read))


@pytest.fixture(scope="module")
def paired(tmp_path_factory):
    """400 documents: lamps come in boxes, in texts and in features; tax and rain come together in features alone."""
    random = np.random.default_rng(0)
    box, tax = random.random(400) < 0.3, random.random(400) < 0.3
    maxima = np.zeros((400, 5))
    maxima[:, 1] = box & (random.random(400) < 0.9)
    maxima[:, 2] = box
    maxima[:, 3] = tax & (random.random(400) < 0.9)
    maxima[:, 4] = tax
    said = np.stack([maxima[:, 1], box, random.random(400) < 0.3, random.random(400) < 0.3], 1) > 0
    texts = [" ".join(["the", *(n for n, has in zip(NAMES[1:], row) if has)]) + f" {i}" for i, row in enumerate(said)]
    vectors = np.concatenate([np.zeros((1, 4)), np.eye(4)])
    folder = tmp_path_factory.mktemp("paired") / "ws"
    return make_workspace(folder, texts, {}, maxima, names=NAMES, vectors=vectors, coder=blind_coder())


PLAIN = {"max_same_tokens": None, "progress": False}


def judged(found):
    return {(r.a, r.b): r for r in found.table.itertuples()}


def says(messages):
    """Yes where the document holds the word of the statement."""
    statement, document = re.match(r"Statement: .*: (\w+)\n\nDocument: (.*)", messages[-1]["content"], re.S).groups()
    return json.dumps({"reason": "so", "answer": "yes" if statement in json.loads(document).split() else "no"})


def test_a_rule_confirms_the_pair_whose_names_go_together(paired):
    found = paired.correlate(judge="rule", **PLAIN)
    pairs = judged(found)
    assert pairs[1, 2].verified_npmi > 0.5 and abs(pairs[3, 4].verified_npmi) < 0.3
    assert pairs[1, 2].verified_documents == found.documents == 200  # the half that did not select
    assert pairs[1, 2].verified_joint <= pairs[1, 2].documents + 1
    assert found.judge == "rule" and found.usage is None
    one = paired.correlate(judge="rule", pairs=1, sample=50, **PLAIN)
    assert one.table["verified_documents"].dropna().tolist() == [50]
    assert found.table.drop(columns=[c for c in found.table if c.startswith("verified")]).equals(
        paired.correlate(**PLAIN).table
    )


def test_a_model_is_asked_once_for_each_name_and_document(paired):
    with chat_server(says) as chat:
        found = paired.correlate(judge=chat.url, model="m", sample=40, **PLAIN)
        assert len(chat.requests) == 40 * 4
        assert found.usage["questions"] == found.usage["estimated_questions"] == 160
        assert found.usage["prompt_tokens"] == 1600 and found.to_dict()["usage"] == found.usage
        again = paired.correlate(judge=chat.url, model="m", sample=40, **PLAIN)
        assert len(chat.requests) == 160 and again.usage["kept"] == 160
        assert again.table.equals(found.table)
        rule = paired.correlate(judge="rule", sample=40, **PLAIN)
        assert found.table["verified_joint"].tolist() == rule.table["verified_joint"].tolist()


def test_a_budget_ends_the_questions_and_refusals_count_for_nothing(paired):
    with chat_server(
        lambda messages: "I'm sorry, I cannot." if "tax" in messages[-1]["content"] else says(messages)
    ) as chat:
        found = paired.correlate(judge=chat.url, model="n", sample=60, budget=4000, **PLAIN)
    assert any("questions were answered: the budget of 4,000 tokens" in note for note in found.notes)
    assert any("got no clear answer" in note for note in found.notes)
    assert 0 < found.table["verified_documents"].max() < 60


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"judge": "local"}, "no judge 'local' of pairs; expected rule, or the address"),
        ({"judge": "rule", "model": "m"}, "model belongs to a chat endpoint; the judge is 'rule'"),
        ({"judge": "rule", "pairs": 0}, "pairs 0: expected 1 or more"),
        ({"judge": "rule", "smple": 3}, "did you mean 'sample'"),
        ({"sample": 3}, "no option 'sample'"),
        ({"judge": "http://localhost:1"}, "which model"),
    ],
)
def test_bad_settings_of_a_judge_get_one_line(paired, options, said):
    with pytest.raises(ConfigError, match=said):
        paired.correlate(**options, **PLAIN)


def test_two_texts_of_a_document_are_judged_each_by_itself(paired, tmp_path):
    maxima = np.zeros((400, 2))
    texts = [text.replace("box", "crate") for part in paired.texts() for text in part]
    maxima[:, 1] = ["crate" in text for text in texts]
    other = make_workspace(tmp_path / "ws", texts, {}, maxima, names=[None, "crate"], vectors=np.eye(2, 4))

    def holds(statement, text):
        return statement.split()[-1] in text.split()

    found = judged(paired.correlate(other, judge=holds, max_similarity=None, progress=False))
    assert found[2, 1].verified_npmi == pytest.approx(1)


# find ---------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(paired, monkeypatch):
    """Queries are read as what is nearest to feature 1."""
    monkeypatch.setattr("hourglass.uses.explore.find.query_vector", lambda ws, query: np.array([1, 0.9, 0.8, 0.7]))
    return paired


def test_a_model_picks_the_features_and_their_order(asked):
    with chat_server(lambda messages: json.dumps({"features": [4, 2]})) as chat:
        found = asked.find("wet paper", rerank=chat.url, model="m", fuse=())
        assert found.features["feature"].tolist() == [4, 2]
        assert found.features["weight"].is_monotonic_decreasing
        assert found.usage["questions"] == 1 and found.to_dict()["usage"]["prompt_tokens"] == 10
        assert "wet paper" in chat.requests[0]["messages"][0]["content"]
        again = asked.find(
            "wet paper", rerank=ChatEndpoint(chat.url, "m", answers=asked.folder / "answers.sqlite"), fuse=()
        )
        assert len(chat.requests) == 1 and again.usage["kept"] == 1
        assert asked.find("wet paper", fuse=()).usage is None


def test_a_model_that_names_what_is_not_there_is_told(asked):
    replies = ['{"features": [4, 99]}', '{"features": [4, 4]}', "none", '{"features": [3]}']
    with chat_server(lambda messages: replies[len(messages) // 2]) as chat:
        assert asked.find("dry paper", rerank=chat.url, model="m", fuse=()).features["feature"].tolist() == [3]
        assert len(chat.requests) == 4
    with (
        chat_server(lambda messages: "no") as chat,
        pytest.raises(EndpointError, match="no answer that can be used in 5 tries"),
    ):
        asked.find("a paper", rerank=chat.url, model="m")


@pytest.mark.parametrize(
    ("call", "options", "said"),
    [
        ("q", {"rerank": "gpt"}, "rerank 'gpt': expected the address of a chat endpoint"),
        ("q", {"model": "m"}, "model belongs to the address of a chat endpoint"),
        (None, {"like": ["1"], "rerank": "http://localhost:1", "model": "m"}, "there is none"),
        ("q", {"rerank": "http://localhost:1", "model": "m", "budget": 1}, "the budget of 1 tokens is spent"),
    ],
)
def test_bad_settings_of_a_reranker_get_one_line(asked, call, options, said):
    with pytest.raises((ConfigError, EndpointError), match=said):
        asked.find(call, **options)
