"""A text parted into sentences that are, joined, the text: nothing is lost, whatever it holds.

    segment("It is 3.14, e.g., here: http://a.org/b?c. Then", "clause")
    # ["It is 3.14, ", "e.g., ", "here: ", "http://a.org/b?c. ", "Then"]

White space stays with the sentence before it. A text without an end of a sentence is one sentence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

Rule = Literal["clause", "sentence", "paper"]
"""What ends a sentence:

clause    , . ! ? ; : " and the like where white space follows or the text ends, full-width marks anywhere, a line's end
sentence  . ! ? and the like where white space follows, the full stops of other scripts anywhere, an empty line
paper     the marks of "clause" wherever they stand, so that 3.14 is two: as SentenceVAE's authors cut

In the first two a full stop ends no sentence after an abbreviation or an initial, nor before a small letter.
"""

_CLOSING = r"[\"'”’»)\]}]*"
_FAR_CLOSING = r"[”’』」）》\"]*"
_ENDS: Mapping[Rule, re.Pattern[str]] = {
    "clause": re.compile(
        rf"(?:(?P<marks>[,.!?…;:]+){_CLOSING}(?=\s|\Z)|[\"”»](?=\s|\Z)|[，。！？；：、।॥؟۔።]+{_FAR_CLOSING}|\n)\s*"
    ),
    "sentence": re.compile(
        rf"(?:(?P<marks>[.!?…]+){_CLOSING}(?=\s|\Z)|[。！？।॥؟۔።]+{_FAR_CLOSING}|\n[^\S\n]*(?=\n))\s*"
    ),
    "paper": re.compile(r"(?:[,.!?;:，。！？；：][\"”“]?|[\"”“]|\n)\s*"),
}
_BREAK: Mapping[Rule, re.Pattern[str]] = {"clause": re.compile(r"\n"), "sentence": re.compile(r"\n[^\S\n]*\n")}
"""White space that ends a sentence whatever stands before it."""
_LAST_WORD = re.compile(r"(?:[^\W\d_]+\.)*[^\W\d_]+\Z")
_LONGEST_WORD = 24
_BEFORE_NAMES = "mr|mrs|ms|dr|prof|st|rev|gen|col|capt|lt|sgt|hon|messrs|vs|cf|fig|eq|no|vol"
_BEFORE_FIGURES = (
    "jr|sr|etc|al|approx|figs|eqs|sec|ch|nos|pp|ed|eds|dept|ave|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|ca"
)
_SHORT_NAMES = re.compile(_BEFORE_NAMES, re.I)
_SHORT_FIGURES = re.compile(f"{_BEFORE_NAMES}|{_BEFORE_FIGURES}", re.I)
"""Words that a full stop shortens, before a name or a figure."""
_UNSPACED = re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]\Z")


def segment(text: str, rule: Rule = "clause") -> list[str]:
    """The sentences of a text, none of them empty; of "" none. White space that a text begins with is the first one's."""
    if not text:
        return []
    begins = len(text) - len(text.lstrip())
    cuts = [
        found.end()
        for found in _ENDS[rule].finditer(text)
        if begins < found.end() < len(text) and not _goes_on(text, found, rule)
    ]
    return [text[start:stop] for start, stop in pairwise([0, *cuts, len(text)])]


def ended(text: str) -> str:
    """The text with the white space that stands between it and a next sentence, where it has none and its script has some."""
    return text if not text or text[-1].isspace() or _UNSPACED.search(text) else text + " "


def _goes_on(text: str, found: re.Match[str], rule: Rule) -> bool:
    """Whether the sentence goes on after a mark: a single full stop behind an abbreviation, or before a small letter."""
    if rule == "paper" or found["marks"] != "." or _BREAK[rule].search(text, found.end("marks"), found.end()):
        return False
    following = text[found.end() : found.end() + 1]
    if following.islower():
        return True
    stop = found.start("marks")
    last = _LAST_WORD.search(text[max(0, stop - _LONGEST_WORD) : stop])
    if last is None:
        return False
    word = last.group()
    initials = word.split(".")
    if all(len(part) == 1 for part in initials) and (len(initials) > 1 or (word.isupper() and word != "I")):
        return True
    return (_SHORT_FIGURES if following.isdigit() else _SHORT_NAMES).fullmatch(word) is not None
