"""Documents made longer by what they may be asked: queries that a model writes for each, some of them kept, added to
its text.

    writer = QueryWriter("run/model")                              # any sequence-to-sequence model of transformers
    expand("texts.jsonl", "expanded.jsonl", writer, number=40)     # and an index of words over expanded.jsonl

doc2query (Nogueira et al. 2019): queries are drawn, each token among the `top_k` likeliest. doc2query-- (Gospodinov et
al. 2023): of all queries of a corpus those are dropped whose relevance to their document is below a percentile. TILDE
(Zhuang and Zuccon 2021): no query is written, the likeliest tokens that the text lacks are added (`likely_tokens`).

A writer of queries is a BART tuned on pairs (text, query):

    from hourglass.systems.bart_parts import WRITING, Writer
    task = Writer.from_folder("run/model", max_tokens=256)
    fit(task, [(text, query), ...], WRITING, out="doc2query")
    QueryWriter("doc2query/model")

Pairs of queries that a search is later measured with would teach it the answers: leave them out.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock, Timeout

from hourglass.adapters.pretrained import body, load_network
from hourglass.data import open_texts
from hourglass.errors import ConfigError, FolderError, SourceError
from hourglass.nn.language_head import before_output
from hourglass.storage.atomic import atomic_file, clear_leftovers, read_json, write_json
from hourglass.storage.places import Place
from hourglass.training.randomness import seeded
from hourglass.uses.progress import Progress
from hourglass.uses.search.passages import TextScorer, passages
from hourglass.uses.search.stages import Query
from hourglass.waist import as_device

_PART = 256
"""Documents of a part: what a kill costs."""
_MADE = ("id", "_id", "_row", "queries", "scores")


@final
class QueryWriter:
    """Texts to queries.

    model       a folder, a `Writer`'s too, or Hub id of a sequence-to-sequence model of transformers; or (network,
                tokenizer)
    top_k       tokens that each is drawn among
    max_tokens  of a query, at most
    longest     tokens of a text that are read
    seed        what is drawn for a text follows from this and the text alone, whatever is written beside it
    """

    def __init__(
        self, model: str | tuple[Any, Any], *, top_k: int = 10, max_tokens: int = 64, longest: int = 512, seed: int = 0
    ) -> None:
        if min(top_k, max_tokens) < 1 or longest < 4 or seed < 0:
            raise ConfigError(
                f"top_k {top_k}, max_tokens {max_tokens}, longest {longest}, seed {seed}: expected 1 or more, a longest of 4 or "
                "more, and a seed of 0 or more"
            )
        if isinstance(model, str):
            self._tokenizer, self._network = load_network(model, "seq2seq")
            self._network.to(as_device())
        else:
            self._network, self._tokenizer = model
        if not getattr(self._network.config, "is_encoder_decoder", False):
            raise ConfigError(
                f"{type(self._network).__name__} reads and does not write; name a sequence-to-sequence model"
            )
        self._network.eval()
        self._top_k, self._max_tokens, self._longest, self._seed = top_k, max_tokens, longest, seed
        self._name = model if isinstance(model, str) else type(self._network).__name__

    def settings(self) -> dict[str, Any]:
        """What its queries follow from."""
        return {
            "model": self._name,
            "top_k": self._top_k,
            "max_tokens": self._max_tokens,
            "longest": self._longest,
            "seed": self._seed,
        }

    @torch.inference_mode()
    def write(self, text: str, number: int) -> list[str]:
        """So many queries for a text, less those that are empty; of equal ones all stay, as they weigh in an index of
        words."""
        device = next(self._network.parameters()).device
        read = self._tokenizer(text, truncation=True, max_length=self._longest, return_tensors="pt").to(device)
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8]
        with seeded(device, self._seed, int.from_bytes(digest, "big")):
            written = self._network.generate(
                input_ids=read["input_ids"],
                attention_mask=read["attention_mask"],
                do_sample=True,
                top_k=self._top_k,
                num_beams=1,
                num_return_sequences=number,
                max_new_tokens=self._max_tokens,
                max_length=None,
            )
        queries = [query.strip() for query in self._tokenizer.batch_decode(written, skip_special_tokens=True)]
        return [query for query in queries if query]


def expand(
    source: Any,
    to: str,
    writer: QueryWriter,
    *,
    number: int = 40,
    size: int | None = None,
    score: TextScorer | None = None,
    percentile: float = 70.0,
    text: str | None = None,
    id: str | None = None,
    limit: int | None = None,
    force: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Write a source anew with queries added to each text, to a .jsonl or .parquet file of this machine.

    number      queries of a document; with `size` of each of its passages of so many words (the authors: 10)
    score       of a document, or the passage that a query was written for, for the query. Queries are kept whose score
                is at or above the `percentile` of those of all queries; None keeps all
    text, id, limit    as of `open_texts`

    Columns: the source's, the text with the queries after it, "id", and "queries", those that were kept. What was
    written so far is kept in TO.parts: the same call after a stop goes on. Returns {"documents", "queries", "kept",
    "threshold"}, the last None without `score`.

    Raises FolderError where `to` exists without `force`, or TO.parts holds what other settings or another source gave.
    """
    place = Place.of(str(to))
    if place.suffixes[-1:] not in ([".jsonl"], [".parquet"]) or not place.is_local:
        raise ConfigError(f"{to}: expected a path that ends in .jsonl or .parquet")
    if place.is_file() and not force:
        raise FolderError(f"{to}: exists; choose another place, or replace it with --force")
    if number < 1 or not 0 <= percentile <= 100 or (size is not None and size < 1):
        raise ConfigError(
            f"number {number}, size {size}, percentile {percentile}: expected 1 or more, and a percentile from 0 to 100"
        )
    texts = open_texts(source, text=text, id=id)
    if limit is not None:
        texts = texts.limited(limit)
    made_from = {
        "source": texts.name,
        "limit": limit,
        "number": number,
        "size": size,
        "scored": None if score is None else str(getattr(score, "__qualname__", type(score).__qualname__)),
        **writer.settings(),
    }
    folder = Path(f"{place.path}.parts")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", blocking=False):
            clear_leftovers(folder)
            _begin(folder, made_from)
            parts: list[Path] = []
            with Progress(progress) as bars:
                task = bars.start("writing queries", limit, "texts")
                for batch in texts.batches(_PART):
                    parts.append(folder / f"{len(parts):06d}.parquet")
                    _keep(parts[-1], batch, texts.text_column, lambda each: _queries(each, writer, number, size, score))
                    bars.advance(task, len(batch))
            made = _join(parts, place, texts.text_column, percentile if score is not None else None)
    except Timeout:
        raise FolderError(f"{folder}: another process is writing to it; wait for it to end") from None
    shutil.rmtree(folder, ignore_errors=True)
    return made


def _begin(folder: Path, made_from: dict[str, Any]) -> None:
    manifest = folder / "made_from.json"
    if not manifest.is_file():
        write_json(manifest, made_from)
    found = read_json(manifest)
    for key, value in made_from.items():
        if found.get(key) != value:
            raise FolderError(
                f"{folder}: holds queries with {key} {found.get(key)!r}, now {value!r}; remove it, or choose another place"
            )


def _keep(
    path: Path, batch: pa.RecordBatch, column: str, queries: Callable[[str], tuple[list[str], list[float]]]
) -> None:
    """A batch with "queries" and "scores", unless it is there."""
    for name in ("queries", "scores"):
        if name in batch.schema.names:
            raise SourceError(f"column {name!r}: is what is made here; rename it in the source")
    if path.is_file():
        if pq.read_table(path, columns=["_id", column]).to_pydict() != batch.select(["_id", column]).to_pydict():
            raise FolderError(f"{path}: is of other texts than the source has now; remove the folder and begin anew")
        return
    written, scores = zip(*(queries(text) for text in batch.column(column).to_pylist()))
    table = pa.Table.from_batches([batch])
    table = table.append_column("queries", pa.array(written, pa.list_(pa.string())))
    table = table.append_column("scores", pa.array(scores, pa.list_(pa.float64())))
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary)


def _queries(
    text: str, writer: QueryWriter, number: int, size: int | None, score: TextScorer | None
) -> tuple[list[str], list[float]]:
    """Of a document, and the score of each; none without `score`."""
    queries: list[str] = []
    scores: list[float] = []
    for part in [text] if size is None else [part.text for part in passages(text, size, size)]:
        for query in writer.write(part, number):
            queries.append(query)
            if score is not None:
                value = float(score(Query("", query), [part])[0])
                if not np.isfinite(value):
                    raise SourceError(f"the score of {query[:60]!r} is {value}; expected a finite number")
                scores.append(value)
    return queries, scores


def _join(parts: Sequence[Path], place: Place, column: str, percentile: float | None) -> dict[str, Any]:
    threshold = None
    if percentile is not None:
        scores = [pq.read_table(path, columns=["scores"])["scores"].combine_chunks().flatten() for path in parts]
        every = np.concatenate([part.to_numpy() for part in scores])
        threshold = float(np.percentile(every, percentile)) if len(every) else None
    whole = pa.unify_schemas([pq.read_schema(path) for path in parts], promote_options="permissive")
    own = [field for field in whole if field.name not in _MADE]
    schema = pa.schema([*own, ("id", pa.string()), ("queries", pa.list_(pa.string()))])
    counts = {"documents": 0, "queries": 0, "kept": 0}
    with place.replaced() as stream:
        file = pq.ParquetWriter(stream, schema) if place.suffixes[-1] == ".parquet" else None
        for path in parts:
            table = _expanded(pq.read_table(path), column, threshold, counts, schema)
            if file is not None:
                file.write_table(table)
                continue
            for row in table.to_pylist():
                stream.write((json.dumps(row, ensure_ascii=False, default=str) + "\n").encode())
        if file is not None:
            file.close()
    return {**counts, "threshold": threshold}


def _expanded(
    table: pa.Table, column: str, threshold: float | None, counts: dict[str, int], schema: pa.Schema
) -> pa.Table:
    """The documents of a part, as `schema` has them; adds to the counts."""
    texts, kept = [], []
    for text, queries, scores in zip(*(table[name].to_pylist() for name in (column, "queries", "scores"))):
        good = queries if threshold is None else [q for q, s in zip(queries, scores) if s >= threshold]
        texts.append(" ".join([text, *good]))
        kept.append(good)
        counts["queries"] += len(queries)
        counts["kept"] += len(good)
    counts["documents"] += len(table)
    new = {column: texts, "id": table["_id"], "queries": kept}
    arrays = []
    for field in schema:
        if field.name in new:
            values = new[field.name]
            arrays.append(values.cast(field.type) if field.name == "id" else pa.array(values, field.type))
        else:
            there = field.name in table.column_names
            arrays.append(table[field.name].cast(field.type) if there else pa.nulls(len(table), field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


@torch.inference_mode()
def likely_tokens(model: tuple[Any, Any], texts: Sequence[str], most: int = 200, longest: int = 512) -> list[list[str]]:
    """The likeliest words for each text that it lacks, at most so many, by a masked language model's head at the first
    token (TILDE).

    model  (network, tokenizer), trained so that its first token predicts the queries of a text

    Only tokens that begin a word and are made of letters and digits, two or more. ConfigError for a network without a
    head.
    """
    network, tokenizer = model
    matrix = network.get_output_embeddings()
    if matrix is None:
        raise ConfigError(f"{type(network).__name__}: no head over its vocabulary; load it with AutoModelForMaskedLM")
    if most < 1:
        raise ConfigError(f"most {most}: expected 1 or more")
    words = _words(tokenizer, len(matrix.weight))
    wanted = torch.tensor([word is not None for word in words], device=matrix.weight.device)
    network.eval()
    made = []
    for text in texts:
        read = tokenizer(text, truncation=True, max_length=longest, return_tensors="pt").to(matrix.weight.device)
        state = body(network)(**read).last_hidden_state[:, 0]
        logits = torch.nn.functional.linear(before_output(network, state), matrix.weight, matrix.bias)[0]
        allowed = wanted.clone()
        allowed[read["input_ids"][0]] = False
        best = logits.masked_fill(~allowed, -torch.inf).topk(min(most, int(allowed.sum()))).indices.tolist()
        made.append([str(words[i]) for i in best])
    return made


def _words(tokenizer: Any, vocabulary: int) -> list[str | None]:
    """The word that each token is; None of what is none by itself."""
    names = [str(name) for name in tokenizer.convert_ids_to_tokens(range(min(len(tokenizer), vocabulary)))]
    pieces = any(name.startswith("##") for name in names)  # as WordPiece marks what goes on; others mark what begins
    special = set(tokenizer.all_special_ids)
    made: list[str | None] = []
    for i, name in enumerate(names):
        begins = not name.startswith("##") if pieces else name[:1] in ("Ġ", "▁")
        word = tokenizer.convert_tokens_to_string([name]).strip()
        made.append(word if begins and i not in special and len(word) > 1 and word.isalnum() else None)
    return made + [None] * (vocabulary - len(names))
