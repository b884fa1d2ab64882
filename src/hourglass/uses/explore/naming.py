"""The fourth stage: names, scales and frequencies of features, and a map of documents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import save_file

from hourglass.adapters.huggingface import pooled
from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.storage.atomic import atomic_file
from hourglass.storage.rows import RowFile
from hourglass.uses.explore import windows
from hourglass.uses.explore.labels import TokenSample, name_features
from hourglass.uses.explore.learning import for_names
from hourglass.uses.explore.reading import TOKENS
from hourglass.uses.explore.workspace import Workspace
from hourglass.uses.progress import Progress

Array = np.ndarray[Any, Any]

MAP_DOCUMENTS = 4_000
"""Documents that get a place on the map."""
ROWS_AT_ONCE = 32_768
"""Token states that are read at once."""
BINS = 20
"""Of the histogram of a feature's activations, alike from 0 to the largest."""


def name(workspace: Workspace, seed: int, bar: Progress) -> None:
    """Write features.parquet, examples.parquet and the vectors of the labels."""
    task = bar.start("Naming features", None)
    p90, largest = _scales(workspace)
    sample = _token_sample(workspace, seed)
    names, examples = name_features(sample, p90, seed)
    features = names.assign(p90=p90, max=largest, histogram=list(_histograms(sample.codes, largest)))
    write_label_vectors(workspace, features["label"])
    write_table(examples, workspace.folder / "examples.parquet")
    write_table(_with_frequencies(workspace, features), workspace.folder / "features.parquet")
    bar.advance(task, len(features))


def write_label_vectors(workspace: Workspace, labels: pd.Series) -> None:
    """Write labels.safetensors: a unit vector for each label, zero where there is none."""
    named = np.flatnonzero(labels.notna())
    reader = workspace.coder.reader
    vectors = np.zeros((len(labels), reader.width), np.float32)
    if len(named):
        means = pooled(reader.read([text.replace("near ", "") for text in labels.iloc[named]])).numpy()
        vectors[named] = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    with atomic_file(workspace.folder / "labels.safetensors") as temporary:
        save_file({"vectors": vectors}, temporary)


def _token_sample(workspace: Workspace, seed: int) -> TokenSample:
    """The documents on which features are named, with their codes token by token; copies of a text count once."""
    stored = RowFile(workspace.folder / TOKENS)
    lengths = windows.beginnings(windows.lengths_of(workspace))
    chosen = for_names(np.unique(stored.documents), lengths)
    rows = workspace.rows(chosen.tolist(), [workspace.text_column, "_id"])
    texts = [windows.beginning(text) for text in rows.column(0).to_pylist()]
    first = np.sort(np.unique(np.array(texts, object), return_index=True)[1])
    chosen, texts = chosen[first], [texts[i] for i in first]
    ids = [rows.column(1)[int(i)].as_py() for i in first]
    starts = np.searchsorted(stored.documents, chosen)
    stops = np.searchsorted(stored.documents, chosen, side="right")
    tokens = np.concatenate([np.arange(a, b) for a, b in zip(starts, stops)])
    parts = np.split(tokens, range(ROWS_AT_ONCE, len(tokens), ROWS_AT_ONCE))
    codes = SparseCodes.concatenate([workspace.coder.codes(torch.from_numpy(stored.rows[part])) for part in parts])
    return TokenSample(texts, ids, np.append(0, np.cumsum(stops - starts)), stored.spans[tokens], codes)


def _scales(workspace: Workspace) -> tuple[Array, Array]:
    """90th percentile of the non-zero document maxima of each feature, and the largest.

    Positive half-precision numbers sort like their bit patterns, so a histogram of the upper bits, one shard
    after another, gives the percentile to 3 %.
    """
    width = workspace.manifest["width"]
    bins = np.zeros((width, 1024), np.int32)
    largest = np.zeros(width, np.float32)
    for coded in workspace.coded():
        np.add.at(bins, (coded.codes.indices, coded.codes.maximum.view(np.uint16) >> 5), 1)
        np.maximum.at(largest, coded.codes.indices, coded.codes.maximum.astype(np.float32))
    reached = np.cumsum(bins, 1)
    at = (reached >= 0.9 * reached[:, -1:]).argmax(1)
    p90 = ((at << 5) + 16).astype(np.uint16).view(np.float16).astype(np.float32)
    return np.where(reached[:, -1] > 0, np.minimum(p90, largest), 0).astype(np.float32), largest


def _histograms(codes: SparseCodes, largest: Array) -> Array:
    """[width, BINS] on how many tokens each feature is active how strongly."""
    feature, values = codes.indices.numpy().astype(np.int64), codes.values.float().numpy()
    bins = np.minimum(values / np.maximum(largest[feature], 1e-12) * BINS, BINS - 1).astype(np.int64)
    return np.bincount(feature * BINS + bins, minlength=codes.width * BINS).reshape(codes.width, BINS)


def _with_frequencies(workspace: Workspace, features: pd.DataFrame) -> pd.DataFrame:
    """Add `documents` and `frequency` (present above half of the p90), `active` and `density` (share of the documents and
    of the tokens with any activation)."""
    level = 0.5 * features["p90"].to_numpy(np.float32)
    present, active, fired = (np.zeros(len(features), np.int64) for _ in range(3))
    total = tokens = 0
    for coded in workspace.coded():
        present += np.asarray(coded.codes.present(level).sum(0), np.int64).ravel()
        active += np.bincount(coded.codes.indices, minlength=len(features))
        np.add.at(fired, coded.codes.indices, coded.codes.count)
        total += len(coded.codes)
        tokens += int(coded.codes.tokens.sum())
    return features.assign(
        documents=present, frequency=present / total, active=active / total, density=fired / max(tokens, 1)
    )


def refresh_frequencies(workspace: Workspace) -> None:
    features = workspace.features
    write_table(_with_frequencies(workspace, features), workspace.folder / "features.parquet")
    del workspace.features


def write_table(table: pd.DataFrame, path: Path) -> None:
    with atomic_file(path) as temporary:
        table.to_parquet(temporary)


def draw_map(workspace: Workspace, seed: int, bar: Progress) -> None:
    """Two coordinates for at most a few thousand documents, near when their dense vectors are."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    number = len(workspace)
    positions = np.sort(np.random.default_rng(seed).permutation(number)[:MAP_DOCUMENTS])
    task = bar.start("Drawing the map", None)
    parts, start = [], 0
    for coded in workspace.coded():
        inside = positions[(positions >= start) & (positions < start + len(coded.codes))]
        parts.append(coded.dense[inside - start].astype(np.float32))
        start += len(coded.codes)
    dense = np.concatenate(parts)
    dense /= np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-12)
    if len(dense) < 10:  # too few for neighbours to mean anything
        places = np.zeros((0, 2), np.float32)
        positions = positions[:0]
    else:
        reduced = PCA(min(50, *dense.shape), random_state=seed).fit_transform(dense)
        neighbours = min(30, (len(dense) - 1) / 3)
        places = TSNE(perplexity=neighbours, init="pca", random_state=seed, n_jobs=1).fit_transform(reduced)
    write_table(
        pd.DataFrame({"position": positions, "x": places[:, 0], "y": places[:, 1]}), workspace.folder / "map.parquet"
    )
    bar.advance(task, len(dense))
