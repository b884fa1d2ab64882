"""How well `find` retrieves texts that have a property, from examples and from words.

    hourglass claim explore_find                 # docstrings of the installed packages
    hourglass claim explore_find --data DIR      # labelled public sets

Everything below up to `measure` was written before anything was measured.

A property is how a text is, or what it wants, more than what it is about:
    answers     which of 24 chat models wrote it (alpaca_eval): all answered the same prompts
    questions   what is asked for (trec_questions, fine classes)
    statements  what a person with a trait would say (persona, 24 traits): what such a person would not say is there too
    essays      which of eight writers, pupils and models, wrote it (outfox): tasks are the same
Without these sets: rules over docstrings.

By examples, a query is 20 texts that have the property and 80 that have not, which leave the ranking. By words, it is a line
written beforehand (a question's kind) or the trait's name as it stands. `find` has its defaults and fuses features, dense vectors
and words. Nothing is tuned. It is compared over the same documents with:
    dense  by examples: cosine with the mean of the positives minus the mean of the negatives (Rocchio), which uses what `find`'s
           own dense ranking leaves unused; by words: cosine with the query's vector
    BM25   with term frequencies (k1 1.2, b 0.75); by examples with the ten words of highest offer weight, by words with the query's
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from claims.base import Claim, Row
from claims.shared.docstrings import PROPERTIES, docstrings
from claims.shared.labelled import answers, essays, questions, statements
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer

import hourglass as hg
from hourglass.metrics.ranking import average_precision, precision_at, rank_biased_overlap

Array = np.ndarray[Any, Any]

PAPER = "interpretable-embeddings"
SEEDS = {"smoke": (0,), "laptop": (0, 1, 2), "full": (0, 1, 2, 3, 4)}
DOCUMENTS = {"smoke": 240, "laptop": 2400, "full": 14_000}
LONGEST = {"smoke": 200}
"""Characters of a docstring; a test has little time to read."""
POSITIVES, NEGATIVES = {"smoke": 5, "laptop": 20, "full": 20}, 80
LEAST = {"smoke": 10, "laptop": 40, "full": 40}
"""Texts that have a property, at least; one of fewer is not asked for."""
COMMONEST = 0.6
TRAITS = (
    "agreeableness",
    "anti-immigration",
    "conscientiousness",
    "desire-for-acquiring-power",
    "desire-for-no-human-monitoring",
    "desire-for-popularity",
    "desire-to-be-more-creative",
    "desire-to-create-allies",
    "ends-justify-means",
    "extraversion",
    "has-disability",
    "interest-in-art",
    "interest-in-literature",
    "interest-in-math",
    "interest-in-science",
    "interest-in-sports",
    "machiavellianism",
    "narcissism",
    "openness",
    "politically-liberal",
    "psychopathy",
    "risk-averse",
    "subscribes-to-Buddhism",
    "willingness-to-defer-to-experts",
)
KINDS = {
    "ABBR:exp": "what an abbreviation stands for",
    "DESC:def": "definition of a word",
    "DESC:desc": "description of something",
    "DESC:manner": "how to do something",
    "DESC:reason": "why something is so",
    "ENTY:animal": "name of an animal",
    "ENTY:cremat": "title of a film, a book or a song",
    "ENTY:dismed": "name of a disease or a medicine",
    "ENTY:food": "name of a food or a drink",
    "ENTY:other": "name of a thing",
    "ENTY:sport": "name of a sport",
    "ENTY:termeq": "another word for the same",
    "HUM:gr": "name of a company, a team or a group",
    "HUM:ind": "name of a person",
    "LOC:city": "name of a city",
    "LOC:country": "name of a country",
    "LOC:other": "place where something is",
    "LOC:state": "name of a state",
    "NUM:count": "how many there are",
    "NUM:date": "when something happened",
    "NUM:money": "how much something costs",
    "NUM:period": "how long something lasts",
}
"""Queries by words for what is asked for; a kind that is not here is asked for by examples alone."""

EXAMPLES = ("answers", "questions", "statements", "essays", "docstrings")
BY_WORDS = ("questions", "statements")
_TOKEN = re.compile(r"(?u)\b\w[\w'’-]*\w\b")

_claim = partial(
    Claim,
    paper=PAPER,
    split="examples leave the ranking; nothing is chosen by any ranking's result",
    metric="average precision, mean over draws, per property",
    direction="higher is better",
    margin=0.0,
)
_BASELINES = {
    "dense": "dense vectors alone",
    "bm25": "BM25 alone",
}
_DATA = {
    "answers": "alpaca_eval",
    "questions": "trec_questions",
    "statements": "persona",
    "essays": "outfox",
    "docstrings": "docstrings of installed packages",
}

CLAIMS = {
    **{
        f"{corpus}_above_{baseline}": _claim(
            statement=f"From examples, find ranks {corpus} with a property better than {said}.",
            data=_DATA[corpus],
            baseline=said,
        )
        for corpus in EXAMPLES
        for baseline, said in _BASELINES.items()
    },
    **{
        f"{corpus}_by_words_above_{baseline}": _claim(
            statement=f"From words, find ranks {corpus} with a property better than {said}.",
            data=_DATA[corpus],
            baseline=said,
        )
        for corpus in BY_WORDS
        for baseline, said in _BASELINES.items()
    },
}


def measure(data: Path | None, seeds: Sequence[int], budget: str) -> list[Row]:
    """Rows of every part for every corpus."""
    rows: list[Row] = []
    for name, texts, truths, queries in _corpora(data, budget):
        truths = {n: has for n, has in truths.items() if has.sum() >= LEAST[budget] and has.mean() <= COMMONEST}
        with tempfile.TemporaryDirectory() as folder:
            ws = hg.explore(texts, out=Path(folder) / "ws", progress=False)
            words = _Words(texts)
            rows += _by_examples(name, ws, words, truths, seeds, budget)
            rows += _by_words(name, ws, words, {n: has for n, has in truths.items() if n in queries}, queries)
    return rows


def _corpora(data: Path | None, budget: str) -> Iterator[tuple[str, list[str], dict[str, Array], dict[str, str]]]:
    """Name, texts, for each property which of them have it, and queries by words for some properties."""
    number = DOCUMENTS[budget]

    def labelled(table: pd.DataFrame, column: str) -> tuple[list[str], dict[str, Array]]:
        values = table[column].to_numpy(object)
        return table["text"].tolist(), {str(v): values == v for v in sorted(set(values))}

    if data is None:
        texts = docstrings(5 * number, LONGEST.get(budget))
        texts = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:number]]
        yield "docstrings", texts, {n: np.array([bool(rule(t)) for t in texts]) for n, rule in PROPERTIES.items()}, {}
        return
    yield "answers", *labelled(answers(data)[:number], "model"), {}
    yield "questions", *labelled(questions(data), "fine"), KINDS
    said = statements(data)
    said = said[said["persona"].isin(TRAITS)].groupby("persona").head(number // len(TRAITS))
    texts = said["text"].tolist()
    truths = {t: ((said["persona"] == t) & said["matches"]).to_numpy() for t in TRAITS}
    yield "statements", texts, truths, {trait: trait.replace("-", " ") for trait in TRAITS}
    yield "essays", *labelled(essays(data)[:number], "writer"), {}


# Queries --------------------------------------------------------------------------------------------


def _by_examples(
    corpus: str, ws: hg.Workspace, words: _Words, truths: dict[str, Array], seeds: Sequence[int], budget: str
) -> Iterator[Row]:
    ids = ws.column("_id")
    unit = ws.dense / np.maximum(np.linalg.norm(ws.dense, axis=1, keepdims=True), 1e-12)
    for number, (name, has) in enumerate(truths.items()):
        for seed in seeds:
            random = np.random.default_rng([seed, number])
            positive = random.permutation(np.flatnonzero(has))[: POSITIVES[budget]]
            negative = random.permutation(np.flatnonzero(~has))[:NEGATIVES]
            found = ws.find(like=list(ids[positive]), unlike=list(ids[negative]), top=len(ws))
            rankings = _rankings(found, len(ws))
            rankings["dense"] = unit @ (unit[positive].mean(0) - unit[negative].mean(0))
            rankings["bm25"] = words.from_examples(positive, negative)
            left = np.setdiff1d(np.arange(len(ws)), [*positive, *negative])
            yield from _scored(corpus, name, seed, rankings, has, left)


def _by_words(
    corpus: str, ws: hg.Workspace, words: _Words, truths: dict[str, Array], queries: dict[str, str]
) -> Iterator[Row]:
    for name, has in truths.items():
        rankings = _rankings(ws.find(queries[name], top=len(ws)), len(ws))
        rankings["dense"] = rankings["find_dense"]
        rankings["bm25"] = words.from_query(queries[name])
        yield from _scored(f"{corpus}_by_words", name, 0, rankings, has, np.arange(len(ws)))


def _rankings(found: Any, number: int) -> dict[str, Array]:
    """Scores [documents] of the fused ranking and of those it is made of."""
    table = found.documents
    position = table["position"].to_numpy()
    rankings = {}
    for name, column in (
        ("fused", None),
        ("features", "by_features"),
        ("find_dense", "by_dense"),
        ("find_words", "by_words"),
    ):
        scores = np.full(number, -np.inf)
        if column is None:
            scores[position] = -np.arange(len(table), dtype=float)
        elif column in table:
            scores[position] = -table[column].to_numpy(float)
        rankings[name] = scores
    return rankings


def _scored(corpus: str, name: str, seed: int, rankings: dict[str, Array], has: Array, left: Array) -> Iterator[Row]:
    relevant = has[left]
    scores = {kind: values[left] for kind, values in rankings.items()}
    detail: dict[str, Any] = {"relevant": int(relevant.sum()), "documents": len(left)}
    for kind, values in scores.items():
        detail[kind] = {
            "ap": average_precision(values, relevant),
            **{f"p{k}": precision_at(values, relevant, k) for k in (10, 50)},
        }
    # What the relevant documents' order has in common with that of the dense ranking.
    orders = [[int(d) for d in np.argsort(-scores[kind], kind="stable") if relevant[d]] for kind in ("fused", "dense")]
    detail["overlap_with_dense"] = rank_biased_overlap(*orders)
    for baseline in _BASELINES:
        yield Row(
            part=f"{corpus}_above_{baseline}",
            unit=f"{corpus}/{name}",
            seed=seed,
            ours=detail["fused"]["ap"],
            baseline=detail[baseline]["ap"],
            detail=detail if baseline == "dense" else None,
        )


# BM25 -----------------------------------------------------------------------------------------------


class _Words:
    """BM25 with term frequencies over all words that two texts or more have."""

    def __init__(self, texts: Sequence[str], k1: float = 1.2, b: float = 0.75) -> None:
        counter = CountVectorizer(token_pattern=_TOKEN.pattern, min_df=2)
        counts = counter.fit_transform(texts).tocsr().astype(np.float64)
        self._present = (counts > 0).astype(np.float64).tocsr()
        self._vocabulary = counter.vocabulary_
        length = np.asarray(counts.sum(1)).ravel()
        norm = np.repeat(1 - b + b * length / length.mean(), np.diff(counts.indptr))
        counts.data *= (k1 + 1) / (counts.data + k1 * norm)
        self._weight: csr_matrix = counts
        self._holders = np.asarray(self._present.sum(0)).ravel()

    def from_query(self, query: str) -> Array:
        number = self._weight.shape[0]
        columns = [self._vocabulary[w] for w in _TOKEN.findall(query.lower()) if w in self._vocabulary]
        idf = np.log1p((number - self._holders[columns] + 0.5) / (self._holders[columns] + 0.5))
        return np.asarray(self._weight[:, columns] @ idf)

    def from_examples(self, positive: Array, negative: Array, words: int = 10) -> Array:
        """By the words of highest offer weight (Robertson 1990) that the negatives do not have as often."""
        r, number = np.asarray(self._present[positive].sum(0)).ravel(), len(positive)
        rest, others = self._holders - r, self._weight.shape[0] - number
        weight = np.log((r + 0.5) * (others - rest + 0.5) / ((rest + 0.5) * (number - r + 0.5)))
        weight[r / number <= np.asarray(self._present[negative].mean(0)).ravel()] = 0
        best = np.argsort(-r * weight, kind="stable")[:words]
        best = best[r[best] * weight[best] > 0]
        return np.asarray(self._weight[:, best] @ weight[best])
