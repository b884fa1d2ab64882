"""Names by a language model: written on some passages, scored on others, kept only where they hold better."""

import json
import re

import numpy as np
import pytest
import torch

from chat_server import chat_server
from hourglass.adapters.chat_endpoint import Reply
from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.errors import ConfigError, InputError
from hourglass.uses.explore.relabel import collect, named, scored
from hourglass.uses.explore.workspace import Workspace
from hourglass.waist import TokenStates
from workspaces import WIDTH, make_workspace

FIRES_ON = {1: "apple", 2: "pear", 3: "rare", 4: "odd"}


class Reader:
    width = WIDTH

    def read(self, texts):
        found = [list(re.finditer(r"\w+", text)) for text in texts]
        words = [place for places in found for place in places]
        states = torch.zeros(len(words), WIDTH)
        for i, place in enumerate(words):
            for feature, word in FIRES_ON.items():
                states[i, feature] = float(place.group() == word)
        spans = torch.tensor([place.span() for place in words], dtype=torch.int32).reshape(-1, 2)
        return TokenStates(states, torch.tensor([0, *np.cumsum([len(places) for places in found])]), spans)


class Coder:
    reader = Reader()

    def codes(self, states):
        return SparseCodes.from_dense(states.float())


@pytest.fixture
def workspace(tmp_path):
    """240 stories, an apple in half of them, a pear in a third, "odd" by chance, "rare" in five."""
    random = np.random.default_rng(0)
    texts, maxima = [], np.zeros((240, WIDTH))
    for i in range(240):
        has = [w for f, w in FIRES_ON.items() if (i % 2 == 0, i % 3 == 0, i < 5, random.random() < 0.5)[f - 1]]
        texts.append(f"Story {i} of somebody who {' and '.join(['began', *has])} and went home after {i * 7} days.")
        maxima[i] = [f in FIRES_ON and FIRES_ON[f] in has for f in range(WIDTH)]
    made = make_workspace(tmp_path / "ws", texts, {}, maxima)
    features = made.features.copy()
    features["label"] = [None, "home, days", "pear", "rare", "somebody", *[None] * 3]
    features["terms"] = [[], [], ["pear"], ["rare"], ["somebody"], *[[]] * 3]
    features.to_parquet(made.folder / "features.parquet")
    return Workspace.open(made.folder, lambda path: Coder())


def model(messages):
    """A model that names a feature by the words that are marked, and knows fruit only."""
    prompt = messages[0]["content"]
    if prompt.startswith("Statement"):
        statement = prompt.splitlines()[0]
        texts = [json.loads(line)["text"] for line in prompt.splitlines() if line.startswith('{"number"')]
        fruit = [word for word in ("apple", "pear") if word in statement]
        return json.dumps({"answers": ["yes" if any(w in text for w in fruit) else "no" for text in texts]})
    (word,) = set(re.findall(r"<<(\w+)>>", prompt))
    return json.dumps(
        {"label": f"a word: {word}", "brief_description": f"This document names {word}.", "detailed_explanation": "So."}
    )


def test_passages_are_of_documents_of_their_own_and_marked_where_the_feature_fires(workspace):
    passages = collect(workspace, [1, 2, 3], 0)
    assert set(passages) == {1, 2}  # the third is too rare
    one = passages[1]
    assert len(one.firing) == len(one.marked) == len(one.silent) == 40
    assert len(set(one.firing)) == len(set(one.silent)) == 40
    assert all("<<apple>>" in text for text in one.marked)
    assert [text.replace("<<", "").replace(">>", "") for text in one.marked] == one.firing
    assert not any("apple" in text for text in one.silent)
    parts = [one.part(name) for name in ("old", "name", "new")]
    assert [len(one.firing[part]) for part in parts] == [10, 20, 10]
    assert len({text for part in parts for text in one.firing[part]}) == 40


def test_the_better_name_is_kept_and_a_bad_one_dropped(workspace):
    with chat_server(model) as chat:
        found = workspace.relabel(chat.url, features=[1, 2, 3, 4], model="tiny", progress=False)
        table = found.table.set_index("feature")
        assert table.loc[1, ["label", "named_by", "score"]].tolist() == ["a word: apple", "tiny", 1.0]
        assert table.loc[1, "offline_score"] == 0.5
        assert table.loc[2, ["label", "named_by", "score"]].tolist() == ["pear", "offline", 1.0]
        assert table.loc[4, ["label", "named_by"]].isna().all()
        assert table.loc[4, "score"] == 0.5
        assert 3 not in table.index
        assert any("1 features fire, or are silent, in too few documents" in note for note in found.notes)
        assert found.usage["questions"] == len(chat.requests) == 9

        naming = next(b["messages"][0]["content"] for b in chat.requests if "A first guess was" in str(b))
        assert "50% of a test" in naming or "100% of a test" in naming

        kept = Workspace.open(workspace.folder, lambda path: Coder()).features
        assert kept.loc[1, ["label", "description", "offline_label"]].tolist() == [
            "a word: apple",
            "This document names apple.",
            "home, days",
        ]
        assert list(kept.loc[1, "terms"]) == ["a word: apple"]
        assert kept.loc[3, ["label", "named_by"]].tolist() == ["rare", "offline"]
        assert workspace.label_vectors[4].tolist() == [0] * WIDTH

        again = workspace.relabel(chat.url, features=[1, 2, 3, 4], model="tiny", progress=False)
        assert len(chat.requests) == 9
        assert again.table.equals(found.table)


def test_answers_that_cannot_be_used_change_nothing(workspace):
    with chat_server(lambda messages: "I would say fruit") as chat:
        found = workspace.relabel(chat.url, top=2, model="tiny", progress=False)
    assert len(found.table) == 2
    assert set(found.table["named_by"]) == {"offline"}
    assert found.table["written"].isna().all()
    assert any("2 features lack an answer that can be used" in note for note in found.notes)
    assert workspace.features["label"].notna().sum() == 4


def test_a_budget(workspace):
    with chat_server(model) as chat:
        found = workspace.relabel(chat.url, features=[1, 2], model="tiny", budget=3200, progress=False)
        assert any("Not all questions were asked: the budget" in note for note in found.notes)
        assert len(chat.requests) < 6
        assert workspace.features["label"].iloc[1] == "home, days"


def test_mistakes(workspace):
    with pytest.raises(InputError, match="no feature 99; they go from 0 to 7"):
        workspace.relabel("http://localhost:1/v1", features=[99], model="tiny", progress=False)
    with pytest.raises(ConfigError, match="which model"):
        workspace.relabel("http://localhost:1/v1", progress=False)
    with pytest.raises(ConfigError, match="top 0"):
        workspace.relabel("http://localhost:1/v1", model="tiny", top=0, progress=False)


def test_replies_are_read_strictly():
    whole = {"label": "x", "brief_description": "This document is x.", "detailed_explanation": "y"}
    assert named(Reply(json.dumps(whole))) == ("x", "This document is x.")
    for change in ({"label": ""}, {"label": 3}, {"label": "x" * 200}, {"brief_description": "It is."}):
        assert named(Reply(json.dumps(whole | change))) is None
    assert named(Reply(None, "no")) is None
    assert scored(Reply('{"answers": ["yes", "no"]}'), 2).tolist() == [True, False]
    for wrong in ('{"answers": ["yes"]}', '{"answers": ["yes", "maybe"]}', '{"answers": [1, 0]}', "{}", "yes, no"):
        assert scored(Reply(wrong), 2) is None
