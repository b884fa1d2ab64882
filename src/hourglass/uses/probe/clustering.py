"""Do texts of one label lie together? k-means with as many clusters as labels, V-measure against the labels.

Rosenberg and Hirschberg 2007. MTEB does the same with mini-batch k-means on samples; here it is k-means on all texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import v_measure_score

from hourglass.errors import SourceError
from hourglass.metrics.estimates import Estimate, of_seeds
from hourglass.uses.probe.encoders import Encode, dense_vectors, unit_length
from hourglass.waist import TextEncoder, Waist

SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Clustering:
    """v_measure: from 0 to 1, interval over where k-means began; by_seed: the value of each; clusters: how many."""

    v_measure: Estimate
    by_seed: tuple[float, ...]
    clusters: int

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON."""
        return {"v_measure": self.v_measure.to_dict(), "by_seed": list(self.by_seed), "clusters": self.clusters}


def clustering(
    model: TextEncoder | Waist | Encode, texts: Sequence[str], labels: Sequence[Any], *, seeds: Sequence[int] = SEEDS
) -> Clustering:
    """Cluster the vectors of `texts`, scaled to length 1, and compare with `labels` [n].

    Raises SourceError for fewer than two labels, or not one for each text.
    """
    if len(texts) != len(labels):
        raise SourceError(f"{len(labels)} labels for {len(texts)} texts: expected one each")
    named = np.unique(np.asarray(labels), return_inverse=True)[1]
    clusters = int(named.max(initial=-1)) + 1
    if clusters < 2:
        raise SourceError(f"{clusters} labels: expected two or more to tell apart")
    vectors = unit_length(dense_vectors(model, texts))
    values = [
        float(v_measure_score(named, KMeans(clusters, n_init=1, random_state=seed).fit_predict(vectors)))
        for seed in seeds
    ]
    return Clustering(of_seeds(values), tuple(values), clusters)
