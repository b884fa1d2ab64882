"""Queries that are made wider by what was found: the formulas, and what they leave alone."""

import re
from collections import Counter

import numpy as np
import pytest
import torch
from corpora import Corpus, Counts, words

from hourglass.errors import ConfigError
from hourglass.uses.search.expansion import CEQE, RM3, BertQE, Rocchio
from hourglass.uses.search.residuals import unit
from hourglass.uses.search.stages import Found, Query, Ranking
from hourglass.waist import TokenStates

CORPUS = Corpus({"a": "cat purr purr meow", "b": "cat meow dog", "c": "purr meow", "d": "dog bark", "e": ""})


def ranked(*scores):
    return Ranking.of(np.arange(len(scores)), np.array(scores))


def test_rm3_is_the_formula():
    found = Found(Query("q", "cat"), (ranked(2.0, 1.0, 0.5),))
    made = RM3(CORPUS, words, first=2, terms=2, share=0.4).advance([found])[0]
    assert not made.rankings  # what comes next searches anew
    common = Counter()
    for text, weight in (("cat purr purr meow", 2 / 3), ("cat meow dog", 1 / 3)):
        for word in words(text):
            common[word] += weight / len(words(text))
    best = dict(common.most_common(2))
    expected = {"cat": 0.6}
    for word, weight in best.items():
        expected[word] = expected.get(word, 0) + 0.4 * weight / sum(best.values())
    assert made.query.terms == pytest.approx(expected)


def test_rm3_finds_what_has_none_of_the_querys_words():
    query = [Query("q", "cat")]
    plain = Counts(CORPUS)
    alone = dict(zip(*(x.tolist() for x in vars(plain.run(query)[0]).values())))
    wider = dict(zip(*(x.tolist() for x in vars((plain >> RM3(CORPUS, words) >> plain).run(query)[0]).values())))
    assert alone[2] == 0 < wider[2]


def test_rm3_leaves_a_query_that_found_nothing_as_it_was():
    made = RM3(CORPUS, words).advance([Found(Query("q", "bird cat"), (ranked(0.0, 0.0),))])[0]
    assert made.query.terms == {"bird": 0.5, "cat": 0.5}


class Reader:
    """A state for every piece of a word of three letters at most; words that share a first letter are alike."""

    width = 26

    def read(self, texts):
        states, spans, offsets = [], [], [0]
        for text in texts:
            for match in re.finditer(r"\w{1,3}", text):
                word = re.search(r"\w*$", text[: match.start()])[0] + match[0]
                state = np.zeros(26)
                state[ord(word[0]) - ord("a")] = 1
                states.append(state + 0.1)
                spans.append(match.span())
            offsets.append(len(states))
        return TokenStates(
            torch.tensor(np.array(states)).reshape(-1, 26), torch.tensor(offsets), torch.tensor(spans).reshape(-1, 2)
        )


@pytest.mark.parametrize("pooling", ["centroid", "max", "product"])
def test_ceqe_counts_mentions_by_their_nearness(pooling):
    found = Found(Query("q", "cat dog"), (ranked(2.0, 1.0, 0.5),))
    made = CEQE(CORPUS, words, Reader(), pooling=pooling, first=2, terms=3, share=0.4).advance([found])[0].query.terms

    def state(word):
        return unit(np.eye(26)[ord(word[0]) - ord("a")] + 0.1)

    query = [state("cat"), state("dog")]
    query = [unit(np.mean([np.eye(26)[ord(w) - ord("a")] + 0.1 for w in "cd"], 0))] if pooling == "centroid" else query
    common = Counter()
    for text, weight in (("cat purr purr meow", 2), ("cat meow dog", 1)):
        near = {}
        for side in query:
            cosines = Counter()
            for word in words(text):
                cosines[word] += float(state(word) @ side)
            for word in cosines:
                near.setdefault(word, []).append(cosines[word] / sum(cosines.values()))
        pooled = {word: (np.prod if pooling == "product" else max)(shares) for word, shares in near.items()}
        for word in pooled:
            common[word] += weight * pooled[word] / sum(pooled.values())
    best = dict(common.most_common(3))
    expected = {"cat": 0.3, "dog": 0.3}
    for word, weight in best.items():
        expected[word] = expected.get(word, 0) + 0.4 * weight / sum(best.values())
    assert made == pytest.approx(expected)


def test_ceqe_leaves_what_has_no_words_alone():
    stage = CEQE(CORPUS, words, Reader())
    made = stage.advance([Found(Query("q", "cat"), (Ranking.of(np.array([4]), np.array([1.0])),))])[0]
    assert made.query.terms == {"cat": 1.0}
    with pytest.raises(ConfigError, match="no pooling 'mean'"):
        CEQE(CORPUS, words, Reader(), pooling="mean")


def test_rocchio_moves_the_vector_to_the_mean_of_the_first():
    vectors = np.arange(10.0).reshape(5, 2)
    stage = Rocchio(lambda queries: np.ones((len(queries), 2)), lambda rows: vectors[rows], first=2, feedback=0.5)
    made = stage.advance([Found(Query("q", "cat"), (ranked(1.0, 3.0, 2.0),)), Found(Query("r", "x"), (ranked(),))])
    assert made[0].query.vector.tolist() == [1 + 0.5 * 3, 1 + 0.5 * 4]
    assert made[1].query.vector.tolist() == [1, 1]


def test_bert_qe_asks_the_best_chunks():
    asked = []

    def share(query, texts):
        asked.append(query.text)
        return np.array([len(set(words(query.text)) & set(words(text))) for text in texts], float)

    found = Found(Query("q", "cat"), (ranked(5.0, 4.0, 3.0, 2.0, 1.0),))
    stage = BertQE(CORPUS, share, first=2, size=4, chunks=1, share=0.5)
    made = stage.advance([found])[0].ranking
    assert asked == ["cat", "cat purr purr meow"]  # the first of the two chunks that have the word
    expected = {0: 0.5 * 5 + 0.5 * 3, 1: 0.5 * 4 + 0.5 * 2, 2: 0.5 * 3 + 0.5 * 2, 3: 0.5 * 2, 4: 0.5 * 1}
    assert dict(zip(made.rows.tolist(), made.scores.tolist())) == pytest.approx(expected)


@pytest.mark.parametrize("stage", [RM3(CORPUS, words), BertQE(CORPUS, lambda q, t: np.zeros(len(t)))])
def test_they_need_something_found(stage):
    with pytest.raises(ConfigError, match="begin with a stage that retrieves"):
        stage.advance([Found(Query("q", "cat"))])


def test_settings_that_do_not_fit_are_named():
    with pytest.raises(ConfigError, match="share 2"):
        RM3(CORPUS, words, share=2)
    with pytest.raises(ConfigError, match="first 0"):
        Rocchio(lambda q: q, lambda r: r, first=0)
    with pytest.raises(ConfigError, match="size 1"):
        BertQE(CORPUS, lambda q, t: t, size=1)
