"""Settings chosen on development queries: what is tried, that the best of it is taken, and that nothing else is looked at."""

import itertools

import numpy as np
import pytest

pytest.importorskip("lance")
pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

from indexes import WORDS, counting, documents

from hourglass import api
from hourglass.errors import ConfigError, SourceError
from hourglass.uses.search import pipelines as stages_module
from hourglass.uses.search import tune as tune_module
from hourglass.uses.search.evaluate import evaluate
from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.lexical import BM25, WordCounts
from hourglass.uses.search.passages import ByText
from hourglass.uses.search.spec import Call, read
from hourglass.uses.search.stages import Query
from hourglass.uses.search.tune import USUAL, Tuned, require_apart, tune

DOCUMENTS = documents(200)
RANDOM = np.random.default_rng(3)
QUERIES = {f"q{i}": " ".join(RANDOM.choice(WORDS, 3, False)) for i in range(24)}
QRELS = {q: {f"d{d}": 1 for d in RANDOM.choice(200, 6, False)} for q in QUERIES}
DEV, TEST = ({q: judged for i, (q, judged) in enumerate(QRELS.items()) if i % 2 == half} for half in (0, 1))
MEASURE = "map@50"


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return SearchIndex.create(DOCUMENTS, tmp_path_factory.mktemp("ix") / "ix", encoder=counting, progress=False)


def tuned(index, text) -> Tuned:
    return tune(index, text, QUERIES, DEV, measure=MEASURE, progress=False)


def value(index, text):
    made = evaluate({"x": index.pipeline(text)}, index, QUERIES, DEV, measures=[MEASURE], progress=False)
    return made.mean("x", MEASURE).value


@pytest.mark.parametrize(("k1", "b"), [(1.5, 0.75), (0.0, 0.0), (3.0, 1.0), (0.9, 0.2)])
def test_weights_out_of_counts_are_those_of_the_index_of_words(index, k1, b):
    rows, counts = np.arange(len(index)), WordCounts(index)
    for text in ("red stone red", "paris", "xyzzy"):
        query = Query("1", text)
        assert np.array_equal(
            BM25(index, k1, b, counts=counts).score(query, rows), BM25(index, k1, b).score(query, rows)
        )


def test_the_best_of_the_grid_is_chosen_and_its_text_says_so(index):
    made = tuned(index, "bm25 % 60")
    grid = list(itertools.product(*USUAL["bm25"].values()))
    assert len(made.table) == 1 + len(grid)
    best = max(grid, key=lambda point: value(index, f"bm25({point[0]}, {point[1]}) % 60"))
    assert made.value == pytest.approx(value(index, f"bm25({best[0]}, {best[1]}) % 60"))
    assert made.value == pytest.approx(value(index, made.chosen)) and made.value >= made.before
    assert made.before == pytest.approx(value(index, "bm25 % 60"))
    assert made.table["chosen"].sum() == 1
    assert made.table.loc[made.table["chosen"], "pipeline"].tolist() == [made.chosen]


def test_stages_written_alike_are_tuned_as_one_and_one_after_another(index):
    made = tuned(index, "bm25 >> rm3(first=3) >> bm25")
    first, middle, last = made.chosen.split(" >> ")
    assert first == last
    assert middle.startswith("rm3(first=3, share=") or middle == "rm3(first=3)"
    assert len(made.table) == 1 + 30 + 6
    assert made.value == pytest.approx(value(index, made.chosen))
    assert (made.table["value"] <= made.value).all()


def test_weights_of_several_rankings_are_shares(index):
    made = tuned(index, "bm25(1, 0.5) | dense >> mix(scale=z)")
    assert len(made.table) == 1 + 11
    assert made.table["stage"][1] == "mix(0, 1, scale=z)"
    assert made.value == pytest.approx(value(index, made.chosen))
    three = tuned(index, "bm25(1, 0.5) | dense | bm25(2, 0.5) >> mix")
    assert len(three.table) == 1 + 15


def test_values_in_brackets_are_tried_and_what_is_written_stays(index):
    made = tuned(index, "bm25(k1=[0.5, 2], b=0.3) | dense >> mix([0.2, 0.8], 0.5) % 30")
    assert made.table["stage"].tolist()[1:] == [
        "bm25(k1=0.5, b=0.3)",
        "bm25(k1=2, b=0.3)",
        "mix(0.2, 0.5)",
        "mix(0.8, 0.5)",
    ]
    assert made.before == pytest.approx(value(index, "bm25(k1=0.5, b=0.3) | dense >> mix(0.2, 0.5) % 30"))
    nothing = tuned(index, "dense")
    assert nothing.chosen == "dense" and nothing.value == nothing.before
    with pytest.raises(ConfigError, match="values to choose from: tune the pipeline on development queries"):
        index.pipeline("bm25(k1=[1, 2])")


def test_a_model_scores_each_document_once(index, monkeypatch):
    asked = []

    def score(query, texts):
        asked.extend((query.text, text) for text in texts)
        return np.array([len(text) for text in texts], np.float32)

    made = []

    def model(index):
        made.append(ByText(index, score, "model"))
        return made[-1]

    monkeypatch.setitem(stages_module.STAGES, "model", model)
    told = tuned(index, "bm25 % 20 >> model | bm25 >> mix")
    assert len(told.table) == 1 + 30 + 11
    assert len(made) == 1
    texts = {d["text"] for d in DOCUMENTS}
    assert len(asked) <= len(DEV) * len(DOCUMENTS) and {text for _, text in asked} <= texts
    assert told.value == pytest.approx(value(index, told.chosen))


def test_the_texts_are_read_once(index, monkeypatch):
    read_so_often = []

    class Counted(WordCounts):
        def __init__(self, of):
            read_so_often.append(of)
            super().__init__(of)

    monkeypatch.setattr(tune_module, "WordCounts", Counted)
    before = {path.name for path in (index.folder / "cache").iterdir()}
    tuned(index, "bm25 >> rm3 >> bm25")
    assert len(read_so_often) == 1
    assert {path.name for path in (index.folder / "cache").iterdir()} == before


def test_tuned_pipelines_are_measured_on_the_other_queries(index):
    texts = {q: QUERIES[q] for q in TEST}, {q: QUERIES[q] for q in DEV}
    done = api.evaluate(
        index,
        texts[0],
        TEST,
        pipelines=["bm25", "bm25(k1=[0.5, 2])"],
        dev=(texts[1], DEV),
        measures=[MEASURE],
        progress=False,
    )
    assert [each.given for each in done.tuned] == ["bm25", "bm25(k1=[0.5, 2])"]
    assert list(done.values) == list(dict.fromkeys(["bm25", *(each.chosen for each in done.tuned)]))
    assert len(done.to_dict()["tuned"][1]["tried"]) == 1 + 2
    assert set(done.queries) == set(TEST)


def test_a_query_on_both_sides_is_refused():
    dev = ({"a": "Red  stone", "b": "bird"}, {"a": {"d1": 1}})
    require_apart(dev, ({"a": "another", "b": "bird"}, {"a": {"d1": 1}, "b": {"d1": 1}}))
    with pytest.raises(SourceError, match="query 'x' is among the development queries \\('a'\\)"):
        require_apart(dev, ({"x": "red stone"}, {"x": {"d2": 1}}))


def test_what_cannot_be_tuned_is_said(index):
    with pytest.raises(ConfigError, match="within: tune the pipeline in it, and put within around what was chosen"):
        tuned(index, "within(bm25 >> dense, 5)")
    with pytest.raises(ConfigError, match="no stage 'bm52'"):
        tuned(index, "bm52")
    with pytest.raises(ConfigError, match="no measure 'ndcg'"):
        tune(index, "bm25", QUERIES, DEV, measure="ndcg", progress=False)
    with pytest.raises(SourceError, match="judged queries have no text"):
        tune(index, "bm25", {}, DEV, progress=False)
    with pytest.raises(ConfigError, match="finds nothing by itself"):
        tuned(index, "bm25 >> rm3")


def test_a_stage_is_written_as_it_is_read():
    kept = []

    def make(call):
        kept.append(call)
        return BM25

    call = Call(
        "x", (1, 0.25, "word", "two words", "1", "true", True, (1, 2.5)), {"a": "b/c-d", "e": -0.5, "f": "[q"}, 0, 0
    )
    read(str(call), make, ["x"])
    assert (kept[0].given, kept[0].named) == (call.given, call.named)
    assert (kept[0].start, kept[0].stop) == (0, len(str(call)))
