"""Sentences of a text: joined they are the text, and they are cut where a reader would."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hourglass.data.sentences import Rule, ended, segment

RULES = get_args(Rule)
MARKS = st.text(alphabet=" \n\t.,!?;:\"”“，。！？、।؟…'()aBé漢3\u3000\u2028", max_size=60)


@pytest.mark.parametrize("rule", RULES)
@given(text=st.one_of(MARKS, st.text()))
@example(text="\n\n a")
@example(text="...")
@example(text=" ")
def test_joined_sentences_are_the_text_and_none_is_empty(rule, text):
    parts = segment(text, rule)
    assert "".join(parts) == text
    assert all(parts)
    # White space alone is a sentence only where there is nothing else.
    assert all(part.strip() for part in parts) or len(parts) == 1


@pytest.mark.parametrize(
    ("rule", "text", "parts"),
    [
        ("clause", "It is 3.14, e.g., here: done.", ["It is 3.14, ", "e.g., ", "here: ", "done."]),
        ("clause", "See http://a.org/b?c=1:2, or ask.", ["See http://a.org/b?c=1:2, ", "or ask."]),
        ("clause", "At 12:30 Mr. Smith and J. R. Hall left.", ["At 12:30 Mr. Smith and J. R. Hall left."]),
        ("clause", 'He said "yes." Then "no" and left', ['He said "yes." ', 'Then "no" ', "and left"]),
        ("clause", "one\n  two\n", ["one\n  ", "two\n"]),
        ("clause", "从前，有一个人。他走了", ["从前，", "有一个人。", "他走了"]),
        ("sentence", "One, two: three. Four? Five", ["One, two: three. ", "Four? ", "Five"]),
        (
            "sentence",
            "Wrapped\nline. U.S. forces, i.e. some, came.",
            ["Wrapped\nline. ", "U.S. forces, i.e. some, came."],
        ),
        ("sentence", "A title\n\nA text (or so). End", ["A title\n\n", "A text (or so). ", "End"]),
        ("sentence", "See Fig. 3 and No. 4. Dr. Who came", ["See Fig. 3 and No. 4. ", "Dr. Who came"]),
        ("sentence", "यह है। वह भी", ["यह है। ", "वह भी"]),
        ("paper", "It is 3.14, e.g. so", ["It is 3.", "14, ", "e.", "g. ", "so"]),
        ("paper", 'He said "yes." no end', ['He said "', 'yes." ', "no end"]),
    ],
)
def test_where_it_cuts(rule, text, parts):
    assert segment(text, rule) == parts


@pytest.mark.parametrize("rule", RULES)
def test_a_text_without_an_end_is_one_sentence(rule):
    assert segment("ข้อความที่ไม่มีจุด", rule) == ["ข้อความที่ไม่มีจุด"]


def test_a_sentence_gets_the_space_that_comes_before_the_next_one():
    assert ended("It rains.") == "It rains. "
    assert ended("It rains.\n") == "It rains.\n"
    assert ended("下雨了。") == "下雨了。"
