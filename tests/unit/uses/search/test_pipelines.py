"""Stages and how they are joined, in Python and as text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hourglass.errors import ConfigError
from hourglass.uses.search.fusion import Interpolated, ReciprocalRank
from hourglass.uses.search.spec import parse
from hourglass.uses.search.stages import Found, Query, Ranking, Scorer, Stage


class Fixed(Scorer):
    """Scores of documents that do not hang on the query."""

    def __init__(self, name="fixed", *scores):
        self.name, self._scores = name, np.array(scores or (0.0, 3.0, 1.0, 2.0))

    def retrieve(self, queries, depth):
        return [Ranking.of(np.arange(len(self._scores)), self._scores, depth) for _ in queries]

    def score(self, query, rows):
        return self._scores[rows]


class Loud(Stage):
    name = "loud"

    def advance(self, found):
        return [Found(Query(each.query.id, each.query.text.upper()), each.rankings) for each in found]


STAGES = {
    "up": lambda *scores: Fixed("up", *scores),
    "down": lambda: Fixed("down", 3.0, 0.0, 2.0, 1.0),
    "rrf": ReciprocalRank,
    "mix": Interpolated,
    "loud": Loud,
}
QUERY = [Query("q", "one")]


def rows(spec):
    return parse(spec, STAGES).run(QUERY)[0].rows.tolist()


def test_a_stage_retrieves_and_one_after_it_orders_what_was_found():
    assert rows("up") == [1, 3, 2, 0]
    assert rows("up % 2 >> down") == [3, 1]
    assert rows("up % 3 >> down % 1") == [2]


def test_in_text_side_by_side_binds_more_tightly_than_one_after_another():
    spec = parse("up >> up | down >> rrf", STAGES)
    assert spec.name == "up >> (up | down) >> rrf"
    by_operators = Fixed("up") >> (Fixed("up") | STAGES["down"]()) >> ReciprocalRank()
    assert by_operators.name == spec.name
    assert rows("(up >> down) | down >> mix(2, 1)") == [0, 2, 3, 1]


def test_a_query_that_is_changed_on_one_side_is_not_on_the_other():
    heard = []

    class Listens(Fixed):
        def retrieve(self, queries, depth):
            heard.extend(query.text for query in queries)
            return super().retrieve(queries, depth)

    ((Loud() >> Listens()) | Listens()).advance([Found(QUERY[0])])
    assert heard == ["ONE", "one"]


def test_the_cost_of_each_stage_is_told_apart():
    costs = {}
    parse("up % 2 | down >> rrf", STAGES).run(QUERY, costs)
    assert set(costs) == {"up", "% 2", "down", "rrf"}


@pytest.mark.parametrize(
    ("spec", "at", "said"),
    [
        ("up >> dwn", 7, "no stage 'dwn' (did you mean 'down'?)"),
        ("up >>", 6, "expected a stage"),
        ("", 1, "expected a stage"),
        ("up % x", 6, "expected a number of documents"),
        ("up % 0", 6, "expected a number of documents"),
        ("(up", 4, "expected )"),
        ("up down", 4, "expected >>, | or %"),
        ("up | down >> mix(1, 2, scale=q)", 14, "no scale 'q'"),
        ("up >> rrf(constant=)", 20, "expected a value for constant"),
        ("up >> rrf(speed=2)", 7, "settings of rrf do not fit"),
        ("up >> rrf(constant=1 2)", 22, "expected ,"),
        ('up >> rrf("x)', 11, "cannot be read"),
    ],
)
def test_an_error_points_at_the_character(spec, at, said):
    with pytest.raises(ConfigError) as error:
        parse(spec, STAGES)
    message, shown, mark = str(error.value).split("\n")
    assert message.startswith(f"pipeline, character {at}: ") and said in message
    assert shown.strip() == spec and mark.index("^") - 2 == at - 1


def test_what_cannot_be_run_is_said():
    with pytest.raises(ConfigError, match="fuse them first"):
        parse("up | down", STAGES).run(QUERY)
    with pytest.raises(ConfigError, match="finds nothing by itself"):
        parse("loud", STAGES).run(QUERY)
    with pytest.raises(ConfigError, match="nothing to fuse"):
        parse("rrf", STAGES).run(QUERY)
    with pytest.raises(ConfigError, match="3 weights for 2 rankings"):
        rows("up | down >> mix(1, 2, 3)")
    with pytest.raises(ConfigError, match="not a number"):
        Ranking.of(np.arange(2), np.array([1.0, np.nan]))


RANKINGS = st.lists(
    st.dictionaries(st.integers(0, 12), st.floats(-5, 5, width=32), max_size=8).map(
        lambda scores: Ranking.of(np.array(list(scores), np.int64), np.array(list(scores.values())))
    ),
    min_size=1,
    max_size=4,
)


@given(RANKINGS)
def test_fused_by_ranks_is_the_sum_of_the_reciprocals(rankings):
    fused = ReciprocalRank().advance([Found(QUERY[0], tuple(rankings))])[0].ranking
    summed = {}
    for ranking in rankings:
        for rank, row in enumerate(ranking.rows.tolist()):
            summed[row] = summed.get(row, 0.0) + 1 / (61 + rank)
    assert dict(zip(fused.rows.tolist(), fused.scores.tolist())) == pytest.approx(summed)
    assert (np.diff(fused.scores) <= 0).all()


@given(RANKINGS, st.sampled_from(["minmax", "z"]))
def test_fused_by_scores_is_the_weighted_sum_with_the_least_for_what_is_absent(rankings, scale):
    weights = [1.0 + i for i in range(len(rankings))]
    fused = Interpolated(*weights, scale=scale).advance([Found(QUERY[0], tuple(rankings))])[0].ranking
    summed = {row: 0.0 for ranking in rankings for row in ranking.rows.tolist()}
    for weight, ranking in zip(weights, rankings):
        scores = ranking.scores.astype(float)
        if len(scores):
            low, width = (scores.min(), np.ptp(scores)) if scale == "minmax" else (scores.mean(), scores.std())
            scores = (scores - low) / width if width else scores * 0
        of = dict(zip(ranking.rows.tolist(), scores))
        for row in summed:
            summed[row] += weight * of.get(row, min(scores, default=0.0))
    assert dict(zip(fused.rows.tolist(), fused.scores.tolist())) == pytest.approx(summed, abs=1e-5)
