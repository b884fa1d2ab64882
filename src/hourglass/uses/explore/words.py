"""Words and word pairs of documents: the plain rival that every difference between features is shown beside."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Sequence

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer

from hourglass.adapters.huggingface import pieces

_WORD = r"(?u)\b\w[\w'’-]*\w\b"


def vocabulary(texts: Sequence[str], limit: int = 30_000) -> list[str]:
    """The commonest words and word pairs of `texts`, in alphabetical order; those in under 3 documents are left out."""
    counter = CountVectorizer(
        token_pattern=_WORD, ngram_range=(1, 2), binary=True, min_df=min(3, len(texts)), max_features=limit
    )
    try:
        counter.fit(texts)
    except ValueError:  # no word at all, as in a corpus of numbers or of very few documents
        return []
    return sorted(counter.vocabulary_)


def word_presence(texts: Sequence[str], words: Sequence[str]) -> csr_matrix:
    """Documents x words, 1 where the document has the word."""
    if not words:
        return csr_matrix((len(texts), 0), dtype="float32")
    counter = CountVectorizer(token_pattern=_WORD, ngram_range=(1, 2), binary=True, vocabulary=words, dtype="float32")
    # A very long text is counted in pieces: its word pairs, listed at once, would take far more room than itself.
    parts = [(i, piece) for i, text in enumerate(texts) for _, piece in pieces(text, 400_000)]
    counts = counter.transform([piece for _, piece in parts])
    if len(parts) == len(texts):
        return counts
    shape = (len(texts), len(parts))
    together = csr_matrix((np.ones(len(parts), np.float32), ([i for i, _ in parts], range(len(parts)))), shape) @ counts
    together.data[:] = 1
    return together


def places(text: str, words: Collection[str]) -> dict[str, list[tuple[int, int]]]:
    """First and past-last character of each of `words`, single ones or pairs, wherever it stands in the text."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    if not words:
        return found
    before = ("", 0)
    for match in re.finditer(_WORD, text):
        word = match.group().lower()
        for said, start in ((word, match.start()), (f"{before[0]} {word}", before[1])):
            if said in words:
                found[said].append((start, match.end()))
        before = (word, match.start())
    return found
