"""What `correlate` finds of pairs that were planted, and what it calls a pair that is none.

    hourglass claim explore_correlate                 # docstrings of the installed packages
    hourglass claim explore_correlate --data DIR      # a question with a request to a bank

Everything below up to `measure` was written before anything was measured, but for two things. `found_where_named` came after a
first measurement: of what it missed, no kind had a feature with a name. `correlate` then learned to tell what all of one text
predicts of the other, on plantings of seeds that are not measured here, and what is found, or false, is of either kind now; of
pairs alone are `found_by_pairs` and `false_pairs`.

A document has two fields: a question (trec_questions) and a request to a bank (banking77), as a training set has prompts and
responses; without these sets, docstrings of one half of the packages and of the other. In the background the two are
drawn apart, so that nothing of one goes with anything of the other. A planting takes a kind X of question and an intent Y, of
which each is in 1 % of the background, and joins 60 questions of kind X with 60 requests of intent Y, among 2,400 documents. A
null has the same texts, one field's shuffled. Each field is explored once; a planting is drawn from one half of its texts.

Which pairs are true follows from the planting: feature i of the left goes with j of the right if and only if i differs
between X and the other questions and j, in the same direction, between Y and the other requests. That is decided on the other
half of the documents, which is in no planting:
    found     among the pairs of the table, of features and words, there is one whose i is more frequent in X by 30 points or
              more, whose j is in Y; whether there is one of which both have a name is kept with each planting. Or of either
              field such an item is predicted by all of the other, and there the other's X (or Y) is by 30 points or more oftener
              more like what has the item
    named     both X and Y have a feature that tells them so with a name that says more than form
    false     a pair of which i or j does not differ there in such a way, by exact one-sided tests at 0.05; an item that is
              predicted and what its field's other is more like are a pair as well

Baselines see the same 2,400 documents, all of them (ours selects on one half and confirms on the other), and are tested as ours
is (shuffled documents; false discovery rate 5 % over all pairs in 5 documents or more and with parts in 1 % or more; the 100
strongest by NPMI):
    words     a word or word pair of the left with one of the right
    topics    latent Dirichlet allocation, 50 topics a field, learned on the half that plantings are drawn from; a document
              has the topics that make up a fifth of it. (The paper's correlated topic model needs a library that is no part of
              this project.)
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from claims.base import Claim, Row
from claims.shared.docstrings import PROPERTIES, docstrings
from claims.shared.labelled import questions, requests
from claims.shared.presence import confirmed, presence, share_gap
from claims.shared.redrawn import redrawn
from scipy.sparse import csr_matrix, hstack
from sklearn.decomposition import LatentDirichletAllocation
from sklearn.feature_extraction.text import CountVectorizer

import hourglass as hg
from hourglass.metrics.association import joint_tail, npmi
from hourglass.metrics.proportions import benjamini_hochberg
from hourglass.uses.explore.correlate import items_in
from hourglass.uses.explore.labels import says_form
from hourglass.uses.explore.predicted import Predicted

Array = np.ndarray[Any, Any]
Pairs = tuple[Array, Array]

PAPER = "interpretable-embeddings"
SEEDS = {"smoke": (0,), "laptop": (0, 1, 2), "full": (0, 1, 2, 3, 4)}
PLANTINGS = {"smoke": 2, "laptop": 20, "full": 20}
TEXTS = {"smoke": 240, "laptop": 6000, "full": 6000}
LONGEST = {"smoke": 200}
"""Characters of a docstring; a test has little time to read."""
DOCUMENTS = {"smoke": 90, "laptop": 2400, "full": 2400}
JOINED, BACKGROUND = 0.025, 0.01
"""Shares of the documents that are joined, and that have X, or Y, in the background."""
COMMONEST = 0.12
"""A kind that is a larger share of a field's texts is not planted."""
TELLS = 0.3
FALSE_DISCOVERY = 0.05
FOUND = 0.95
TOPICS, TOPIC_SHARE = {"smoke": 10, "laptop": 50, "full": 50}, 0.2
MIN_FREQUENCY, MIN_DOCUMENTS, TOP = 0.01, 5, 100

_claim = partial(
    Claim,
    paper=PAPER,
    data="a question (trec_questions, fine classes) beside a request to a bank (banking77, 30 intents)",
    split="plantings and true pairs from two halves of each field's texts",
    direction="higher is better",
    margin=0.0,
)
NAMED = "1 where the planted pair is found, else 0; mean over plantings"

CLAIMS = {
    "found": _claim(
        statement="correlate finds every planted pair at q < 0.05: the share found is above 0.95.",
        metric=NAMED,
        baseline=f"the constant {FOUND}",
    ),
    "found_by_pairs": _claim(
        statement="correlate finds every planted pair at q < 0.05 by pairs: the share found is above 0.95.",
        metric=NAMED + "; what all of a field predicts is not looked at",
        baseline=f"the constant {FOUND}",
    ),
    "found_where_named": _claim(
        statement="correlate finds every planted pair at q < 0.05 of which both parts have a feature with a name: the share found is above 0.95.",
        metric=NAMED,
        baseline=f"the constant {FOUND}",
    ),
    "false_discoveries": _claim(
        statement="Of what correlate calls together at q < 0.05 in planted corpora, pairs and what is predicted, no more than 5 % is false.",
        metric="- false share of it, 0 without any; mean over plantings",
        baseline=f"the constant -{FALSE_DISCOVERY}",
    ),
    "false_pairs": _claim(
        statement="Of the pairs alone that correlate calls together at q < 0.05 in planted corpora no more than 5 % is false.",
        metric="- false share of the pairs, 0 without a pair; what all of a field predicts is not looked at; mean over plantings",
        baseline=f"the constant -{FALSE_DISCOVERY}",
    ),
    "false_on_nothing": _claim(
        statement="Where one field is shuffled, correlate calls anything together at q < 0.05 in no more than 5 % of corpora.",
        metric="- 1 where there is a pair or anything is predicted, else 0; mean over nulls",
        baseline=f"the constant -{FALSE_DISCOVERY}",
    ),
    "against_topics": _claim(
        statement="correlate finds more of the planted pairs than pairs of topics do.",
        metric=NAMED,
        baseline="pairs of topics of latent Dirichlet allocation",
    ),
    "against_words": _claim(
        statement="correlate finds more of the planted pairs than pairs of words do.",
        metric=NAMED,
        baseline="pairs of words by NPMI",
    ),
}


@dataclass(frozen=True)
class _Field:
    """One field's texts, explored; `drawn` [n] marks the half that plantings are made of.

    present    [n, features and words], for the truth about features and words
    topics     [n, topics] 1 where a text has the topic
    """

    ws: hg.Workspace
    kinds: Array
    drawn: Array
    present: csr_matrix
    topics: csr_matrix

    def plantable(self, documents: int) -> list[str]:
        """The kinds of which there are enough to be joined and left in the background, some to judge by, and that are no common ones."""
        there, overall = (pd.Series(kinds).value_counts() for kinds in (self.kinds[self.drawn], self.kinds))
        enough = there.index[there >= round(JOINED * documents) + round(BACKGROUND * documents)]
        return sorted(kind for kind in enough if there[kind] < overall[kind] <= COMMONEST * len(self.kinds))

    def told(self, kind: str) -> dict[str, float]:
        """How well the best feature, feature that is looked at, or word tells a kind, on the half not planted from."""
        gap = share_gap(self.present[~self.drawn], self.kinds[~self.drawn] == kind)
        features, words = np.split(gap, [self.ws.manifest["width"]])
        names, terms = self.ws.features["label"].notna(), self.ws.features["terms"]
        looked_at = np.array([named and not says_form(own) for named, own in zip(names, terms)])
        return {
            "feature": float(features.max()),
            "named": float(features[looked_at].max(initial=-1.0)),
            "word": float(words.max(initial=-1.0)),
        }

    def baselines(self) -> dict[str, csr_matrix]:
        """Words, and topics, of all texts."""
        return {"words": self.present[:, self.ws.manifest["width"] :], "topics": self.topics}


def measure(data: Path | None, seeds: Sequence[int], budget: str) -> list[Row]:
    """Rows of every part."""
    with tempfile.TemporaryDirectory() as folder:
        left, right = (
            _field(*field, budget, Path(folder) / f"field{i}") for i, field in enumerate(_texts(data, budget))
        )
        return [
            row
            for seed in seeds
            for number in range(PLANTINGS[budget])
            for row in _planting(left, right, seed, number, budget, Path(folder) / f"{seed}_{number}")
        ]


def _texts(data: Path | None, budget: str) -> Iterator[tuple[list[str], Array]]:
    """Texts of the left field and of the right, and the kind of each."""
    number = TEXTS[budget]
    if data is not None:
        for table, column in ((questions(data), "fine"), (requests(data), "label")):
            yield table["text"][:number].tolist(), table[column][:number].to_numpy(object)
        return
    texts = docstrings(5 * number, LONGEST.get(budget))
    order = np.random.default_rng(0).permutation(len(texts))
    for rows in (order[:number], order[number : 2 * number]):
        own = [texts[i] for i in rows]
        # Of several rules the one that fewest texts obey is the kind.
        obeyed = {name: np.array([bool(rule(text)) for text in own]) for name, rule in PROPERTIES.items()}
        kinds = np.full(len(own), "other", object)
        for name in sorted(obeyed, key=lambda name: -obeyed[name].sum()):
            kinds[obeyed[name]] = name
        yield own, kinds


def _field(texts: list[str], kinds: Array, budget: str, folder: Path) -> _Field:
    ws = hg.explore(texts, out=folder, progress=False)
    drawn = np.random.default_rng(0).permutation(len(texts)) < len(texts) // 2
    counts = CountVectorizer(stop_words="english", min_df=3).fit_transform(texts)
    lda = LatentDirichletAllocation(TOPICS[budget], learning_method="online", random_state=0)
    shares = lda.fit(counts[drawn]).transform(counts)
    return _Field(ws, kinds, drawn, presence(ws), csr_matrix((shares >= TOPIC_SHARE).astype(np.float32)))


# Planting -------------------------------------------------------------------------------------------


def _planting(left: _Field, right: _Field, seed: int, number: int, budget: str, folder: Path) -> Iterator[Row]:
    random = np.random.default_rng([seed, number, 1])  # not the stream that halves the documents
    kinds = [str(random.choice(field.plantable(DOCUMENTS[budget]))) for field in (left, right)]
    rows = [_rows(field, kind, DOCUMENTS[budget], random) for field, kind in zip((left, right), kinds)]
    shuffled = random.permutation(rows[1])
    a = redrawn(left.ws, rows[0], folder / "a")
    reported, by_all = _together(a, redrawn(right.ws, rows[1], folder / "b"), seed)
    nothing, from_nothing = _together(a, redrawn(right.ws, shuffled, folder / "c"), seed)
    own = [field.present for field in (left, right)]
    parts = {"pairs": (own, _columns(reported)), "predicted": _as_pairs(own, by_all)}
    for part in ("words", "topics"):
        matrices = [field.baselines()[part] for field in (left, right)]
        parts[part] = matrices, _associated(*(matrix[drawn] for matrix, drawn in zip(matrices, rows)))
    parts["pairs, both named"] = own, _columns(reported.dropna(subset=["label_a", "label_b"]))
    found, true = {}, {}
    for part, (matrices, pairs) in parts.items():
        found[part], true[part] = _judged(left, right, kinds, matrices, pairs)
    found["ours"], true["ours"] = found["pairs"] or found["predicted"], np.append(true["pairs"], true["predicted"])
    false = {part: float(1 - own.mean()) if len(own) else 0.0 for part, own in true.items()}
    told = [field.told(kind) for field, kind in zip((left, right), kinds)]
    detail = {
        "planted": kinds,
        "told": told,
        "found": found,
        "false": false,
        "number": {part: len(own) for part, own in true.items()},
        "pairs_on_nothing": len(nothing),
        "predicted_on_nothing": len(from_nothing.table),
    }
    row = partial(Row, unit=f"planting {seed}_{number}", seed=seed)
    yield row(part="found", ours=found["ours"], baseline=FOUND, detail=detail)
    yield row(part="found_by_pairs", ours=found["pairs"], baseline=FOUND)
    if min(own["named"] for own in told) >= TELLS:
        yield row(part="found_where_named", ours=found["ours"], baseline=FOUND)
    yield row(part="false_discoveries", ours=-false["ours"], baseline=-FALSE_DISCOVERY)
    yield row(part="false_pairs", ours=-false["pairs"], baseline=-FALSE_DISCOVERY)
    yield row(
        part="false_on_nothing", ours=-float(len(nothing) + len(from_nothing.table) > 0), baseline=-FALSE_DISCOVERY
    )
    yield row(part="against_topics", ours=found["ours"], baseline=found["topics"])
    yield row(part="against_words", ours=found["ours"], baseline=found["words"])


def _rows(field: _Field, kind: str, documents: int, random: np.random.Generator) -> Array:
    """Texts of one field: those of the kind that are joined, then the background in random order."""
    of_kind = random.permutation(np.flatnonzero(field.drawn & (field.kinds == kind)))
    others = random.permutation(np.flatnonzero(field.drawn & (field.kinds != kind)))
    joined, rare = round(JOINED * documents), round(BACKGROUND * documents)
    background = [of_kind[joined : joined + rare], others[: documents - joined - rare]]
    return np.concatenate([of_kind[:joined], random.permutation(np.concatenate(background))])


def _together(a: hg.Workspace, b: hg.Workspace, seed: int) -> tuple[pd.DataFrame, Predicted]:
    """What `correlate` calls together, with the columns of each pair in `presence`, and what all of either predicts."""
    found = a.correlate(b, seed=seed, progress=False)
    assert found.predicted is not None
    table = found.table[found.table["q"] <= FALSE_DISCOVERY]
    columns = {}
    for side, ws in (("a", a), ("b", b)):
        word = {text: ws.manifest["width"] + i for i, text in enumerate(ws.words)}
        items = items_in(table, side)
        columns[f"column_{side}"] = np.array([word[i] if isinstance(i, str) else i for i in items], np.int64)
    return table.assign(**columns), found.predicted


def _as_pairs(present: Sequence[csr_matrix], by_all: Predicted) -> tuple[list[csr_matrix], Pairs]:
    """Both fields with a column more for what of them is more like what has an item of the other, and the pairs of these two."""
    wider, pairs = [[matrix] for matrix in present], ([], [])
    for row, weights, bar in zip(by_all.table.itertuples(), by_all.weights, by_all.bars):
        own, other = (0, 1) if row.side == "a" else (1, 0)
        score = present[other][:, weights["position"].to_numpy()] @ weights["weight"].to_numpy()
        pairs[own].append(row.position)
        pairs[other].append(present[other].shape[1] + len(wider[other]) - 1)
        wider[other].append(csr_matrix((score > bar).astype(np.float32)[:, None]))
    return [hstack(columns, format="csr") for columns in wider], tuple(np.array(own, np.int64) for own in pairs)


def _columns(table: pd.DataFrame) -> Pairs:
    return table["column_a"].to_numpy(), table["column_b"].to_numpy()


def _judged(
    left: _Field, right: _Field, kinds: list[str], matrices: Sequence[csr_matrix], pairs: Pairs
) -> tuple[float, Array]:
    """Whether one of the pairs tells the planting, and which of them are true, on the half not planted from."""
    tells, more, less = [], [], []
    for field, kind, matrix, columns in zip((left, right), kinds, matrices, pairs):
        seen, has = matrix[~field.drawn], field.kinds[~field.drawn] == kind
        tells.append(share_gap(seen, has)[columns] >= TELLS)
        more.append(confirmed(seen, has, columns, np.ones(len(columns), bool)))
        less.append(confirmed(seen, has, columns, np.zeros(len(columns), bool)))
    return float((tells[0] & tells[1]).any()), (more[0] & more[1]) | (less[0] & less[1])


# Baselines ------------------------------------------------------------------------------------------


def _associated(a: csr_matrix, b: csr_matrix) -> Pairs:
    """The pairs of a column of `a` and one of `b` that go together in the documents, the strongest first."""
    total = a.shape[0]
    frequent = []
    for matrix in (a, b):
        count = np.asarray(matrix.sum(0)).ravel()
        frequent.append(np.flatnonzero((count >= MIN_FREQUENCY * total) & (count < total)))
    left, right = a[:, frequent[0]], b[:, frequent[1]]
    joint = (left.T @ right).toarray()
    count_a, count_b = (np.asarray(matrix.sum(0)).ravel() for matrix in (left, right))
    i, j = np.nonzero(joint >= MIN_DOCUMENTS)
    expected = count_a[i] * count_b[j] / total
    p = joint_tail(joint[i, j], expected, np.minimum(count_a[i], count_b[j]))
    q = benjamini_hochberg(p, of=joint.size)
    strength = npmi(joint[i, j], expected, total)
    best = [at for at in np.argsort(-strength, kind="stable") if q[at] <= FALSE_DISCOVERY][:TOP]
    return frequent[0][i[best]], frequent[1][j[best]]
