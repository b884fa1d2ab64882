"""What key phrases become: the features whose names are near to them, and the words of the corpus that are.

A small corpus has few features with names, and often none is near to a phrase; its words can be. Of every phrase those words
are looked at that are commonest, for their number, in documents whose dense vectors are near to it; of these the ones count
that the encoder finds near to the phrase by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from hourglass.errors import InputError
from hourglass.uses.explore.find import query_vector, text_vectors
from hourglass.uses.explore.labels import TERMS, bare, content_words, says_nothing, trimmed
from hourglass.uses.explore.scores import dense_scores, unit
from hourglass.uses.explore.stems import stems
from hourglass.uses.explore.words import is_sign

if TYPE_CHECKING:
    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]

NEAR = 0.2
"""Least cosine of a phrase and a name or word, less what all of them have in common."""
CANDIDATES = 100
"""Words that are read for each phrase."""

_MIDDLE = 200  # words drawn from the vocabulary, whose mean is what words have in common


@dataclass(frozen=True)
class Axis:
    """features  feature, label, phrase (None: chosen by hand), similarity; each once, with the phrase it is nearest to
    words     word, phrase, similarity; the index is the word's number in the vocabulary
    nearness  [documents, phrases] cosine of each document's dense vector with each phrase
    without   phrases that nothing is near to
    """

    features: pd.DataFrame
    words: pd.DataFrame
    nearness: Array
    without: list[str]

    def columns(self, width: int) -> Array:
        """The features, then the words, as `present_in` counts them; `width`: how many features there are in all."""
        return np.concatenate(
            [self.features["feature"].to_numpy(np.int64), width + self.words.index.to_numpy(np.int64)]
        )

    @property
    def items(self) -> pd.DataFrame:
        """phrase and similarity of the features, then of the words."""
        return pd.concat([self.features, self.words], ignore_index=True)[["phrase", "similarity"]]


def axis_of(workspace: Workspace, phrases: Sequence[str], features: Sequence[int], k: int, words: bool) -> Axis:
    """What the phrases become (of each at most k features and, with `words`, k words), beside features chosen by hand.

    Without either, all features. InputError for a feature that does not exist, or where nothing is near to any phrase.
    """
    width = workspace.manifest["width"]
    for feature in features:
        if not 0 <= int(feature) < width:
            raise InputError(f"{workspace.folder}: no feature {feature}; they go from 0 to {width - 1}")
    if any(not phrase.strip() for phrase in phrases):
        raise InputError("a phrase of the axis is empty")
    chosen = features if features or phrases else range(width)
    nearest: dict[int, tuple[str | None, float]] = {int(feature): (None, np.nan) for feature in chosen}
    vectors = [unit(query_vector(workspace, phrase)) for phrase in phrases]
    missed: list[tuple[str, float]] = []
    of_features: list[dict[int, float]] = []
    for phrase, vector in zip(phrases, vectors, strict=True):
        found, *miss = _near_features(workspace, phrase, vector, k)
        missed += miss
        of_features.append(found)
        for feature, similarity in found.items():
            # One chosen by hand (NaN) stays so, as the comparison is false; of several phrases the nearest counts.
            if feature not in nearest or similarity > nearest[feature][1]:
                nearest[feature] = (phrase, similarity)
    nearness, of_words = np.zeros((len(workspace), 0), np.float32), _word_table([], [], [], [])
    if phrases:
        nearness = dense_scores(workspace, np.stack(vectors))
        if words:
            of_words = _near_words(workspace, phrases, np.stack(vectors), nearness, k)
    told = set(of_words["phrase"])
    without = [phrase for phrase, found in zip(phrases, of_features) if not found and phrase not in told]
    if without and len(without) == len(phrases) and not len(features):
        raise InputError(f"{workspace.folder}: {_nothing_near(workspace, without[0], missed, words)}")
    table = pd.DataFrame(
        {
            "feature": list(nearest),
            "label": pd.Series(workspace.labels(list(nearest)), dtype=object),
            "phrase": pd.Series([phrase for phrase, _ in nearest.values()], dtype=object),
            "similarity": [similarity for _, similarity in nearest.values()],
        }
    )
    return Axis(table, of_words, nearness, without)


def _nothing_near(workspace: Workspace, phrase: str, missed: Sequence[tuple[str, float]], words: bool) -> str:
    what = "no feature has a name, and no word is, near" if words else "no feature has a name near"
    best = f" (the nearest name is {missed[0][0]!r}, {missed[0][1]:.2f} of {NEAR} asked)" if missed else ""
    return f"{what} to {phrase!r}{best}; use words that such documents would hold, or choose features by number (--features)"


# Features -------------------------------------------------------------------------------------------


def _near_features(
    workspace: Workspace, phrase: str, query: Array, k: int
) -> tuple[dict[int, float]] | tuple[dict[int, float], tuple[str, float]]:
    """The features, at most k, whose names are near to a phrase, with the similarity of each; where none is, the nearest name.

    A name is near when it is at least half as near as the nearest and `NEAR`, or when it holds every word of the phrase:
    the vector of a single word is a poor one. Its terms, each by itself, must on average be half as near as those of the
    best, since one term of four pulls a whole name near. Names of words such as "the" alone are near to nothing.
    """
    features = workspace.features
    terms = [list(own) for own in features["terms"]]
    named = np.flatnonzero([isinstance(label, str) for label in features["label"]])
    named = named[[not says_nothing(terms[f]) for f in named]]
    if not len(named):
        return ({},)
    # All vectors of an encoder may point one way, so what names have in common is taken out of them.
    vectors = workspace.label_vectors[named]
    middle = vectors.mean(0)
    similarity = unit(vectors - middle) @ query
    wanted = stems(phrase) if content_words([phrase]) else set()
    holds = np.array([bool(wanted) and wanted <= stems(" ".join(terms[f][:TERMS])) for f in named])
    near = holds | (similarity >= max(NEAR, similarity.max() / 2))
    if not near.any():
        return {}, (workspace.labels([named[similarity.argmax()]])[0], float(similarity.max()))
    order = np.argsort(-np.where(near, similarity + 2 * holds, -np.inf), kind="stable")[: min(k, int(near.sum()))]
    shown = [terms[f][:TERMS] or [str(features["label"].iloc[f])] for f in named[order]]
    read = text_vectors(workspace, [bare(term) for own in shown for term in own])
    of_term = unit(unit(read) - middle) @ query
    ends = np.cumsum([len(own) for own in shown])
    by_terms = np.array([part.mean() for part in np.split(of_term, ends[:-1])])
    return ({int(named[i]): float(similarity[i]) for i in order[by_terms >= by_terms.max() / 2]},)


# Words ----------------------------------------------------------------------------------------------


def _near_words(workspace: Workspace, phrases: Sequence[str], vectors: Array, nearness: Array, k: int) -> pd.DataFrame:
    """word, phrase, similarity of at most k words for each phrase: those at least half as near as its nearest and `NEAR`.

    A word belongs to the phrase that it is nearest to. Word pairs that begin or end with a word such as "the" are none.
    """
    vocabulary = workspace.words
    if not vocabulary:
        return _word_table([], [], [], [])
    spread = standard(nearness)
    sums, holders = np.zeros((len(vocabulary), len(phrases))), np.zeros(len(vocabulary))
    start = 0
    for arrays in workspace.stored("word_indptr", "word_indices"):
        indptr, indices = arrays["word_indptr"], arrays["word_indices"]
        shape = (len(indptr) - 1, len(vocabulary))
        shard = csr_matrix((np.ones(len(indices), np.float32), indices, indptr), shape=shape)
        sums += shard.T @ spread[start : start + shape[0]]
        holders += np.bincount(indices, minlength=len(vocabulary))
        start += shape[0]
    # How far the mean nearness of a word's documents is from that of as many drawn at random, in standard errors.
    order = np.argsort(-sums / np.sqrt(np.maximum(holders, 1))[:, None], axis=0, kind="stable")
    candidates = np.unique([_first_plain(vocabulary, order[:, p], CANDIDATES) for p in range(len(phrases))])
    some = _first_plain(vocabulary, np.random.default_rng(0).permutation(len(vocabulary)), _MIDDLE)
    if not len(candidates):
        return _word_table([], [], [], [])
    read = np.unique(np.concatenate([candidates, some]))
    of_word = unit(_read(workspace, [vocabulary[w] for w in read]))
    middle = of_word[np.isin(read, some)].mean(0)
    similarity = unit(of_word[np.isin(read, candidates)] - middle) @ vectors.T
    nearest = similarity.argmax(1)
    at = np.arange(len(candidates))
    own = similarity[at, nearest]
    near = own >= np.maximum(NEAR, similarity.max(0) / 2)[nearest]
    order = at[near][np.lexsort((-own[near], nearest[near]))]
    order = np.concatenate([order[nearest[order] == p][:k] for p in range(len(phrases))])
    chosen = candidates[order]
    return _word_table(chosen, [vocabulary[w] for w in chosen], [phrases[p] for p in nearest[order]], own[order])


def _first_plain(vocabulary: Sequence[str], order: Array, number: int) -> Array:
    """The first words in this order, by number, that neither begin nor end with a word such as "the"; signs are none."""
    plain = (w for w in order if trimmed(vocabulary[w]) == vocabulary[w] and not is_sign(vocabulary[w]))
    return np.array(list(islice(plain, number)), np.int64)


def _word_table(
    numbers: Sequence[int] | Array, words: Sequence[str], phrases: Sequence[str], similarity: Sequence[float] | Array
) -> pd.DataFrame:
    table = {
        "word": np.array(words, object),
        "phrase": np.array(phrases, object),
        "similarity": np.array(similarity, float),
    }
    return pd.DataFrame(table, index=np.array(numbers, np.int64))


def standard(columns: Array) -> Array:
    """Columns of mean 0 and standard deviation 1 (0 where they do not vary)."""
    return (columns - columns.mean(0)) / np.maximum(columns.std(0), 1e-9)


def _read(workspace: Workspace, words: Sequence[str]) -> Array:
    """[words, d] dense vectors, each read once in a session."""
    known = workspace.word_vectors
    new = [word for word in words if word not in known]
    if new:
        known.update(zip(new, text_vectors(workspace, new), strict=True))
    return np.stack([known[word] for word in words])
