"""Entities against a second reading of the tags and against seqeval where it is installed; answers by hand."""

import numpy as np
import pytest

from hourglass.errors import SourceError
from hourglass.metrics.spans import answer_f1, entities, exact_match, span_f1


def test_entities_begin_at_b_and_where_the_type_changes():
    tags = ["B-PER", "I-PER", "B-PER", "O", "I-LOC", "I-LOC", "I-ORG", "B-LOC"]
    assert entities(tags) == {(0, 2, "PER"), (2, 3, "PER"), (4, 6, "LOC"), (6, 7, "ORG"), (7, 8, "LOC")}
    assert entities([]) == entities(["O", "O"]) == set()
    for tag in ("X-LOC", "B-", "B"):
        with pytest.raises(SourceError, match="expected 'O', 'B-type' or 'I-type'"):
            entities(["O", tag])


def random_tags(seed, sentences=40):
    random = np.random.default_rng(seed)
    kinds = ["O", "O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    return [random.choice(kinds, 9).tolist() for _ in range(sentences)]


def pairs_of_words(tags):
    """Each entity as the words that it joins, read from the end."""
    found, last = set(), None
    for i in reversed(range(len(tags))):
        if tags[i] == "O":
            last = None
            continue
        prefix, kind = tags[i].split("-")
        last = last or i
        if prefix == "B" or i == 0 or tags[i - 1][2:] != kind:
            found.add((i, last + 1, kind))
            last = None
    return found


def test_span_f1():
    truth, said = random_tags(0), random_tags(1)
    said[:10] = truth[:10]
    right = sum(len(pairs_of_words(a) & pairs_of_words(b)) for a, b in zip(truth, said))
    total = sum(len(pairs_of_words(a)) + len(pairs_of_words(b)) for a, b in zip(truth, said))
    found = span_f1(truth, said)
    assert found.value == pytest.approx(2 * right / total)
    assert found.low < found.value < found.high
    assert span_f1([["O"]], [["O"]]).value == 1
    assert span_f1([["O"]], [["B-X"]]).value == 0


def test_span_f1_is_seqevals():
    seqeval = pytest.importorskip("seqeval.metrics")
    for seed in range(5):
        truth, said = random_tags(seed), random_tags(seed + 10)
        said[:10] = truth[:10]
        assert span_f1(truth, said).value == pytest.approx(seqeval.f1_score(truth, said))


def test_answers_as_in_squad():
    truth = [["the Eiffel Tower"], ["in 1889", "1889"], [], [], ["red"]]
    said = ["Eiffel tower!", "1889", "", "something", "big red bird"]
    assert exact_match(truth, said).value == pytest.approx(3 / 5)
    assert answer_f1(truth, said).value == pytest.approx((1 + 1 + 1 + 0 + 0.5) / 5)
