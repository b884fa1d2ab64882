"""Terms of texts in many scripts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

from hourglass.errors import ConfigError
from hourglass.uses.search.words import Words

PLAIN = Words(stem=None, stop_words=None)


def test_stems_and_stop_words_are_of_the_language_that_is_named():
    assert Words()("The runners are running to Köln") == ["runner", "run", "köln"]
    assert Words(stem="german", stop_words="german")("Die Häuser und der Garten") == ["haus", "gart"]
    assert PLAIN("The runners") == ["the", "runners"]


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("日本語", ["日", "日本", "本", "本語", "語"]),
        ("Ελληνικά, русский", ["ελληνικά", "русский"]),
        ("ﬁne ＡＢＣ x_1", ["fine", "abc", "x_1"]),
        ("GPT4は強い", ["gpt4", "は", "は強", "強", "強い", "い"]),
        ("!?", []),
    ],
)
def test_words_of_other_scripts_are_found(text, terms):
    assert PLAIN(text) == terms


@given(st.text())
def test_spans_are_where_the_terms_are(text):
    spans = list(PLAIN.spans(text))
    assert [term for _, _, term in spans] == PLAIN(text)
    assert all(0 <= start < stop <= len(text) for start, stop, _ in spans)


def test_a_language_that_there_is_not_is_named():
    with pytest.raises(ConfigError, match=r"no stems of 'englisch' \(did you mean 'english'\?\)"):
        Words(stem="englisch")
    with pytest.raises(ConfigError, match="no stop words of 'klingon'"):
        Words(stop_words="klingon")
