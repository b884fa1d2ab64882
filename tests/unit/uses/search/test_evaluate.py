"""What an evaluation says of pipelines, against trec_eval's numbers where ir_measures is installed."""

import json
import time

import numpy as np
import pytest
from corpora import Corpus, Counts

from hourglass.errors import ConfigError, SourceError
from hourglass.uses.search.evaluate import evaluate
from hourglass.uses.search.stages import Ranking, Scorer

RANDOM = np.random.default_rng(0)
VOCABULARY = [f"w{i}" for i in range(30)]
TEXTS = {f"d{i:02}": " ".join(RANDOM.choice(VOCABULARY, 20)) for i in range(40)}
CORPUS = Corpus(TEXTS)
QUERIES = {f"q{i}": " ".join(RANDOM.choice(VOCABULARY, 2)) for i in range(12)}
QRELS = {
    q: {str(d): int(g) for d, g in zip(RANDOM.choice(list(TEXTS), 8, False), RANDOM.integers(0, 3, 8))} for q in QUERIES
}
MEASURES = ("ndcg@10", "mrr@20", "recall@20", "p@5", "map@20")


class Backwards(Scorer):
    name = "backwards"

    def score(self, query, rows):
        return -np.asarray(rows, np.float32)

    def retrieve(self, queries, depth):
        return [Ranking.of(np.arange(40), -np.arange(40), depth) for _ in queries]


def done(**more):
    pipelines = {"counts": Counts(CORPUS) % 20, "backwards": Backwards() % 20}
    arguments = {"measures": MEASURES, "progress": False, **more}
    return evaluate(pipelines, CORPUS, arguments.pop("queries", QUERIES), arguments.pop("qrels", QRELS), **arguments)


def test_values_are_trec_evals():
    ir = pytest.importorskip("ir_measures")
    made = done()
    names = {"ndcg@10": "nDCG@10", "mrr@20": "RR", "recall@20": "R@20", "p@5": "P@5", "map@20": "AP@20"}
    for pipeline, run in made.runs.items():
        for ours, theirs in names.items():
            each = {m.query_id: m.value for m in ir.iter_calc([ir.parse_measure(theirs)], QRELS, run)}
            assert made.values[pipeline][ours] == pytest.approx([each[query] for query in made.queries])


def test_the_table_compares_with_the_first_and_tells_the_cost():
    made = done()
    table = made.table()
    assert table["pipeline"].tolist() == ["counts", "backwards"]
    assert np.isnan(table["ndcg@10 more"][0]) and 0 < table["ndcg@10 p"][1] <= 1
    assert table["ndcg@10 more"][1] == pytest.approx(table["ndcg@10"][1] - table["ndcg@10"][0])
    assert (table["ms"] > 0).all() and set(made.costs["counts"]) == {"counts", "% 20"}
    stages = made.stages().set_index(["pipeline", "stage"])
    assert stages.loc[("counts", "counts"), "documents"] == 0 and stages.loc[("counts", "% 20"), "documents"] == 20
    each = made.differences("backwards", "map@20")
    assert each["difference"].is_monotonic_decreasing and set(each["query"]) == set(QUERIES)
    assert each["difference"].mean() == pytest.approx(table["map@20 more"][1])
    told = json.loads(json.dumps(made.to_dict()))
    assert told["queries"] == 12 and "against_first" in told["pipelines"][1]["measures"]["p@5"]


def test_runs_are_written_as_trec_reads_them(tmp_path):
    ir = pytest.importorskip("ir_measures")
    made = done()
    first, second = made.write_runs(tmp_path)
    read = list(ir.read_trec_run(str(first)))
    assert {(r.query_id, r.doc_id): pytest.approx(r.score, rel=1e-6) for r in read} == {
        (q, d): s for q, found in made.runs["counts"].items() for d, s in found.items()
    }
    assert second.read_text().split("\n")[0].split() == ["q0", "Q0", "d00", "1", "0", "backwards"]


def test_names_with_spaces_have_no_place_in_trecs_format(tmp_path):
    made = done()
    made.runs["counts"]["q0"]["a b"] = 1.0
    with pytest.raises(SourceError, match="'a b'"):
        made.write_runs(tmp_path)
    assert not list(tmp_path.iterdir())


def test_queries_and_documents_that_do_not_match():
    made = done(queries=QUERIES | {"more": "w1"}, qrels=QRELS | {"q0": QRELS["q0"] | {"elsewhere": 2}})
    assert made.unasked == 1 and made.absent == ["elsewhere"]
    with pytest.raises(SourceError, match="1 judged queries have no text, the first 'q9'"):
        done(queries={name: text for name, text in QUERIES.items() if name != "q9"})
    with pytest.raises(SourceError, match="none of the relevant documents is among the 40"):
        done(qrels={"q0": {"elsewhere": 1}})
    with pytest.raises(SourceError, match="none of 1 judged queries has a relevant document"):
        done(qrels={"q0": {"d01": 0}})
    with pytest.raises(ConfigError, match="no measure 'ndgc@10'"):
        done(measures=("ndgc@10",))
    with pytest.raises(ConfigError, match="no measure 'ndcg'"):
        done(measures=("ndcg",))
    with pytest.raises(ConfigError, match="was not measured"):
        done().mean("counts", "ndcg@5")
    with pytest.raises(ConfigError, match="no pipeline 'count' here"):
        done().mean("count", "ndcg@10")


def test_what_is_loaded_once_is_no_cost_of_a_query():
    class Loads(Backwards):
        name = "loads"
        ready = False

        def retrieve(self, queries, depth):
            if not self.ready:
                time.sleep(0.3)
                Loads.ready = True
            return super().retrieve(queries, depth)

    made = evaluate({"loads": Loads()}, CORPUS, QUERIES, QRELS, progress=False)
    assert made.costs["loads"]["loads"] * len(made.queries) < 150
