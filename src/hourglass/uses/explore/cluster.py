"""Clusters of documents along an axis that the user names.

The axis is a set of features and words: those near to the user's key phrases, features chosen by hand, or all
features. Documents are alike as far as they have the same of these (Jaccard), and are parted by spectral clustering. Those
that have none of them are a group of their own and are not forced into a cluster. Where as many clusters are asked for as
there are phrases, each phrase is one, and documents go to the phrase that most speaks for them (`by_phrase`).

All clusters are named together, on one half of the documents; on the other half the names alone put each document into
a cluster, and the share that stays where it is tells what they are worth (`cluster_names`).

Differences from the paper:
- The user writes the key phrases; no language model expands the request, names the clusters or re-assigns documents. A
  phrase takes the names that are near to it, not always the k nearest: of few features most are about something else.
- Words of the corpus make the axis beside features (`words`), and phrases can be clusters of their own (`each`).
- A feature is present above half of its 90th percentile (the paper: any activation), as everywhere here.
- Documents with the same features are one node of the graph, weighted by their number, and the graph has the nearest
  nodes of each only (the paper: all against all, which is quadratic in the documents and was worse on news: see docs).
- Affinity is regularised (Zhang and Rohe 2018), and the number of clusters may come from the eigengap.
- Conductance is told for the axis' own graph too, not only among dense vectors.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from hourglass.errors import ConfigError, InputError
from hourglass.metrics.conductance import against_chance, cosine_conductance, graph_conductance
from hourglass.uses.explore.affinity import Patterns, by_eigengap, jaccard_graph, parts, patterns, spectrum
from hourglass.uses.explore.axis import Axis, axis_of
from hourglass.uses.explore.by_phrase import by_phrase
from hourglass.uses.explore.cluster_names import SHOWN, by_names, by_nearest_mean, names_of, shown_of, terms_of
from hourglass.uses.explore.presence import present_in

if TYPE_CHECKING:
    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]

SAMPLE = 20_000
"""Documents whose dense vectors are looked at, and whose graph is drawn where it only tells what clusters are worth."""


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """What the axis is made of, what counts as present, and how many clusters.

    number      of clusters; None: as the eigengap says, from 2 to `most`
    each        a cluster for each phrase; None: where as many clusters as phrases are asked for, two at least
    k           most features for each key phrase, and most words
    words       words of the corpus make the axis too
    level, min_tokens  presence: share of the feature's 90th percentile that the maximum must pass, tokens that must fire
    neighbours  nearest others that each distinct set of features is joined to; as many as there are: all with all
    draws       random partitions that conductance is compared with
    """

    number: int | None = None
    each: bool | None = None
    most: int = 12
    k: int = 20
    words: bool = True
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

    table       a row a cluster, the largest first, the index its number from 1: name (None where nothing is its own), phrase
                (that the cluster is of; None where they are not one for each phrase), documents, share (of those in any
                cluster), accuracy (share of its held-out documents that the names alone put into it), conductance and
                conductance_z (in the axis' graph), dense_conductance and dense_conductance_z (among dense vectors); z:
                against random partitions of the same sizes, negative is tighter than chance
    assignment  [documents] number of each document's cluster, 0 for one that has nothing of the axis
    features    the axis: feature, label, phrase (None for one chosen by hand), similarity, documents that have it
    words       and its words: word, phrase, similarity, documents that have it
    shown       for each cluster the features, words and documents that tell most of it
    accuracy    share of held-out documents that the names alone put where they are; accuracy_by_features: that the axis'
                features do, by the nearest mean; accuracy_by_chance: that always saying the largest cluster does
    eigenvalues of the normalised affinity, falling; the gap after the n-th speaks for n clusters; none where each phrase is one
    """

    axis: list[str]
    table: pd.DataFrame
    assignment: Array
    features: pd.DataFrame
    words: pd.DataFrame
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
            "words": json.loads(self.words.to_json(orient="records")),
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
    phrases = list(dict.fromkeys(phrases))
    each = _each(phrases, features, options)
    axis = axis_of(workspace, phrases, features, options.k, options.words)
    columns = axis.columns(workspace.manifest["width"])
    present = present_in(workspace, columns, options.level, options.min_tokens)
    having = np.asarray(present.sum(0), np.int64).ravel()
    axis.features["documents"], axis.words["documents"] = np.split(having, [len(axis.features)])
    random = np.random.default_rng(options.seed)
    if each:
        found = _of_phrases(workspace, axis, phrases, present, options, random)
    else:
        found = _of_graph(workspace, present, options, random)
    count = int(found.assignment.max())
    if count < 2:
        raise InputError(f"{workspace.folder}: along this axis the documents do not fall apart; choose other features")

    assignment = found.assignment
    inside = np.flatnonzero(assignment)
    half = np.full(present.shape[0], -1, np.int8)
    half[inside] = random.permutation(np.arange(len(inside)) % 2)
    of_features = present[:, : len(axis.features)]
    terms = terms_of(workspace, axis.features["feature"].to_numpy(), of_features, assignment, half, count)
    names = names_of(terms)
    right = by_names(workspace, names, of_features, half) == assignment
    shares = np.concatenate([terms.shares[: len(axis.features)], terms.shares[len(axis.features) + axis.words.index]])
    by_features = by_nearest_mean(present, shares) == assignment
    held_out = half == 1

    own, own_z = found.conductance(count, options.draws, random)
    sample = np.sort(random.permutation(len(inside))[:SAMPLE])
    by_cosine = partial(cosine_conductance, _unit_vectors(workspace, inside[sample]), count)
    dense, dense_z = against_chance(by_cosine, assignment[inside[sample]] - 1, options.draws, random)
    sizes = np.bincount(assignment, minlength=count + 1)[1:]
    in_each = np.bincount(assignment[held_out], minlength=count + 1)[1:]
    kept = np.bincount(assignment[held_out & right], minlength=count + 1)[1:]
    table = pd.DataFrame(
        {
            "name": np.array([name.text for name in names], object),
            "phrase": np.full(count, None) if found.phrases is None else np.array(found.phrases, object),
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
    return Clusters(
        axis=phrases,
        table=table,
        assignment=assignment,
        features=axis.features,
        words=axis.words.reset_index(drop=True),
        shown=shown_of(workspace, terms, found.central),
        ids=[str(id) for id in workspace.column("_id")],
        accuracy=float(right[held_out].mean()),
        accuracy_by_features=float(by_features[held_out].mean()),
        accuracy_by_chance=float(in_each.max() / max(in_each.sum(), 1)),
        eigenvalues=[round(float(v), 6) for v in found.eigenvalues],
        notes=_notes(table, axis, phrases, int((np.diff(present.indptr) == 0).sum()), found, options),
    )


def _each(phrases: Sequence[str], features: Sequence[int], options: ClusterOptions) -> bool:
    """Whether every phrase is to be a cluster."""
    if not options.each:
        return options.each is None and len(phrases) == options.number and not len(features)
    if len(features):
        raise InputError("a cluster for each phrase: features chosen by hand belong to none; leave them out")
    if len(phrases) < 2 or options.number not in (None, len(phrases)):
        raise InputError(f"a cluster for each phrase: {len(phrases)} phrase(s) given, {options.number or 2} expected")
    return True


# Two ways to part the documents ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Parted:
    """assignment  [documents] cluster of each document from 1, the largest first; 0 for none
    central     for each cluster the documents that stand for it
    phrases     of the clusters, or None
    eigenvalues of the graph where it parted them
    graph, found, drawn  Jaccard graph of the patterns of the documents at `drawn`
    """

    assignment: Array
    central: list[Array]
    phrases: list[str] | None
    eigenvalues: Array
    graph: csr_matrix
    found: Patterns
    drawn: Array

    def conductance(self, count: int, draws: int, random: np.random.Generator) -> tuple[Array, Array]:
        """[count] conductance of the clusters in the graph, and its z."""
        if not len(self.drawn):
            return np.full(count, np.nan), np.full(count, np.nan)
        of_graph = partial(_graph_conductance, self.graph, self.found.of, count)
        return against_chance(of_graph, self.assignment[self.drawn] - 1, draws, random)


def _of_graph(
    workspace: Workspace, present: csr_matrix, options: ClusterOptions, random: np.random.Generator
) -> _Parted:
    """Spectral clustering of the documents that have anything of the axis."""
    inside = np.flatnonzero(np.diff(present.indptr) > 0)
    found = patterns(present[inside])
    _check_patterns(workspace, found, present.shape[0], options)
    graph = jaccard_graph(found.rows, options.neighbours)
    values, vectors = spectrum(graph, found.weight, max(options.most + 1, options.number or 0), random)
    number = options.number or by_eigengap(values, min(options.most, len(found.weight)))
    labels = _largest_first(parts(vectors[:, :number], found.weight, options.seed)[found.of])[0]
    assignment = np.zeros(present.shape[0], np.int64)
    assignment[inside] = labels + 1
    return _Parted(assignment, _central(graph, found, labels, inside), None, values, graph, found, inside)


def _of_phrases(
    workspace: Workspace,
    axis: Axis,
    phrases: Sequence[str],
    present: csr_matrix,
    options: ClusterOptions,
    random: np.random.Generator,
) -> _Parted:
    """All documents, each to a phrase; the graph, of at most `SAMPLE` of them, only tells what the clusters are worth."""
    evidence = by_phrase(workspace, axis, phrases, present, options.level, options.min_tokens)
    labels, order = _largest_first(evidence.argmax(1))
    ordered = np.sort(evidence, axis=1)
    first = np.argsort(ordered[:, -2] - ordered[:, -1], kind="stable")
    central = [first[labels[first] == c][:SHOWN] for c in range(len(order))]
    inside = np.flatnonzero(np.diff(present.indptr) > 0)
    drawn = np.sort(random.permutation(inside)[:SAMPLE])
    found = patterns(present[drawn])
    graph = jaccard_graph(found.rows, options.neighbours)
    return _Parted(labels + 1, central, [phrases[p] for p in order], np.zeros(0), graph, found, drawn)


def _check_patterns(workspace: Workspace, found: Patterns, documents: int, options: ClusterOptions) -> None:
    number = len(found.weight)
    if not number:
        raise InputError(f"{workspace.folder}: none of {documents:,} documents has any of the axis' features or words")
    if number == 1:
        raise InputError(
            f"{workspace.folder}: the {int(found.weight.sum()):,} documents with anything of the axis have the same ones; "
            "nothing tells them apart; add phrases (--axis) or features (--features)"
        )
    if options.number and options.number > number:
        raise InputError(
            f"{workspace.folder}: {options.number} clusters asked for, but what makes the axis occurs in only {number} combinations"
        )


def _largest_first(labels: Array) -> tuple[Array, Array]:
    """The same clusters numbered from 0 by falling size, and what number each had."""
    known, dense, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.argsort(-sizes, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return np.asarray(place[dense]), known[order]


def _graph_conductance(graph: csr_matrix, pattern: Array, number: int, labels: Array) -> Array:
    """[number] conductance of the documents' clusters 0 ... number - 1, given the pattern of each document."""
    ones = np.ones(len(labels))
    return graph_conductance(graph, csr_matrix((ones, (pattern, labels)), shape=(graph.shape[0], number)))


def _unit_vectors(workspace: Workspace, rows: Array) -> Array:
    """[rows, d] dense vectors of the documents at `rows` (rising), of norm 1."""
    found = [arrays["dense"][inside] for arrays, inside in workspace.shards_of(rows, "dense")]
    dense = np.concatenate(found).astype(np.float32)
    return dense / np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-12)


def _central(graph: csr_matrix, found: Patterns, labels: Array, inside: Array) -> list[Array]:
    """For each cluster the documents (positions) of highest summed affinity to its own, one a pattern."""
    number = int(labels.max()) + 1
    first = np.unique(found.of, return_index=True)[1]
    of_pattern = labels[first]
    members = csr_matrix((found.weight, (np.arange(len(first)), of_pattern)), shape=(len(first), number))
    affinity = np.asarray((graph @ members).todense())[np.arange(len(first)), of_pattern]
    order = np.argsort(-affinity, kind="stable")
    return [inside[first[order[of_pattern[order] == c][:SHOWN]]] for c in range(number)]


def _notes(
    table: pd.DataFrame, axis: Axis, phrases: Sequence[str], without: int, found: _Parted, options: ClusterOptions
) -> list[str]:
    notes, documents = [], len(found.assignment)
    if axis.without:
        notes.append(
            f"Nothing is near to {', '.join(map(repr, axis.without))}; use words that such documents would hold."
        )
    if found.phrases is not None:
        notes.append(
            "Each phrase is a cluster; for clusters along all phrases together: --together, or another number."
        )
        if without:
            notes.append(
                f"{without:,} of {documents:,} documents have none of the axis' features and words: they went to a phrase by their "
                "dense vectors and by what else its documents have."
            )
        empty = [phrase for phrase in phrases if phrase not in found.phrases]
        if empty:
            notes.append(f"No document went to {', '.join(map(repr, empty))}.")
    else:
        if without:
            notes.append(
                f"{without:,} of {documents:,} documents have none of the axis' features and words: they are in no cluster (0)."
            )
        number = options.number or len(table)
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
