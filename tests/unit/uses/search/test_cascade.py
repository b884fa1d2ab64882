"""Cascades: where a ranking is cut, what a query costs, and depths that fit a budget and could not be larger."""

import time

import numpy as np
import pytest
import torch
from corpora import Corpus, Counts
from hypothesis import given
from hypothesis import strategies as st

from hourglass.errors import ConfigError
from hourglass.uses.search.cascade import Cascade, Gap, StageCost
from hourglass.uses.search.passages import ByText
from hourglass.uses.search.spec import parse
from hourglass.uses.search.stages import DEPTH, Found, Query, Ranking, Scorer

CORPUS = Corpus({f"d{i:02}": " ".join(["red"] * (40 - i)) + " blue" for i in range(40)})
QUERIES = [Query("1", "red"), Query("2", "blue red"), Query("3", "red red")]


class Sleeps(Scorer):
    """Takes a fixed time for a query and for each document."""

    def __init__(self, name, query=0.0, document=0.0):
        self.name, self._query, self._document = name, query, document

    def score(self, query, rows):
        time.sleep(self._query + self._document * len(rows))
        return -np.asarray(rows, np.float32)

    def retrieve(self, queries, depth):
        time.sleep(self._query)
        return [Ranking.of(np.arange(200), -np.arange(200), depth) for _ in queries]


def cut(scores, **settings):
    ranking = Ranking.of(np.arange(len(scores)), np.array(scores, float))
    return len(Gap(**settings).advance([Found(QUERIES[0], (ranking,))])[0].ranking)


def test_a_ranking_ends_at_its_first_gap():
    assert cut([10, 9, 8, 3, 2, 0], share=0.3) == 3
    assert cut([10, 9, 8, 3, 2, 0], share=0.3, least=4) == 6
    assert cut([10, 3, 2.9, 0], share=0.2) == 1
    assert cut([10, 3, 2.9, 0], share=0.2, least=2) == 3
    assert cut([5, 5, 5], share=0.1) == 3
    assert cut([5], share=0.1) == 1
    assert cut([], share=0.1) == 0


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=20), st.floats(0.05, 0.9), st.integers(1, 4))
def test_a_cut_by_gaps_is_the_formula_whatever_scale_the_scores_have(scores, share, least):
    scores = np.sort(np.array(scores, float))[::-1]
    width = scores[0] - scores[-1]
    wide = [i + 1 for i in range(len(scores) - 1) if i + 1 >= least and scores[i] - scores[i + 1] > share * width]
    for scaled in (scores, 4 * scores - 1):
        assert cut(scaled, share=share, least=least) == (wide[0] if wide else len(scores))


def test_the_cost_of_a_query_and_of_a_document_are_measured_apart():
    stages = {"slow": lambda: Sleeps("slow", 0.004), "again": lambda: Sleeps("again", 0.003, 0.001)}
    cascade = Cascade.measured(parse("slow % 100 >> again % 20", stages), QUERIES)
    slow, again = cascade.costs
    assert (slow.again, again.again) == (False, True)
    assert 3.9 < slow.query < 30 and slow.document == 0
    assert 0.8 < again.document < 3
    assert cascade.ms([10]) == pytest.approx(slow.query + again.query + 10 * again.document)
    assert cascade.table()["stage"].tolist() == ["slow", "again"]
    plan = cascade.within(cascade.ms([17]) + 0.1 * again.document)
    assert plan.depths == (17,)
    assert plan.pipeline.name == "slow % 17 >> again % 20"
    assert len(plan.pipeline.run(QUERIES)[0]) == 17


def test_operations_are_those_of_torchs_products_and_attention():
    linear = torch.nn.Linear(8, 3)

    def score(query, texts):
        states = torch.ones(len(texts), 2, 5, 4)
        torch.nn.functional.scaled_dot_product_attention(states, states, states)
        return linear(torch.ones(len(texts), 8))[:, 0].detach().numpy()

    cascade = Cascade.measured(Counts(CORPUS) % 40 >> ByText(CORPUS, score), QUERIES)
    assert [cost.flops for cost in cascade.costs] == [0, 2 * 8 * 3 + 2 * 2 * 2 * 5 * 5 * 4]
    assert cascade.flops([10]) == 10 * cascade.costs[1].flops


def steps(*most):
    pipeline = Sleeps("first")
    for number, k in enumerate(most):
        pipeline = (pipeline % k if k else pipeline) >> Sleeps(f"s{number}")
    return pipeline


@given(
    st.lists(st.tuples(st.integers(1, 500), st.floats(0, 3)), min_size=1, max_size=4),
    st.floats(0, 4),
    st.floats(0, 4000),
)
def test_the_depths_fit_and_none_could_be_larger(stages, fixed, more):
    most = np.minimum.accumulate([k for k, _ in stages]).tolist()
    costs = [StageCost("first", fixed, 0.0, 0.0, False)]
    costs += [StageCost(f"s{i}", 0.0, each, 1.0, True) for i, (_, each) in enumerate(stages)]
    cascade = Cascade(steps(*(k for k, _ in stages)), costs)
    ms = cascade.ms([1] * len(stages)) + more
    plan = cascade.within(ms)
    assert plan.ms == pytest.approx(cascade.ms(plan.depths)) and plan.ms <= ms * (1 + 1e-9)
    assert plan.flops == sum(plan.depths)
    assert all(1 <= k <= limit for k, limit in zip(plan.depths, most))
    assert list(plan.depths) == sorted(plan.depths, reverse=True)
    for i, k in enumerate(plan.depths):
        if k < most[i] and (i == 0 or k < plan.depths[i - 1]):
            deeper = [*plan.depths[:i], k + 1, *plan.depths[i + 1 :]]
            assert cascade.ms(deeper) > ms - 1e-6


def test_cuts_that_are_not_chosen_stay():
    costs = [
        StageCost("first", 1.0, 0.0, 0.0, False),
        StageCost("gap", 0.0, 0.0, 0.0, False),
        StageCost("s0", 0.0, 1.0, 0.0, True),
    ]
    cascade = Cascade(Sleeps("first") % 90 >> Gap() >> Sleeps("s0") % 5, costs)
    assert cascade.within(31).pipeline.name == "first % 90 >> gap % 30 >> s0 % 5"
    assert cascade.within(1e9).depths == (90,)
    assert Cascade(steps(None), [costs[0], costs[2]]).within(1e9).depths == (DEPTH,)


def test_what_cannot_be_planned_is_said():
    cost = StageCost("first", 5.0, 0.0, 0.0, False)
    with pytest.raises(ConfigError, match="no stage scores again what another has found"):
        Cascade(Sleeps("first"), [cost])
    cascade = Cascade(steps(10), [cost, StageCost("s0", 0.0, 2.0, 0.0, True)])
    with pytest.raises(ConfigError, match="ms 3: the stages take 7 with one document each"):
        cascade.within(3)
    with pytest.raises(ConfigError, match="2 depths for 1 stages"):
        cascade.ms([1, 2])
    with pytest.raises(ConfigError, match="do not fit the pipeline"):
        Cascade(steps(10), [cost])
    with pytest.raises(ConfigError, match="no query to measure with"):
        Cascade.measured(steps(10), [])
    with pytest.raises(ConfigError, match=r"share 1\.5"):
        Gap(1.5)


def test_around_a_pipeline_stands_it_then_settings():
    stages = {"first": lambda: Sleeps("first"), "again": lambda: Sleeps("again")}
    seen = []

    def around(inner, text, ms, *, hard=False):
        seen.append((inner.name, text, ms, hard))
        return inner

    made = parse("within( first % 9 >> again , 5, hard=true ) % 3", stages, {"within": around})
    assert seen == [("first % 9 >> again", "first % 9 >> again", 5, True)]
    assert made.name == "first % 9 >> again % 3"
    for spec, said in (
        ("within", "character 7: expected ("),
        ("within(first)", "settings of within do not fit: missing 1 required positional argument: 'ms'"),
        ("within(first 5)", "character 14: expected ,"),
        ("within(5)", "character 8: expected a stage"),
    ):
        with pytest.raises(ConfigError) as error:
            parse(spec, stages, {"within": around})
        assert said in str(error.value), spec
