"""Rankings: how well scores put the relevant first, how two systems differ in it, and how several rankings become one.

nDCG, reciprocal rank and recall are trec_eval's, ties included: scores are compared as 32-bit floats, and of equal ones the
document whose name comes later in sort order is first. Arrays of scores stand for documents in rising order of their names.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from hourglass.errors import ConfigError, InputError, nearest

Array = np.ndarray[Any, Any]

_NUMBERS_AT_ONCE = 2**22


def auroc(scores: Array, positive: Array) -> Array:
    """Area under the ROC curve of each column of `scores` [n] or [n, m] against the mask `positive` [n].

    Ties count one half. NaN where `positive` is all or nothing.
    """
    positive = np.asarray(positive, bool)
    n, p = len(positive), int(positive.sum())
    if p in (0, n):
        return np.full(np.shape(scores)[1:], np.nan)
    ranks = rankdata(scores, axis=0)
    return np.asarray((ranks[positive].sum(0) - p * (p + 1) / 2) / (p * (n - p)))


def average_precision(scores: Array, relevant: Array) -> float:
    """AP over the whole ranking, best score first; ties are broken by position."""
    hits = np.asarray(relevant, bool)[np.argsort(-np.asarray(scores), kind="stable")]
    if not hits.any():
        return float("nan")
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean())


def mean_average_precision(scores: Array, relevant: Array) -> float:
    """MAP: the mean AP of the rows of `scores` [queries, n]; a query without anything relevant is left out."""
    each = [average_precision(row, mask) for row, mask in zip(scores, relevant, strict=True) if np.any(mask)]
    return float(np.mean(each)) if each else float("nan")


def precision_at(scores: Array, relevant: Array, k: int) -> float:
    """Share of the first `k` that are relevant."""
    order = np.argsort(-np.asarray(scores), kind="stable")[:k]
    return float(np.asarray(relevant, bool)[order].mean())


def trec_order(scores: Array, k: int | None = None) -> Array:
    """Positions of the first `k` (None: all) of `scores` [n], best first; of equal scores the later position is first."""
    scores = np.asarray(scores, np.float32)
    positions = np.arange(len(scores))
    if k is not None and k < len(scores):
        positions = np.flatnonzero(scores >= np.partition(scores, -k)[-k])  # more than k where the last of them is tied
    return positions[::-1][np.argsort(-scores[positions][::-1], kind="stable")][:k]


def ndcg_at(scores: Array, relevance: Array, k: int, judged: Array | None = None) -> float:
    """nDCG of the first `k`: the sum of relevance / log2(1 + rank), as a share of the largest that could be had.

    scores     [n]
    relevance  [n] graded, 0 or below: not relevant. The grade itself is the gain, as in trec_eval, not 2 ** grade - 1
    judged     relevance of all documents that have any, where not all of them are among the n

    NaN where nothing is relevant. Järvelin and Kekäläinen 2002.
    """
    gains = np.maximum(np.asarray(relevance, float), 0)
    possible = gains if judged is None else np.maximum(np.asarray(judged, float), 0)
    ideal = _dcg(np.sort(possible)[::-1][:k])
    return _dcg(gains[trec_order(scores, k)]) / ideal if ideal else float("nan")


def reciprocal_rank_at(scores: Array, relevance: Array, k: int | None = None, judged: Array | None = None) -> float:
    """1 / the rank of the first that is relevant, 0 where none of the first `k` is; its mean over queries is MRR@k.

    Arguments as for `ndcg_at`. NaN where nothing is relevant.
    """
    relevant = np.asarray(relevance) > 0
    if not (relevant if judged is None else np.asarray(judged) > 0).any():
        return float("nan")
    hits = np.flatnonzero(relevant[trec_order(scores, k)])
    return 1 / (1 + float(hits[0])) if len(hits) else 0.0


def recall_at(scores: Array, relevance: Array, k: int, judged: Array | None = None) -> float:
    """Share of what is relevant that is among the first `k`. Arguments as for `ndcg_at`. NaN where nothing is relevant."""
    relevant = np.asarray(relevance) > 0
    total = int((relevant if judged is None else np.asarray(judged) > 0).sum())
    return float(relevant[trec_order(scores, k)].sum()) / total if total else float("nan")


def precision_among(scores: Array, relevance: Array, k: int, judged: Array | None = None) -> float:
    """Share of the first `k` places that hold something relevant; P@k. Arguments as for `ndcg_at`."""
    return float((np.asarray(relevance)[trec_order(scores, k)] > 0).sum()) / k


def average_precision_at(scores: Array, relevance: Array, k: int, judged: Array | None = None) -> float:
    """Mean over what is relevant of the precision at its place, 0 beyond the first `k`; its mean over queries is MAP@k.

    Arguments as for `ndcg_at`. NaN where nothing is relevant.
    """
    relevant = np.asarray(relevance) > 0
    total = int((relevant if judged is None else np.asarray(judged) > 0).sum())
    hits = relevant[trec_order(scores, k)]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].sum()) / total if total else float("nan")


RankingMeasure = Callable[[Array, Array, int, Array | None], float]
_AT_DEPTH: Mapping[str, RankingMeasure] = {
    "ndcg": ndcg_at,
    "mrr": reciprocal_rank_at,
    "recall": recall_at,
    "p": precision_among,
    "map": average_precision_at,
}
MEASURES = ("ndcg@10", "mrr@10", "recall@100")
"""What is said of a run where nothing else is asked for."""


def ranking_measure(name: str) -> tuple[RankingMeasure, int]:
    """(measure, depth) of a name as "ndcg@10"; ConfigError for one that there is not."""
    what, _, depth = name.partition("@")
    if what not in _AT_DEPTH or not depth.isdecimal() or int(depth) < 1:
        known = nearest(what, _AT_DEPTH) if what not in _AT_DEPTH else ""
        raise ConfigError(f"no measure {name!r}{known}; expected one of {', '.join(_AT_DEPTH)} and a depth, as ndcg@10")
    return _AT_DEPTH[what], int(depth)


def measure_run(
    run: Mapping[str, Mapping[str, float]],
    qrels: Mapping[str, Mapping[str, int]],
    measures: Sequence[str] = MEASURES,
) -> tuple[list[str], dict[str, Array]]:
    """(queries, values of each measure [queries]) of a run.

    run    score of the documents found, by query and document; a query that it lacks found nothing and counts as 0
    qrels  graded relevance by query and document; queries without anything relevant are left out
    """
    queries = [query for query, judged in qrels.items() if any(grade > 0 for grade in judged.values())]
    known = {name: ranking_measure(name) for name in measures}
    values: dict[str, Array] = {name: np.empty(len(queries)) for name in known}
    for row, query in enumerate(queries):
        found, judged = run.get(query, {}), qrels[query]
        documents = sorted(found)
        scores = np.array([found[document] for document in documents], np.float32)
        relevance = np.array([judged.get(document, 0) for document in documents], np.int64)
        for name, (measure, k) in known.items():
            values[name][row] = measure(scores, relevance, k, np.array(list(judged.values())))
    return queries, values


def _dcg(gains: Array) -> float:
    return float(np.sum(gains / np.log2(np.arange(len(gains)) + 2)))


def reciprocal_rank_fusion(rankings: Sequence[Array], constant: float = 60.0) -> Array:
    """Cormack et al. 2009: sum over rankings of 1 / (constant + rank), rank 1 = best score.

    Each ranking is an array of scores over the same documents.
    """
    total = np.zeros(len(rankings[0]))
    for scores in rankings:
        total += 1 / (constant + rankdata(-np.asarray(scores), method="min"))
    return total


def rank_biased_overlap(a: Sequence[Hashable], b: Sequence[Hashable], p: float = 0.98) -> float:
    """How alike two rankings are, from 0 (nothing shared) to 1 (equal); what comes first counts most.

    Webber, Moffat and Zobel 2010, extrapolated (their equation 32): the agreement at depth d, the share of the first d
    that both have, weighs p ** (d - 1). Neither ranking may name anything twice; they may be of unequal length.
    """
    if not len(a) or not len(b):
        return float("nan")
    short, long = sorted((a, b), key=len)
    where = {item: depth for depth, item in enumerate(short)}
    both_at = [max(where[item], depth) for depth, item in enumerate(long) if item in where]
    overlap = np.cumsum(np.bincount(np.array(both_at, np.int64), minlength=len(long)))[: len(long)]
    depth = np.arange(1, len(long) + 1)
    s, at_s = len(short), overlap[len(short) - 1]
    # Below its end the shorter one is taken to go on agreeing as it did.
    agreement = (overlap + np.where(depth > s, at_s * (depth - s) / s, 0)) / depth
    seen = (1 - p) / p * np.sum(agreement * p**depth)
    return float(seen + agreement[-1] * p ** len(long))


def bootstrap_interval(values: Array, level: float = 0.95, draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """Percentile interval of the mean of `values`, resampled with replacement."""
    low, high = np.quantile(_resampled_means(values, draws, seed), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class PairedDifference:
    """The mean of a minus b over n queries, its interval, and the two-sided p that there is none."""

    difference: float
    low: float
    high: float
    p: float
    n: int

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def paired_bootstrap(a: Array, b: Array, level: float = 0.95, draws: int = 10_000, seed: int = 0) -> PairedDifference:
    """Whether two systems differ on the queries that both have answered: `a` and `b` [n], one value of each for a query.

    Queries are resampled with replacement. p is twice the smaller share of resamples whose mean difference is on the other
    side of 0, at least 2 / (draws + 1): below 1 - level just when the interval leaves 0 out. Efron and Tibshirani 1993.

    Raises InputError where values are missing or do not pair.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise InputError(f"values of shapes {a.shape} and {b.shape}: expected one of each system for every query")
    if not (np.isfinite(a) & np.isfinite(b)).all():
        raise InputError(f"query {int(np.argmin(np.isfinite(a) & np.isfinite(b)))} has no value; leave it out of both")
    means = _resampled_means(a - b, draws, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    p = 2 * (1 + min(int((means <= 0).sum()), int((means >= 0).sum()))) / (draws + 1)
    return PairedDifference(float((a - b).mean()), float(low), float(high), min(1.0, p), len(a))


def _resampled_means(values: Array, draws: int, seed: int) -> Array:
    values, random = np.asarray(values, float), np.random.default_rng(seed)
    at_once = max(1, _NUMBERS_AT_ONCE // len(values))  # all draws of many values would fill the memory
    parts = [min(at_once, draws - start) for start in range(0, draws, at_once)]
    return np.concatenate([values[random.integers(0, len(values), (part, len(values)))].mean(1) for part in parts])
