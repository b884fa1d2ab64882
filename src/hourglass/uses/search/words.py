"""The terms of a text, for an index of words: any script, with stop words and stems of a language where one is named.

    Words(stem="english", stop_words="english")("Running in Köln")    # ["run", "köln"]

A word is a run of letters, marks and digits. Scripts that set no space between words (Chinese, Japanese, Thai, Lao, Khmer,
Burmese) give every sign and every pair of neighbours. Terms are in lower case and NFKC: full-width and half-width letters are
the same.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, final

import regex

from hourglass.errors import ConfigError, MissingExtra, nearest

_RUN = regex.compile(
    r"(?P<unspaced>[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]+)"
    r"|(?P<word>[\w--[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]]+)",
    regex.V1,
)
_ASCII = regex.compile(r"[a-z0-9_]+")
_STEMS_KEPT = 200_000


@final
class Words:
    """Texts to terms.

    stem        language of Snowball's stemmer, or None
    stop_words  language whose most frequent words are left out, or None

    Raises ConfigError for a language that there is not, MissingExtra where the extra `search` is not installed.
    """

    def __init__(self, stem: str | None = "english", stop_words: str | None = "english") -> None:
        self.stem, self.stop_words = stem, stop_words
        self._stop = _stop_words(stop_words)
        stemmer = _stemmer(stem)
        self._term = lru_cache(_STEMS_KEPT)(stemmer.stemWord if stemmer else str)

    def __call__(self, text: str) -> list[str]:
        if text.isascii():
            stop, term = self._stop, self._term
            return [term(word) for word in _ASCII.findall(text.lower()) if word not in stop]
        return [term for _, _, term in self.spans(text)]

    def spans(self, text: str) -> Iterator[tuple[int, int, str]]:
        """(start, stop, term) of each, in characters of the text."""
        for match in _RUN.finditer(text):
            start, stop = match.span()
            if match.lastgroup == "word":
                word = unicodedata.normalize("NFKC", match[0]).lower()
                if word not in self._stop:
                    yield start, stop, self._term(word)
                continue
            for at in range(start, stop):
                yield at, at + 1, unicodedata.normalize("NFKC", text[at])
                if at + 1 < stop:
                    yield at, at + 2, unicodedata.normalize("NFKC", text[at : at + 2])

    def settings(self) -> dict[str, Any]:
        return {"stem": self.stem, "stop_words": self.stop_words}


def _stop_words(language: str | None) -> frozenset[str]:
    if language is None:
        return frozenset()
    try:
        from bm25s import stopwords
    except ImportError:
        raise MissingExtra("search by words", "search") from None
    prefix = "STOPWORDS_"
    lists = {
        name.removeprefix(prefix).lower(): getattr(stopwords, name)
        for name in dir(stopwords)
        if name.startswith(prefix)
    }
    lists["english"] = lists.pop("en")
    lists.pop("en_plus", None)
    if language not in lists:
        raise ConfigError(f"no stop words of {language!r}{nearest(language, lists)}")
    return frozenset(unicodedata.normalize("NFKC", word).lower() for word in lists[language])


def _stemmer(language: str | None) -> Any:
    if language is None:
        return None
    try:
        import Stemmer
    except ImportError:
        raise MissingExtra("stems of words", "search") from None
    known = Stemmer.algorithms()
    if language not in known:
        raise ConfigError(f"no stems of {language!r}{nearest(language, known)}")
    return Stemmer.Stemmer(language)
