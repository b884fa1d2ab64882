"""Words by their beginnings, so that "award" and "awards" count as one."""

from __future__ import annotations

import re

from hourglass.uses.explore.labels import FUNCTION_WORDS

_LETTERS = 5  # by which words count as the same


def stems(text: str) -> set[str]:
    """The words of a text by their beginnings, words such as "the" only where there is no other."""
    words = set(re.findall(r"\w+", text.lower()))
    return {word.rstrip("s")[:_LETTERS] for word in words - FUNCTION_WORDS or words} or {text}  # a sign, such as "%"
