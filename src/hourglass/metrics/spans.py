"""Spans said against spans that are true: entities in tagged sentences, answers in a passage.

Entities are those of conlleval (Tjong Kim Sang and De Meulder 2003) for BIO tags: a span begins at B, or at an I whose type
differs from that of the tag before. Answers are compared as in SQuAD (Rajpurkar et al. 2016): in lower case, without
punctuation and articles, by shared words (F1) or whole (exact match); where several are true, the best counts.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from hourglass.errors import SourceError
from hourglass.metrics.estimates import Estimate, of_rows, of_statistic

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def entities(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """(first word, past the last, type) of each span; SourceError for a tag that is neither O, B-type nor I-type."""
    found, start, kind = set(), 0, ""
    for position, tag in enumerate([*tags, "O"]):
        prefix, _, now = tag.partition("-")
        if tag != "O" and (prefix not in ("B", "I") or not now):
            raise SourceError(f"tag {tag!r}: expected 'O', 'B-type' or 'I-type'")
        if kind and (prefix != "I" or now != kind):
            found.add((start, position, kind))
            kind = ""
        if now and not kind:
            start, kind = position, now
    return found


def span_f1(truth: Sequence[Sequence[str]], said: Sequence[Sequence[str]]) -> Estimate:
    """F1 of all entities of all sentences together, spans and types exact; bootstrap over sentences.

    truth, said  the tags of each sentence

    1 where there is no entity, true or said.
    """
    counts = np.array([_counted(entities(a), entities(b)) for a, b in zip(truth, said, strict=True)], float)

    def f1(rows: np.ndarray) -> float:
        right, total = counts[rows].sum(0)
        return float(2 * right / total) if total else 1.0

    return of_statistic(f1, len(counts))


def answer_f1(truth: Sequence[Sequence[str]], said: Sequence[str]) -> Estimate:
    """Mean over questions of the F1 of words; `truth`: the true answers of each, none where it has no answer."""
    return of_rows([_best(_word_f1, answers, answer) for answers, answer in zip(truth, said, strict=True)])


def exact_match(truth: Sequence[Sequence[str]], said: Sequence[str]) -> Estimate:
    """Share of questions whose answer is a true one; arguments as for `answer_f1`."""
    return of_rows([_best(_same, answers, answer) for answers, answer in zip(truth, said, strict=True)])


def _counted(truth: set[tuple[int, int, str]], said: set[tuple[int, int, str]]) -> tuple[int, int]:
    return len(truth & said), len(truth) + len(said)


def _best(score: Callable[[list[str], list[str]], float], answers: Sequence[str], said: str) -> float:
    return max(score(_words(answer), _words(said)) for answer in (answers or [""]))


def _word_f1(truth: list[str], said: list[str]) -> float:
    if not truth or not said:
        return float(truth == said)
    shared = sum((Counter(truth) & Counter(said)).values())
    return 2 * shared / (len(truth) + len(said))


def _same(truth: list[str], said: list[str]) -> float:
    return float(truth == said)


def _words(answer: str) -> list[str]:
    return _ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split()
