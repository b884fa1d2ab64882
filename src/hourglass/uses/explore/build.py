"""How a workspace comes to be, in five stages: read, learn, code, name, done.

Every stage commits its work shard by shard, so that the same call after a crash goes on where it stopped.
Memory follows a shard (4,096 documents), never the corpus.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from safetensors.numpy import save_file

import hourglass
from hourglass.adapters.huggingface import pieces, pooled
from hourglass.bottlenecks.sparse.recipe import recipe
from hourglass.data import TextSource
from hourglass.errors import FolderError, SourceError
from hourglass.metrics.reconstruction import fvu
from hourglass.storage.atomic import atomic_file, clear_leftovers, write_json
from hourglass.storage.rows import RowFile, RowWriter
from hourglass.training import fit
from hourglass.uses.explore.labels import TokenSample, name_features
from hourglass.uses.explore.overview import write_report
from hourglass.uses.explore.pooling import PooledCodes, pool
from hourglass.uses.explore.progress import Progress
from hourglass.uses.explore.words import vocabulary, word_presence
from hourglass.uses.explore.workspace import FORMAT, CodedDocuments, TextCoder, Workspace, is_workspace
from hourglass.waist import TokenStates

Array = np.ndarray[Any, Any]

SHARD = 4096
"""Documents of a shard: what memory follows."""
LEARN_TOKENS = 1_000_000
"""Token states on which the autoencoder learns; a larger corpus is sampled."""
NAME_TOKENS = 300_000
"""Tokens on which features are named and shown."""
WINDOW_CHARACTERS = 400_000
"""Characters of documents that are read at once; a longer document is coded in parts, and learned from its first."""
MAP_DOCUMENTS = 4_000
"""Documents that get a place on the map."""

MakeCoder = Callable[[int], TextCoder]
"""From the number of tokens in the corpus (or its sample) to an untrained coder."""


def begin(
    folder: Path,
    source: TextSource,
    settings: dict[str, Any],
    load_coder: Callable[[Path], TextCoder],
) -> Workspace:
    """Make an empty workspace in `folder`, or go on with an unfinished one of the same settings.

    Raises FolderError when the folder is taken.
    """
    settings = json.loads(json.dumps(settings))
    if is_workspace(folder):
        workspace = Workspace.open(folder, load_coder, finished=False)
        if workspace.manifest["stage"] == "done":
            raise FolderError(
                f"{folder}: holds a finished workspace; add documents with `hourglass embed {folder} SOURCE`, "
                "choose another --out, or replace it with --force"
            )
        for name, value in settings.items():
            if workspace.settings.get(name) != value:
                raise FolderError(
                    f"{folder}: an unfinished exploration with {name} = {workspace.settings.get(name)!r}, now {value!r}; "
                    "use the same settings to finish it, or --force to start anew"
                )
        return workspace
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderError(f"{folder}: exists and is not a workspace; choose another --out")
    for part in ("documents", "codes"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    manifest = {
        "format": FORMAT,
        "hourglass": hourglass.__version__,
        "stage": "reading",
        "settings": settings,
        "text_column": source.text_column,
        "sources": [],
        "shards": [],
    }
    workspace = Workspace(folder, manifest, load_coder)
    workspace.commit()
    return workspace


def run(workspace: Workspace, source: TextSource, make_coder: MakeCoder, seed: int, progress: bool) -> None:
    """Carry out the stages that are not done yet."""
    manifest = workspace.manifest
    with workspace.writing(), Progress(progress) as bar:
        clear_leftovers(workspace.folder)
        if manifest["stage"] == "reading":
            read(workspace, source, bar)
            _advance(workspace, "learning")
        if manifest["stage"] == "learning":
            coder = _learn(workspace, make_coder, seed, bar)
            manifest["width"], manifest["k"] = coder.width, coder.sae.config.k
            _advance(workspace, "coding")
        if manifest["stage"] == "coding":
            code(workspace, bar)
            _advance(workspace, "naming")
        if manifest["stage"] == "naming":
            _name(workspace, seed, bar)
            _draw_map(workspace, seed, bar)
            write_report(workspace)
            _advance(workspace, "done")
    shutil.rmtree(workspace.folder / "sample", ignore_errors=True)
    shutil.rmtree(workspace.folder / "learning", ignore_errors=True)


def embed(workspace: Workspace, source: TextSource, progress: bool) -> int:
    """Add the documents of `source` to a finished workspace without training; returns how many were added.

    Documents whose id is there already are passed over. The same call after a crash goes on where it stopped.
    """
    before = len(workspace)
    with workspace.writing(), Progress(progress) as bar:
        clear_leftovers(workspace.folder)
        read(workspace, source, bar)
        code(workspace, bar)
        _refresh_frequencies(workspace)
    return len(workspace) - before


def _advance(workspace: Workspace, stage: str) -> None:
    workspace.manifest["stage"] = stage
    workspace.commit()


# Reading --------------------------------------------------------------------------------------------


def read(workspace: Workspace, source: TextSource, bar: Progress) -> None:
    """Write the source's documents into shards; a source that was read half-way is read on."""
    manifest = workspace.manifest
    entry = next((s for s in manifest["sources"] if s["name"] == source.name and not s["coded"]), None)
    if entry is None:
        entry = {"name": source.name, "rows": 0, "documents": 0, "read": False, "coded": False, "trouble": []}
        manifest["sources"].append(entry)
    if entry["read"]:  # the stop came while its documents were being coded
        return
    number = manifest["sources"].index(entry)
    known = _known_ids(workspace) if number else set()
    task = bar.start("Reading", None)
    passed_over = 0
    for batch in source.batches(rows=SHARD, skip=entry["rows"]):
        table = pa.Table.from_batches([batch])
        if number > 0:
            table = _same_text_column(table, source, workspace.text_column)
            if source.id_column is None:  # row numbers are ids: keep those of several sources apart
                ids = pa.array([f"{number + 1}:{id}" for id in table["_id"].to_pylist()])
                table = table.set_column(table.column_names.index("_id"), "_id", ids)
            fresh = pa.array([id not in known for id in table["_id"].to_pylist()])
            passed_over += table.num_rows - pc.sum(fresh).as_py()
            table = table.filter(fresh)
        entry["rows"] = source.report.rows
        if table.num_rows:
            shard = {"name": f"{len(manifest['shards']):05d}", "documents": table.num_rows, "coded": False}
            with atomic_file(workspace.document_file(shard)) as temporary:
                pq.write_table(table, temporary)
            manifest["shards"].append(shard)
            entry["documents"] += table.num_rows
        workspace.commit()
        bar.advance(task, table.num_rows)
    entry["read"] = True
    entry["trouble"] = source.report.lines()
    if passed_over:
        entry["trouble"].append(
            f"{source.name}: {passed_over:,} documents have ids that are already in the workspace and were passed over"
        )
    if not manifest["shards"]:
        raise SourceError(f"{source.name}: no document to explore")
    workspace.commit()


def _known_ids(workspace: Workspace) -> set[str]:
    """Ids of all documents read so far, coded or not."""
    files = [workspace.document_file(shard) for shard in workspace.manifest["shards"]]
    return {id for file in files for id in pq.read_table(file, columns=["_id"]).column(0).to_pylist()}


def _same_text_column(table: pa.Table, source: TextSource, name: str) -> pa.Table:
    """A later source's text goes by the name that the workspace's text has."""
    if source.text_column == name:
        return table
    if name in table.column_names:
        raise SourceError(
            f"{source.name}: has the text in {source.text_column!r} but also a column {name!r}, where this workspace keeps its text; rename one"
        )
    return table.rename_columns([name if c == source.text_column else c for c in table.column_names])


# Learning -------------------------------------------------------------------------------------------


def _learn(workspace: Workspace, make_coder: MakeCoder, seed: int, bar: Progress) -> TextCoder:
    """Train the autoencoder on token states of (a sample of) the documents."""
    folder = workspace.folder
    lengths = np.concatenate(
        [pc.utf8_length(t.column(0)).to_numpy() for t in workspace.tables([workspace.text_column])]
    )
    whole = int(lengths.max()) <= WINDOW_CHARACTERS
    lengths = np.minimum(lengths, WINDOW_CHARACTERS)
    sample = _sample(lengths, seed)
    coder = make_coder(min(LEARN_TOKENS, int(lengths[sample].sum() / CHARACTERS_PER_TOKEN)))
    _store_states(workspace, coder, sample, lengths, bar)
    rows = RowFile(folder / "sample")
    if len(rows.rows) == 0:
        raise SourceError(
            f"{workspace.manifest['sources'][0]['name']}: the encoder found no token in {len(lengths):,} documents"
        )
    bar.pause()  # training draws a bar of its own
    result = fit(
        coder.sae,
        rows.rows,
        recipe(coder.sae.config, len(rows.rows), seed=seed),
        out=folder / "learning",
        progress=bar.shown,
    )
    coder.sae.eval()
    held = torch.from_numpy(np.asarray(rows.rows[:: max(1, len(rows.rows) // 8192)], np.float32))
    restored = coder.sae.decode(coder.codes(held))
    workspace.manifest["learning"] = {
        "tokens": len(rows.rows),
        "documents": len(sample),
        "whole_corpus": whole and len(sample) == len(lengths),
        "steps": result.steps,
        "fvu": fvu(held, restored),
    }
    coder.save_pretrained(folder / "coder")
    words = _first_texts(workspace, sample, lengths)
    write_json(folder / "words.json", vocabulary(words))
    return coder


def _lengths(workspace: Workspace) -> Array:
    """Characters of every document."""
    columns = (table.column(0) for table in workspace.tables([workspace.text_column]))
    return np.concatenate([pc.utf8_length(column).to_numpy() for column in columns])


CHARACTERS_PER_TOKEN = 4.0
"""Rule of thumb by which a sample is sized before anything is tokenised."""


def _sample(lengths: Array, seed: int) -> Array:
    """Positions, in rising order, of random documents with about LEARN_TOKENS tokens; all where there are fewer."""
    order = np.random.default_rng(seed).permutation(len(lengths))
    enough = np.searchsorted(np.cumsum(lengths[order]), LEARN_TOKENS * CHARACTERS_PER_TOKEN) + 1
    return np.sort(order[:enough])


def _store_states(workspace: Workspace, coder: TextCoder, sample: Array, lengths: Array, bar: Progress) -> None:
    """Read the sampled documents and keep their token states; after a crash, those that lack."""
    folder = workspace.folder / "sample"
    stored = RowFile(folder) if RowFile.exists(folder) else None
    done = int(stored.documents[-1]) + 1 if stored is not None and len(stored.documents) else 0
    task = bar.start("Encoding", int(lengths[sample].sum()), "characters")
    with RowWriter(folder, coder.reader.width) as rows:
        start = 0
        for texts in workspace.texts():
            inside = sample[(sample >= max(start, done)) & (sample < start + len(texts))]
            bar.advance(task, int(lengths[sample[(sample >= start) & (sample < min(done, start + len(texts)))]].sum()))
            for window in _windows(lengths, inside):
                states = coder.reader.read([texts[i - start][:WINDOW_CHARACTERS] for i in window])
                documents = np.repeat(window, states.lengths.numpy())
                rows.append(states.states, documents, states.spans.numpy())
                bar.advance(task, int(lengths[window].sum()))
            start += len(texts)


def _windows(lengths: Array, positions: Array) -> Iterator[Array]:
    """Cut positions into runs of at most WINDOW_CHARACTERS (a single longer document is a run of its own)."""
    if not len(positions):
        return
    number = np.cumsum(lengths[positions]) // WINDOW_CHARACTERS
    yield from np.split(positions, np.flatnonzero(np.diff(number)) + 1)


def _first_texts(workspace: Workspace, sample: Array, lengths: Array) -> list[str]:
    """The texts of sampled documents up to NAME_TOKENS tokens."""
    rows = workspace.rows(_for_names(sample, lengths).tolist(), [workspace.text_column])
    return [text[:WINDOW_CHARACTERS] for text in rows.column(0).to_pylist()]


def _for_names(sample: Array, lengths: Array) -> Array:
    """Positions of the sampled documents on which features are named: spread over the sample."""
    total = lengths[sample].sum() / CHARACTERS_PER_TOKEN
    step = max(1, int(np.ceil(total / NAME_TOKENS)))
    return sample[::step]


# Coding ---------------------------------------------------------------------------------------------


def code(workspace: Workspace, bar: Progress) -> None:
    """Compute the pooled codes of every shard that lacks them."""
    manifest = workspace.manifest
    waiting = [shard for shard in manifest["shards"] if not shard["coded"]]
    task = bar.start("Coding", sum(shard["documents"] for shard in waiting), "documents")
    stored = _stored_states(workspace)
    start = sum(shard["documents"] for shard in manifest["shards"]) - sum(shard["documents"] for shard in waiting)
    for shard in waiting:
        texts = pq.read_table(workspace.document_file(shard), columns=[workspace.text_column]).column(0).to_pylist()
        lengths = np.array([len(text) for text in texts])
        codes: list[PooledCodes] = []
        dense: list[Array] = []
        for window in _windows(lengths, np.arange(len(texts))):
            if stored is not None:
                part, means = _coded(workspace, *_states_of(stored, window + start))
            elif lengths[window[0]] > WINDOW_CHARACTERS:
                part, means = _coded_in_parts(workspace, texts[window[0]])
            else:
                part, means = _read_and_coded(workspace, [texts[i] for i in window])
            codes.append(part)
            dense.append(means)
            bar.advance(task, len(window))
        coded = CodedDocuments(
            PooledCodes.concatenate(codes), word_presence(texts, workspace.words), np.concatenate(dense)
        )
        coded.save(workspace.code_file(shard))
        shard["coded"] = True
        shard["tokens"] = int(coded.codes.tokens.sum())
        workspace.commit()
        start += len(texts)
    for source in manifest["sources"]:
        source["coded"] = source["read"]
    workspace.commit()


def _coded(workspace: Workspace, states: torch.Tensor, offsets: Array) -> tuple[PooledCodes, Array]:
    """Pooled codes and mean states of the documents that own `states` [T, d] by `offsets`."""
    codes = pool(workspace.coder.codes(states), offsets, workspace.settings["threshold"])
    return codes, _means(states, offsets)


def _read_and_coded(workspace: Workspace, texts: list[str]) -> tuple[PooledCodes, Array]:
    read = workspace.coder.reader.read(texts)
    # Half precision as in the stored states, so that a document's code does not depend on where it came from.
    return _coded(workspace, read.states.half(), read.offsets.numpy())


def _coded_in_parts(workspace: Workspace, text: str) -> tuple[PooledCodes, Array]:
    """The same for one document whose states would not fit into memory at once."""
    parts = [_read_and_coded(workspace, [piece]) for _, piece in pieces(text, WINDOW_CHARACTERS)]
    tokens = np.array([codes.tokens[0] for codes, _ in parts], np.float64)
    means = np.concatenate([means for _, means in parts]).astype(np.float64)
    mean = (tokens @ means / max(tokens.sum(), 1)).astype(np.float16)
    return PooledCodes.of_one_document([codes for codes, _ in parts]), mean[None]


def _stored_states(workspace: Workspace) -> RowFile | None:
    """The states kept for learning, where they are those of the whole corpus."""
    if workspace.manifest["stage"] == "coding" and workspace.manifest["learning"]["whole_corpus"]:
        return RowFile(workspace.folder / "sample")
    return None


def _states_of(stored: RowFile, window: Array) -> tuple[torch.Tensor, Array]:
    """States [T, d] and offsets of the documents in `window` (consecutive positions)."""
    bounds = np.searchsorted(stored.documents, np.append(window, window[-1] + 1))
    return torch.from_numpy(np.array(stored.rows[bounds[0] : bounds[-1]])), bounds - bounds[0]


def _means(states: torch.Tensor, offsets: Array) -> Array:
    """[n, d] float16 mean state of each document; zero for one without tokens."""
    tokens = TokenStates(states, torch.from_numpy(offsets), torch.empty(0, 2))
    return np.asarray(pooled(tokens).half().numpy())


# Naming ---------------------------------------------------------------------------------------------


def _name(workspace: Workspace, seed: int, bar: Progress) -> None:
    """Write features.parquet, examples.parquet and the vectors of the labels."""
    task = bar.start("Naming features", None)
    p90, largest = _scales(workspace)
    names, examples = name_features(_token_sample(workspace, seed), p90, seed)
    features = names.assign(p90=p90, max=largest)
    named = np.flatnonzero(features["label"].notna())
    reader = workspace.coder.reader
    vectors = np.zeros((len(features), reader.width), np.float32)
    if len(named):
        states = reader.read([text.replace("near ", "") for text in features["label"].iloc[named]])
        means = pooled(states).numpy()
        vectors[named] = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    with atomic_file(workspace.folder / "labels.safetensors") as temporary:
        save_file({"vectors": vectors}, temporary)
    _write_table(examples, workspace.folder / "examples.parquet")
    _write_table(_with_frequencies(workspace, features), workspace.folder / "features.parquet")
    bar.advance(task, len(features))


def _token_sample(workspace: Workspace, seed: int) -> TokenSample:
    """The documents on which features are named, with their codes token by token; copies of a text count once."""
    stored = RowFile(workspace.folder / "sample")
    lengths = np.concatenate(
        [pc.utf8_length(t.column(0)).to_numpy() for t in workspace.tables([workspace.text_column])]
    )
    chosen = _for_names(np.unique(stored.documents), lengths)
    rows = workspace.rows(chosen.tolist(), [workspace.text_column, "_id"])
    texts = [text[:WINDOW_CHARACTERS] for text in rows.column(0).to_pylist()]
    first = np.sort(np.unique(np.array(texts, object), return_index=True)[1])
    chosen, texts = chosen[first], [texts[i] for i in first]
    ids = [rows.column(1)[int(i)].as_py() for i in first]
    starts = np.searchsorted(stored.documents, chosen)
    stops = np.searchsorted(stored.documents, chosen, side="right")
    tokens = np.concatenate([np.arange(a, b) for a, b in zip(starts, stops)])
    states = TokenStates(
        torch.from_numpy(stored.rows[tokens]), torch.from_numpy(np.append(0, np.cumsum(stops - starts))), torch.empty(0)
    )
    return TokenSample(texts, ids, states.offsets.numpy(), stored.spans[tokens], workspace.coder.codes(states.states))


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


def _with_frequencies(workspace: Workspace, features: pd.DataFrame) -> pd.DataFrame:
    """Add `documents` and `frequency` (present above half of the p90) and `active` (share with any activation)."""
    level = 0.5 * features["p90"].to_numpy(np.float32)
    present, active, total = np.zeros(len(features), np.int64), np.zeros(len(features), np.int64), 0
    for coded in workspace.coded():
        present += np.asarray(coded.codes.present(level).sum(0), np.int64).ravel()
        active += np.bincount(coded.codes.indices, minlength=len(features))
        total += len(coded.codes)
    return features.assign(documents=present, frequency=present / total, active=active / total)


def _refresh_frequencies(workspace: Workspace) -> None:
    features = workspace.features
    _write_table(_with_frequencies(workspace, features), workspace.folder / "features.parquet")
    del workspace.features


def _write_table(table: pd.DataFrame, path: Path) -> None:
    with atomic_file(path) as temporary:
        table.to_parquet(temporary)


# The map --------------------------------------------------------------------------------------------


def _draw_map(workspace: Workspace, seed: int, bar: Progress) -> None:
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
        places = TSNE(perplexity=min(30, (len(dense) - 1) / 3), init="pca", random_state=seed, n_jobs=-1).fit_transform(
            reduced
        )
    _write_table(
        pd.DataFrame({"position": positions, "x": places[:, 0], "y": places[:, 1]}), workspace.folder / "map.parquet"
    )
    bar.advance(task, len(dense))
