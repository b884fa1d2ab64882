"""A workspace made by hand: planted features, no encoder and no training."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file
from scipy.sparse import csr_matrix

from hourglass.storage.atomic import write_json
from hourglass.uses.explore.pooling import PooledCodes
from hourglass.uses.explore.words import vocabulary, word_presence
from hourglass.uses.explore.workspace import FORMAT, CodedDocuments, Workspace

WIDTH, DIM = 8, 4


def make_workspace(
    folder,
    texts,
    columns,
    maxima,
    tokens=None,
    counts=None,
    dense=None,
    middle=None,
    vectors=None,
    shard=50,
    ids=None,
    names=None,
    coder=None,
    words=None,
):
    """Write a finished workspace; `maxima` [n, width] are the pooled codes, `names` the features' labels (None: no name),
    `vectors` [width, DIM] those of the names, `words` those that are looked for (None: the texts')."""
    n, width = maxima.shape
    names = [f"name {i}" if i else None for i in range(width)] if names is None else names
    ids = [str(i) for i in range(n)] if ids is None else ids
    for part in ("documents", "codes"):
        (folder / part).mkdir(parents=True)
    words = vocabulary(texts) if words is None else words
    write_json(folder / "words.json", words)
    tokens = np.full(n, 10, np.int32) if tokens is None else np.asarray(tokens, np.int32)
    dense = np.random.default_rng(0).normal(size=(n, DIM)) if dense is None else dense
    middle = dense if middle is None else middle
    shards = []
    table = pa.table({"text": texts, **columns, "_row": range(1, n + 1), "_id": ids})
    for number, start in enumerate(range(0, n, shard)):
        rows = slice(start, min(start + shard, n))
        name = f"{number:05d}"
        pq.write_table(table.slice(rows.start, rows.stop - rows.start), folder / "documents" / f"{name}.parquet")
        csr = csr_matrix(maxima[rows])
        count = csr_matrix((counts if counts is not None else (maxima > 0).astype(int))[rows])
        codes = PooledCodes(
            csr.indptr.astype(np.int64),
            csr.indices.astype(np.int32),
            csr.data.astype(np.float16),
            csr.data.astype(np.float32),
            count.data.astype(np.int32),
            tokens[rows],
            width,
        )
        CodedDocuments(
            codes, word_presence(texts[rows], words), dense[rows].astype(np.float16), middle[rows].astype(np.float16)
        ).save(folder / "codes" / f"{name}.safetensors")
        shards.append({"name": name, "documents": rows.stop - start, "coded": True, "tokens": int(tokens[rows].sum())})
    p90 = np.array([np.quantile(c[c > 0], 0.9) if (c > 0).any() else 0 for c in maxima.T], np.float32)
    features = pd.DataFrame(
        {
            "label": names,
            "score": 0.9,
            "terms": [[] if name is None else name.split(", ") for name in names],
            "contexts": 40,
            "common": 0.0,
            "p90": p90,
            "max": maxima.max(0),
            "documents": (maxima > 0.5 * p90).sum(0),
            "frequency": (maxima > 0.5 * p90).mean(0),
            "active": (maxima > 0).mean(0),
        }
    )
    features.index.name = "feature"
    features.to_parquet(folder / "features.parquet")
    vectors = np.eye(width, DIM) if vectors is None else vectors
    save_file({"vectors": np.asarray(vectors, np.float32)}, folder / "labels.safetensors")
    manifest = {
        "format": FORMAT,
        "stage": "done",
        "settings": {"by": None, "text": None, "id": None},
        "text_column": "text",
        "sources": [{"name": "made", "trouble": []}],
        "shards": shards,
        "width": width,
    }
    write_json(folder / "workspace.json", manifest)
    return Workspace.open(folder, lambda path: coder or pytest.fail(f"loaded a model from {path}"))


def states_of(maxima, random):
    """[n, 200] mean states, in which features lie nearly side by side."""
    return maxima @ random.normal(size=(maxima.shape[1], 200))


def two_texts(folder, planted):
    """Workspaces of two texts of 600 documents, and which of them have the second's first feature: where it is planted, these
    have every feature of the first a little more often."""
    random = np.random.default_rng(0)
    has = np.arange(600) % 12 == 0
    left = random.random((600, 120)) < np.where(has & planted, 0.3, 0.2)[:, None]
    right = np.column_stack([has, random.random((600, 9)) < 0.08])
    made = [
        make_workspace(
            folder / name,
            [f"{name} text"] * 600,
            {},
            maxima.astype(float),
            dense=states_of(maxima, random),
            names=[f"{name}{i}" for i in range(maxima.shape[1])],
        )
        for name, maxima in (("first", left), ("second", right))
    ]
    return *made, has


def kinds_in_both(folder, planted):
    """Workspaces of two texts of 600 documents; where it is planted, 12 that have some of forty features of the first have some
    of forty of the second."""
    random = np.random.default_rng(0)
    groups = np.zeros(600, int)
    groups[random.permutation(600)[:24]] = np.repeat([1, 2], 12)
    made = []
    for name in ("first", "second"):
        own = groups if name == "first" or planted else random.permutation(groups)
        often = np.repeat([1, 2], 40) == own[:, None]
        maxima = np.column_stack(
            [random.random((600, 80)) < np.where(often, 0.4, 0.02), random.random((600, 20)) < 0.1]
        )
        texts, dense = [f"{name} text"] * 600, states_of(maxima, random)
        made.append(
            make_workspace(
                folder / name, texts, {}, maxima.astype(float), dense=dense, names=[f"{name}{i}" for i in range(100)]
            )
        )
    return *made, groups


def kind_that_is_told(folder, planted):
    """Workspaces of two texts of 600 documents, and which 40 have some of sixty features of the second; where it is planted, these
    have every feature of the first a little more often."""
    random = np.random.default_rng(0)
    has = np.arange(600) % 15 == 0
    left = random.random((600, 120)) < np.where(has & planted, 0.4, 0.2)[:, None]
    often = has[:, None] & (np.arange(80) < 60)
    right = random.random((600, 80)) < np.where(often, 0.3, 0.04)
    made = []
    for name, maxima in (("first", left), ("second", right)):
        texts, names = [f"{name} text"] * 600, [f"{name}{i}" for i in range(maxima.shape[1])]
        dense = states_of(maxima, random)
        made.append(make_workspace(folder / name, texts, {}, maxima.astype(float), dense=dense, names=names))
    return *made, has
