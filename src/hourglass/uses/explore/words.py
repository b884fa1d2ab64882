"""Words, word pairs and signs of documents: the plain rival that every difference between features is shown beside.

A sign is what stands between words, such as "!", "**" or a lone letter, and how lines are broken and begun, as those of a list
are. A reader that takes all white space for one keeps nothing of lines.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer

_TERM = re.compile(
    r"""
    ^[^\S\n]* (?: (?P<bullet> [-*•+\#>] ) (?P=bullet)* (?!\S) | \d{1,3} (?P<number> [.):] ) (?!\w) )
    | (?P<word> \b\w[\w'’-]*\w\b )
    | (?P<break> \n ) (?P<empty> \s*\n )?
    | (?P<sign> (?P<one>\S) (?P=one){0,2} ) (?P=one)*
    """,
    re.MULTILINE | re.VERBOSE,
)
_BREAK, _EMPTY, _BEGINS, _NUMBERED = "a line break", "an empty line", "a line that begins with “", "1"


def terms(text: str) -> Iterator[tuple[str, int, int]]:
    """Each word, pair of words and sign of a text, as often as it is there, with its first and past-last character.

    A sign that is repeated counts as three of it at most; a number that begins a line is always "1".
    """
    before = ("", 0)
    for match in _TERM.finditer(text.rstrip()):  # what ends a text parts nothing
        start, end = match.span()
        if match["word"]:
            word = match["word"].lower()
            yield word, start, end
            if before[0]:
                yield f"{before[0]} {word}", before[1], end
            before = (word, start)
        elif match["sign"]:
            yield match["sign"].lower(), start, end
        elif match["break"]:
            yield _EMPTY if match["empty"] else _BREAK, start, end
        else:
            yield f"{_BEGINS}{match['bullet'] or _NUMBERED + match['number']}”", start, end


def vocabulary(texts: Sequence[str], limit: int = 30_000) -> list[str]:
    """The commonest words, word pairs and signs of `texts`, in alphabetical order; those in under 3 documents are left out."""
    counter = _counter(min_df=min(3, len(texts)), max_features=limit)
    try:
        counter.fit(texts)
    except ValueError:  # no word at all, as in a corpus of very few documents
        return []
    return sorted(counter.vocabulary_)


def word_presence(texts: Sequence[str], words: Sequence[str]) -> csr_matrix:
    """Documents x words, 1 where the document has the word."""
    if not words:
        return csr_matrix((len(texts), 0), dtype="float32")
    return _counter(vocabulary=words, dtype="float32").transform(texts)


def places(text: str, words: Collection[str]) -> dict[str, list[tuple[int, int]]]:
    """First and past-last character of each of `words`, single ones, pairs or signs, wherever it stands in the text."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    if words:
        for term, start, end in terms(text):
            if term in words:
                found[term].append((start, end))
    return found


def is_sign(term: str) -> bool:
    """Whether a term is a sign: a lone letter or number, too."""
    return _is_of_lines(term) or len(term) == 1 or not any(map(str.isalnum, term))


def pattern_of_lines(term: str) -> re.Pattern[str] | None:
    """What a sign of lines looks like in a text; None for any other term."""
    if not _is_of_lines(term):
        return None
    if term in (_BREAK, _EMPTY):
        return re.compile(r"\n[^\S\n]*\n\s*+\S" if term == _EMPTY else r"(?:\A|\S)[^\S\n]*\n[^\S\n]*\S")
    mark = term.removeprefix(_BEGINS).removesuffix("”")
    begun = rf"\d{{1,3}}{re.escape(mark[1:])}(?!\w)" if mark.startswith(_NUMBERED) else rf"{re.escape(mark)}+(?!\S)"
    return re.compile(rf"^[^\S\n]*{begun}", re.MULTILINE)


def _is_of_lines(term: str) -> bool:
    return term in (_BREAK, _EMPTY) or term.startswith(_BEGINS)


def _counter(**options: object) -> CountVectorizer:
    return CountVectorizer(analyzer=lambda text: (term for term, _, _ in terms(text)), binary=True, **options)
