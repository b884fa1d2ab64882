"""Hypotheses from differences, and judges that read fresh documents, against planted truth."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from chat_server import chat_server
from hourglass.errors import ConfigError, EndpointError, InputError
from hourglass.uses.explore.diff import DiffOptions, select
from hourglass.uses.explore.hypotheses import BEGINNING, Hypothesis, from_names, pattern_of
from hourglass.uses.explore.hypotheses import evidence as gather
from hourglass.uses.explore.judges import LocalJudge, RuleJudge, understood
from hourglass.uses.explore.workspace import Workspace
from hourglass.uses.explore.writing import Item, written
from hourglass.waist import TokenStates
from workspaces import WIDTH, make_workspace

WORDS = ("apple", "pear", "plum")


class Reader:
    """A reader whose state of a text is which of three words it holds."""

    width = 4

    def read(self, texts):
        states = torch.tensor([[float(word in text) for word in WORDS] + [0.1] for text in texts])
        n = len(texts)
        return TokenStates(states, torch.arange(n + 1), torch.zeros(n, 2, dtype=torch.int32))


class Coder:
    reader = Reader()


def make(folder, sizes, chances, pairs=False, numbers=0):
    """Groups of documents with words by chance: `chances[group]` are those of apple, pear and plum."""
    random = np.random.default_rng(0)
    groups = np.repeat(list(sizes), list(sizes.values()))
    has = random.random((len(groups), 3)) < [chances[g] for g in groups]
    texts = [
        f"Story {numbers + i}: " + " ".join(["somebody", *(w for w, h in zip(WORDS, row) if h)]) + "."
        for i, row in enumerate(has)
    ]
    maxima = np.zeros((len(groups), WIDTH))
    maxima[:, 1:4] = has * random.uniform(0.8, 1.2, has.shape)
    columns = {"group": groups}
    if pairs:
        columns["prompt"] = np.concatenate([[f"p{i}" for i in range(n)] for n in sizes.values()])
    dense = np.column_stack([has, np.full(len(has), 0.1)])
    workspace = make_workspace(folder, texts, columns, maxima, dense=dense)
    features = workspace.features.copy()
    features["label"] = [None, "apple, apples", "topic: pear, pears", "near “plum”", *[None] * 4]
    features["terms"] = [[], ["apple", "apples"], ["pear", "pears"], ["near “plum”"], *[[]] * 4]
    features.to_parquet(folder / "features.parquet")
    examples = [
        {
            "feature": 1,
            "rank": 0,
            "document": str(i),
            "value": 1.0,
            "pieces": ["Some ", "apple", "."],
            "strengths": [0, 1.0, 0],
        }
        for i in range(50)
    ]
    pd.DataFrame(examples).to_parquet(folder / "examples.parquet")
    return Workspace.open(folder, lambda path: Coder())


@pytest.fixture
def fruit(tmp_path):
    """200 documents of either group; apple 0.6 of a and 0.1 of b, pear the other way, plum in half of both."""
    return make(tmp_path / "fruit", {"a": 200, "b": 200}, {"a": (0.6, 0.1, 0.5), "b": (0.1, 0.6, 0.5)})


def holds(statement, text):
    """The truth, as a judge."""
    return any(word in statement and word in text for word in WORDS)


def test_the_planted_differences_are_verified_on_documents_that_did_not_select(fruit):
    verified = fruit.verify("group", "a", "b", progress=False)
    assert verified.documents == (100, 100)
    assert set(verified.table["group"]) == {"a", "b"}
    assert len(verified.table) == 2  # a feature and its word are one hypothesis
    assert ((verified.table["low"] < 0.5) & (verified.table["high"] > 0.5)).all()
    assert verified.rate == verified.sure == 1
    assert verified.mean == pytest.approx(0.5, abs=0.12)
    selected = select(fruit, "group", "a", "b", DiffOptions(split=True))
    assert set(verified.answers["document"]) == {str(i) for i in np.flatnonzero(selected.fresh)}
    for side, own in zip(verified.coverage, (0.6, 0.6)):
        assert side["own"] == pytest.approx(own, abs=0.15)
        assert side["other"] < 0.25
        assert side["only"] is None
    assert json.loads(json.dumps(verified.to_dict()))["usage"] is None


def test_counts_by_hand(fruit):
    verified = fruit.verify("group", "a", "b", judge=holds, progress=False)
    row = verified.table[verified.table["group"] == "a"].iloc[0]
    said = verified.answers[verified.answers["hypothesis"] == row.name]
    yes = (said["answer"] == "yes").groupby(said["side"]).sum()
    assert (row["yes_a"], row["yes_b"]) == (yes[0], yes[1])
    assert row["difference"] == pytest.approx(yes[0] / 100 - yes[1] / 100)
    assert row["nearest"] == pytest.approx(yes[1] / 100)
    assert verified.judge == "holds"


def test_a_judge_to_whom_all_is_alike_verifies_nothing(fruit):
    verified = fruit.verify("group", "a", "b", judge=lambda statement, text: True, progress=False)
    assert (verified.table["difference"] == 0).all()
    assert verified.rate == verified.sure == 0


def test_refused_and_unparsable_are_no_noes(fruit):
    def judge(statement, text):
        if "plum" in text:
            return "refused"
        return holds(statement, text) if "somebody." not in text else 3

    verified = fruit.verify("group", "a", "b", judge=judge, progress=False)
    row = verified.table.iloc[0]
    assert row["yes_a"] + row["no_a"] + row["refused_a"] + row["unparsable_a"] == 100
    assert row["refused_a"] > 30
    assert row["unparsable_a"] > 3
    assert row["frequency_a"] == row["yes_a"] / (row["yes_a"] + row["no_a"])
    assert any("were refused; they count neither" in note for note in verified.notes)
    assert any("nobody can read" in note for note in verified.notes)

    def broken(statement, text):
        raise InputError("out of order")

    verified = fruit.verify("group", "a", "b", judge=broken, progress=False)
    assert verified.table["difference"].isna().all()
    assert (verified.rate, verified.mean) == (None, None)
    assert verified.answers["why"].iloc[0] == "out of order"


def test_hypotheses_of_ones_own(fruit):
    verified = fruit.verify("group", "a", "b", judge="rule:plum|PEAR", progress=False)
    assert verified.documents == (200, 200)
    assert abs(verified.table["difference"].iloc[0]) < 0.15
    verified = fruit.verify("group", "a", judge=holds, hypotheses=["has an apple", "has a plum"], progress=False)
    assert verified.table["statement"].tolist() == ["has an apple", "has a plum"]
    assert verified.table["difference"].iloc[0] == pytest.approx(0.5, abs=0.1)
    assert verified.table["strength"].isna().all()


def test_documents_that_are_given_judge_and_copies_do_not(fruit, tmp_path):
    other = make(tmp_path / "other", {"a": 50, "b": 50}, {"a": (1, 0, 0), "b": (0, 0, 0)}, numbers=1000)
    given = other.documents.to_pandas()[["text", "group"]]
    old = fruit.documents.to_pandas()[["text", "group"]].head(30)
    verified = fruit.verify("group", "a", "b", documents=pd.concat([given, old]), progress=False)
    assert verified.documents == (50, 50)
    assert verified.table.loc[verified.table["group"] == "a", "difference"].iloc[0] == 1
    assert any("30 documents have the text of one that selected" in note for note in verified.notes)
    # All documents of the workspace select, so that the strength is that of all.
    assert verified.table["strength"].iloc[0] == pytest.approx(
        np.abs(fruit.diff("group", "a", "b")[0].table["difference"]).max()
    )


def test_a_sample(fruit):
    verified = fruit.verify("group", "a", "b", sample=20, number=1, progress=False)
    assert verified.documents == (20, 20)
    assert len(verified.table) == 1
    assert verified.answers["side"].head(20).tolist().count(0) == 10


def test_pairs(tmp_path):
    chances = {"a": (0.6, 0.1, 0.5), "b": (0.1, 0.6, 0.5)}
    paired = make(tmp_path / "ws", {"a": 200, "b": 200}, chances, pairs=True)
    verified = paired.verify("group", "a", "b", judge=holds, pair="prompt", progress=False)
    assert verified.documents == (100, 100)
    row = verified.table[verified.table["group"] == "a"].iloc[0]
    said = verified.answers[verified.answers["hypothesis"] == row.name]
    by_pair = said.assign(yes=said["answer"] == "yes").pivot(index="unit", columns="side", values="yes")
    assert row["difference"] == pytest.approx(by_pair[0].mean() - by_pair[1].mean())
    assert verified.coverage[0]["only"] == pytest.approx((by_pair[0] & ~by_pair[1]).mean())
    other = make(tmp_path / "other", {"a": 50, "b": 40}, chances, pairs=True, numbers=1000)
    given = other.documents.to_pandas()[["text", "group", "prompt"]]
    verified = paired.verify("group", "a", "b", judge=holds, pair="prompt", documents=given, progress=False)
    assert verified.documents == (40, 40)


def test_one_against_several_others(tmp_path):
    chances = {"a": (0.8, 0.1, 0.5), "b": (0.5, 0.1, 0.5), "c": (0, 0.1, 0.5)}
    three = make(tmp_path / "ws", {"a": 100, "b": 100, "c": 100}, chances)
    verified = three.verify("group", "a", judge=holds, progress=False)
    row = verified.table[verified.table["group"] == "a"].iloc[0]
    assert row["nearest"] > row["frequency_b"]
    assert row["nearest"] == pytest.approx(0.5, abs=0.2)
    with pytest.raises(InputError, match=r"has 3 groups .*name the one"):
        three.verify("group", progress=False)


def test_nothing_to_verify(tmp_path):
    same = make(tmp_path / "ws", {"a": 100, "b": 100}, {"a": (0.5, 0.5, 0.5), "b": (0.5, 0.5, 0.5)})
    verified = same.verify("group", progress=False)
    assert len(verified.table) == 0
    assert any("no hypothesis to verify" in note for note in verified.notes)
    assert (verified.rate, verified.coverage[0]["own"]) == (None, None)
    assert verified.to_dict()["hypotheses"] == []


def test_too_few_documents_leave_none_that_are_fresh(tmp_path):
    few = make(tmp_path / "ws", {"a": 20, "b": 20}, {"a": (1, 0, 0), "b": (0, 1, 0)})
    with pytest.raises(InputError, match="leave none to judge that did not select; give fresh ones"):
        few.verify("group", "a", "b", progress=False)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"judge": "rul"}, "no judge 'rul'; expected rule"),
        ({"judge": "rule:("}, "not a regular expression"),
        ({"judge": "rule", "hypotheses": ["x"]}, "knows only hypotheses that come from differences"),
        ({"judge": "rule:x", "hypotheses": ["x"]}, "is the hypothesis"),
        ({"judge": "rule", "budget": 5}, "budget belongs to a chat endpoint"),
        ({"judge": "http://localhost:1/v1"}, "which model"),
        ({"number": 0}, "number 0: expected 1 or more"),
        ({"nmber": 1}, "did you mean 'number'"),
    ],
)
def test_mistakes(fruit, options, said):
    with pytest.raises(ConfigError, match=said):
        fruit.verify("group", "a", "b", progress=False, **options)


# Hypotheses ---------------------------------------------------------------------------------------------


def test_rows_that_say_the_same_are_merged(fruit):
    selected = select(fruit, "group", "a", "b", DiffOptions(split=True))
    seen = gather(fruit, selected, DiffOptions(split=True))
    assert not set(seen.positions) & set(np.flatnonzero(selected.fresh))
    made = from_names(fruit.features, selected, seen)
    by_side = {h.side: h for h in made}
    assert set(by_side) == {0, 1}
    assert 1 in by_side[0].features
    assert "apple" in by_side[0].labels
    assert by_side[0].needed == 1
    assert from_names(fruit.features, selected, seen, 1)[0].strength == made[0].strength


def test_names_that_a_model_gave_speak_for_themselves(fruit):
    fruit.features["description"] = [None, "This document tells of apples.", *[None] * 6]
    verified = fruit.verify("group", "a", "b", judge=holds, progress=False)
    assert "This document tells of apples." in verified.table["statement"].tolist() or any(
        "apple" in s for s in verified.table["statement"]
    )


@pytest.mark.parametrize(
    ("term", "yes", "no"),
    [
        ("apple", "An Apple.", "pineapples"),
        ("credit card", "credit  card", "credit carding"),
        ("near “goal”", "the goal", "goalie"),
        ("-ing", "running", "ingot"),
        ("a number", "in 1999", "in the nineties"),
        ("a CAPITAL word", "the EU", "The Eu"),
        ("a code_name", "my_name", "my name"),
        ("punctuation", "so!", "so"),
        (", and", "this, and that", "this and that"),
        ("c++", "c++ is", "c is"),
    ],
)
def test_terms_as_patterns(term, yes, no):
    assert pattern_of(term).search(yes)
    assert not pattern_of(term).search(no)


def test_a_sign_is_a_hypothesis_and_a_word_such_as_the_is_none(tmp_path):
    random = np.random.default_rng(0)
    group = np.repeat(["a", "b"], 200)
    texts = ["so! we go\n- there" if own == "a" else "but as you go" for own in group]
    texts = [text if random.random() < 0.9 else "go" for text in texts]
    ws = make_workspace(tmp_path / "ws", texts, {"group": group.tolist()}, np.ones((400, 2)))
    options = DiffOptions(split=True)
    selected = select(ws, "group", "a", "b", options)
    made = from_names(ws.features, selected, gather(ws, selected, options), number=2)
    said = {hypothesis.side: hypothesis.statement for hypothesis in made}
    assert said[0] in {
        f"{BEGINNING}has this: {sign}" for sign in ("“!”", "a line break", "a line that begins with “-”")
    }
    assert said[1].startswith(f"{BEGINNING}has this: ")  # nothing but words such as "the": better than none


def test_a_place_is_nothing_that_a_rule_can_look_for():
    assert pattern_of("the first word") is None
    (answer,) = RuleJudge().answers([(Hypothesis("x", terms=("the first word",)), "text")])
    assert answer.says == "refused"


class Fake:
    """An endpoint that answers with what it is given, one a question."""

    def __init__(self, *answers):
        self.answers, self.prompts = list(answers), []

    def ask_for(self, prompt, understood):
        self.prompts.append(prompt)
        return understood(self.answers.pop(0))


def hypothesis(items, group="A", description=f"{BEGINNING}has fruit."):
    return {"group": group, "description": description, "items": items, "examples": ["an apple"], "confidence": 0.5}


ROWS = pd.DataFrame(
    {"feature": pd.array([*range(120)], dtype="Int64"), "label": [f"n{i}" for i in range(120)], "difference": 0.1}
)


def test_many_rows_are_read_fifty_at_a_time_and_merged():
    items = [Item(0, f"n{i}", i / 200, (i,)) for i in range(120)]
    drafts = [{"hypotheses": [hypothesis([1, 2])]} for _ in range(3)]
    endpoint = Fake(*drafts, {"hypotheses": [hypothesis([0, 2], description=f"{BEGINNING}is all.")]})
    (made,) = written(endpoint, ROWS, items)
    assert made.features == (1, 2, 101, 102)
    assert made.strength == 102 / 200
    assert len(endpoint.prompts) == 4
    assert "n49" in endpoint.prompts[0]
    assert "n50" not in endpoint.prompts[0]
    assert "This document has fruit." in endpoint.prompts[3]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "must be a list"),
        ({"hypotheses": []}, "1 to 10"),
        ({"hypotheses": [hypothesis([0])] * 11}, "1 to 10"),
        ({"hypotheses": [hypothesis([0], group="C")]}, '"A" or "B"'),
        ({"hypotheses": [hypothesis([0], description="It has")]}, "must begin with"),
        ({"hypotheses": [hypothesis([])]}, "at least one"),
        ({"hypotheses": [hypothesis([5])]}, "from 0 to 1"),
        ({"hypotheses": [hypothesis([True])]}, "from 0 to 1"),
        ({"hypotheses": [hypothesis([1])]}, "own"),
        ({"hypotheses": [hypothesis([0]) | {"confidence": 2}]}, "0 to 1"),
        ({"hypotheses": [hypothesis([0]) | {"examples": "an apple"}]}, "at most 3"),
        ({"hypotheses": ["x"]}, "must be an object"),
    ],
)
def test_what_a_model_writes_is_checked(wrong, said):
    with pytest.raises(ValueError, match=said):
        written(Fake(wrong), ROWS, [Item(0, "n0", 0.1, (0,)), Item(1, "n1", 0.1, (1,))])


# The local judge ----------------------------------------------------------------------------------------


def test_the_local_judge_learns_where_to_cut(fruit):
    verified = fruit.verify("group", "a", "b", judge="local", progress=False)
    assert (verified.table["quality"] > 0.9).all()
    assert verified.mean == pytest.approx(0.5, abs=0.12)


def test_it_declines_what_it_cannot_tell(fruit, monkeypatch):
    noise = np.random.default_rng(0).normal(size=fruit.dense.shape)
    monkeypatch.setattr(Workspace, "dense", noise)
    verified = fruit.verify("group", "a", "b", judge="local", progress=False)
    assert set(verified.answers["answer"]) == {"refused"}
    assert any("cannot tell 2 of 2 hypotheses" in note for note in verified.notes)


def test_where_all_have_it_there_is_nothing_to_learn(fruit):
    selected = select(fruit, "group", "a", "b", DiffOptions(split=True))
    seen = gather(fruit, selected, DiffOptions(split=True))
    seen.present[:, 0] = True
    claim = Hypothesis("x", labels=("apple",), column=0)
    judge = LocalJudge(Reader(), [claim], seen, fruit.dense[seen.positions])
    assert [answer.says for answer in judge.answers([(claim, "apple")])] == ["refused"]


# A language model ---------------------------------------------------------------------------------------


def judging(messages):
    """What a model says that tells the truth, if sometimes in its own way."""
    if len(messages) == 1:  # asked for hypotheses
        lines = [json.loads(line) for line in messages[0]["content"].splitlines() if line.startswith('{"item"')]
        of = {group: [x["item"] for x in lines if x["group"] == group] for group in "AB"}
        return json.dumps(
            {
                "hypotheses": [
                    hypothesis(of["A"], description=f"{BEGINNING}is about an apple."),
                    hypothesis(of["B"], "B", f"{BEGINNING}is about a pear."),
                ]
            }
        )
    statement, text = messages[1]["content"].split("\n\nDocument: ")
    number = int(text.split("Story ")[1].split(":")[0])
    if number % 10 == 0:
        return "I'm sorry, but I can't help with that."
    if number % 10 == 1:
        return "yes, I think"
    answer = json.dumps({"reason": "read it", "answer": "yes" if holds(statement, text) else "no"})
    return f"```json\n{answer}\n```" if number % 2 else answer


def test_a_model_writes_and_judges(fruit):
    with chat_server(judging) as chat:
        verified = fruit.verify("group", "a", "b", judge=chat.url, model="tiny", progress=False)
        assert sorted(verified.table["statement"]) == [f"{BEGINNING}is about a pear.", f"{BEGINNING}is about an apple."]
        assert verified.mean == pytest.approx(0.5, abs=0.12)
        row = verified.table.iloc[0]
        assert row["refused_a"] > 0
        assert row["unparsable_a"] > 0
        assert row["yes_a"] + row["no_a"] + row["refused_a"] + row["unparsable_a"] == 100
        assert verified.usage["questions"] == len(chat.requests) == 401
        assert verified.usage["estimated_questions"] == 400
        assert any("One model wrote the hypotheses and judged them" in note for note in verified.notes)
        assert "Some <<apple>>." in chat.requests[0]["messages"][0]["content"]
        # The groups' names, and which side a document is of, are not told.
        assert not any('"group": "a"' in json.dumps(body) for body in chat.requests)

        again = fruit.verify("group", "a", "b", judge=chat.url, model="tiny", progress=False)
        assert len(chat.requests) == 401
        assert again.usage["kept"] == 401
        assert again.usage["prompt_tokens"] == 0
        pd.testing.assert_frame_equal(again.table, verified.table)


def test_a_dead_judge_leaves_its_answers_and_a_budget_what_is_done(fruit):
    with chat_server(judging) as chat:
        options = {"judge": chat.url, "model": "tiny", "writer": "names", "sample": 20, "progress": False}
        part = fruit.verify("group", "a", "b", budget=3000, **options)
        done = len(chat.requests)
        assert 0 < done < 80
        assert any(f"{done} of 80 questions were answered: the budget" in note for note in part.notes)
        answered = part.table[["yes_a", "no_a", "refused_a", "unparsable_a"]].sum(axis=1)
        assert answered.max() - answered.min() <= 2  # every hypothesis got about as many
        chat.faults = [401] * 99
        with pytest.raises(EndpointError, match=r"HTTP 401 .*HOURGLASS_API_KEY; 0 answers are kept"):
            fruit.verify("group", "a", "b", **options)
        chat.faults = []
        whole = fruit.verify("group", "a", "b", **options)
        assert whole.usage["kept"] == done
        assert whole.usage["questions"] + done == 80


def test_answers_of_a_model_are_read_strictly():
    from hourglass.adapters.chat_endpoint import Reply

    assert understood(Reply('{"reason": "so", "answer": "no"}')) == ("no", "so")
    assert understood(Reply(None, "filtered"))[0] == "refused"
    assert understood(Reply("I cannot assist with this"))[0] == "refused"
    for odd in ("", "no", '{"answer": "no"}', '{"reason": "", "answer": "maybe"}', '{"reason": 1, "answer": "no"}'):
        assert understood(Reply(odd))[0] == "unparsable"
