"""What is wanted of a written text: one text, or several of which any will do."""

from __future__ import annotations

from collections.abc import Sequence

from hourglass.errors import SourceError

Wanted = Sequence[str | Sequence[str]]
"""Of each written text the one that is wanted, or several."""


def references(wanted: Wanted, written: Sequence[str]) -> list[list[str]]:
    """Those of each written text; SourceError for lists of different lengths, or empty ones."""
    if len(wanted) != len(written) or not len(wanted):
        raise SourceError(f"{len(wanted)} wanted texts, {len(written)} written: expected as many, one or more")
    several = [[own] if isinstance(own, str) else list(own) for own in wanted]
    for i, own in enumerate(several):
        if not own:
            raise SourceError(f"wanted text {i}: an empty list; expected one text or more")
    return several
