"""Linear probe: what a logistic regression on frozen vectors can tell of labels.

    found = linear_probe(model, (train_texts, train_labels), (test_texts, test_labels))
    found.accuracy, found.macro_f1         # with intervals over the test texts

How much the weights are held back (L2) is chosen on a validation split of the training texts, by accuracy; the regression is
then fitted on all of them. Columns are scaled to unit variance. Alain and Bengio 2016; Conneau and Kiela 2018 (SentEval).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hourglass.errors import SourceError, nearest
from hourglass.metrics.classification import accuracy, macro_f1
from hourglass.metrics.estimates import Estimate
from hourglass.uses.probe.encoders import Encode, dense_vectors
from hourglass.uses.probe.splitting import train_mask
from hourglass.waist import TextEncoder, Waist

Labelled = tuple[Sequence[str], Sequence[Any]]

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""scikit-learn's C, small is held back most."""
_VALIDATION_SHARE = 0.2


@dataclass(frozen=True)
class LinearProbe:
    """accuracy and macro_f1 from 0 to 1 on the test texts; majority: accuracy of always saying what is commonest there;
    strength: the C chosen; predicted: the label said of each test text."""

    accuracy: Estimate
    macro_f1: Estimate
    majority: float
    strength: float
    predicted: list[Any]

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON."""
        return {
            "accuracy": self.accuracy.to_dict(),
            "macro_f1": self.macro_f1.to_dict(),
            "majority": self.majority,
            "strength": self.strength,
        }


def linear_probe(
    model: TextEncoder | Waist | Encode,
    train: Labelled,
    test: Labelled,
    *,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
) -> LinearProbe:
    """Train on `train` (texts, labels), test on `test`; `seed` draws the validation split, a fifth of each label.

    Raises SourceError for labels that are fewer than two, not one for each text, or in the test texts alone.
    """
    for what, (texts, labels) in (("train", train), ("test", test)):
        if len(texts) != len(labels) or not len(texts):
            raise SourceError(f"{what}: {len(labels)} labels for {len(texts)} texts: expected one each, and some")
    classes, taught = np.unique(np.asarray(train[1]), return_inverse=True)
    known = {label: number for number, label in enumerate(classes.tolist())}
    if len(known) < 2:
        raise SourceError(f"train: the only label is {classes[0]!r}: expected two or more to tell apart")
    for label in np.asarray(test[1]).tolist():
        if label not in known:
            raise SourceError(f"test: label {label!r} is not in train{nearest(str(label), map(str, known))}")
    truth = np.array([known[label] for label in np.asarray(test[1]).tolist()])
    x, tested = dense_vectors(model, train[0]), dense_vectors(model, test[0])
    fitted = train_mask(taught, None, _VALIDATION_SHARE, seed)
    strength = strengths[0]
    if len(strengths) > 1:
        if fitted.all():
            raise SourceError("train: too few texts of each label for a validation split; give one strength")
        reached = [
            np.mean(_fit(x[fitted], taught[fitted], c).predict(x[~fitted]) == taught[~fitted]) for c in strengths
        ]
        strength = strengths[int(np.argmax(reached))]
    said = _fit(x, taught, strength).predict(tested)
    return LinearProbe(
        accuracy(truth, said),
        macro_f1(truth, said),
        float(np.bincount(truth).max() / len(truth)),
        float(strength),
        classes[said].tolist(),
    )


def _fit(x: Any, labels: Any, strength: float) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000)).fit(x, labels)
