"""K-sparse probing: how many latents of a sparse autoencoder it takes to tell a label.

    found = k_sparse_probes(codes, labels, rows=x)
    found.table            # a row for each label, representation and k: auroc, accuracy, which latents

1. The k latents (or dimensions) are those whose mean differs most between items with the label and without.
2. A logistic regression on these k alone, columns scaled to unit variance, is fitted on the training items; how much its
   weights are held back is chosen among five strengths by the likelihood of three folds of them.
3. It is tested on the other items. Beside it stand the same on the raw dimensions of the rows, and a logistic regression on
   all of these: what a probe could have had without an autoencoder.
Two labels make one probe, for the later of the two in sort order; more make one of each label against the rest.

Gurnee et al., "Finding neurons in a haystack: case studies with sparse probing" (2023); Kantamneni et al., "Are sparse
autoencoders useful? A case study in sparse probing" (2025).

Differences from the papers
- Latents are chosen by difference of means alone, not by the weights of a regression.
- All regressions are held back by the squares of their weights (L2), from the same five strengths. The strength is chosen
  by likelihood, not by AUROC, which does not mind weights that are too small for any item to be called positive.
- Labels that are not balanced stay so; AUROC does not mind, and accuracy comes with the share of the larger class.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.errors import ConfigError, SourceError, nearest
from hourglass.metrics.ranking import auroc
from hourglass.uses.probe.splitting import train_mask

Array = np.ndarray[Any, Any]

KS = (1, 2, 4, 8, 16)
BY = ("mean", "frequency")
_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
_FOLDS = 3


@dataclass(frozen=True)
class Probes:
    """What the probes found.

    table     a row for each probe: label, of ("latents" or "dimensions"), k (null: all of them), auroc, accuracy, majority
              (the accuracy of always saying what is commoner among the test items), chosen (the k, largest difference first;
              empty: all)
    left_out  labels that have too few items for a probe: fewer than two, with or without it, to train on or none to test
    train     [n] bool, the items that taught
    """

    table: pd.DataFrame
    left_out: tuple[str, ...]
    train: Array

    def means(self) -> pd.DataFrame:
        """auroc and accuracy by `of` and `k`, the mean over labels."""
        columns = ["auroc", "accuracy", "majority"]
        return self.table.groupby(["of", "k"], dropna=False, sort=False)[columns].mean().reset_index()

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON."""
        return {
            "train": int(self.train.sum()),
            "test": int((~self.train).sum()),
            "left_out": list(self.left_out),
            "rows": json.loads(self.table.to_json(orient="records")),
        }


def k_sparse_probes(
    codes: SparseCodes,
    labels: Sequence[Any] | Array,
    *,
    rows: Array | Tensor | None = None,
    documents: Sequence[int] | Array | None = None,
    ks: Sequence[int] = KS,
    by: Literal["mean", "frequency"] = "mean",
    train: Sequence[bool] | Array | None = None,
    test_share: float = 0.25,
    seed: int = 0,
) -> Probes:
    """Probe sparse codes for labels, with 1, 2, 4 ... latents at a time.

    labels      one for each row of `codes`; or, with `documents`, one for each document 0, 1, 2 ...: rows of a document
                are then averaged and documents are probed
    rows        [n, d] what the codes are of: the raw dimensions are probed, too
    documents   [n] the document of each row. With labels of rows, no document is on both sides of the split
    by          choose latents by difference of their "mean" activation, or of the "frequency" with which they are active
                (raw dimensions always by mean)
    train       [labels] the items that teach, others test; None: by `seed`, but for `test_share` of each label (with
                labels of rows and documents: of all documents)

    Raises InputError, in one line, for what does not fit together, and when no label is left to probe.
    """
    if by not in BY:
        raise ConfigError(f"by {by!r}{nearest(by, BY)}")
    if not len(ks) or not 1 <= min(ks) <= max(ks) <= codes.width:
        raise ConfigError(f"ks {list(ks)}: expected numbers of latents, from 1 to {codes.width}")
    given = np.asarray(labels)
    latents, raw, document = _items(codes, rows, documents, len(given))
    if given.shape != (latents.shape[0],):
        raise SourceError(f"labels of shape {given.shape}: expected one for each of {latents.shape[0]} codes")
    try:
        classes, named = np.unique(given, return_inverse=True)
    except TypeError:
        raise SourceError("labels that cannot be sorted: expected all to be texts, or all numbers") from None
    teaching = train_mask(named, document, test_share, seed) if train is None else np.asarray(train, bool)
    if teaching.shape != named.shape:
        raise SourceError(f"train of shape {teaching.shape}: expected one for each of {len(named)} labels")
    columns, compared = latents.tocsc(), (latents != 0).astype(np.float32) if by == "frequency" else latents
    made: list[dict[str, Any]] = []
    left_out = []
    for number in (1,) if len(classes) == 2 else range(len(classes)):
        label, positive = str(classes[number]), named == number
        if not _enough(positive, teaching):
            left_out.append(label)
            continue
        probe = _Prober(label, positive, teaching, seed)
        order = _by_difference(compared, positive, teaching, max(ks))
        made += [probe("latents", columns[:, order[:k]].toarray(), order[:k]) for k in ks]
        if raw is not None:
            order = _by_difference(raw, positive, teaching, max(ks))
            made += [probe("dimensions", raw[:, order[:k]], order[:k]) for k in ks if k <= raw.shape[1]]
            made.append(probe("dimensions", raw, None))
    if not made:
        raise SourceError(
            f"none of {len(classes)} labels can be probed: it takes two items with the label and two without to train on, "
            "and one of each to test on"
        )
    return Probes(pd.DataFrame(made).astype({"k": "Int64"}), tuple(left_out), teaching)


def _items(
    codes: SparseCodes, rows: Array | Tensor | None, documents: Sequence[int] | Array | None, number: int
) -> tuple[sparse.csr_matrix, Array | None, Array | None]:
    """(latents, raw dimensions, document of each item): of rows, or of documents where there are `number` of those."""
    latents = codes.to_scipy()
    raw = rows.detach().cpu().float().numpy() if isinstance(rows, Tensor) else rows
    raw = None if raw is None else np.asarray(raw, np.float32)
    if raw is not None and (raw.ndim != 2 or len(raw) != len(codes)):
        raise SourceError(f"rows of shape {raw.shape}: expected [{len(codes)}, d], as many as there are codes")
    if documents is None:
        return latents, raw, None
    document = np.asarray(documents)
    if document.shape != (len(codes),):
        raise SourceError(f"documents of shape {document.shape}: expected one for each of {len(codes)} codes")
    if number == len(codes):
        return latents, raw, document
    if not number or not np.array_equal(np.unique(document), np.arange(number)):
        raise SourceError(
            f"{number} labels for the documents of {len(codes)} codes: expected one for each code, or for documents 0, 1, "
            "2 ... one each, every one with codes"
        )
    lengths = np.bincount(document)
    mean = sparse.csr_matrix(
        (1 / lengths[document], (document, np.arange(len(document)))), shape=(number, len(document)), dtype=np.float32
    )
    return mean @ latents, None if raw is None else mean @ raw, None


def _enough(positive: Array, train: Array) -> bool:
    """Two items of each kind to train on, one to test on."""
    taught, tested = positive[train], positive[~train]
    return 2 <= taught.sum() <= len(taught) - 2 and 1 <= tested.sum() <= len(tested) - 1


def _by_difference(x: Array | sparse.csr_matrix, positive: Array, train: Array, number: int) -> Array:
    """The columns of x whose mean differs most between the training items that are positive and those that are not."""
    of = np.stack([positive & train, ~positive & train]).astype(np.float64)
    with_it, without = np.asarray(x.T @ of.T).T / of.sum(1)[:, None]
    return np.argsort(-np.abs(with_it - without), kind="stable")[:number]


class _Prober:
    """Fits and tests a logistic regression for one label."""

    def __init__(self, label: str, positive: Array, train: Array, seed: int) -> None:
        self._label, self._positive, self._train = label, positive, train
        folds = min(_FOLDS, *np.bincount(positive[train]))
        self._search = GridSearchCV(
            make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
            {"logisticregression__C": _STRENGTHS},
            scoring="neg_log_loss",
            cv=StratifiedKFold(folds, shuffle=True, random_state=seed),
        )

    def __call__(self, of: str, x: Array, chosen: Array | None) -> dict[str, Any]:
        """A row of the table, for the columns x [n, k] that were chosen (None: all)."""
        positive, tested = self._positive, ~self._train
        self._search.fit(x[self._train], positive[self._train])
        scores = self._search.decision_function(x[tested])
        share = positive[tested].mean()
        return {
            "label": self._label,
            "of": of,
            "k": None if chosen is None else len(chosen),
            "auroc": float(auroc(scores, positive[tested])),
            "accuracy": float(((scores > 0) == positive[tested]).mean()),
            "majority": float(max(share, 1 - share)),
            "chosen": [] if chosen is None else chosen.tolist(),
        }
