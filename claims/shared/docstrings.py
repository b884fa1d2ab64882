"""Docstrings of the installed packages: the data of claims where there is no other, and rules that tell how one is."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from hourglass.data import open_texts
from hourglass.data.judged import Judged


def docstrings(number: int, longest: int | None = None) -> list[str]:
    """The first `number` docstrings, in the order of packages; of at most `longest` characters, if that is given."""
    texts: list[str] = []
    for batch in open_texts("docstrings:").batches():
        texts += [text for text in batch.column("text").to_pylist() if longest is None or len(text) <= longest]
        if len(texts) >= number:
            break
    return texts[:number]


def first_lines(number: int, longest: int | None = None) -> list[tuple[str, str, str]]:
    """(first line, rest, package) of those of the first `number` docstrings that have both, no first line and no rest twice; with a
    rest of at most `longest` characters, if that is given.
    """
    found: dict[str, tuple[str, str, str]] = {}
    bodies: set[str] = set()
    read = 0
    for batch in open_texts("docstrings:").batches():
        for text, package in zip(batch.column("text").to_pylist(), batch.column("package").to_pylist()):
            line, _, body = (part.strip() for part in text.strip().partition("\n"))
            if longest is not None and len(body) > longest:
                continue
            if len(line.split()) < 3 or len(body.split()) < 12 or line[:80].lower() in found or body[:200] in bodies:
                continue
            bodies.add(body[:200])
            found[line[:80].lower()] = line, body, package
        read += batch.num_rows
        if read >= number:
            break
    return list(found.values())


def to_bodies(known: Sequence[tuple[str, str, str]], asked: int) -> Judged:
    """The first lines of the first `asked` of `first_lines` are to find their bodies among all."""
    return Judged(
        {str(i): body for i, (_, body, _) in enumerate(known)},
        {str(i): line for i, (line, _, _) in enumerate(known[:asked])},
        {str(i): {str(i): 1} for i in range(asked)},
    )


PROPERTIES: dict[str, Callable[[str], bool]] = {
    "starts with an imperative verb": re.compile(
        r"\s*(Return|Compute|Create|Get|Set|Check|Convert|Calculate|Add|Remove|Build|Make|Generate|Find|Apply|Run|Test|Parse|Write|Read|Update|Load|Initialize|Construct)\b"
    ).match,
    "starts with a third-person verb": re.compile(
        r"\s*(Returns|Computes|Creates|Gets|Sets|Checks|Converts|Calculates|Adds|Removes|Builds|Makes|Generates|Finds|Applies|Runs|Tests|Parses|Writes|Reads|Updates|Loads|Initializes|Constructs)\b"
    ).match,
    "has a bulleted list": re.compile(r"^\s*[-*•] \S", re.M).search,
    "has a returns section": re.compile(r"^\s*(Returns?:|:returns?:|Returns\s*\n\s*-{3,})", re.M).search,
    "has a numpy parameters section": re.compile(r"^\s*Parameters\s*\n\s*-{3,}", re.M).search,
    "has a Google args section": re.compile(r"^\s*(Args|Arguments):\s*$", re.M).search,
    "has sphinx field lists": re.compile(r"^\s*:(param|type|rtype|return|raises)\b", re.M).search,
    "has a sphinx role": re.compile(r":\w+:`").search,
    "has a doctest": re.compile(r"^\s*>>> ", re.M).search,
    "speaks of raising": re.compile(r"\b[Rr]aises?\b").search,
    "speaks in the first person": re.compile(r"\b(I|we|We|our|us)\b").search,
    "speaks of a default": re.compile(r"\b[Dd]efaults?\b").search,
    "has a note": re.compile(r"^\s*(Notes?:|\.\. note::|Notes\s*\n\s*-{3,})", re.M).search,
    "points elsewhere": re.compile(r"\b(See also|see also|See Also)\b").search,
    "is deprecated": re.compile(r"\bdeprecated\b", re.I).search,
    "has a link": re.compile(r"https?://").search,
    "has a question": re.compile(r"\w\?(\s|$)").search,
    "has mathematics": re.compile(r"\.\. math::|:math:`|\\frac|\$\S+\$").search,
    "is one line": lambda text: "\n" not in text.strip(),
    "has a number with a decimal point": re.compile(r"\b\d+\.\d+\b").search,
}
