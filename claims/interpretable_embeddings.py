"""The claims of Interpretable Embeddings with Sparse Autoencoders, at laptop scale, without a language model as judge.

    hourglass claim interpretable_embeddings                 # docstrings of the installed packages
    hourglass claim interpretable_embeddings --data DIR      # labelled public sets: bbc_news, trec_questions, reuters21578, banking77

Everything below up to `measure` was written before anything was measured. The properties are rules over docstrings, fixed
beforehand; those that fewer than 1 % or more than 60 % of the test documents have are left out, by rule.

Docstrings: the autoencoder learns on one set of documents; properties are retrieved, and differences planted, among other
documents that neither it nor the names have seen. A query is 20 examples that have the property and 80 that have not; query
documents leave the ranking. All rankings start from the same reader's states (MiniLM, last layer):
    dense   Rocchio: cosine with the mean of the positives minus the mean of the negatives
    sae     the 20 features that the positives have more often, weights exp(-(r / 20) / 0.2), maxima over their p90
    words   Rocchio over TF-IDF of words and word pairs, weighted on the documents that the autoencoder learned on
    fused   reciprocal ranks of two of them
k, temperature and the presence level are the library's defaults; none is tuned here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from claims.base import Claim, Row
from claims.shared.docstrings import PROPERTIES, docstrings
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

import hourglass as hg
from hourglass.metrics.ranking import auroc, average_precision, reciprocal_rank_fusion
from hourglass.uses.explore.examples import weights_from_examples
from hourglass.uses.explore.find import FindOptions
from hourglass.uses.explore.scores import dense_scores, feature_scores

Array = np.ndarray[Any, Any]

PAPER = "interpretable-embeddings"
SEEDS = {"smoke": (0,), "laptop": (0, 1, 2), "full": (0, 1, 2, 3, 4)}
DOCUMENTS = {"smoke": (400, 400), "laptop": (3000, 3000), "full": (20_000, 20_000)}
LONGEST = {"smoke": 200}
"""Characters of a docstring; a test has little time to read."""
SAMPLE = {"smoke": 400, "laptop": 1000, "full": 100_000}  # documents of each labelled corpus
DRAWS = {"smoke": 1, "laptop": 5, "full": 10}
POSITIVES, NEGATIVES = 20, 80
PLANTED = {"a": 0.4, "b": 0.1, "size": 300}

_retrieval_claim = partial(
    Claim,
    paper=PAPER,
    data="docstrings of installed packages, rule-checked properties",
    split="autoencoder, names and word weights from other documents than those ranked; query documents removed from the ranking",
    metric="average precision, mean over draws, per property",
    direction="higher is better",
    margin=0.0,
)
_planted_claim = partial(
    Claim,
    paper=PAPER,
    data="docstrings of installed packages, rule-checked properties",
    split="the planted groups' documents are not scored",
    direction="higher is better",
    margin=0.0,
)
DENSE = "dense Rocchio over mean token states of the same reader"
WORDS = "Rocchio over TF-IDF of words and word pairs"

CLAIMS = {
    "retrieval_fused": _retrieval_claim(
        statement="Retrieval by property is better when the features' ranking is fused with the dense ranking of the same reader than with the dense ranking alone.",
        baseline=DENSE,
    ),
    "retrieval_features": _retrieval_claim(
        statement="Features alone retrieve by property better than dense vectors of the same reader.",
        baseline=DENSE,
    ),
    "retrieval_fused_words": _retrieval_claim(
        statement="Retrieval by property is better when the features' ranking is fused with the ranking by words than with the ranking by words alone.",
        baseline=WORDS,
    ),
    "retrieval_against_words": _retrieval_claim(
        statement="Features alone retrieve by property better than words.",
        baseline=WORDS,
    ),
    "planted_difference": _planted_claim(
        statement="When 40 % of group A and 10 % of group B have a property, one of the five features that differ most finds it: its F1 on all other documents beats that of the five most different single dense dimensions.",
        metric="best F1 of five candidates on documents outside the two groups",
        baseline="the five dense dimensions whose share above their own 90th percentile differs most",
    ),
    "planted_presence": _planted_claim(
        statement="A presence rule relative to each feature's scale (half of its p90) finds planted differences better than the paper's rule (any activation).",
        metric="best F1 of five candidates on documents outside the two groups",
        baseline="the same with presence = any activation",
    ),
    "planted_words": _planted_claim(
        statement="Listing features beside words finds planted differences better than words alone: the best F1 of the five features and five words that differ most beats that of ten words.",
        metric="best F1 of ten candidates on documents outside the two groups",
        baseline="the ten most different words or word pairs",
    ),
    "class_feature": Claim(
        paper=PAPER,
        statement="For each class of a labelled corpus, the best single named feature separates it from the rest better than the best single word by c-TF-IDF.",
        data="bbc_news, trec_questions (coarse), reuters21578 (R8), banking77 (10 largest intents); at laptop budget 1,000 documents of each",
        split="feature and word chosen on one half of the documents, scored on the other",
        metric="AUROC of one feature's maximum, per class",
        baseline="AUROC of one word's term frequency times idf: the class's best c-TF-IDF word, or the word of best AUROC on the choosing half, whichever is better there",
        direction="higher is better",
        margin=0.0,
    ),
}


def measure(data: Path | None, seeds: Sequence[int], budget: str) -> list[Row]:
    """Rows of every part that the data allows."""
    rows: list[Row] = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            rows += _classes(data, seed, Path(folder), budget) if data else _docstrings(seed, Path(folder), budget)
    return rows


# Docstrings -----------------------------------------------------------------------------------------


def _docstrings(seed: int, folder: Path, budget: str) -> list[Row]:
    learn, test = DOCUMENTS[budget]
    texts = docstrings(learn + test, LONGEST.get(budget))
    order = np.random.default_rng(seed).permutation(len(texts))
    ws = hg.explore([texts[i] for i in order[:learn]], out=folder / "ws", seed=seed, progress=False)
    ws.embed([texts[i] for i in order[learn:]], progress=False)
    ranked = np.arange(learn, len(texts))
    ranked_texts = [texts[i] for i in order[learn:]]
    truths = {name: np.array([bool(rule(t)) for t in ranked_texts]) for name, rule in PROPERTIES.items()}
    truths = {name: has for name, has in truths.items() if 0.01 <= has.mean() <= 0.6 and has.sum() > 2 * POSITIVES}
    return [
        *_retrieval(ws, ranked, _word_vectors([texts[i] for i in order], learn), truths, seed, DRAWS[budget]),
        *_planted(ws, ranked, truths, seed, DRAWS[budget]),
    ]


def _word_vectors(texts: list[str], learn: int) -> csr_matrix:
    """[documents, words] TF-IDF rows of norm 1; vocabulary and idf from the first `learn` documents."""
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True).fit(texts[:learn])
    return vectorizer.transform(texts)


def _retrieval(
    ws: hg.Workspace, ranked: Array, words: csr_matrix, truths: dict[str, Array], seed: int, draws: int
) -> Iterator[Row]:
    options = FindOptions()
    dense = ws.dense
    unit = dense / np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-12)
    for number, (name, has) in enumerate(truths.items()):
        found: dict[str, list[float]] = {kind: [] for kind in ("dense", "sae", "fused", "words", "fused_words")}
        for draw in range(draws):
            random = np.random.default_rng([seed, number, draw])
            positive = random.permutation(ranked[has])[:POSITIVES]
            negative = random.permutation(ranked[~has])[:NEGATIVES]
            left = ~np.isin(ranked, [*positive, *negative])
            query = unit[positive].mean(0) - unit[negative].mean(0)
            by_dense = dense_scores(ws, query)[ranked][left]
            weights = weights_from_examples(ws, positive, negative, options)
            by_feature = feature_scores(ws, weights)[ranked][left]
            by_word = words[ranked] @ np.asarray(words[positive].mean(0) - words[negative].mean(0)).ravel()
            by_word = by_word[left]
            scores = {
                "dense": by_dense,
                "sae": by_feature,
                "fused": reciprocal_rank_fusion([by_feature, by_dense]),
                "words": by_word,
                "fused_words": reciprocal_rank_fusion([by_feature, by_word]),
            }
            for kind, values in scores.items():
                found[kind].append(average_precision(values, has[left]))
        means = {kind: float(np.mean(values)) for kind, values in found.items()}
        detail = {"prevalence": float(has.mean()), **means}
        for part, ours, baseline in (
            ("retrieval_fused", "fused", "dense"),
            ("retrieval_features", "sae", "dense"),
            ("retrieval_fused_words", "fused_words", "words"),
            ("retrieval_against_words", "sae", "words"),
        ):
            yield Row(part=part, unit=name, seed=seed, ours=means[ours], baseline=means[baseline], detail=detail)


def _planted(ws: hg.Workspace, ranked: Array, truths: dict[str, Array], seed: int, draws: int) -> Iterator[Row]:
    """Two groups that differ in one property by design; which candidates differ most, and do they find it elsewhere?"""
    p90 = ws.features["p90"].to_numpy(np.float32)
    coded = list(ws.coded())
    relative = _rows([c.codes.present(0.5 * p90) for c in coded], ranked)
    anything = _rows([c.codes.present(0.0) for c in coded], ranked)
    words = _rows([c.words for c in coded], ranked)
    dense = ws.dense[ranked]
    dimensions = csr_matrix((np.abs(dense) > np.quantile(np.abs(dense), 0.9, axis=0)).astype(np.float32))
    by_column = {"relative": relative.tocsc(), "anything": anything.tocsc(), "dense": dimensions.tocsc()}
    by_column |= dict.fromkeys(("words5", "words10"), words.tocsc())
    for number, (name, has) in enumerate(truths.items()):
        best: dict[str, list[float]] = {k: [] for k in ("relative", "anything", "dense", "words5", "words10")}
        size = min(PLANTED["size"], int(has.sum() / (PLANTED["a"] + PLANTED["b"]) / 2))
        for draw in range(draws):
            random = np.random.default_rng([seed, number, draw, 1])
            with_it, without = random.permutation(np.flatnonzero(has)), random.permutation(np.flatnonzero(~has))
            in_a, in_b = int(PLANTED["a"] * size), int(PLANTED["b"] * size)
            a = np.concatenate([with_it[:in_a], without[: int(size) - in_a]])
            b = np.concatenate([with_it[in_a : in_a + in_b], without[int(size) - in_a : 2 * int(size) - in_a - in_b]])
            rest = np.setdiff1d(np.arange(len(has)), np.concatenate([a, b]))
            for kind, matrix, top in (
                ("relative", relative, 5),
                ("anything", anything, 5),
                ("dense", dimensions, 5),
                ("words5", words, 5),
                ("words10", words, 10),
            ):
                gap = np.asarray(matrix[a].mean(0) - matrix[b].mean(0)).ravel()
                candidates = np.argsort(-gap, kind="stable")[:top]
                said = by_column[kind][:, candidates].toarray()[rest] > 0
                best[kind].append(max(_f1(said[:, i], has[rest]) for i in range(len(candidates))))
        m = {kind: float(np.mean(values)) for kind, values in best.items()}
        both = float(np.mean(np.maximum(best["relative"], best["words5"])))
        detail = {"prevalence": float(has.mean()), **m, "features_and_words": both}
        for part, ours, baseline in (
            ("planted_difference", m["relative"], m["dense"]),
            ("planted_presence", m["relative"], m["anything"]),
            ("planted_words", both, m["words10"]),
        ):
            yield Row(part=part, unit=name, seed=seed, ours=ours, baseline=baseline, detail=detail)


def _rows(parts: list[csr_matrix], ranked: Array) -> csr_matrix:
    from scipy.sparse import vstack

    return vstack(parts, format="csr")[ranked]


def _f1(said: Array, has: Array) -> float:
    return float(2 * (said & has).sum() / max(said.sum() + has.sum(), 1))


# Labelled corpora -----------------------------------------------------------------------------------


def _labelled(data: Path) -> Iterator[tuple[str, pd.DataFrame]]:
    yield "bbc_news", pd.read_parquet(data / "bbc_news" / "docs.parquet")[["text", "label"]].drop_duplicates("text")
    yield (
        "trec_questions",
        pd.read_parquet(data / "trec_questions" / "docs.parquet")[["text", "label"]].drop_duplicates("text"),
    )
    reuters = pd.read_parquet(data / "reuters21578" / "docs.parquet")
    yield (
        "reuters21578",
        reuters[reuters["r8"] != ""].rename(columns={"r8": "label"})[["text", "label"]].drop_duplicates("text"),
    )
    banking = pd.read_parquet(data / "banking77" / "docs.parquet")[["text", "label"]].drop_duplicates("text")
    yield "banking77", banking[banking["label"].isin(banking["label"].value_counts().index[:10])]


def _classes(data: Path, seed: int, folder: Path, budget: str) -> Iterator[Row]:
    for corpus, table in _labelled(data):
        table = table.sample(min(len(table), SAMPLE[budget]), random_state=0)
        table = table.reset_index(drop=True)
        ws = hg.explore(table, text="text", by="label", out=folder / corpus, seed=seed, progress=False)
        yield from _best_features(corpus, ws, table, seed)


def _best_features(corpus: str, ws: hg.Workspace, table: pd.DataFrame, seed: int) -> Iterator[Row]:
    maxima = ws.codes.tocsc()
    named = np.flatnonzero(ws.features["label"].notna())
    features = maxima[:, named].toarray()
    labels = table["label"].to_numpy(object)
    choose = np.random.default_rng(seed).random(len(labels)) < 0.5
    counter = CountVectorizer(ngram_range=(1, 1), min_df=3)
    counts = counter.fit_transform(table["text"])
    words = counter.get_feature_names_out()
    frequency = counts.multiply(1 / np.maximum(counts.sum(1), 1)).tocsr()
    for name in sorted(set(labels)):
        inside = labels == name
        picked = int(np.nanargmax(auroc(features[choose], inside[choose])))
        ours = float(auroc(features[~choose, picked], inside[~choose]))
        # c-TF-IDF (Grootendorst 2022): term frequency of the joined class times log(1 + words a class / frequency).
        in_class = np.asarray(counts[choose & inside].sum(0)).ravel()
        overall = np.asarray(counts[choose].sum(0)).ravel()
        average = overall.sum() / len(set(labels))
        ctfidf = in_class / max(in_class.sum(), 1) * np.log1p(average / np.maximum(overall, 1))
        idf = np.log1p(average / np.maximum(overall, 1))
        first = int(np.argmax(ctfidf))
        candidates = np.unique([first, *np.argsort(-ctfidf)[:200]])
        values = frequency[:, candidates].toarray() * idf[candidates]
        best = candidates[int(np.argmax(auroc(values[choose], inside[choose])))]
        by_word = {
            w: float(auroc(frequency[:, [w]].toarray().ravel()[~choose], inside[~choose])) for w in {first, int(best)}
        }
        feature = int(named[picked])
        yield Row(
            part="class_feature",
            unit=f"{corpus}/{name}",
            seed=seed,
            ours=ours,
            baseline=by_word[int(best)],
            detail={
                "feature": feature,
                "label": ws.features["label"].iloc[feature],
                "word": str(words[best]),
                "ctfidf_word": str(words[first]),
                "ctfidf_word_auroc": by_word[first],
                "documents": int(inside.sum()),
            },
        )
