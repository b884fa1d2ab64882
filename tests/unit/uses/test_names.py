"""Names for people: what is about something comes first, signs can be seen, and words such as "the" stand last or not at all."""

import numpy as np
import pandas as pd
import pytest
import torch

from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.errors import InputError
from hourglass.uses.explore.diff import Selected
from hourglass.uses.explore.hypotheses import Evidence, from_names
from hourglass.uses.explore.labels import (
    CLEAR,
    TokenSample,
    _Name,
    clarity,
    mark,
    name_features,
    quoted,
    says_nothing,
    trimmed,
)
from workspaces import WIDTH, make_workspace


@pytest.mark.parametrize(
    ("term", "short"),
    [
        ("and thanks", "thanks"),
        ("regards and", "regards"),
        (". order", "order"),
        ("does not work", "not work"),
        ("windows 10", "windows 10"),
        ("out of stock", "stock"),
        ("and the", "and the"),
        ("near “in”", "near “in”"),
        ("a number", "a number"),
        ("please", "please"),
    ],
)
def test_phrases_lose_what_says_nothing_at_their_ends(term, short):
    assert trimmed(term) == short


def test_how_clear_a_name_is():
    assert [
        clarity(terms) for terms in ([], ["the"], [".", "a number"], ["-ing"], ["and thanks"], ["thanks", "."])
    ] == [
        *(0, 1, 1, 1, 2),
        CLEAR,
    ]
    assert clarity(["bill"]) == clarity(["empty"]) == CLEAR  # of which lists of such words hold some
    assert says_nothing(["and the", "in", ".", ", and"])
    assert not any(says_nothing([term]) for term in ("?", "1 .", "a number", "-ing", "refund"))


def test_signs_are_set_apart_in_a_name():
    assert _Name([".", "1 .", "near “in”", "a number", "order"], 0.9, 40).label == "“.”, “1 .”, near “in”, a number"
    assert quoted("covid-19") == "covid-19"
    assert quoted("-ing") == "-ing"


def test_states_of_the_same_characters_are_marked_once():
    spans = np.array([[0, 4], [0, 4], [4, 9], [4, 9], [9, 12]])
    assert mark("one two six.", spans, np.array([0, 1, 3]), np.array([0.2, 0.9, 0.4])) == (
        ["one ", "two s", "ix."],
        [0.9, 0.4, 0.0],
    )


def test_what_fires_on_a_sentence_is_named_by_the_sentence():
    """Two sentences a text, two latents of each; feature 1 fires on those about gardens, whatever word they end with, 2 on all."""
    rng = np.random.default_rng(0)
    fillers = [f"thing{i}" for i in range(40)]
    texts, spans, values = [], [], []
    for _ in range(100):
        garden = bool(rng.random() < 0.3)
        about = "they walk the garden with" if garden else "they walk the harbour with"
        first = f"{about} {rng.choice(fillers)}. "
        second = f"he had seen {rng.choice(fillers)}."
        texts.append(first + second)
        spans += [(0, len(first))] * 2 + [(len(first), len(first + second))] * 2
        values += [[0, garden, 1], [0, garden / 2, 1], [0, 0, 1], [0, 0, 1]]
    codes = SparseCodes.from_dense(torch.tensor(values, dtype=torch.float32))
    sample = TokenSample(texts, [str(i) for i in range(100)], np.arange(101) * 4, np.array(spans, np.int32), codes)
    names, examples = name_features(sample, np.array([0, 1, 1], np.float32))
    assert names["label"][1] is not None
    assert "garden" in names["label"][1]
    assert names["contexts"][1] == sum("garden" in text for text in texts)  # sentences, not latents
    assert names["label"].isna()[2]  # it fires everywhere
    shown = examples[examples["feature"] == 1]
    assert all(pieces == [pieces[0]] and "garden" in pieces[0] for pieces in shown["pieces"])
    assert all(strengths == [1.0] for strengths in shown["strengths"][:1])


def made(names, kinds, differences, scores):
    """What of rows with these names becomes hypotheses; rows share no documents."""
    features = pd.DataFrame({"terms": [[name] for name in names], "score": scores})
    table = pd.DataFrame(
        {
            "kind": kinds,
            "feature": pd.array([i if kind == "feature" else pd.NA for i, kind in enumerate(kinds)], "Int64"),
            "label": names,
            "difference": differences,
        }
    )
    none = np.zeros(0, np.int64)
    seen = Evidence(none, none, [], [], np.zeros((0, len(names)), bool))
    return [h.labels[0] for h in from_names(features, Selected(table, none, none > 0, None, []), seen, 4)]


def test_hypotheses_pass_over_names_that_say_little_while_there_are_others():
    names = ["the", "refund", "?", "!", "of an", "invoice", "parcel", "lamp"]
    kinds = ["feature"] * 4 + ["word"] * 4
    strong = [0.9, 0.8, 0.7, 0.6, 0.5, -0.4, -0.3, -0.2]
    # A sign whose name is nearly sure is a concept; one that is not, and "the", wait until nothing else is left.
    assert made(names, kinds, strong, [0.99, 0.9, 0.95, 0.8, 0, 0, 0, 0]) == ["refund", "?", "invoice", "parcel"]
    assert made(names[:1] + names[4:5], ["feature", "word"], [0.9, 0.5], [0.99, 0]) == ["the", "of an"]


def test_a_cluster_is_not_named_by_stop_words_while_it_has_others(tmp_path):
    """Two halves: one says "and the lamp in", the other "or a box on"; features 1 and 2 tell them apart."""
    kind = np.arange(200) % 2
    maxima = np.zeros((200, WIDTH))
    maxima[kind == 0, 1] = maxima[kind == 1, 2] = 1
    maxima[:, 3] = np.arange(200) % 3 == 0
    texts = [["and the lamp in a", "or on box on what"][k] for k in kind]
    names = [None, "and the", "?", *["unsaid"] * (WIDTH - 3)]
    ws = make_workspace(tmp_path / "ws", texts, {}, maxima, names=names)
    found = ws.cluster(features=[1, 2], number=2)
    assert set(found.table["name"]) == {"lamp", "box, “?”"}
    bare = make_workspace(tmp_path / "bare", [["and the", "or on"][k] for k in kind], {}, maxima, names=names)
    assert found.table["name"].notna().all() and bare.cluster(features=[1, 2], number=2).table["name"].notna().all()


def test_an_axis_takes_the_names_that_are_near_and_no_others(tmp_path, monkeypatch):
    """1 and 2 are near; 3 is less than half as near; 4 holds the word; 5 is a stop word where 1 is; of 6's terms one is near."""
    of_text = {
        "politeness": [1, 0, 0],
        "thanks": [0.3, 0, 1],
        "regards": [1, 0, 0],
        "greeting": [0.9, 0.44, 0],
        "letter": [0.3, 0.95, 0],
        "many thanks": [0, 1, 0.5],
        "and": [1, 0, 0],
        "tax": [-0.5, -0.5, -0.7],
        "absent": [0, 0, 0],
    }
    names = [None, "regards", "greeting", "letter", "many thanks", "and", "tax, tax, tax, regards", "tax"]
    monkeypatch.setattr(
        "hourglass.uses.explore.axis.text_vectors", lambda ws, texts: np.array([of_text[text] for text in texts])
    )
    monkeypatch.setattr("hourglass.uses.explore.axis.query_vector", lambda ws, phrase: np.array(of_text[phrase]))
    vectors = np.array([[0, 0, 0], *(of_text[name.split(", ")[-1]] for name in names[1:])], float)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    maxima = (np.random.default_rng(0).random((100, WIDTH)) < 0.4).astype(float)
    dense = np.ones((100, 3))
    ws = make_workspace(tmp_path / "ws", ["a b"] * 100, {}, maxima, dense=dense, vectors=vectors, names=names)
    axis = ws.cluster("politeness", number=2).features
    assert sorted(axis["feature"]) == [1, 2]
    assert axis["similarity"].is_monotonic_decreasing
    assert 4 in ws.cluster(["thanks", "politeness"], number=2).features["feature"].tolist()
    with pytest.raises(
        InputError,
        match=r"no feature has a name, and no word is, near to 'absent' \(the nearest name is '.*', .* of 0.2",
    ):
        ws.cluster("absent", number=2)
