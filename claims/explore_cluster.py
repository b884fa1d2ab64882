"""Whether `cluster` parts texts along the axis that is named, where they can be parted along another as well.

    hourglass claim explore_cluster                 # docstrings of the installed packages
    hourglass claim explore_cluster --data DIR      # sets of two axes each, from labelled public sets

Everything below up to `measure` was written before anything was measured; `requests` and `interests`, whose texts have both
axes by nature, after the other three had been measured and before they were.

Each set has two known axes that have nothing to do with each other, and as many texts of every combination:
    news_question  a piece of a news story (bbc_news, five topics) followed by a question (trec_questions: for a person, a
                   place, a number, a description)
    news_comment   a piece of a news story followed by a comment (paradetox: rude or polite)
    essays         pieces of school essays (outfox): by pupils or by ChatGPT, about one of five subjects, told from the task
    requests       what customers of a bank ask (banking77): about one of four ways of moving money, and one of three troubles
    interests      what a person says (persona) who is interested in a thing, or is not: one of five things
Without these sets: docstrings that speak in the imperative or in the third person, with their parameters in sections or without.

The axis is named by the key phrases below, one for each class, which are all that `cluster` is told beside the number of
classes; all else is its defaults. Where it refuses, for no name is near to them, nothing is parted: index 0. The adjusted Rand index is over all documents, those without a feature of the axis being a
cluster of their own. A sample has its own texts and its own exploration; samples of a set share none.
    k-means         of dense vectors of the same reader (norm 1), as many clusters, best of ten starts: it cannot be told the axis
    nearest phrase  each text to the phrase whose vector is nearest to its dense vector, both less their mean: told the axis as
                    `cluster` is, and that every phrase is a class, which `cluster` infers where it is told as many
                    classes as phrases (when this was first measured it did not)
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from claims.base import Claim, Row
from claims.shared.docstrings import PROPERTIES, docstrings
from claims.shared.labelled import comments, essay_pieces, news_pieces, questions, requests, statements
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

import hourglass as hg
from hourglass.errors import InputError
from hourglass.uses.explore.find import query_vector

Array = np.ndarray[Any, Any]

PAPER = "interpretable-embeddings"
SEEDS = {"smoke": (0,), "laptop": (0, 1, 2), "full": (0, 1, 2, 3, 4)}
DOCUMENTS = {"smoke": 100, "laptop": 1000, "full": 1400}

AXES: dict[str, dict[str, tuple[str, ...]]] = {
    "news_question": {
        "topic": (
            "business and the economy",
            "film, music and television",
            "politics and government",
            "sport and games",
            "computers and technology",
        ),
        "question": ("who is the person", "where is the place", "how many, what number", "what does it mean"),
    },
    "news_comment": {
        "topic": (
            "business and the economy",
            "film, music and television",
            "politics and government",
            "sport and games",
            "computers and technology",
        ),
        "tone": ("rude swear words and insults", "polite, neutral words"),
    },
    "essays": {
        "subject": (
            "driverless cars",
            "the Electoral College and voting",
            "the planet Venus",
            "the Face on Mars",
            "asking several people for advice",
        ),
        "writer": ("simple words of a pupil with mistakes", "formal words of a fluent essay"),
    },
    "requests": {
        "way": ("paying with the card", "cash from an ATM", "a bank transfer", "topping up the account"),
        "trouble": ("still pending, waiting for it", "declined, failed, did not work", "a fee was charged"),
    },
    "interests": {
        "thing": ("art and painting", "books and literature", "mathematics", "science", "sport"),
        "stance": ("I love it, it interests me", "I dislike it, it bores me"),
    },
    "docstrings": {
        "verb": ("return, compute, create", "returns, computes, creates"),
        "sections": ("parameters and their types listed one by one", "a plain sentence"),
    },
}
"""The key phrases of every axis."""
SUBJECTS = {
    "driverless cars": re.compile(r"driverless", re.I),
    "electoral college": re.compile(r"electoral college", re.I),
    "Venus": re.compile(r"\bvenus\b", re.I),
    "Mars": re.compile(r"face on mars|\bmars\b", re.I),
    "advice": re.compile(r"advice|multiple (opinions|perspectives|people)", re.I),
}
THINGS = [f"interest-in-{thing}" for thing in ("art", "literature", "math", "science", "sports")]
WAYS = ("card_payment", "cash_withdrawal", "transfer", "top_up")
TROUBLES = {"pending": ("pending_",), "failed": ("declined_", "failed_", "_failed"), "charged": ("_charge",)}
"""What of a request's label tells which it is of."""
_VERBS = ("starts with an imperative verb", "starts with a third-person verb")
_SECTIONS = ("has a numpy parameters section", "has a Google args section", "has sphinx field lists")

_BASELINES = {
    "kmeans": "k-means of dense vectors",
    "phrases": "the nearest phrase by dense vectors",
}
CLAIMS = {
    f"{name}_above_{baseline}": Claim(
        paper=PAPER,
        statement=f"On {name}, clusters along a named axis ({' or '.join(axes)}) are nearer to its classes than {said}.",
        data=name,
        split="phrases were written before; samples share no text",
        metric="adjusted Rand index with the classes of the named axis; a unit is an axis of a sample",
        baseline=said,
        direction="higher is better",
        margin=0.0,
    )
    for name, axes in AXES.items()
    for baseline, said in _BASELINES.items()
}


def measure(data: Path | None, seeds: Sequence[int], budget: str) -> list[Row]:
    """Rows of every part for every set: an axis of a sample is a unit."""
    rows: list[Row] = []
    for name, samples in _sets(data, len(seeds), DOCUMENTS[budget]):
        for seed, sample in zip(seeds, samples):
            with tempfile.TemporaryDirectory() as folder:
                ws = hg.explore(sample, text="text", out=Path(folder) / "ws", seed=seed, progress=False)
                rows += _axes(name, ws, sample, seed)
    return rows


def _axes(name: str, ws: hg.Workspace, sample: pd.DataFrame, seed: int) -> Iterator[Row]:
    dense = ws.dense / np.maximum(np.linalg.norm(ws.dense, axis=1, keepdims=True), 1e-12)
    for axis, phrases in AXES[name].items():
        classes = sample[axis].to_numpy(object)
        number = len(set(classes))
        try:
            found = ws.cluster(phrases, number=number, seed=seed)
            assignment, names, features = found.assignment, found.table["name"].tolist(), len(found.features)
        except InputError:  # no name is near to the phrases: nothing was told apart
            assignment, names, features = np.zeros(len(ws), np.int64), [], 0
        vectors = np.stack([query_vector(ws, phrase) for phrase in phrases])
        vectors -= vectors.mean(0)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        assigned = {
            "ours": assignment,
            "kmeans": KMeans(number, n_init=10, random_state=seed).fit_predict(dense),
            "phrases": ((dense - dense.mean(0)) @ vectors.T).argmax(1),
        }
        others = {other: sample[other].to_numpy(object) for other in AXES[name] if other != axis}
        index = {kind: float(adjusted_rand_score(classes, own)) for kind, own in assigned.items()}
        detail = {
            **index,
            "with_other_axis": {
                other: {kind: float(adjusted_rand_score(values, own)) for kind, own in assigned.items()}
                for other, values in others.items()
            },
            "names": names,
            "without": int((assignment == 0).sum()),
            "features": features,
            "named": int(ws.features["label"].notna().sum()),
        }
        for baseline in _BASELINES:
            yield Row(
                part=f"{name}_above_{baseline}",
                unit=f"{name}/{axis}, sample {seed}",
                seed=seed,
                ours=index["ours"],
                baseline=index[baseline],
                detail=detail if baseline == "kmeans" else None,
            )


# Sets of two axes -----------------------------------------------------------------------------------


def _sets(data: Path | None, samples: int, documents: int) -> Iterator[tuple[str, list[pd.DataFrame]]]:
    if data is None:
        yield "docstrings", _balanced(_docstrings(20 * documents), ["verb", "sections"], samples, documents)
        return
    stories = news_pieces(data).rename(columns={"label": "topic"})
    asked = questions(data).rename(columns={"label": "question"})
    asked = asked[asked["question"].isin(["HUM", "LOC", "NUM", "DESC"])]
    said = comments(data).rename(columns={"label": "tone"})
    for name, second, axis in (("news_question", asked, "question"), ("news_comment", said, "tone")):
        yield name, _crossed(stories, "topic", second, axis, samples, documents)
    yield "essays", _balanced(_subjects(data), ["subject", "writer"], samples, documents)
    yield "requests", _balanced(_troubles(data), ["way", "trouble"], samples, documents)
    yield "interests", _balanced(_interests(data), ["thing", "stance"], samples, documents)


def _crossed(
    first: pd.DataFrame, a: str, second: pd.DataFrame, b: str, samples: int, documents: int
) -> list[pd.DataFrame]:
    """Texts of `first` each followed by one of `second`, with equally many of each pair of classes."""
    pairs = [(x, y) for x in sorted(set(first[a])) for y in sorted(set(second[b]))]
    left = {x: iter(first.loc[first[a] == x, "text"]) for x in set(first[a])}
    right = {y: iter(second.loc[second[b] == y, "text"]) for y in set(second[b])}
    size = min(
        documents // len(pairs),
        *(n // samples // len(right) for n in first[a].value_counts()),
        *(n // samples // len(left) for n in second[b].value_counts()),
    )
    rows = [
        [{"text": f"{next(left[x]).strip()} {next(right[y])}", a: x, b: y} for x, y in pairs for _ in range(size)]
        for _ in range(samples)
    ]
    return [pd.DataFrame(own).sample(frac=1, random_state=0).reset_index(drop=True) for own in rows]


def _balanced(table: pd.DataFrame, axes: list[str], samples: int, documents: int) -> list[pd.DataFrame]:
    """Equally many texts of each combination, no text in two samples."""
    groups = [own for _, own in table.groupby(axes)]
    size = min(documents // len(groups), *(len(own) // samples for own in groups))
    taken = [[own.iloc[i * size : (i + 1) * size] for own in groups] for i in range(samples)]
    return [pd.concat(own).sample(frac=1, random_state=0).reset_index(drop=True) for own in taken]


def _subjects(data: Path) -> pd.DataFrame:
    """Essays of one subject, by pupils and by ChatGPT without an attack."""
    prompts = pd.read_parquet(data / "outfox" / "prompts.parquet")
    written = essay_pieces(data)
    told = written["essay_id"].map(dict(zip(prompts["essay_id"], prompts["prompt"])))
    subjects = [[name for name, pattern in SUBJECTS.items() if pattern.search(prompt)] for prompt in told]
    one = np.array([len(own) == 1 for own in subjects]) & written["writer"].isin(["human", "chatgpt"]).to_numpy()
    return written[one].assign(subject=[own[0] for own, is_one in zip(subjects, one) if is_one])


def _troubles(data: Path) -> pd.DataFrame:
    """Requests whose label names one way of moving money and one trouble with it."""
    asked = requests(data, None)
    ways = [[way for way in WAYS if way in label] for label in asked["label"]]
    troubles = [
        [t for t, signs in TROUBLES.items() if any(sign in label for sign in signs)] for label in asked["label"]
    ]
    one = np.array([len(w) == len(t) == 1 for w, t in zip(ways, troubles)])
    first = {"way": [w[0] for w, is_one in zip(ways, one) if is_one]}
    return asked[one].assign(**first, trouble=[t[0] for t, is_one in zip(troubles, one) if is_one])


def _interests(data: Path) -> pd.DataFrame:
    """What people say who are interested in a thing, and who are not."""
    said = statements(data)
    return said[said["persona"].isin(THINGS)].rename(columns={"persona": "thing", "matches": "stance"})


def _docstrings(number: int) -> pd.DataFrame:
    texts = docstrings(number)
    obeys = {name: np.array([bool(PROPERTIES[name](text)) for text in texts]) for name in (*_VERBS, *_SECTIONS)}
    verb = np.select([obeys[name] for name in _VERBS], ["imperative", "third person"], "")
    sections = np.where(np.any([obeys[name] for name in _SECTIONS], axis=0), "listed", "plain")
    table = pd.DataFrame({"text": texts, "verb": verb, "sections": sections})
    return table[table["verb"] != ""].drop_duplicates("text").sample(frac=1, random_state=0)
