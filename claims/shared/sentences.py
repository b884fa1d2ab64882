"""Sentences of the docstrings of installed packages, of few and common tokens: the data of claims about writing."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hourglass.data import open_texts

_END = re.compile(r"(?<=[.!?])\s+|\n\s*\n")


def sentences(number: int) -> list[str]:
    """The first `number` different sentences of 5 to 22 words that begin with a capital and end with a full stop."""
    found: dict[str, None] = {}
    for batch in open_texts("docstrings:").batches():
        for text in batch.column("text").to_pylist():
            for part in _END.split(text):
                flat = " ".join(part.split())
                if 5 <= len(flat.split()) <= 22 and flat[0].isupper() and flat.endswith("."):
                    found[flat] = None
        if len(found) >= number:
            break
    return list(found)[:number]


def of_common_tokens(
    texts: Sequence[str], rows: Sequence[Sequence[int]], tokens: int, longest: int, keep: Any
) -> list[str]:
    """Those whose tokens (`rows`, special ones included) are at most `longest`, and all among the `tokens` commonest or in `keep`."""
    special = set(keep)
    counts = Counter(token for row in rows for token in row if token not in special)
    common = {token for token, _ in counts.most_common(tokens - len(special))} | special
    return [text for text, row in zip(texts, rows) if len(row) <= longest and common.issuperset(row)]


def held_out(text: str) -> bool:
    """A tenth of all texts, the same in every run."""
    return hashlib.sha256(text.encode()).digest()[0] < 26
