"""ROUGE: what a written text shares with the one that is wanted (Lin 2004).

Words are runs of letters and digits in lower case, without stemming: of English texts those of the package rouge-score. F1 of each
text, then the mean. ROUGE-L is of whole texts; the variant by sentences (Lsum), which the tables of CNN/DailyMail have, is not here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from hourglass.metrics.estimates import Estimate, of_rows
from hourglass.metrics.references import Wanted, references

_WORD = re.compile(r"[^\W_]+")


def rouge(wanted: Wanted, written: Sequence[str]) -> dict[str, Estimate]:
    """{"rouge1", "rouge2", "rougeL"}: mean F1 over texts, from 0 to 1, with its bootstrap interval.

    Of several wanted texts the one that is nearest counts. 0 for a text where either side has nothing to count. Raises SourceError
    for lists of different lengths, or empty ones.
    """
    pairs = [([words(one) for one in own], words(b)) for own, b in zip(references(wanted, written), written)]
    return {
        "rouge1": of_rows([max(_ngrams_f1(a, b, 1) for a in own) for own, b in pairs]),
        "rouge2": of_rows([max(_ngrams_f1(a, b, 2) for a in own) for own, b in pairs]),
        "rougeL": of_rows([max(_f1(longest_common(a, b), len(a), len(b)) for a in own) for own, b in pairs]),
    }


def words(text: str) -> list[str]:
    """What is counted of a text."""
    return _WORD.findall(text.lower())


def longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest sequence that both have, in order and not necessarily side by side.

    A row of the usual table is an integer whose bits tell where its values do not grow (Hyyrö 2004, "Bit-parallel LCS-length
    computation revisited").
    """
    places: dict[str, int] = {}
    for i, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << i
    whole = (1 << len(first)) - 1
    row = whole
    for word in second:
        same = row & places.get(word, 0)
        row = (row + same | row - same) & whole
    return len(first) - row.bit_count()


def _ngrams_f1(first: list[str], second: list[str], n: int) -> float:
    a, b = (Counter(zip(*(side[i:] for i in range(n)))) for side in (first, second))
    return _f1((a & b).total(), a.total(), b.total())


def _f1(shared: int, first: int, second: int) -> float:
    return 2 * shared / (first + second) if shared else 0.0
