"""Which scripts texts are written in, by the Unicode names of their letters."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable

SHARE = 0.01
"""Of all letters, from which on a script is one of those that texts are in: others are a name or a slip."""


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


def scripts_of(texts: Iterable[str]) -> list[str]:
    """The scripts that texts are in, in alphabetical order."""
    letters = letters_by_script(texts)
    return sorted(script for script, count in letters.items() if count >= SHARE * letters.total())


def other_script(text: str, known: Collection[str]) -> str | None:
    """The script that a text has most letters of, where fewer than half of its letters are of the known scripts."""
    letters = letters_by_script([text])
    if 2 * sum(letters[script] for script in known) >= letters.total():
        return None
    return letters.most_common(1)[0][0]
