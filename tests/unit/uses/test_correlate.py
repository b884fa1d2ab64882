"""Pairs against brute force, planted truth and planted nothing."""

from collections import namedtuple
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.errors import ConfigError, InputError
from hourglass.systems.interpretable_embeddings import PAPER_CORRELATE
from hourglass.uses.explore.correlate import verified
from hourglass.uses.explore.same_tokens import same_tokens
from hourglass.uses.explore.shared import shared
from hourglass.uses.explore.workspace import Workspace
from hourglass.uses.progress import Progress
from hourglass.waist import TokenStates
from workspaces import make_workspace

PLAIN = {"max_similarity": None, "max_same_tokens": None}
"""Without the filters that look at labels and tokens."""
WORDS = [
    "apple",
    "bear",
    "cloud",
    "door",
    "engine",
    "forest",
    "garden",
    "harbour",
    "island",
    "jungle",
    "kettle",
    "ladder",
    "mirror",
    "needle",
    "orchard",
]


def made(folder, presence, *, strength=1.0, **more):
    """A workspace in which a feature is present where `presence` [n, m] says so."""
    presence = np.asarray(presence)
    names = more.pop("names", [f"{WORDS[i % 15]}{i}" for i in range(presence.shape[1])])
    return make_workspace(folder, ["a b"] * len(presence), {}, presence * strength, names=names, shard=300, **more)


def pairs_of(found):
    return {(int(a), int(b)) for a, b in zip(found.table["a"], found.table["b"])}


def test_every_pair_is_what_counting_by_hand_gives(tmp_path):
    random = np.random.default_rng(0)
    has = random.random((300, 9)) < random.uniform(0.05, 0.6, 9)
    has[:, 8] = has[:, 7] & (random.random(300) < 0.8)
    found = made(tmp_path / "ws", has).correlate(
        split=False, match_length=False, min_npmi=-1, min_documents=1, false_discovery=1.0, **PLAIN
    )
    assert found.tested == 36
    assert pairs_of(found) == {(i, j) for i in range(9) for j in range(i + 1, 9) if (has[:, i] & has[:, j]).any()}
    for row in found.table.itertuples():
        i, j = has[:, row.a], has[:, row.b]
        both = (i & j).mean()
        assert row.documents == (i & j).sum()
        assert row.npmi == pytest.approx(np.log(both / (i.mean() * j.mean())) / -np.log(both))
        assert row.npmi_matched == pytest.approx(row.npmi)
        assert row.low <= row.npmi <= row.high
        assert row.a_given_b == pytest.approx((i & j).sum() / j.sum())
        assert row.b_given_a == pytest.approx((i & j).sum() / i.sum())
        assert (row.frequency_a, row.frequency_b) == pytest.approx((i.mean(), j.mean()))
    assert found.table["npmi_matched"].is_monotonic_decreasing
    assert pairs_of(found) >= {(7, 8)}
    assert found.table["q"].iloc[0] < 1e-6
    papers = Workspace.open(tmp_path / "ws", None).correlate(**{**asdict(PAPER_CORRELATE), **PLAIN})
    strong = found.table[(found.table["npmi"] >= 0.5)]
    assert pairs_of(papers) == set(zip(strong["a"], strong["b"]))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 40), st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_counts_are_the_product_of_the_presences(n, m, k, seed):
    random = np.random.default_rng(seed)
    left, right = random.random((n, m)) < 0.4, random.random((n, k)) < 0.4
    columns, rows = csr_matrix(left, dtype=np.float32).tocsc(), csr_matrix(right, dtype=np.float32)
    rows.sort_indices()
    counts = left.T.astype(int) @ right.astype(int)
    wanted = random.integers(0, m, 3)
    assert np.array_equal(shared(wanted, columns, rows, False), counts[wanted])
    assert np.array_equal(shared(np.arange(m), columns, rows, True), np.triu(counts, 1))


def test_planted_pairs_are_found_and_nothing_else(tmp_path):
    """Ten corpora, four planted pairs in each among 1,225; a false pair would be one of 40."""
    planted = {(0, 1), (2, 3), (4, 5), (6, 7)}
    hits, false = 0, 0
    for seed in range(10):
        random = np.random.default_rng(seed)
        has = random.random((1000, 50)) < random.uniform(0.02, 0.4, 50)
        for i, j in planted:
            has[:, i] = random.random(1000) < 0.08
            has[:, j] = np.where(has[:, i], random.random(1000) < 0.7, random.random(1000) < 0.04)
        got = pairs_of(made(tmp_path / str(seed), has).correlate(**PLAIN))
        hits += len(got & planted)
        false += len(got - planted)
    assert hits == 40
    assert false <= 2


def test_nothing_is_found_where_length_is_all_there_is(tmp_path):
    """Long documents have more of everything: without matching nearly all pairs go together, with it none."""
    unmatched, matched = 0, 0
    for seed in range(10):
        random = np.random.default_rng(seed)
        tokens = np.exp(random.normal(4, 0.8, 1500)).astype(int) + 1
        has = random.random((1500, 30)) < np.minimum(0.5, random.uniform(0.001, 0.004, 30) * tokens[:, None])
        ws = made(tmp_path / str(seed), has, tokens=tokens)
        unmatched += len(ws.correlate(min_npmi=0.05, match_length=False, **PLAIN).table)
        matched += len(ws.correlate(min_npmi=0.05, **PLAIN).table)
    assert unmatched > 500
    assert matched <= 5


def test_the_half_that_did_not_select_is_not_flattered(tmp_path):
    """Where every pair is noise, the chosen ones look strong where they were chosen and like nothing where they were not."""
    random = np.random.default_rng(3)
    ws = made(tmp_path / "ws", random.random((300, 60)) < 0.12)
    anything = {"false_discovery": 1.0, "min_npmi": 0.15, **PLAIN}
    split, together = ws.correlate(**anything), ws.correlate(split=False, **anything)
    assert (split.documents, together.documents) == (150, 300)
    assert together.table["npmi"].mean() > 0.15
    assert abs((split.table["documents"] - split.table["expected"]).mean()) < 0.4
    held = ws.correlate(min_npmi=0.15, **PLAIN)
    assert len(held.table) == 0


def test_rare_features_and_rare_pairs_are_left_out(tmp_path):
    has = np.zeros((1000, 4), bool)
    has[:8, :2] = True  # eight documents with both: under one in a hundred
    has[:, 2] = np.arange(1000) % 5 == 0
    has[:100, 3] = True
    found = made(tmp_path / "ws", has).correlate(split=False, min_npmi=-1, false_discovery=1.0, **PLAIN)
    assert pairs_of(found) == {(2, 3)}
    assert any("2 of 4 features are looked at" in note for note in found.notes)
    loose = made(tmp_path / "loose", has).correlate(split=False, min_frequency=0.001, **PLAIN)
    assert pairs_of(loose) == {(0, 1), (0, 3), (1, 3)}
    assert tuple(loose.table[["a", "b", "npmi"]].iloc[0]) == (0, 1, pytest.approx(1))


def planted_names(*names):
    """Presence of four features that always go together, and their names."""
    has = np.zeros((400, len(names)), bool)
    has[:60] = True
    return has, list(names)


def test_names_that_say_the_same_or_tell_form_alone_are_left_out(tmp_path):
    has, names = planted_names(
        "goal, striker", "near “goal”, match", "a number, the first word", "-ing", "of the", "tax"
    )
    ws = made(tmp_path / "ws", has, names=names)
    found = ws.correlate(max_similarity=0.99, max_same_tokens=None)
    assert pairs_of(found) == {(0, 5), (1, 5)}
    assert any("3 that tell form alone" in note for note in found.notes)
    assert any("1 of 3 pairs have labels about the same" in note for note in found.notes)
    # The vectors of features 0 and 1 are made far apart by hand: centred, their cosine is -1/3.
    assert found.table.loc[found.table["a"] == 1, "similarity"].iloc[0] <= 0.99
    assert len(ws.correlate(form=True, max_similarity=None, max_same_tokens=None).table) == 15


def test_pairs_of_like_names_are_told_once(tmp_path):
    has, names = planted_names("goal, striker", "goal, keeper", "tax, levy", "tax, refund")
    found = made(tmp_path / "ws", has, names=names).correlate(max_similarity=0.99, max_same_tokens=None)
    assert len(found.table) == 1
    assert any("3 pairs say again" in note for note in found.notes)


# Tokens ---------------------------------------------------------------------------------------------

Coder = namedtuple("Coder", "reader codes")


def spelled_coder(width):
    """Reads a text as one token a letter, spaces left out; feature i fires on the i-th letter of the alphabet."""

    def read(texts):
        places = [[i for i, c in enumerate(text) if c != " "] for text in texts]
        letters = torch.tensor([ord(text[i]) - 97 for text, own in zip(texts, places) for i in own])
        offsets = torch.tensor(np.cumsum([0, *map(len, places)]))
        starts = torch.tensor([i for own in places for i in own])
        return TokenStates(letters[:, None].float(), offsets, torch.stack([starts, starts + 1], 1))

    def codes(states):
        return SparseCodes.from_dense(torch.nn.functional.one_hot(states[:, 0].long(), 26).float()[:, :width])

    return Coder(SimpleNamespace(read=read), codes)


def spelled(folder, texts):
    has = np.array([[letter in text for letter in "abcd"] for text in texts], float)
    names = ["ant", "bat", "cow", "doe"]
    return make_workspace(folder, texts, {}, has, names=names, coder=spelled_coder(4), shard=300, words=[])


def test_pairs_that_fire_on_the_same_tokens_are_left_out(tmp_path):
    # a and b always side by side, c and d far apart in the same documents.
    texts = ["zzabzzzzzz", "czzzzzzzzd", "zzzzzzzzzz", "zzzzzzz"] * 60
    ws = spelled(tmp_path / "ws", texts)
    every = ws.correlate(max_same_tokens=None, max_similarity=None)
    assert pairs_of(every) == {(0, 1), (2, 3)}
    assert every.table["same_tokens"].isna().all()
    found = ws.correlate(max_similarity=None)
    assert pairs_of(found) == {(2, 3)}
    assert found.table["same_tokens"].iloc[0] < 0.1
    assert any("1 of the 2 strongest pairs are on the same tokens" in note for note in found.notes)


def test_how_far_two_fire_on_the_same_tokens(tmp_path):
    texts = ["abzzzzzz", "azzzzzzb", "aaaaaaab", "zzzzzzzz"]
    ws = spelled(tmp_path / "ws", texts)
    level = np.full(4, 0.5)

    def of(*documents):
        return same_tokens(ws, [(0, 1)], [np.array(documents)], level, Progress(False))[0]

    assert of(0) == 1
    assert of(1) < 0
    assert of(2) == 0  # a is everywhere, so that b is beside it says nothing
    assert np.isnan(of(3))
    assert of(0, 1) == pytest.approx((of(0) + of(1)) / 2)


# Two texts ------------------------------------------------------------------------------------------


def test_across_two_texts_documents_are_matched_by_id(tmp_path):
    random = np.random.default_rng(5)
    prompts = random.random((500, 6)) < 0.2
    answers = random.random((500, 5)) < 0.2
    answers[:, 4] = np.where(prompts[:, 2], random.random(500) < 0.8, random.random(500) < 0.1)
    ids = [f"d{i}" for i in range(500)]
    shuffled = random.permutation(500)[:450]
    left = made(tmp_path / "prompts", prompts, ids=ids)
    names = [f"answer{i}" for i in range(5)]
    right = made(tmp_path / "answers", answers[shuffled], ids=[ids[i] for i in shuffled], names=names)
    found = left.correlate(right, **PLAIN)
    assert pairs_of(found) == {(2, 4)}
    assert found.tested == 30
    assert found.documents == 225
    assert any("450 documents have the same id in both, of 500 and 450" in note for note in found.notes)
    row = found.table.iloc[0]
    assert row["b_given_a"] == pytest.approx(0.8, abs=0.15)
    assert row["label_b"] == "answer4"


def test_different_encoders_are_told(tmp_path):
    has, names = planted_names("goal", "tax")
    left, right = made(tmp_path / "a", has, names=names), made(tmp_path / "b", has, names=["tax rate", "fish"])
    right.manifest["settings"]["encoder"] = "another"
    found = left.correlate(right)
    assert pairs_of(found) == {(0, 0), (0, 1), (1, 1)}
    assert any("different encoders" in note for note in found.notes)


def test_mistakes_are_named(tmp_path):
    has, names = planted_names("goal", "tax")
    ws = made(tmp_path / "a", has, names=names)
    with pytest.raises(ConfigError, match=r"no option 'min_npim'.*did you mean 'min_npmi'"):
        ws.correlate(min_npim=0.5)
    with pytest.raises(ConfigError, match="min_frequency 2: expected a share, from 0 to 1"):
        ws.correlate(min_frequency=2)
    with pytest.raises(InputError, match="the other workspace is the same one"):
        ws.correlate(ws)
    with pytest.raises(InputError, match=r"0 documents have the same id \(explore both with --id\); at least 20"):
        ws.correlate(made(tmp_path / "b", has, names=names, ids=[f"x{i}" for i in range(400)]))
    with pytest.raises(InputError, match="12 documents; at least 20"):
        made(tmp_path / "few", has[:12], names=names).correlate()


def test_few_documents_are_not_split_and_nothing_gives_an_empty_table(tmp_path):
    has = np.zeros((60, 3), bool)
    has[:20, :2] = True
    found = made(tmp_path / "ws", has).correlate(**PLAIN)
    assert found.documents == 60
    assert any("Fewer than 80" in note for note in found.notes)
    assert pairs_of(found) == {(0, 1)}
    empty = made(tmp_path / "none", np.zeros((100, 3), bool)).correlate()
    assert len(empty.table) == 0
    assert empty.tested == 0
    assert empty.to_dict()["rows"] == []


# The judge ------------------------------------------------------------------------------------------


def test_a_judge_verifies_pairs():
    random = np.random.default_rng(0)
    truth = random.random(200) < 0.3
    judged = pd.DataFrame(
        {7: truth.astype(float), 9: (truth & (random.random(200) < 0.9)).astype(float), 11: np.ones(200)}
    )
    judged.loc[:9, 9] = np.nan  # no verdict
    kinds = {"kind_a": "feature", "label_a": "x", "kind_b": "feature", "label_b": "y"}
    pairs = pd.DataFrame({"a": [7, 7], "b": [9, 11], "npmi": [0.5, 0.5]}, index=[4, 2]).assign(**kinds)
    got = verified(pairs, judged, judged)
    seen = judged.dropna()
    both, p_a, p_b = (seen[7] * seen[9]).mean(), seen[7].mean(), seen[9].mean()
    assert got.loc[4, "verified_npmi"] == pytest.approx(np.log(both / (p_a * p_b)) / -np.log(both))
    assert got.loc[4, "verified_documents"] == 190
    assert np.isnan(got.loc[2, "verified_npmi"])
    assert list(got.index) == [4, 2]


def test_pairs_of_the_same_documents_are_one_finding(tmp_path):
    """Features 1, 2 and 3 are one phrase; 4 and 5 go together elsewhere."""
    random = np.random.default_rng(0)
    has = np.zeros((400, 6), bool)
    has[:, [1, 2, 3]] = (random.random(400) < 0.2)[:, None]
    has[:, [4, 5]] = (random.random(400) < 0.2)[:, None]
    has[:, 5] |= random.random(400) < 0.05
    names = [None, "text", "dark", "unreadable", "lamp", "box"]
    found = made(tmp_path / "ws", has, names=names).correlate(**PLAIN)
    pairs = {(r.a, r.b): r.same_as for r in found.table.itertuples()}
    assert set(pairs) == {(1, 2), (1, 3), (2, 3), (4, 5)}  # all are told, with the q of their test
    assert found.table["same_as"].isna().sum() == 2
    leader = found.table[found.table["same_as"].isna() & (found.table["a"] < 4)].index[0]
    assert all(pairs[pair] == leader for pair in ((1, 2), (1, 3), (2, 3)) if not pd.isna(pairs[pair]))
    assert {row["same_as"] for row in found.to_dict()["rows"]} == {None, leader}


# Words ----------------------------------------------------------------------------------------------


def said(number, pairs, seed=0, rest="the way of it", share=0.25):
    """Texts in which the two words of each pair stand far apart, together more often than not; one word in each is its own."""
    random = np.random.default_rng(seed)
    texts = []
    for i in range(number):
        first = random.random(len(pairs)) < share
        second = np.where(first, random.random(len(pairs)) < 0.9, random.random(len(pairs)) < 0.05)
        here = [pair[0] for pair, has in zip(pairs, first) if has], [pair[1] for pair, has in zip(pairs, second) if has]
        texts.append(" of ".join([*here[0], rest, f"x{i}", rest, *here[1]]))
    return texts


def of_texts(folder, texts, names=(None,), maxima=None, **more):
    """A workspace whose encoder tells no word from another and whose features have these names; none is anywhere."""
    blind = spelled_coder(4)
    blind.reader.read = lambda texts: TokenStates(
        torch.zeros(len(texts), 4), torch.arange(len(texts) + 1), torch.empty(0, 2)
    )
    maxima = np.zeros((len(texts), len(names))) if maxima is None else maxima
    return make_workspace(folder, texts, {}, maxima, names=list(names), coder=blind, shard=300, **more)


def told(found):
    """The findings of a table."""
    rows = found.table[found.table["same_as"].isna()]
    return {frozenset([a, b]) for a, b in zip(rows["label_a"], rows["label_b"])}


def test_words_are_found_where_no_feature_is(tmp_path):
    ws = of_texts(tmp_path / "ws", said(600, [("lamp", "ceiling"), ("sail", "wind")]))
    found = ws.correlate(max_same_tokens=None)
    assert told(found) == {frozenset(["lamp", "ceiling"]), frozenset(["sail", "wind"])}
    row = found.table.iloc[0]
    assert (row["kind_a"], row["kind_b"]) == ("word", "word") and pd.isna(row["a"]) and pd.isna(row["b"])
    of_json = found.to_dict()["rows"][0]
    assert of_json["a"] is None and of_json["kind_a"] == "word" and isinstance(of_json["label_a"], str)


def test_a_feature_and_the_word_that_names_it_are_one(tmp_path):
    texts = said(600, [("lamp", "ceiling")])
    has = np.array([["lamp" in text, "ceiling" in text] for text in texts], float)
    found = of_texts(tmp_path / "ws", texts, ["lamp", "roof"], has).correlate(max_same_tokens=None)
    # "lamp" the word says again what "lamp" the feature says; "roof" and "ceiling" are the same documents.
    assert len(told(found)) == 1
    assert not found.table.duplicated(["label_a", "label_b"]).any()


def test_words_of_shuffled_texts_do_not_go_together(tmp_path):
    pairs = [(f"left{c}", f"right{c}") for c in "abcdefgh"]
    found = 0
    for seed in range(5):
        texts = said(400, pairs, seed)
        left = of_texts(tmp_path / f"left{seed}", [text.split(" of x")[0] for text in texts])
        after = [text.split(" of x")[1] for text in texts]
        right = of_texts(tmp_path / f"right{seed}", after)
        assert told(left.correlate(right)) == {frozenset(pair) for pair in pairs}
        shuffled = np.random.default_rng(seed).permutation(after).tolist()
        found += len(left.correlate(of_texts(tmp_path / f"shuffled{seed}", shuffled)).table)
    assert found <= 1


def test_form_and_what_has_no_name_count_across_two_texts_alone(tmp_path):
    """ "How" goes with a refund, and so do a feature that nobody could name and one of "the"."""
    random = np.random.default_rng(0)
    asks = random.random(600) < 0.2
    answers, *has = (np.where(random.random(600) < 0.1, ~asks, asks) for _ in range(3))
    maxima = np.stack(has, 1).astype(float)
    questions = [f"{'how' if a else 'when'} x{i}" for i, a in enumerate(asks)]
    left = of_texts(tmp_path / "left", questions, [None, "the"], maxima)
    right = of_texts(tmp_path / "right", [f"{'refund' if a else 'parcel'} x{i}" for i, a in enumerate(answers)])
    rows = left.correlate(right).table
    assert {"how", "the", None} <= set(rows["label_a"])
    assert rows.loc[rows["label_a"].isna(), "a"].tolist() == [0] * int(rows["label_a"].isna().sum())
    assert len(left.correlate(right, form=False).table) == 0
    together = [f"{q} {a}" for q, a in zip(questions, ["refund" if a else "parcel" for a in answers])]
    within = of_texts(tmp_path / "within", together, [None, "the"], maxima)
    assert len(within.correlate(max_same_tokens=None).table) == 0
    assert {"how", "the"} <= set(within.correlate(max_same_tokens=None, form=True).table["label_a"])


def test_words_stand_on_the_tokens_that_they_are_made_of(tmp_path):
    ws = spelled(tmp_path / "ws", ["ab zz dd cc zz zz", "zz zz zz"])
    level = np.full(4, 0.5)

    def of(*pair):
        return same_tokens(ws, [pair], [np.array([0])], level, Progress(False))[0]

    assert of(0, "ab") == 1
    assert of(0, "cc") < 0
    assert of("dd cc", "cc") == 1
    assert of("dd", "cc") > 0  # side by side


def test_a_word_is_judged_as_a_feature_is(tmp_path):
    ws = of_texts(tmp_path / "ws", said(600, [("lamp", "ceiling")]))
    row = ws.correlate(judge="rule", max_same_tokens=None).table.iloc[0]
    assert row["verified_joint"] == row["documents"] and row["verified_npmi"] > 0.3
