"""Whether naming key tokens makes a better encoder of a language model, without labels, than telling texts apart: Text2Token.

    hourglass claim text2token

Everything below up to `measure` was written before anything was measured at the size of a laptop.

A small decoder first learns to write the bodies of docstrings; it stands in for the large language model. From it every arm
sets out, with the same texts (the beginnings of these bodies, which the network can read whole), updates and batches (a seed
draws all three), attention in both directions, the mean as vector:
    simcse       two passes with dropout are to be alike, other texts not
    llm2vec      half of the updates to fill in hidden tokens, half as simcse
    in_text      the text's own tokens by tf-idf are to be named
    uniform      the same tokens, all alike
    derived      the tokens that the decoder itself names, less what it names for every text
    text2token   half of the updates in_text, half of both targets mixed
The learning rate of each is that of RATES which finds first lines best in a split of its own. Then, without any tuning,
    retrieval    a docstring's first line is to find its body among those of others, none of which any arm has seen
    clustering   k-means is to tell the packages of such bodies apart
A unit is a twentieth of the queries, and a tenth of the bodies; the interval is over units, seeds of a unit averaged. What the
other arms gave for a unit is kept beside it, and of these "causal" and "bidirectional" are the decoder untouched, "tfidf" the
teacher of in_text by itself, which no vector of 64 numbers is expected to reach, and "hybrid" it and text2token side by side.

Differences from the paper: the language model is a thousandth of the size and has read nothing but the texts of the arms; MTEB is out of
reach. Corpus statistics, tokenizer and tf-idf are of the texts to learn from alone.
"""

from __future__ import annotations

import copy
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from claims.base import Claim, Row
from claims.shared.docstrings import first_lines, to_bodies
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from hourglass.adapters.tokenizers import train_tokenizer
from hourglass.data.judged import Judged
from hourglass.systems.text2token import Text2Token, Text2TokenConfig
from hourglass.training import TrainConfig, fit
from hourglass.uses.probe.clustering import clustering
from hourglass.uses.probe.encoders import dense_vectors, unit_length
from hourglass.uses.probe.retrieval import retrieval

PUBLIC_DATA = False
SEEDS = {"smoke": (0,), "laptop": (0, 1, 2), "full": (0, 1, 2, 3, 4)}
SEEDS_APART = True
LEARNED = {"smoke": 200, "laptop": 12_000, "full": 12_000}
QUERIES = {"smoke": 40, "laptop": 800, "full": 800}
OTHERS = {"smoke": 40, "laptop": 4000, "full": 4000}
"""Bodies without a query, to be told from those that have one."""
CHOOSING = {"smoke": 20, "laptop": 400, "full": 400}
"""Pairs by which a learning rate is chosen, among four times as many bodies more."""
STEPS = {"smoke": (20, 6), "laptop": (2000, 1000), "full": (10_000, 2000)}
"""Of the decoder, and of each arm."""
RATES = {"smoke": (1e-3,), "laptop": (3e-4, 1e-3), "full": (1e-4, 3e-4, 1e-3)}
LAYERS, WIDTH, VOCABULARY, LONGEST, BATCH = 2, 64, 2000, 48, 32
GROUPS, PARTS, PACKAGES = 20, 10, 8
ARMS: dict[str, dict[str, Any]] = {
    "simcse": {"stages": ("simcse",)},
    "llm2vec": {"stages": ("mntp", "simcse")},
    "in_text": {"stages": ("in_text",)},
    "uniform": {"stages": ("in_text",), "weights": "uniform"},
    "derived": {"stages": ("derived",)},
    "text2token": {"stages": ("in_text", "mixed")},
}


def _claim(statement: str, baseline: str, way: str) -> Claim:
    metrics = {"retrieval": "MRR@10 of first line to body", "clustering": "V-measure of k-means against packages"}
    return Claim(
        paper="text2token",
        statement=statement,
        data="docstrings of the installed packages, no first line and no body twice",
        split="bodies to learn from, pairs to choose rates by, queries with their corpus, drawn by the seed, apart",
        metric=metrics[way],
        baseline=baseline,
        direction="ours is higher",
        margin=0.0,
    )


PAIRS: dict[str, tuple[str, str, str]] = {
    "in_text_over_simcse_retrieval": ("retrieval", "in_text", "simcse"),
    "in_text_over_simcse_clustering": ("clustering", "in_text", "simcse"),
    "mixed_over_in_text_retrieval": ("retrieval", "text2token", "in_text"),
    "mixed_over_in_text_clustering": ("clustering", "text2token", "in_text"),
}
CLAIMS = {
    "in_text_over_simcse_retrieval": _claim("Naming a text's tokens finds more than contrast", "SimCSE", "retrieval"),
    "in_text_over_simcse_clustering": _claim("It tells packages apart better", "SimCSE", "clustering"),
    "mixed_over_in_text_retrieval": _claim(
        "Tokens beyond the text for half of the updates find more still", "own tokens alone", "retrieval"
    ),
    "mixed_over_in_text_clustering": _claim("They tell packages apart better still", "own tokens alone", "clustering"),
}


@dataclass(frozen=True)
class _Split:
    learned: list[str]
    choosing: Judged
    judged: Judged
    packages: dict[str, str]
    """Of the documents of `judged` that are clustered."""


def measure(data: Any, seeds: Sequence[int], budget: str) -> list[Row]:
    rows = []
    known = first_lines(3 * (QUERIES[budget] + OTHERS[budget] + 5 * CHOOSING[budget] + LEARNED[budget]))
    for seed in seeds:
        split = _split(known, budget, seed)
        found = _found(split, seed, budget)
        for part, (way, ours, baseline) in PAIRS.items():
            groups = {
                arm: np.array_split(values[way], GROUPS if way == "retrieval" else PARTS)
                for arm, values in found.items()
            }
            for unit in range(len(groups[ours])):
                of_arms = {arm: float(group[unit].mean()) for arm, group in groups.items()}
                row = Row(part=part, unit=str(unit), seed=seed, ours=of_arms.pop(ours), baseline=of_arms.pop(baseline))
                rows.append(replace(row, detail=of_arms))
    return rows


def _split(known: Sequence[tuple[str, str, str]], budget: str, seed: int) -> _Split:
    drawn = list(known)
    random.Random(seed).shuffle(drawn)
    corpus, choosing = QUERIES[budget] + OTHERS[budget], 5 * CHOOSING[budget]
    test, valid, rest = drawn[:corpus], drawn[corpus : corpus + choosing], drawn[corpus + choosing :]
    common = [package for package, _ in Counter(package for _, _, package in test).most_common(PACKAGES)]
    return _Split(
        [body for _, body, _ in rest[: LEARNED[budget]]],
        to_bodies(valid, CHOOSING[budget]),
        to_bodies(test, QUERIES[budget]),
        {str(i): package for i, (_, _, package) in enumerate(test) if package in common},
    )


def _found(split: _Split, seed: int, budget: str) -> dict[str, dict[str, np.ndarray]]:
    """By arm: MRR@10 of each query, and the V-measure of each part of the bodies."""
    tokenizer = train_tokenizer(split.learned, VOCABULARY, "wordpiece")
    before, steps = STEPS[budget]
    torch.manual_seed(seed)
    decoder = Text2Token(_config(), tokenizer)
    _fit(decoder, split.learned, before, 1e-3, seed)
    beginnings = _beginnings(decoder, split.learned)
    decoder.count(beginnings)
    encoders: dict[str, Any] = {
        attention: _from(decoder, {"attention": attention, "stages": ("in_text",)})
        for attention in ("causal", "bidirectional")
    }
    for arm, settings in ARMS.items():
        tried = []
        for rate in RATES[budget]:
            model = _from(decoder, {"attention": "bidirectional", **settings})
            _fit(model, beginnings, steps, rate, seed)
            chosen = len(RATES[budget]) == 1 or _mrr(model, split.choosing).mean()
            tried.append((float(chosen), -rate, model))
        encoders[arm] = max(tried)[2]
    weights = TfidfVectorizer(sublinear_tf=True, dtype=np.float32).fit(split.learned)
    encoders["tfidf"] = weights.transform
    encoders["hybrid"] = lambda texts: sparse.hstack(
        [weights.transform(texts), unit_length(dense_vectors(encoders["text2token"], texts))], "csr"
    )
    return {
        arm: {"retrieval": _mrr(encoder, split.judged), "clustering": _v_measures(encoder, split)}
        for arm, encoder in encoders.items()
    }


def _beginnings(model: Text2Token, texts: list[str]) -> list[str]:
    """Of each text the whole words that fit into the network."""
    tokens = model.beginnings(texts)
    cut = []
    for text, real, words, begins in zip(texts, tokens.mask, tokens.words, tokens.begins):
        last = int(begins[words == words.max()][0])
        cut.append(text[:last] if int(real.sum()) == LONGEST else text)
    return cut


def _config() -> Text2TokenConfig:
    network = {**Text2TokenConfig.presets["tiny"]["network"], "num_hidden_layers": LAYERS}
    network |= {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH}
    return Text2TokenConfig(network=network, max_tokens=LONGEST, attention="causal", stages=("clm",))


def _from(decoder: Text2Token, settings: dict[str, Any]) -> Text2Token:
    config = replace(decoder.config, **settings)
    model = Text2Token(config, decoder.tokenizer, copy.deepcopy(decoder.network))
    model.load_state_dict({"documents": decoder.documents, "having": decoder.having}, strict=False)
    return model


def _fit(model: Text2Token, texts: list[str], steps: int, rate: float, seed: int) -> None:
    train = TrainConfig(steps=steps, batch_size=BATCH, lr=rate, weight_decay=0.01, schedule="linear", seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        for lesson in model.lessons(texts, [], Path(folder), steps):
            fit(model, lesson.texts, replace(train, steps=lesson.steps, **lesson.train), progress=False)


def _mrr(encoder: Any, judged: Judged) -> np.ndarray:
    return retrieval(encoder, judged).values["mrr@10"]


def _v_measures(encoder: Any, split: _Split) -> np.ndarray:
    names = list(split.packages)
    vectors = dense_vectors(encoder, [split.judged.corpus[name] for name in names])
    return np.array(
        [
            clustering(
                lambda _, part=part: vectors[part],
                [names[i] for i in part],
                [split.packages[names[i]] for i in part],
                seeds=(0, 1, 2),
            ).v_measure.value
            for part in np.array_split(np.arange(len(names)), PARTS)
        ]
    )
