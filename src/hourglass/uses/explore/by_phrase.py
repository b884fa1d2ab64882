"""A cluster for each key phrase: documents go to the phrase that most speaks for them.

Three kinds of evidence, each brought to the same spread over all documents and phrases, are added, the second halved:
1. the axis' features and words that a document has, each worth its similarity to its phrase times its rarity, log(n / documents);
2. how near the document's dense vector is to each phrase, against the other phrases and the other documents;
3. what else tells the phrases' documents apart: the surer half of those that 1 and 2 give to each phrase teach all
   features and words how often they occur with it (naive Bayes), as keywords start a classifier in McCallum and Nigam 1999.
One round only: further ones drift to whatever the corpus parts into most readily, which need not be the axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix

from hourglass.uses.explore.axis import Axis, standard
from hourglass.uses.explore.presence import present_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]

DENSE = 0.5
"""Weight of the dense vectors: they are of the whole document, whatever of it the axis is about."""
SURE = 0.5
"""Share of the documents that teach."""
FEWEST = 3
"""A feature or word in fewer documents teaches nothing."""

_SMOOTH = 0.5  # occurrences added to each count


def by_phrase(
    workspace: Workspace, axis: Axis, phrases: Sequence[str], present: csr_matrix, level: float, min_tokens: int
) -> Array:
    """[documents, phrases] how much speaks for each phrase; a document goes to the one for which most does.

    present  [documents, items] the axis' features and words that each document has; level, min_tokens: as for `present_in`
    """
    items = axis.items
    of_phrase = {phrase: i for i, phrase in enumerate(phrases)}
    told = np.flatnonzero(items["phrase"].notna())
    rarity = np.log(present.shape[0] / np.maximum(np.asarray(present.sum(0)).ravel(), 1))
    worth = np.zeros((len(items), len(phrases)))
    worth[told, [of_phrase[phrase] for phrase in items["phrase"].iloc[told]]] = (
        items["similarity"].to_numpy()[told] * rarity[told]
    )
    # What a phrase's nearness has in common with the others' says nothing of which one it is.
    nearness = standard(axis.nearness - axis.nearness.mean(1, keepdims=True))
    first = _alike(present @ worth) + DENSE * _alike(nearness)
    every = present_in(workspace, np.arange(workspace.manifest["width"] + len(workspace.words)), level, min_tokens)
    learnt = every @ _naive_bayes(every, surest(first), len(phrases))
    return first + _alike(learnt)


def surest(evidence: Array) -> Array:
    """[documents] the best column where it leads the second by most, for `SURE` of all, as many for each column; else -1."""
    n, columns = evidence.shape
    best, ordered = evidence.argmax(1), np.sort(evidence, axis=1)
    lead = ordered[:, -1] - ordered[:, -2]
    taught = np.full(n, -1)
    for column in range(columns):
        own = np.flatnonzero((best == column) & (lead > 0))
        taught[own[np.argsort(-lead[own], kind="stable")][: int(np.ceil(SURE * n / columns))]] = column
    return taught


def _naive_bayes(every: csr_matrix, taught: Array, number: int) -> Array:
    """[columns of `every`, number of phrases] log share of a phrase's documents that have a column, less its mean over the phrases."""
    teachers = np.flatnonzero(taught >= 0)
    ones = np.ones(len(teachers), np.float32)
    members = csr_matrix((ones, (taught[teachers], teachers)), shape=(number, every.shape[0]))
    counts = np.asarray((members @ every).todense(), np.float64).T + _SMOOTH
    told = np.log(counts / (np.bincount(taught[teachers], minlength=number) + 2 * _SMOOTH))
    told -= told.mean(1, keepdims=True)
    told[np.asarray(every.sum(0)).ravel() < FEWEST] = 0
    return told


def _alike(evidence: Array) -> Array:
    """Evidence less its mean in each document, with a standard deviation of 1 over everything."""
    centred = evidence - evidence.mean(1, keepdims=True)
    return centred / max(float(centred.std()), 1e-9)
