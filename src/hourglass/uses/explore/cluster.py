"""Clusters of documents along an axis that the user names.

The axis is a set of features: those whose names are near to the user's key phrases, those chosen by hand, or
all. Documents are alike as far as they have the same of these features (Jaccard), and are parted by spectral
clustering. Those that have none of them are a group of their own and are not forced into a cluster.

All clusters are named together: a term counts for the one cluster that has it more often than every other, and no
two names share a word, nor two words that begin alike. Names are made on one half of the documents; on the other half the names alone put each
document into a cluster, and the share that stays where it is tells what they are worth.

Differences from the paper:
- The user writes the key phrases; no language model expands the request, names the clusters or re-assigns documents. A
  phrase takes the names that are near to it, not always the k nearest: of few features most are about something else.
- A feature is present above half of its 90th percentile (the paper: any activation), as everywhere here.
- Documents with the same features are one node of the graph, weighted by their number, and the graph has the nearest
  nodes of each only (the paper: all against all, which is quadratic in the documents and was worse on news: see docs).
- Affinity is regularised (Zhang and Rohe 2018), and the number of clusters may come from the eigengap.
- Conductance is told for the axis' own graph too, not only among dense vectors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from hourglass.errors import ConfigError, InputError
from hourglass.metrics.conductance import against_chance, cosine_conductance, graph_conductance
from hourglass.uses.explore.affinity import Patterns, by_eigengap, jaccard_graph, parts, patterns, spectrum
from hourglass.uses.explore.find import query_vector, text_vectors
from hourglass.uses.explore.labels import (
    CLEAR,
    FUNCTION_WORDS,
    bare,
    clarity,
    content_words,
    quoted,
    says_form,
    says_nothing,
)
from hourglass.uses.explore.labels import TERMS as LABEL_TERMS
from hourglass.uses.explore.presence import present_in
from hourglass.uses.explore.scores import unit

if TYPE_CHECKING:
    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]

TERMS = 5
"""Most terms in a name."""
SHOWN = 5
"""Features, words and documents told of each cluster."""
NEAR = 0.2
"""Least cosine of a phrase and a name, less what all names have in common; `correlate` too counts names below it as unlike."""
DENSE_SAMPLE = 20_000
"""Documents whose dense vectors are looked at."""

_STEM = 5  # letters by which words count as the same
_FLOOR = 0.05  # added to shares whose ratio is taken; also the least gap that a term of a name must have


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """The axis' features, what counts as present, and how many clusters.

    number      of clusters; None: as the eigengap says, from 2 to `most`
    k           most features for each key phrase
    level, min_tokens  presence: share of the feature's 90th percentile that the maximum must pass, tokens that must fire
    neighbours  nearest others that each distinct set of features is joined to; as many as there are: all with all
    draws       random partitions that conductance is compared with
    """

    number: int | None = None
    most: int = 12
    k: int = 20
    level: float = 0.5
    min_tokens: int = 1
    neighbours: int = 50
    draws: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"most": 2, "k": 1, "min_tokens": 1, "neighbours": 1, "draws": 2}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise ConfigError(f"{name} {getattr(self, name)}: expected {minimum} or more")
        if self.number is not None and self.number < 2:
            raise ConfigError(f"number {self.number}: expected 2 clusters or more")


@dataclass(frozen=True)
class Clusters:
    """What the documents fall into along an axis.

    table       a row a cluster, the largest first, the index its number from 1: name (None where nothing is its own),
                documents, share (of those in any cluster), accuracy (share of its held-out documents that the names alone
                put into it), conductance and conductance_z (in the axis' graph), dense_conductance and dense_conductance_z
                (among dense vectors); z: against random partitions of the same sizes, negative is tighter than chance
    assignment  [documents] number of each document's cluster, 0 for one that has none of the axis' features
    features    the axis: feature, label, phrase (None for one chosen by hand), similarity, documents that have it
    shown       for each cluster the features, words and documents that tell most of it
    accuracy    share of held-out documents that the names alone put where they are; accuracy_by_features: that the axis'
                features do, by the nearest mean; accuracy_by_chance: that always saying the largest cluster does
    eigenvalues of the normalised affinity, falling; the gap after the n-th speaks for n clusters
    """

    axis: list[str]
    table: pd.DataFrame
    assignment: Array
    features: pd.DataFrame
    shown: list[dict[str, Any]]
    ids: list[str]
    accuracy: float
    accuracy_by_features: float
    accuracy_by_chance: float
    eigenvalues: list[float]
    notes: list[str]

    def __len__(self) -> int:
        return len(self.table)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        rows = json.loads(self.table.reset_index().to_json(orient="records"))
        return {
            "axis": self.axis,
            "features": json.loads(self.features.to_json(orient="records")),
            "without": int((self.assignment == 0).sum()),
            "accuracy": self.accuracy,
            "accuracy_by_features": self.accuracy_by_features,
            "accuracy_by_chance": self.accuracy_by_chance,
            "eigenvalues": self.eigenvalues,
            "notes": self.notes,
            "clusters": [{**row, **shown} for row, shown in zip(rows, self.shown, strict=True)],
            "assignment": [{"id": id, "cluster": int(c)} for id, c in zip(self.ids, self.assignment, strict=True)],
        }


def cluster(
    workspace: Workspace, phrases: Sequence[str] = (), *, features: Sequence[int] = (), options: ClusterOptions
) -> Clusters:
    """Cluster all documents along key phrases, along features chosen by hand, along both, or (neither) on all features.

    Raises InputError where nothing can be told apart: no document has any of the features, or all have the same.
    """
    axis = _axis(workspace, phrases, features, options.k)
    present = present_in(workspace, axis["feature"].to_numpy(), options.level, options.min_tokens)
    axis["documents"] = np.asarray(present.sum(0), np.int64).ravel()
    inside = np.flatnonzero(np.diff(present.indptr) > 0)
    found = patterns(present[inside])
    _check_patterns(workspace, found, present.shape[0], options)

    random = np.random.default_rng(options.seed)
    graph = jaccard_graph(found.rows, options.neighbours)
    values, vectors = spectrum(graph, found.weight, max(options.most + 1, options.number or 0), random)
    number = options.number or by_eigengap(values, min(options.most, len(found.weight)))
    by_pattern = parts(vectors[:, :number], found.weight, options.seed)
    labels = _largest_first(by_pattern[found.of])
    count = int(labels.max()) + 1
    if count < 2:
        raise InputError(f"{workspace.folder}: along this axis the documents do not fall apart; choose other features")

    assignment = np.zeros(present.shape[0], np.int64)
    assignment[inside] = labels + 1
    half = np.full(present.shape[0], -1, np.int8)
    half[inside] = random.permutation(np.arange(len(inside)) % 2)
    terms = _terms(workspace, axis, present, assignment, half, count)
    names = _names(terms)
    right = _reassigned(workspace, names, present, half) == assignment
    by_features = _nearest_mean(present, terms.shares[: len(axis)]) == assignment
    held_out = half == 1

    by_graph = partial(_graph_conductance, graph, found.of, count)
    own, own_z = against_chance(by_graph, labels, options.draws, random)
    sample = np.sort(random.permutation(len(inside))[:DENSE_SAMPLE])
    by_cosine = partial(cosine_conductance, _unit_vectors(workspace, inside[sample]), count)
    dense, dense_z = against_chance(by_cosine, labels[sample], options.draws, random)
    sizes = np.bincount(labels, minlength=count)
    in_each = np.bincount(assignment[held_out], minlength=count + 1)[1:]
    kept = np.bincount(assignment[held_out & right], minlength=count + 1)[1:]
    table = pd.DataFrame(
        {
            "name": np.array([name.text for name in names], object),
            "documents": sizes,
            "share": sizes / len(inside),
            "accuracy": np.where(in_each > 0, kept / np.maximum(in_each, 1), np.nan),
            "conductance": own,
            "conductance_z": own_z,
            "dense_conductance": dense,
            "dense_conductance_z": dense_z,
        },
        index=pd.RangeIndex(1, count + 1, name="cluster"),
    )
    ids = [str(id) for id in workspace.column("_id")]
    return Clusters(
        axis=list(phrases),
        table=table,
        assignment=assignment,
        features=axis,
        shown=_shown(workspace, terms, _central(graph, found, labels, inside)),
        ids=ids,
        accuracy=float(right[held_out].mean()),
        accuracy_by_features=float(by_features[held_out].mean()),
        accuracy_by_chance=float(in_each.max() / max(in_each.sum(), 1)),
        eigenvalues=[round(float(v), 6) for v in values],
        notes=_notes(table, present.shape[0] - len(inside), present.shape[0], number, options),
    )


# The axis -------------------------------------------------------------------------------------------


def _axis(workspace: Workspace, phrases: Sequence[str], features: Sequence[int], k: int) -> pd.DataFrame:
    """feature, label, phrase, similarity of the features to look at; each once, with the phrase it is nearest to."""
    width = workspace.manifest["width"]
    for feature in features:
        if not 0 <= int(feature) < width:
            raise InputError(f"{workspace.folder}: no feature {feature}; they go from 0 to {width - 1}")
    chosen = features if features or phrases else range(width)
    nearest: dict[int, tuple[str | None, float]] = {int(feature): (None, np.nan) for feature in chosen}
    for phrase in phrases:
        if not phrase.strip():
            raise InputError("a phrase of the axis is empty")
        for feature, similarity in _near(workspace, phrase, k).items():
            # One chosen by hand (NaN) stays so, as the comparison is false; of several phrases the nearest counts.
            if feature not in nearest or similarity > nearest[feature][1]:
                nearest[feature] = (phrase, similarity)
    return pd.DataFrame(
        {
            "feature": list(nearest),
            "label": pd.Series(workspace.labels(list(nearest)), dtype=object),
            "phrase": pd.Series([phrase for phrase, _ in nearest.values()], dtype=object),
            "similarity": [similarity for _, similarity in nearest.values()],
        }
    )


def _near(workspace: Workspace, phrase: str, k: int) -> dict[int, float]:
    """The features, at most k, whose names are near to a phrase, with the similarity of each.

    A name is near when it is at least half as near as the nearest and `NEAR`, or when it holds every word of the phrase:
    the vector of a single word is a poor one. Its terms, each by itself, must on average be half as near as those of the
    best, since one term of four pulls a whole name near. Names of words such as "the" alone are near to nothing.
    """
    features = workspace.features
    terms = [list(own) for own in features["terms"]]
    named = np.flatnonzero([isinstance(label, str) for label in features["label"]])
    named = named[[not says_nothing(terms[f]) for f in named]]
    if not len(named):
        raise InputError(f"{workspace.folder}: no feature has a name; choose features by number")
    # All vectors of an encoder may point one way, so what names have in common is taken out of them.
    vectors, query = workspace.label_vectors[named], unit(query_vector(workspace, phrase))
    middle = vectors.mean(0)
    similarity = unit(vectors - middle) @ query
    wanted = _words_of(phrase) if content_words([phrase]) else set()
    holds = np.array([bool(wanted) and wanted <= _words_of(" ".join(terms[f][:LABEL_TERMS])) for f in named])
    near = holds | (similarity >= max(NEAR, similarity.max() / 2))
    if not near.any():
        best = workspace.labels([named[similarity.argmax()]])[0]
        raise InputError(
            f"{workspace.folder}: no feature has a name near to {phrase!r} (the nearest is {best!r}, {similarity.max():.2f} of {NEAR} asked); "
            "use other words, or choose features by number"
        )
    order = np.argsort(-np.where(near, similarity + 2 * holds, -np.inf), kind="stable")[: min(k, int(near.sum()))]
    shown = [terms[f][:LABEL_TERMS] or [str(features["label"].iloc[f])] for f in named[order]]
    read = text_vectors(workspace, [bare(term) for own in shown for term in own])
    of_term = unit(unit(read) - middle) @ query
    ends = np.cumsum([len(own) for own in shown])
    by_terms = np.array([part.mean() for part in np.split(of_term, ends[:-1])])
    return {int(named[i]): float(similarity[i]) for i in order[by_terms >= by_terms.max() / 2]}


def _check_patterns(workspace: Workspace, found: Patterns, documents: int, options: ClusterOptions) -> None:
    number = len(found.weight)
    if not number:
        raise InputError(f"{workspace.folder}: none of {documents:,} documents has any of the axis' features")
    if number == 1:
        raise InputError(
            f"{workspace.folder}: the {int(found.weight.sum()):,} documents with any of the axis' features have the same ones; "
            "nothing tells them apart; add phrases (--axis) or features (--features)"
        )
    if options.number and options.number > number:
        raise InputError(
            f"{workspace.folder}: {options.number} clusters asked for, but the axis' features occur in only {number} combinations"
        )


def _largest_first(labels: Array) -> Array:
    """The same clusters numbered from 0 by falling size."""
    _, dense, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    place = np.empty_like(sizes)
    place[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return np.asarray(place[dense])


def _graph_conductance(graph: csr_matrix, pattern: Array, number: int, labels: Array) -> Array:
    """[number] conductance of the documents' clusters 0 ... number - 1, given the pattern of each document."""
    ones = np.ones(len(labels))
    return graph_conductance(graph, csr_matrix((ones, (pattern, labels)), shape=(graph.shape[0], number)))


def _unit_vectors(workspace: Workspace, rows: Array) -> Array:
    """[rows, d] dense vectors of the documents at `rows` (rising), of norm 1."""
    found = [arrays["dense"][inside] for arrays, inside in workspace.shards_of(rows, "dense")]
    dense = np.concatenate(found).astype(np.float32)
    return dense / np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-12)


# Names ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Terms:
    """Features of the axis, then words: what a name can hold.

    texts   what is shown; None for a feature without a name
    labels  whole names, None for a feature without one
    shares  [terms, clusters] share of the documents of each cluster, in the half that names, that have the term
    counts  [terms, clusters] the same over all documents, with `sizes` [clusters]
    axis    [features] numbers of the features
    """

    texts: list[str | None]
    labels: list[str | None]
    shares: Array
    counts: Array
    sizes: Array
    axis: Array

    def of(self, cluster: int) -> Array:
        """Which terms tell this cluster from each other one, and how well: the gap times the ratio of the shares."""
        others = np.delete(self.shares, cluster, axis=1).max(1)
        gap = self.shares[:, cluster] - others
        return np.where(gap >= _FLOOR, gap * self.log_ratio(cluster), 0)

    def log_ratio(self, cluster: int) -> Array:
        others = np.delete(self.shares, cluster, axis=1).max(1)
        return np.log((self.shares[:, cluster] + _FLOOR) / (others + _FLOOR))


@dataclass(frozen=True)
class _Name:
    """Terms by number, and what each adds when a document has it."""

    text: str | None
    terms: list[int]
    weights: list[float]


def _terms(
    workspace: Workspace, axis: pd.DataFrame, present: csr_matrix, assignment: Array, half: Array, count: int
) -> _Terms:
    inside = assignment > 0
    cells = np.where(inside, 2 * (assignment - 1) + half, -1)
    number = 2 * count
    by_feature = _sums(cells, number, present)
    by_word = np.zeros((number, len(workspace.words)))
    start = 0
    for arrays in workspace.stored("word_indptr", "word_indices"):
        stop = start + len(arrays["word_indptr"]) - 1
        words = arrays["word_indices"]
        ones = np.ones(len(words), np.float32)
        shard = csr_matrix((ones, words, arrays["word_indptr"]), shape=(stop - start, len(workspace.words)))
        by_word += _sums(cells[start:stop], number, shard)
        start = stop
    counts = np.concatenate([by_feature, by_word], axis=1).T
    sizes = np.bincount(cells[inside], minlength=number)
    labels = workspace.labels(axis["feature"].to_numpy())
    first = workspace.features["terms"].iloc[axis["feature"].to_numpy()]
    shown = [None if label is None else str(terms[0]) for label, terms in zip(labels, first)]
    return _Terms(
        texts=[*shown, *workspace.words],
        labels=[*labels, *workspace.words],
        shares=counts[:, 0::2] / np.maximum(sizes[0::2], 1),
        counts=counts[:, 0::2] + counts[:, 1::2],
        sizes=sizes[0::2] + sizes[1::2],
        axis=axis["feature"].to_numpy(),
    )


def _sums(cells: Array, number: int, rows: csr_matrix) -> Array:
    """[number, columns] sums of the rows of each cell; a row in cell -1 is left out."""
    inside = np.flatnonzero(cells >= 0)
    ones = np.ones(len(inside), np.float32)
    membership = csr_matrix((ones, (cells[inside], inside)), shape=(number, rows.shape[0]))
    return np.asarray((membership @ rows).todense(), np.float64)


def _names(terms: _Terms) -> list[_Name]:
    """All clusters' names at once, the most telling term first; no two hold the same word.

    Words such as "the", and phrases that begin or end with one, name only what nothing else does; signs and shapes come last.
    """
    number = terms.shares.shape[1]
    worth = np.stack([terms.of(c) for c in range(number)])
    plain = np.array([text is not None and _is_plain(text) for text in terms.texts])
    chosen: list[list[int]] = [[] for _ in range(number)]
    taken: set[str] = set()
    for allowed in (plain, ~plain):
        nameless = [c for c in range(number) if not chosen[c]]
        for flat in np.argsort(-np.where(allowed, worth, 0), axis=None, kind="stable"):
            cluster, term = divmod(int(flat), worth.shape[1])
            if not allowed[term] or worth[cluster, term] <= 0:
                break
            text = terms.texts[term]
            if text is None or cluster not in nameless or len(chosen[cluster]) == TERMS or taken & _words_of(text):
                continue
            chosen[cluster].append(term)
            taken |= _words_of(text)
    names = []
    for cluster, picked in enumerate(chosen):
        picked = sorted(picked, key=lambda t: -clarity([str(terms.texts[t])]))
        texts = [quoted(str(terms.texts[t])) for t in picked]
        names.append(_Name(", ".join(texts) or None, picked, terms.log_ratio(cluster)[picked].tolist()))
    return names


def _is_plain(term: str) -> bool:
    return clarity([term]) == CLEAR or (says_form([term]) and not says_nothing([term]))


def _words_of(text: str) -> set[str]:
    """The words of a term that another may not have, by their beginnings: "award" stands for "awards" too."""
    words = set(re.findall(r"\w+", text.lower()))
    stems = {word.rstrip("s")[:_STEM] for word in words - FUNCTION_WORDS or words}
    return stems or {text}  # a sign, such as "%"


def _reassigned(workspace: Workspace, names: Sequence[_Name], present: csr_matrix, half: Array) -> Array:
    """[documents] the cluster (from 1) whose name fits each held-out document best; 0 where none fits."""
    features = present.shape[1]
    weights: dict[int, tuple[int, float]] = {
        term: (c, weight) for c, name in enumerate(names) for term, weight in zip(name.terms, name.weights)
    }
    words = [t for t in weights if t >= features]
    scores = _weighted(present, {t: w for t, w in weights.items() if t < features}, len(names))
    start = 0
    for coded in workspace.coded():
        here = slice(start, start + coded.words.shape[0])
        picked = coded.words[:, [t - features for t in words]]
        scores[here] += _weighted(picked, {i: weights[t] for i, t in enumerate(words)}, len(names))
        start = here.stop
    best = np.where(scores.max(1) > 0, scores.argmax(1) + 1, 0)
    return np.where(half == 1, best, -1)


def _weighted(rows: csr_matrix, weights: Mapping[int, tuple[int, float]], number: int) -> Array:
    """[rows, number] for each cluster the sum of the weights of its columns that a row has."""
    columns = np.zeros((rows.shape[1], number))
    for column, (cluster, weight) in weights.items():
        columns[column, cluster] = weight
    return np.asarray(rows @ columns)


def _nearest_mean(present: csr_matrix, shares: Array) -> Array:
    """[documents] the cluster (from 1) whose mean over the naming half is nearest by cosine."""
    means = shares / np.maximum(np.linalg.norm(shares, axis=0), 1e-12)
    return np.asarray(np.argmax(present @ means, axis=1)) + 1


# What is shown of them ------------------------------------------------------------------------------


def _central(graph: csr_matrix, found: Patterns, labels: Array, inside: Array) -> list[Array]:
    """For each cluster the documents (positions) of highest summed affinity to its own, one a pattern."""
    number = int(labels.max()) + 1
    first = np.unique(found.of, return_index=True)[1]
    of_pattern = labels[first]
    members = csr_matrix((found.weight, (np.arange(len(first)), of_pattern)), shape=(len(first), number))
    affinity = np.asarray((graph @ members).todense())[np.arange(len(first)), of_pattern]
    order = np.argsort(-affinity, kind="stable")
    return [inside[first[order[of_pattern[order] == c][:SHOWN]]] for c in range(number)]


def _shown(workspace: Workspace, terms: _Terms, central: Sequence[Array]) -> list[dict[str, Any]]:
    """Of each cluster: features and words by inside minus outside share (all documents), and its central documents."""
    rows = workspace.rows(np.concatenate(central).tolist(), ["_id", workspace.text_column]).to_pydict()
    documents = [
        {"id": str(id), "text": text} for id, text in zip(rows["_id"], rows[workspace.text_column], strict=True)
    ]
    everything, total = terms.counts.sum(1), terms.sizes.sum()
    number, start, shown = len(terms.axis), 0, []
    for cluster, positions in enumerate(central):
        within = terms.counts[:, cluster] / max(terms.sizes[cluster], 1)
        outside = (everything - terms.counts[:, cluster]) / max(total - terms.sizes[cluster], 1)
        gap = within - outside
        best = {
            "features": np.argsort(-gap[:number], kind="stable")[:SHOWN],
            "words": number + np.argsort(-gap[number:], kind="stable")[:SHOWN],
        }
        entry: dict[str, Any] = {}
        for kind, picked in best.items():
            entry[kind] = [
                {
                    **({"feature": int(terms.axis[t])} if kind == "features" else {}),
                    "label": terms.labels[t],
                    "inside": round(float(within[t]), 4),
                    "outside": round(float(outside[t]), 4),
                }
                for t in picked
                if gap[t] > 0
            ]
        entry["central"] = documents[start : start + len(positions)]
        start += len(positions)
        shown.append(entry)
    return shown


def _notes(table: pd.DataFrame, without: int, documents: int, number: int, options: ClusterOptions) -> list[str]:
    notes = []
    if without:
        notes.append(
            f"{without:,} of {documents:,} documents have none of the axis' features: they are in no cluster (0)."
        )
    if options.number is None:
        notes.append(f"{number} clusters, as the eigengap says; ask for another number where that does not suit.")
    if len(table) < number:
        notes.append(f"Only {len(table)} clusters could be told apart.")
    unnamed = list(table.index[table["name"].isna()])
    if unnamed:
        notes.append(
            f"Nothing is more frequent in cluster {', '.join(map(str, unnamed))} than in every other, so it has no name."
        )
    return notes
