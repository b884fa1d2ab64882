"""Pairs that are planted across two texts of a document: the texts of either field, what `correlate` and baselines find, and what of it is true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from claims.shared.presence import confirmed, middle, more_like, presence, share_gap
from claims.shared.redrawn import redrawn
from scipy.sparse import csr_matrix, hstack
from sklearn.decomposition import LatentDirichletAllocation
from sklearn.feature_extraction.text import CountVectorizer

import hourglass as hg
from hourglass.metrics.association import joint_tail, npmi
from hourglass.metrics.proportions import benjamini_hochberg
from hourglass.uses.explore.alike_in_both import AlikeInBoth
from hourglass.uses.explore.correlate import CorrelateOptions, items_in
from hourglass.uses.explore.labels import says_form
from hourglass.uses.explore.predicted import Predicted
from hourglass.uses.explore.ridge import Direction

Array = np.ndarray[Any, Any]
Pairs = tuple[Array, Array]

TELLS = 0.3
FALSE_DISCOVERY = 0.05
TOPIC_SHARE = 0.2
TOP = 100


@dataclass(frozen=True)
class Field:
    """One field's texts, explored; `drawn` [n] marks the half that plantings are made of.

    present    [n, features and words], for the truth about features and words
    middle     [n, d] mean states in the middle of the model, for that about directions
    topics     [n, topics] 1 where a text has the topic
    """

    ws: hg.Workspace
    kinds: Array
    drawn: Array
    present: csr_matrix
    middle: Array
    topics: csr_matrix

    @classmethod
    def of(cls, texts: list[str], kinds: Array, topics: int, folder: Path) -> Field:
        """Texts explored with every default in `folder`, halved at random."""
        ws = hg.explore(texts, out=folder, progress=False)
        drawn = np.random.default_rng(0).permutation(len(texts)) < len(texts) // 2
        counts = CountVectorizer(stop_words="english", min_df=3).fit_transform(texts)
        lda = LatentDirichletAllocation(topics, learning_method="online", random_state=0)
        shares = lda.fit(counts[drawn]).transform(counts)
        of_topics = csr_matrix((shares >= TOPIC_SHARE).astype(np.float32))
        return cls(ws, kinds, drawn, presence(ws), middle(ws), of_topics)

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


@dataclass(frozen=True)
class Outcome:
    """What was found in a planted corpus by each part: pairs, predicted, alike (in both), ours (of any kind), words, topics, "pairs, both named".

    found    [planted] whether each pair of kinds was
    false    share of what is called together that is not, 0 where nothing is
    number   of what is called together
    nothing  the same of ours where one field is shuffled
    """

    found: dict[str, Array]
    false: dict[str, float]
    number: dict[str, int]
    nothing: dict[str, int]

    def detail(self) -> dict[str, Any]:
        """What of it is kept with a planting; of one pair a number."""
        kept = {part: own.astype(float).tolist() for part, own in self.found.items()}
        found = {part: own[0] if len(own) == 1 else own for part, own in kept.items()}
        return {"found": found, "false": self.false, "number": self.number, **self.nothing}


def outcome(
    fields: Sequence[Field],
    planted: Sequence[Sequence[str]],
    rows: Sequence[Array],
    shuffled: Array,
    folder: Path,
    **options: Any,
) -> Outcome:
    """What `correlate` with these options, and the baselines, find of `planted`, the kinds of either field that go together.

    rows      of either field's texts the documents, in order
    shuffled  the second field's for a corpus in which nothing goes together
    """
    a, b, c = (
        redrawn(field.ws, own, folder / name)
        for field, own, name in zip([*fields, fields[1]], [*rows, shuffled], ("a", "b", "c"))
    )
    reported, by_all, groups = together(a, b, **options)
    nothing, from_nothing, alike_on_nothing = together(a, c, **options)
    own = [field.present for field in fields]
    parts: dict[str, tuple[Sequence[csr_matrix], Pairs]] = {
        "pairs": (own, columns_of(reported)),
        "predicted": as_pairs(fields, by_all),
        "alike": as_directions(fields, groups),
        "pairs, both named": (own, columns_of(reported.dropna(subset=["label_a", "label_b"]))),
    }
    defaults = CorrelateOptions(**options)
    for part in ("words", "topics"):
        matrices = [field.baselines()[part] for field in fields]
        drawn = [matrix[at] for matrix, at in zip(matrices, rows)]
        parts[part] = matrices, associated(*drawn, defaults.min_frequency, defaults.min_documents)
    found, true = {}, {}
    for part, (matrices, pairs) in parts.items():
        found[part], true[part] = judged(fields, planted, matrices, pairs)
    found["ours"] = found["pairs"] | found["predicted"] | found["alike"]
    true["ours"] = np.concatenate([true["pairs"], true["predicted"], true["alike"]])
    return Outcome(
        found,
        {part: float(1 - own.mean()) if len(own) else 0.0 for part, own in true.items()},
        {part: len(own) for part, own in true.items()},
        {
            "pairs_on_nothing": len(nothing),
            "predicted_on_nothing": len(from_nothing.table),
            "alike_on_nothing": len(alike_on_nothing.table),
        },
    )


def together(a: hg.Workspace, b: hg.Workspace, **options: Any) -> tuple[pd.DataFrame, Predicted, AlikeInBoth]:
    """What `correlate` calls together, with the columns of each pair in `presence`, what all of either predicts, and groups."""
    found = a.correlate(b, progress=False, **options)
    assert found.predicted is not None and found.alike_in_both is not None
    table = found.table[found.table["q"] <= FALSE_DISCOVERY]
    columns = {}
    for side, ws in (("a", a), ("b", b)):
        word = {text: ws.manifest["width"] + i for i, text in enumerate(ws.words)}
        items = items_in(table, side)
        columns[f"column_{side}"] = np.array([word[i] if isinstance(i, str) else i for i in items], np.int64)
    return table.assign(**columns), found.predicted, found.alike_in_both


def as_pairs(fields: Sequence[Field], by_all: Predicted) -> tuple[list[csr_matrix], Pairs]:
    """What both fields have, with columns for what of them is like what is predicted, by the other text and, of a group, by its own; and the
    pairs of these two."""
    wider, pairs = [[field.present] for field in fields], ([], [])

    def column(side: int, direction: Direction) -> int:
        wider[side].append(more_like(direction, fields[side].present, fields[side].middle))
        return fields[side].present.shape[1] + len(wider[side]) - 2

    for row, direction, in_own in zip(by_all.table.itertuples(), by_all.directions, by_all.in_own):
        own, other = (0, 1) if row.side == "a" else (1, 0)
        pairs[own].append(row.position if in_own is None else column(own, in_own))
        pairs[other].append(column(other, direction))
    return [hstack(columns, format="csr") for columns in wider], tuple(np.array(own, np.int64) for own in pairs)


def as_directions(fields: Sequence[Field], groups: AlikeInBoth) -> tuple[list[csr_matrix], Pairs]:
    """A column for each group in either field, of what is more like it by that text, and the pairs of these two."""
    matrices = []
    for side, field in enumerate(fields):
        columns = [csr_matrix((len(field.kinds), 0), dtype=np.float32)]
        columns += [more_like(both[side], field.present, field.middle) for both in groups.directions]
        matrices.append(hstack(columns, format="csr"))
    return matrices, (np.arange(len(groups.table)), np.arange(len(groups.table)))


def columns_of(table: pd.DataFrame) -> Pairs:
    return table["column_a"].to_numpy(), table["column_b"].to_numpy()


def judged(
    fields: Sequence[Field], planted: Sequence[Sequence[str]], matrices: Sequence[csr_matrix], pairs: Pairs
) -> tuple[Array, Array]:
    """[planted] whether one of the pairs tells these two kinds, and [pairs] which are true, on the half not planted from."""
    found, true = [], np.zeros(len(pairs[0]), bool)
    for kinds in planted:
        tells, more, less = [], [], []
        for field, kind, matrix, columns in zip(fields, kinds, matrices, pairs):
            seen, has = matrix[~field.drawn], field.kinds[~field.drawn] == kind
            tells.append(share_gap(seen, has)[columns] >= TELLS)
            more.append(confirmed(seen, has, columns, np.ones(len(columns), bool)))
            less.append(confirmed(seen, has, columns, np.zeros(len(columns), bool)))
        found.append((tells[0] & tells[1]).any())
        true |= (more[0] & more[1]) | (less[0] & less[1])
    return np.array(found), true


def associated(a: csr_matrix, b: csr_matrix, min_frequency: float, min_documents: int) -> Pairs:
    """The pairs of a column of `a` and one of `b` that go together in the documents, the strongest first."""
    total = a.shape[0]
    frequent = []
    for matrix in (a, b):
        count = np.asarray(matrix.sum(0)).ravel()
        frequent.append(np.flatnonzero((count >= min_frequency * total) & (count < total)))
    left, right = a[:, frequent[0]], b[:, frequent[1]]
    joint = (left.T @ right).toarray()
    count_a, count_b = (np.asarray(matrix.sum(0)).ravel() for matrix in (left, right))
    i, j = np.nonzero(joint >= min_documents)
    expected = count_a[i] * count_b[j] / total
    p = joint_tail(joint[i, j], expected, np.minimum(count_a[i], count_b[j]))
    q = benjamini_hochberg(p, of=joint.size)
    strength = npmi(joint[i, j], expected, total)
    best = [at for at in np.argsort(-strength, kind="stable") if q[at] <= FALSE_DISCOVERY][:TOP]
    return frequent[0][i[best]], frequent[1][j[best]]
