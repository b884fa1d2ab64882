"""Against scikit-learn and by hand."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from hourglass.errors import InputError
from hourglass.metrics.estimates import of_rows, of_seeds, of_statistic
from hourglass.metrics.ranking import (
    auroc,
    average_precision,
    bootstrap_interval,
    mean_average_precision,
    measure_run,
    ndcg_at,
    paired_bootstrap,
    precision_at,
    rank_biased_overlap,
    recall_at,
    reciprocal_rank_at,
    reciprocal_rank_fusion,
    trec_order,
)


def test_against_scikit_learn():
    random = np.random.default_rng(0)
    positive = random.random(200) < 0.2
    scores = random.random((200, 3)) + positive[:, None] * [0, 0.3, 1]
    ours = auroc(np.round(scores, 1), positive)
    for column in range(3):
        assert ours[column] == pytest.approx(roc_auc_score(positive, np.round(scores[:, column], 1)))
        assert average_precision(scores[:, column], positive) == pytest.approx(
            average_precision_score(positive, scores[:, column])
        )
    assert np.isnan(auroc(scores, np.ones(200, bool))).all()


def test_small_cases_by_hand():
    assert precision_at(np.array([3, 2, 1]), np.array([1, 0, 1]), 2) == 0.5
    assert np.isnan(average_precision(np.array([1.0, 2.0]), np.array([0, 0])))
    fused = reciprocal_rank_fusion([np.array([9, 5, 1]), np.array([1, 5, 9])])
    assert fused[0] == pytest.approx(1 / 61 + 1 / 63)
    assert fused[0] == pytest.approx(fused[2])
    low, high = bootstrap_interval(np.array([1.0, 1.0, 1.0]))
    assert low == high == 1


def test_map_is_the_mean_of_scikit_learns_ap_over_queries_that_have_an_answer():
    random = np.random.default_rng(1)
    scores, relevant = random.random((5, 60)), random.random((5, 60)) < 0.2
    relevant[3] = False
    expected = np.mean([average_precision_score(relevant[q], scores[q]) for q in (0, 1, 2, 4)])
    assert mean_average_precision(scores, relevant) == pytest.approx(expected)
    assert np.isnan(mean_average_precision(scores[3:4], relevant[3:4]))


def test_precision_at_ten_and_fifty_by_counting():
    random = np.random.default_rng(2)
    scores, relevant = random.random(200), random.random(200) < 0.3
    best = sorted(range(200), key=lambda i: -scores[i])
    for k in (10, 50):
        assert precision_at(scores, relevant, k) == pytest.approx(sum(relevant[i] for i in best[:k]) / k)


def overlap_by_summing(a, b, p, depth=4000):
    """The definition, agreement by agreement, each ranking going on below its end as it did (Webber et al., section 4.4)."""
    short, long = sorted((a, b), key=len)
    total = 0.0
    for d in range(1, depth + 1):
        at = min(d, len(long))
        shared = len(set(short[:at]) & set(long[:at]))
        if at > len(short):
            shared += len(set(short) & set(long[: len(short)])) * (at - len(short)) / len(short)
        total += (1 - p) * p ** (d - 1) * shared / at
    return total


@pytest.mark.parametrize("p", [0.9, 0.98])
def test_rank_biased_overlap_is_the_infinite_sum(p):
    random = np.random.default_rng(3)
    for _ in range(20):
        a = random.permutation(30)[: random.integers(1, 30)].tolist()
        b = random.permutation(40)[: random.integers(1, 30)].tolist()
        assert rank_biased_overlap(a, b, p) == pytest.approx(overlap_by_summing(a, b, p), abs=1e-9)
        assert rank_biased_overlap(a, b, p) == pytest.approx(rank_biased_overlap(b, a, p))
    assert rank_biased_overlap("abc", "abc", p) == pytest.approx(1)
    assert rank_biased_overlap("abc", "def", p) == 0
    assert rank_biased_overlap("bacd", "abcd", p) < rank_biased_overlap("abdc", "abcd", p)


def by_the_book(found, judged):
    """(nDCG@10, RR@10, recall@100) of one query, document by document, as trec_eval documents them."""
    ranked = sorted(found, key=lambda d: (np.float32(found[d]), d), reverse=True)
    grades = [max(judged.get(d, 0), 0) for d in ranked]
    best = sorted((max(g, 0) for g in judged.values()), reverse=True)

    def dcg(gains):
        return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains[:10], 1))

    first = next((rank for rank, grade in enumerate(grades[:10], 1) if grade), None)
    relevant = sum(g > 0 for g in judged.values())
    return dcg(grades) / dcg(best), 1 / first if first else 0.0, sum(g > 0 for g in grades[:100]) / relevant


def random_run(seed, queries=30, documents=300):
    random = np.random.default_rng(seed)
    names = [f"d{i}" for i in range(documents)]
    run, qrels = {}, {}
    for query in range(queries):
        found = random.permutation(names)[: random.integers(1, documents)]
        run[f"q{query}"] = {str(d): float(np.round(random.random(), 1)) for d in found}  # many ties
        judged = random.permutation(names)[: random.integers(1, 60)]
        qrels[f"q{query}"] = {str(d): int(random.integers(-1, 5)) for d in judged} | {"d0": 1}
    return run, qrels


def test_a_run_is_measured_as_by_the_book_with_ties_and_grades_and_documents_that_were_not_found():
    run, qrels = random_run(4)
    queries, values = measure_run(run, qrels)
    assert queries == list(qrels)
    for row, query in enumerate(queries):
        expected = by_the_book(run[query], qrels[query])
        assert [values[name][row] for name in ("ndcg@10", "mrr@10", "recall@100")] == pytest.approx(expected)


def test_a_run_is_measured_as_by_ir_measures():
    ir_measures = pytest.importorskip("ir_measures")
    pytest.importorskip("pytrec_eval")
    run, qrels = random_run(5)
    queries, values = measure_run(run, qrels)
    wanted = [ir_measures.parse_measure(name) for name in ("nDCG@10", "RR", "R@100")]
    theirs = {(m.query_id, str(m.measure)): m.value for m in ir_measures.iter_calc(wanted, qrels, run)}
    for name, other in (("ndcg@10", "nDCG@10"), ("mrr@10", "RR"), ("recall@100", "R@100")):
        expected = np.array([theirs[query, other] for query in queries])
        if other == "RR":  # trec_eval's has no depth, and what ir-measures cuts itself it does not order as trec_eval
            expected[expected < 1 / 10] = 0
        assert values[name] == pytest.approx(expected)


def test_queries_without_an_answer_are_left_out_and_those_that_found_nothing_count():
    queries, values = measure_run({"a": {"x": 1.0}}, {"a": {"x": 1}, "b": {"x": 2}, "c": {"x": 0}})
    assert queries == ["a", "b"]
    assert all(list(value) == [1, 0] for value in values.values())
    nothing = np.zeros(3)
    for measure in (ndcg_at, reciprocal_rank_at, recall_at):
        assert np.isnan(measure(np.arange(3), nothing, 2))


def test_equal_scores_are_ordered_from_the_last_whether_cut_or_not():
    random = np.random.default_rng(6)
    for _ in range(50):
        scores = random.integers(0, 4, 20) / 3
        whole = sorted(range(20), key=lambda i: (scores[i], i), reverse=True)
        assert trec_order(scores).tolist() == whole
        for k in (1, 3, 19, 20, 25):
            assert trec_order(scores, k).tolist() == whole[:k]
    # Scores that differ only beyond 32 bits are equal.
    assert trec_order(np.array([1 + 1e-12, 1.0])).tolist() == [1, 0]


def test_the_paired_bootstrap_sees_a_difference_that_is_there_and_none_that_is_not():
    random = np.random.default_rng(7)
    queries = random.random(200)
    better = paired_bootstrap(queries + 0.05 + random.normal(0, 0.1, 200), queries)
    assert 0 < better.low < better.difference < better.high
    assert better.p < 0.01
    same = paired_bootstrap(queries, queries)
    assert (same.difference, same.p, same.n) == (0, 1, 200)
    # Under no difference, p is about uniform: one in ten is below a tenth.
    ps = [paired_bootstrap(random.normal(size=60), random.normal(size=60), draws=500).p for _ in range(300)]
    assert 0.05 < np.mean(np.array(ps) < 0.1) < 0.16
    with pytest.raises(InputError, match="shapes"):
        paired_bootstrap(queries, queries[:-1])
    with pytest.raises(InputError, match="query 3 has no value"):
        paired_bootstrap(np.where(np.arange(200) == 3, np.nan, queries), queries)


def test_estimates():
    from scipy.stats import ttest_1samp

    values = np.array([0.5, 0.6, 0.55, 0.7])
    interval = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (of_seeds(values).low, of_seeds(values).high) == pytest.approx((interval.low, interval.high))
    assert np.isnan(of_seeds([1.0]).low)
    rows = np.random.default_rng(8).normal(size=400)
    for estimate in (of_rows(rows), of_statistic(lambda i: rows[i].mean(), 400)):
        half = 1.96 * rows.std() / 20
        assert estimate.value == pytest.approx(rows.mean())
        assert (estimate.low, estimate.high) == pytest.approx((rows.mean() - half, rows.mean() + half), abs=0.02)
