"""Which scripts texts are written in, by the Unicode names of their letters."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable


def letters_by_script(texts: Iterable[str]) -> Counter[str]:
    """How many letters there are of "LATIN", "CYRILLIC", "CJK", ...: a script is what the names of its letters begin with."""
    characters: Counter[str] = Counter()
    for text in texts:
        characters.update(text)
    found: Counter[str] = Counter()
    for character, count in characters.items():
        plain = unicodedata.normalize("NFKC", character)[0]  # a wide or mathematical A is one
        if plain.isalpha():
            found[unicodedata.name(plain, "UNKNOWN").partition(" ")[0]] += count
    return found
