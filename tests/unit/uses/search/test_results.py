"""The passage that is shown of a document, and what is marked in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("lance")
pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.results import best_passage
from hourglass.uses.search.words import Words

ENGLISH = Words()
PLAIN = Words(stem=None, stop_words=None)


def shown(text, query, words=ENGLISH):
    passage, marks = best_passage(text, set(words(query)), words)
    assert text[passage.start : passage.stop] == passage.text
    return passage.text, [passage.text[start:stop] for start, stop in marks]


def test_the_sentence_with_most_of_the_querys_words_is_shown_and_they_are_marked():
    text = "Nothing of it here. Engines stall. An engine that is running stalls in the cold! Cold it was."
    assert shown(text, "running engines in the cold") == (
        "An engine that is running stalls in the cold!",
        ["engine", "running", "cold"],
    )


def test_a_word_that_is_rare_in_the_text_counts_more():
    text = "Red is a colour. Red is warm. Blue is not. Red is red."
    assert shown(text, "red blue")[0] == "Blue is not."


def test_without_a_word_of_the_query_the_first_sentence_is_shown():
    assert shown("One here. Two there.", "zebra") == ("One here.", [])
    assert shown("...", "zebra") == ("...", [])


def test_of_a_long_sentence_a_window_is_shown():
    text = " ".join(f"w{i}" for i in range(300))
    passage, marks = shown(text, "w250 w251", PLAIN)
    assert len(passage.split()) == 40
    assert marks == ["w250", "w251"]


def test_marks_of_scripts_without_spaces_do_not_overlap():
    assert shown("これは日本語です。", "日本語", PLAIN) == ("これは日本語です。", ["日本語"])


@given(st.text(max_size=80), st.text(max_size=20))
def test_marks_are_in_order_and_within_the_passage(text, query):
    passage, marks = best_passage(text, set(PLAIN(query)), PLAIN)
    flat = [place for mark in marks for place in mark]
    assert flat == sorted(flat)
    assert all(0 <= start < stop <= len(passage.text) for start, stop in marks)


def test_results_carry_the_columns_and_say_what_was_searched(tmp_path):
    source = [{"id": "a", "text": "Red stones.", "year": 1}, {"id": "b", "text": "Blue.", "year": 2}]
    index = SearchIndex.create(source, tmp_path / "ix", encoder=None, progress=False)
    found = index.search("a red stone")
    assert found.table.to_dict("records") == [{"id": "a", "score": found[0].score, "passage": "Red stones.", "year": 1}]
    assert found[0].marked("<", ">") == "<Red> <stones>."
    assert list(index.search("zebra").table.columns) == ["id", "score", "passage"]
    assert index.where("year > 1").search("red stone").to_dict()["searched"] == 1
