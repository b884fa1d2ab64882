"""Long documents: no word is left out, and a document's score is what its passages' scores say."""

import numpy as np
import pytest
from corpora import Corpus, Counts, words
from hypothesis import given
from hypothesis import strategies as st

from hourglass.errors import ConfigError
from hourglass.uses.search.passages import ByPassages, Folded, aggregated, passages
from hourglass.uses.search.stages import Query, Ranking

LONG = {"a": "red " * 30 + "blue " * 3, "b": "blue red", "c": "", "d": "green " * 12 + "blue green"}


@given(st.lists(st.text("ab.!? \n", max_size=6), max_size=60), st.integers(1, 9), st.data())
def test_passages_hold_every_word_and_overlap_as_asked(parts, size, data):
    text = " ".join(parts)
    stride = data.draw(st.integers(1, size))
    made = passages(text, size, stride)
    assert bool(made) == bool(text.split())
    covered = np.zeros(len(text), bool)
    for passage in made:
        covered[passage.start : passage.stop] = True
        assert passage.text == text[passage.start : passage.stop]
        assert 1 <= len(passage.text.split()) <= size
    assert all(covered[i] for i, sign in enumerate(text) if not sign.isspace())
    assert [p.start for p in made] == sorted({p.start for p in made})
    assert len(made) <= 1 or len(made[0].text.split()) == size


def test_sentences_titles_and_a_limit():
    text = "One. Two is here! Three?\n\nFour goes on. Five"
    assert [p.text for p in passages(text, 1, 1, unit="sentences")] == [
        "One.",
        "Two is here!",
        "Three?",
        "Four goes on.",
        "Five",
    ]
    assert passages(text, 2, 2, unit="sentences", title="T")[0].text == "T One. Two is here!"
    few = passages(" ".join(map(str, range(100))), 10, 5, most=4)
    assert len(few) == 4 and few[0].text.startswith("0 1") and few[-1].text.endswith("98 99")


@given(st.integers(3, 60), st.integers(1, 8))
def test_a_limit_keeps_the_ends_and_draws_the_middle_alike_for_the_same_text(number, most):
    text = " ".join(f"w{i}" for i in range(number))
    whole = [p.text for p in passages(text, 2, 1)]
    made = [p.text for p in passages(text, 2, 1, most=most, middle="random")]
    assert made == [p.text for p in passages(text, 2, 1, most=most, middle="random")]
    assert len(made) == min(most, len(whole)) and set(made) <= set(whole)
    assert [whole.index(part) for part in made] == sorted(whole.index(part) for part in made)
    assert made[0] == whole[0] and (most == 1 or made[-1] == whole[-1])
    drawn = {tuple(p.start for p in passages(text + "." * i, 2, 1, most=4, middle="random")) for i in range(20)}
    assert len(drawn) > 1 or number < 6


AGGREGATES = {
    "first": lambda s: s[0],
    "max": max,
    "sum": sum,
    "mean": np.mean,
    "top": lambda s: np.mean(sorted(s)[::-1][:3]),
    "kernel": lambda s: 0.5 * np.log(np.sum(np.exp(np.array(s) / 0.5))),
    "decay": lambda s: sum(x / (1 + i) for i, x in enumerate(s)),
}


@pytest.mark.parametrize("aggregate", AGGREGATES)
@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-4, 4)), min_size=1, max_size=20))
def test_aggregates_are_those_of_each_documents_passages(aggregate, given_scores):
    of, scores = map(np.array, zip(*given_scores))
    named, made = aggregated(scores, of, aggregate, temperature=0.5)
    assert named.tolist() == sorted(set(of.tolist()))
    for document, score in zip(named, made):
        assert score == pytest.approx(AGGREGATES[aggregate](scores[of == document].tolist()))


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-4, 4)), min_size=1, max_size=20))
def test_the_best_of_each_document_are_weighed(given_scores):
    of, scores = map(np.array, zip(*given_scores))
    named, made = aggregated(scores, of, "top", weights=(1.0, 0.5, 0.25))
    for document, score in zip(named, made):
        best = sorted(scores[of == document].tolist(), reverse=True)[:3]
        assert score == pytest.approx(sum(w * s for w, s in zip((1.0, 0.5, 0.25), best)))


def test_birch_is_three_sentences_and_the_score_before():
    corpus = Corpus({"a": "Blue blue. Red. Green blue. Blue.", "b": "Red red blue. Stone.", "c": "Green."})

    def often(query, texts):
        return np.array([words(text.replace(".", "")).count(query.text) for text in texts], float)

    stage = ByPassages(
        corpus,
        often,
        **{"unit": "sentences", "size": 1, "stride": 1, "most": None, "aggregate": "top"},
        weights=(1.0, 0.5, 0.25),
        keep=0.4,
    )
    found = stage.again(Query("q", "blue"), Ranking.of(np.arange(3), np.array([1.0, 3.0, 2.0])))
    summed = np.array([2 + 0.5 + 0.25, 1.0, 0.0])
    expected = 0.6 * summed / 2.75 + 0.4 * np.array([0.0, 1.0, 0.5])
    assert dict(zip(found.rows.tolist(), found.scores.tolist())) == pytest.approx(dict(enumerate(expected)))


def test_what_was_found_is_scored_by_its_best_passage_and_an_empty_one_stays_last():
    corpus = Corpus(LONG)

    def share(query, texts):
        return np.array([words(text).count(query.text) / len(words(text)) for text in texts])

    def names(stage):
        return corpus.names(stage.run([Query("q", "blue")])[0].rows)

    assert names(Counts(corpus)) == ["a", "b", "d", "c"]
    assert names(Counts(corpus) >> ByPassages(corpus, share, size=2, stride=1)) == ["a", "b", "d", "c"]
    assert names(Counts(corpus) >> ByPassages(corpus, share, size=2, stride=1, aggregate="first")) == list("badc")
    assert names(Counts(corpus) >> ByPassages(corpus, share, size=2, stride=2, aggregate="mean")) == list("badc")
    kept = Counts(corpus) >> ByPassages(corpus, share, size=2, stride=1, aggregate="first", keep=0.9)
    assert names(kept)[0] == "a"


def test_an_index_of_passages_answers_with_documents():
    corpus = Corpus(LONG)
    cut = {name: passages(text, 5, 5) for name, text in LONG.items()}
    parents = np.repeat(np.arange(len(LONG)), [len(parts) for parts in cut.values()])
    texts = [part.text for parts in cut.values() for part in parts]
    inner = Counts(Corpus({str(i): text for i, text in enumerate(texts)}))
    for aggregate in ("max", "sum", "first"):
        stage = Folded(inner, parents, aggregate)
        found = stage.run([Query("q", "blue")])[0]
        expected = stage.score(Query("q", "blue"), found.rows)
        assert found.scores.tolist() == expected.tolist()
        per = {d: [words(t).count("blue") for t, p in zip(texts, parents) if p == d] for d in set(parents.tolist())}
        assert dict(zip(found.rows.tolist(), found.scores.tolist())) == {
            d: AGGREGATES[aggregate](scores) for d, scores in per.items()
        }
    assert stage.score(Query("q", "blue"), np.array([2])) == -np.inf
    assert corpus.names(np.array([2])) == ["c"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": 2, "stride": 3}, "stride of 1 or more, up to the size"),
        ({"aggregate": "maxi"}, "no aggregate 'maxi'"),
        ({"unit": "word"}, "no unit 'word'"),
        ({"most": 0}, "expected 1 passage"),
        ({"middle": "rand"}, "no middle 'rand'"),
        ({"keep": 1.0}, "expected a share"),
        ({"top": 0}, "top 0"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings, said):
    with pytest.raises(ConfigError, match=said):
        ByPassages(Corpus(LONG), lambda query, texts: np.zeros(len(texts)), **settings)
    with pytest.raises(ConfigError, match="begin with a stage that retrieves"):
        ByPassages(Corpus(LONG), lambda query, texts: np.zeros(len(texts))).run([Query("q", "x")])
