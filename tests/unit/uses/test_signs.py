"""Words, pairs of words and signs: what a text has, where it stands, and what a pattern of it finds."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hourglass.uses.explore.hypotheses import pattern_of
from hourglass.uses.explore.words import is_sign, places, terms, vocabulary, word_presence
from workspaces import make_workspace

ANSWER = """1. Sure! Here's a list:

10) **One** thing...
 - two “quotes”
## I am ------"""


def said(text):
    return [term for term, _, _ in terms(text)]


def test_words_pairs_and_signs_of_a_text_in_their_order():
    assert said(ANSWER) == [
        "a line that begins with “1.”",
        *("sure", "!", "here's", "sure here's", "a", "list", "here's list", ":"),
        *("an empty line", "a line that begins with “1)”", "**", "one", "list one", "**", "thing", "one thing", "..."),
        *("a line break", "a line that begins with “-”", "two", "thing two", "“", "quotes", "two quotes", "”"),
        *("a line break", "a line that begins with “#”", "i", "am", "quotes am", "---"),
    ]


@pytest.mark.parametrize("text", ["", " \n\n ", "word\n", "word \r\n\r\n"])
def test_white_space_at_the_end_is_no_line(text):
    assert said(text) == (["word"] if "word" in text else [])


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ("3.5 is", []),
        ("2019. It", []),
        ("-5", []),
        ("**bold**", []),
        ("7. It", ["1."]),
        ("> said", [">"]),
        ("--- x", ["-"]),
    ],
)
def test_what_begins_a_line_as_that_of_a_list(text, begins):
    assert [t.split("“")[1][:-1] for t in said(text) if t.startswith("a line that begins")] == begins


TEXT = st.text(alphabet="aAbé’'-*.1?“ \n\t\r#:", max_size=40)


@given(TEXT)
def test_each_stands_where_it_is_said_to(text):
    for term, start, end in terms(text):
        assert 0 <= start < end <= len(text)
        if not is_sign(term):
            assert text[start:end].lower().split()[0].startswith(term.split()[0])
            assert text[:end].lower().endswith(term.split()[-1])


@given(TEXT)
def test_the_pattern_of_a_sign_finds_the_texts_that_have_it(text):
    has = set(said(text))
    lines = [f"a line that begins with “{mark}”" for mark in ("-", "*", "#", "1.", "1:")]
    for term in ("a line break", "an empty line", *lines):
        assert (pattern_of(term).search(text) is not None) == (term in has)
    for term in has & {"?", "“", ":", "."}:
        assert pattern_of(term).search(text)


@given(st.lists(TEXT, min_size=1, max_size=8))
def test_presence_is_what_each_text_has(texts):
    words = vocabulary(texts)
    expected = [[float(word in set(said(text))) for word in words] for text in texts]
    assert word_presence(texts, words).toarray().tolist() == expected
    for text in texts:
        found = places(text, set(words))
        assert set(found) == set(said(text)) & set(words)
        assert all(said(text).count(word) == len(at) for word, at in found.items())


@pytest.mark.parametrize("part", ["\n", " \n", "- ", "1. ", "-", "a-", "“\n", " ", "\n\n a"])
def test_time_grows_with_the_text_and_not_with_its_square(part):
    text = "so" + 100_000 * part
    started = time.process_time()
    for _ in terms(text):
        pass
    for term in ("a line break", "an empty line", "a line that begins with “-”"):
        pattern_of(term).search(text[:20_000])
    assert time.process_time() - started < 5  # a second or less; hours where it grew with the square


def test_a_sign_is_no_word():
    assert all(map(is_sign, ("!", "i", "5", "**", "an empty line", "a line that begins with “1.”")))
    assert not any(map(is_sign, ("am", "here's", "two words", "55")))


def test_diff_tells_a_list_by_the_beginnings_of_its_lines(tmp_path):
    texts = ["Buy milk and bread", "- buy milk\n- and bread"] * 40
    maxima = np.ones((80, 2))
    ws = make_workspace(tmp_path / "ws", texts, {"how": ["plain", "list"] * 40}, maxima)
    (found,) = ws.diff("how", "list", "plain")
    assert found.table["label"].tolist()[:2] == ["a line break", "a line that begins with “-”"]
    assert (found.table["difference"].head(2) == 1).all()
