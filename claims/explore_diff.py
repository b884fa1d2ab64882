"""What `diff` finds of differences that were planted, and what it calls different that is not.

    hourglass claim explore_diff                 # docstrings of the installed packages
    hourglass claim explore_diff --data DIR      # answers of chat models, questions

Everything below up to `measure` was written before anything was measured, but for two things. `found_where_told` came after a
first measurement: of what it missed, half were properties that no feature and no word tells. `diff` then learned to test all
features and words together, on plantings of seeds that are not measured here, and `found` counts that, too; the old part is
`found_by_rows`. Then documents got mean states in the middle of the model, which all together goes through since (how much they
weigh was chosen on seeds 20 to 22), and everything was measured again. What it then missed of answers were lists and quotes, so signs
were counted beside words (tried on seeds 20 to 22), and everything was measured again; the baselines have them, too. What is measured
are plantings that had no part in mending `diff`; those that had draw from the same texts.

A planting draws a property and two groups: of A 40 % have it, of B 10 %, and within those that have it, and those that have
it not, documents are drawn at random: the groups differ in nothing else. Once more A are all with the property and B all
without, as the paper checks its differences by films of one genre against others (`found_whole`, stated before it was measured,
after all other parts). Properties are rules over docstrings or answers, or
what a question asks for (fine classes). A null draws the groups without regard to any property: nothing differs. One
exploration of the corpus serves all; `diff` sees a column with the groups and has its defaults.

What is true is decided on the documents outside both groups, which chose nothing:
    found     among the five features and five words that A has most more often than B, by the table, with q of 0.05 or less,
              one tells the property: there, documents with the property have it more often than others by 30 points or more.
              Or all together do, with such a q: there, documents with the property are more like A than others by 30 points or more
    false     a row of the table with q of 0.05 or less that there is not more frequent among documents with the property (less,
              for a row towards B), by an exact one-sided test at 0.05. A feature of something that goes with the property
              is true: the groups do differ in it. All together is a row, too
How well the best feature and the best word of all could tell the property is kept with each planting: `diff` cannot find what
neither tells. A false share that is known this way errs upwards: a weak true difference may fail the test there.

Baselines, over the same two groups, get ten words, pairs of words or signs, as many candidates as ours has:
    log-odds  of words in A against B with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008), by z
    c-TF-IDF  of A as one class and B as the other (Grootendorst 2022)
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from claims.base import Claim, Row
from claims.shared.docstrings import PROPERTIES, docstrings
from claims.shared.labelled import ANSWER_PROPERTIES, answers, questions
from claims.shared.presence import best_f1, confirmed, middle, more_like, presence, share_gap
from scipy.sparse import csr_matrix, hstack
from scipy.stats import norm
from sklearn.feature_extraction.text import CountVectorizer

import hourglass as hg
from hourglass.metrics.proportions import benjamini_hochberg
from hourglass.uses.explore.together import Together
from hourglass.uses.explore.words import terms

Array = np.ndarray[Any, Any]

PAPER = "interpretable-embeddings"
SEEDS = {"smoke": (0,), "laptop": (0, 1, 2), "full": (0, 1, 2, 3, 4)}
PLANTINGS = {"smoke": 3, "laptop": 20, "full": 20}
DOCUMENTS = {"smoke": 240, "laptop": 3000, "full": 14_000}
LONGEST = {"smoke": 200}
"""Characters of a docstring; a test has little time to read."""
SHARES, WHOLE, SIZE = (0.4, 0.1), (1.0, 0.0), 300
"""Of A, and of B, that have the property."""
LEFT = {"smoke": 20, "laptop": 100, "full": 100}
"""Documents with the property, and without, that stay outside the groups, at least; a property of fewer than twice as many is
not planted."""
COMMONEST = 0.6
TELLS = 0.3
CLEARLY = 0.5
FALSE_DISCOVERY = 0.05
FOUND = 0.95
"""All are found when the share that is found lies above this with its interval."""
CANDIDATES = 5
PRIOR = 500.0
"""Words that the prior of log-odds counts as."""
SHOWN = 100
"""Rows of each direction that a baseline may call different, as many as `diff` shows of a kind."""

_claim = partial(
    Claim,
    paper=PAPER,
    data="answers of chat models (alpaca_eval), rule-checked properties; questions (trec_questions), fine classes",
    split="what is true is decided on documents outside the two groups",
    direction="higher is better",
    margin=0.0,
)
NAMED = "1 where the planted property is found, else 0; mean over plantings"
F1 = "best F1 of ten candidates on documents outside the two groups"

CLAIMS = {
    "found": _claim(
        statement="diff finds every planted difference at q < 0.05: the share found is above 0.95.",
        metric=NAMED,
        baseline=f"the constant {FOUND}",
    ),
    "found_whole": _claim(
        statement="Where all of one group have a property and none of the other, diff finds it at q < 0.05: the share found is above 0.95.",
        metric=NAMED,
        baseline=f"the constant {FOUND}",
    ),
    "found_by_rows": _claim(
        statement="Single features and words find every planted difference at q < 0.05: the share found is above 0.95.",
        metric=NAMED + "; what all together tell is not looked at",
        baseline=f"the constant {FOUND}",
    ),
    "found_by_features": _claim(
        statement="Features alone find every planted difference at q < 0.05: the share found is above 0.95.",
        metric=NAMED + "; neither words of the table nor what all together tell are looked at",
        baseline=f"the constant {FOUND}",
    ),
    "found_where_told": _claim(
        statement="diff finds every planted difference at q < 0.05 that a feature or word could tell by 50 points or more: the share found is above 0.95.",
        metric=NAMED
        + " whose property so much as one feature or word tells by 50 points, on documents outside the groups",
        baseline=f"the constant {FOUND}",
    ),
    "false_discoveries": _claim(
        statement="Of what diff calls different at q < 0.05 in planted corpora no more than 5 % is false.",
        metric="- false share of the rows, 0 without a row; mean over plantings",
        baseline=f"the constant -{FALSE_DISCOVERY}",
    ),
    "false_on_nothing": _claim(
        statement="Where nothing differs, diff calls something different at q < 0.05 in no more than 5 % of corpora.",
        metric="- 1 where the table has a row, else 0; mean over nulls",
        baseline=f"the constant -{FALSE_DISCOVERY}",
    ),
    "against_log_odds": _claim(
        statement="The five features and five words that diff puts first find the property better than the ten words of largest log-odds.",
        metric=F1,
        baseline="ten words by log-odds with a Dirichlet prior",
    ),
    "against_ctfidf": _claim(
        statement="The five features and five words that diff puts first find the property better than the ten words of largest c-TF-IDF.",
        metric=F1,
        baseline="ten words by c-TF-IDF",
    ),
    "fewer_false": _claim(
        statement="Of what diff calls different a smaller share is false than of what log-odds calls different (z, false discovery rate 5 %).",
        metric="- false share, 0 without a row; mean over plantings",
        baseline=f"the {SHOWN} words of each direction by log-odds that pass",
    ),
}


def measure(data: Path | None, seeds: Sequence[int], budget: str) -> list[Row]:
    """Rows of every part for every corpus."""
    rows: list[Row] = []
    for name, texts, properties in _corpora(data, budget):
        with tempfile.TemporaryDirectory() as folder:
            rows += _plantings(name, texts, properties, seeds, budget, Path(folder) / "ws")
    return rows


def _corpora(data: Path | None, budget: str) -> Iterator[tuple[str, list[str], dict[str, Array]]]:
    """Name, texts, and for each property which of them have it."""

    def by_rule(texts: list[str], rules: dict[str, Callable[[str], bool]]) -> dict[str, Array]:
        return {name: np.array([bool(rule(text)) for text in texts]) for name, rule in rules.items()}

    number = DOCUMENTS[budget]
    if data is None:
        texts = docstrings(5 * number, LONGEST.get(budget))
        texts = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:number]]
        yield "docstrings", texts, by_rule(texts, PROPERTIES)
        return
    texts = answers(data)["text"][:number].tolist()
    yield "answers", texts, by_rule(texts, ANSWER_PROPERTIES)
    asked = questions(data)
    yield (
        "questions",
        asked["text"].tolist(),
        {fine: (asked["fine"] == fine).to_numpy() for fine in sorted(set(asked["fine"]))},
    )


# Planting -------------------------------------------------------------------------------------------


def _plantings(
    corpus: str, texts: list[str], properties: dict[str, Array], seeds: Sequence[int], budget: str, folder: Path
) -> Iterator[Row]:
    left = LEFT[budget]
    common = {n: has for n, has in properties.items() if has.sum() >= 2 * left and has.mean() <= COMMONEST}
    groups: dict[str, Array] = {}
    planted: dict[str, str] = {}
    for seed in seeds:
        for number in range(PLANTINGS[budget]):
            random = np.random.default_rng([seed, number, 2])
            unit = f"{seed}_{number}"
            planted[unit] = str(random.choice(sorted(common)))
            has = common[planted[unit]]
            size = _size(has, SHARES, left)
            groups[f"planted_{unit}"] = _groups(has, size, SHARES, random)
            groups[f"null_{unit}"] = _groups(np.zeros(len(has), bool), size, SHARES, random)
            groups[f"whole_{unit}"] = _groups(has, _size(has, WHOLE, left), WHOLE, random)
    ws = hg.explore(pd.DataFrame({"text": texts, **groups}), text="text", out=folder, progress=False)
    present, states = presence(ws), middle(ws)
    counter = CountVectorizer(analyzer=lambda text: (term for term, _, _ in terms(text)), min_df=3)
    counts = counter.fit_transform(texts).tocsr()
    for unit, name in planted.items():
        seed = int(unit.split("_")[0])
        at = partial(Row, unit=f"{corpus} {unit}", seed=seed)
        yield from _judged(ws, f"planted_{unit}", present, states, counts, common[name], {"property": name}, seed, at)
        whole = _found(ws, f"whole_{unit}", present, states, common[name], seed)
        yield at(part="found_whole", ours=float(whole.tells >= TELLS), baseline=FOUND, detail=whole.detail())
        reported, together = _different(ws, f"null_{unit}", seed)
        yield at(
            part="false_on_nothing",
            ours=-float(len(reported) > 0 or together is not None),
            baseline=-FALSE_DISCOVERY,
            detail={"rows": len(reported), "together": together is not None},
        )


def _size(has: Array, shares: tuple[float, float], left: int) -> int:
    """Documents of a group: as many as leave enough with the property, and without, outside."""
    both = sum(shares)
    return int(min(SIZE, (has.sum() - left) / both, ((~has).sum() - left) / (2 - both)))


def _groups(has: Array, size: int, shares: tuple[float, float], random: np.random.Generator) -> Array:
    """[documents] "a", "b" or None; of each group `size` documents, with the property in these shares."""
    with_it, without = random.permutation(np.flatnonzero(has)), random.permutation(np.flatnonzero(~has))
    in_a, in_b = (int(share * size) if has.any() else 0 for share in shares)
    group = np.full(len(has), None, object)
    group[with_it[:in_a]] = group[without[: size - in_a]] = "a"
    group[with_it[in_a : in_a + in_b]] = group[without[size - in_a : 2 * size - in_a - in_b]] = "b"
    return group


def _different(ws: hg.Workspace, column: str, seed: int) -> tuple[pd.DataFrame, Together | None]:
    """What `diff` calls different, with the column of each row in `presence`, and by all together."""
    (found,) = ws.diff(column, "a", "b", seed=seed)
    table = found.table[found.table["q"] <= FALSE_DISCOVERY]
    word = {text: ws.manifest["width"] + i for i, text in enumerate(ws.words)}
    features = table["kind"] == "feature"
    columns = [
        int(f) if is_feature else word[w] for f, w, is_feature in zip(table["feature"], table["label"], features)
    ]
    together = found.together if found.together is not None and found.together.q <= FALSE_DISCOVERY else None
    return table.assign(column=np.array(columns, np.int64)), together


@dataclass(frozen=True)
class _Found:
    """What `diff` finds of a property, by what documents outside the groups say.

    table          its rows, with the column of each in `presence`
    first          the columns of its first candidates towards A, of either kind
    rows_tell      how well the best of these tells the property
    together       what all features and words tell, None where nothing
    like_a         [documents outside, 1] 1 where one is more like A by all together; no column where these tell nothing
    together_tells how well that tells the property
    """

    table: pd.DataFrame
    first: dict[str, Array]
    rows_tell: float
    together: Together | None
    like_a: csr_matrix
    together_tells: float

    @property
    def tells(self) -> float:
        return max(self.rows_tell, self.together_tells)

    def detail(self) -> dict[str, Any]:
        return {
            "rows": len(self.table),
            "tells": self.rows_tell,
            "together_q": None if self.together is None else self.together.q,
            "together_tells": self.together_tells,
        }


def _found(ws: hg.Workspace, column: str, present: csr_matrix, states: Array, has: Array, seed: int) -> _Found:
    outside = np.array([g is None for g in ws.column(column)])
    seen, true = present[outside], has[outside]
    table, together = _different(ws, column, seed)
    towards_a = table[table["difference"] > 0]
    first = {k: towards_a[towards_a["kind"] == k]["column"].to_numpy()[:CANDIDATES] for k in ("feature", "word")}
    told = share_gap(seen, true)[np.concatenate([first["feature"], first["word"]])].max(initial=0)
    like_a = csr_matrix((len(true), 0), dtype=np.float32)
    if together is not None:
        like_a = more_like(together.direction, seen, states[outside])
    return _Found(table, first, float(told), together, like_a, float(share_gap(like_a, true).max(initial=0)))


def _judged(
    ws: hg.Workspace,
    column: str,
    present: csr_matrix,
    states: Array,
    counts: csr_matrix,
    has: Array,
    detail: dict[str, Any],
    seed: int,
    row: Callable[..., Row],
) -> Iterator[Row]:
    group = ws.column(column)
    outside = np.array([g is None for g in group])
    seen, true = present[outside], has[outside]
    tells = share_gap(seen, true)
    found = _found(ws, column, present, states, has, seed)
    table, first = found.table, found.first
    ten = np.concatenate([first["feature"], first["word"]])
    # All together count as one more column of what documents have.
    columns = found.like_a.shape[1]
    rows = np.append(table["column"].to_numpy(), seen.shape[1] + np.arange(columns))
    more = np.append((table["difference"] > 0).to_numpy(), np.ones(columns, bool))
    false = _false_share(hstack([seen, found.like_a], format="csr"), true, rows, more)

    a, b = group == "a", group == "b"
    words = (counts[outside] > 0).astype(np.float32).tocsr()
    z = log_odds(counts, a, b)
    passing = benjamini_hochberg(2 * norm.sf(np.abs(z))) <= FALSE_DISCOVERY
    called = [i for i in np.argsort(-z)[:SHOWN] if passing[i] and z[i] > 0]
    called += [i for i in np.argsort(z)[:SHOWN] if passing[i] and z[i] < 0]
    columns = np.array(called, np.int64)
    false_words = _false_share(words, true, columns, z[columns] > 0)
    by_log_odds, by_ctfidf = np.argsort(-z)[: 2 * CANDIDATES], np.argsort(-ctfidf(counts, a, b))[: 2 * CANDIDATES]
    f1 = {
        "ours": best_f1(seen, true, ten),
        "features": best_f1(seen, true, first["feature"]),
        "words": best_f1(seen, true, first["word"]),
        "log_odds": best_f1(words, true, by_log_odds),
        "ctfidf": best_f1(words, true, by_ctfidf),
    }
    gaps = share_gap(words, true)
    detail |= {
        "documents": [int(a.sum()), int(b.sum()), int(true.sum())],
        **found.detail(),
        "best_feature": float(tells[: ws.manifest["width"]].max()),
        "best_word": float(tells[ws.manifest["width"] :].max(initial=-1)),
        "log_odds_tells": float(gaps[by_log_odds].max()),
        "log_odds_rows": len(called),
        "f1": f1,
    }
    of_features = tells[first["feature"]].max(initial=0)
    for part, best in (("found", found.tells), ("found_by_rows", found.rows_tell), ("found_by_features", of_features)):
        yield row(part=part, ours=float(best >= TELLS), baseline=FOUND, detail=detail)
    if tells.max() >= CLEARLY:
        yield row(part="found_where_told", ours=float(found.tells >= TELLS), baseline=FOUND)
    yield row(part="false_discoveries", ours=-false, baseline=-FALSE_DISCOVERY)
    yield row(part="against_log_odds", ours=f1["ours"], baseline=f1["log_odds"])
    yield row(part="against_ctfidf", ours=f1["ours"], baseline=f1["ctfidf"])
    yield row(part="fewer_false", ours=-false, baseline=-false_words)


def _false_share(present: csr_matrix, has: Array, columns: Array, more: Array) -> float:
    return float(1 - confirmed(present, has, columns, more).mean()) if len(columns) else 0.0


# Baselines ------------------------------------------------------------------------------------------


def log_odds(counts: csr_matrix, a: Array, b: Array) -> Array:
    """[words] z of the log-odds ratio of each word in `a` against `b`, the prior being the words of all documents."""
    everything = np.asarray(counts.sum(0), float).ravel()
    prior = PRIOR * everything / everything.sum()
    in_a, in_b = (np.asarray(counts[side].sum(0), float).ravel() for side in (a, b))
    ratio = [np.log((y + prior) / (y.sum() + PRIOR - y - prior)) for y in (in_a, in_b)]
    return np.asarray((ratio[0] - ratio[1]) / np.sqrt(1 / (in_a + prior) + 1 / (in_b + prior)))


def ctfidf(counts: csr_matrix, a: Array, b: Array) -> Array:
    """[words] frequency in `a` times log(1 + words a class / frequency in both)."""
    in_a, in_b = (np.asarray(counts[side].sum(0), float).ravel() for side in (a, b))
    both = in_a + in_b
    return np.asarray(in_a / max(in_a.sum(), 1) * np.log1p(both.sum() / 2 / np.maximum(both, 1)))
