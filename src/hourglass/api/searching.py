"""Search: an index of texts, and what pipelines find in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from hourglass.api.folders import encoder_of, weigher_of
from hourglass.data.judged import Qrels, read_qrels, read_queries
from hourglass.metrics.ranking import MEASURES
from hourglass.uses.search.encoding import Precision
from hourglass.uses.search.evaluate import Evaluation
from hourglass.uses.search.evaluate import evaluate as evaluate_pipelines
from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.stages import Stage
from hourglass.uses.search.tune import Tuned, require_apart, tune, with_chosen


def index(
    source: Any,
    *,
    out: str | Path,
    encoder: Any = "minilm",
    sparse: str | None = None,
    tokens: str | None = None,
    token_bits: int = 2,
    code: str | None = None,
    bits: int | None = None,
    vectors: str | None = None,
    similarity: Literal["cosine", "dot"] | None = None,
    dtype: Literal["float16", "float32"] = "float16",
    stem: str | None = "english",
    stop_words: str | None = "english",
    k1: float = 1.5,
    b: float = 0.75,
    precision: Precision = "auto",
    engine: str = "local",
    text: str | None = None,
    id: str | None = None,
    limit: int | None = None,
    force: bool = False,
    progress: bool = True,
) -> SearchIndex:
    """Make a search index of a source of texts in the folder `out`, or at a URL of an object store; memory follows the batch.

    source, text, id, limit   as for `explore`; ids must differ (default: "id" or "_id" where there is one)
    encoder     "minilm", a folder of a trained model or of sentence-transformers, a Hub id, or a model, as for `encode`; None:
                an index of words alone
    sparse      also weights of words, by a model as for `encode` with `sparse`
    tokens      also vectors of each text's tokens, compressed, by a late-interaction model (of ColBERT's kind): a folder, a Hub id, or a plain
                encoder; `token_bits` (1, 2, 4 or 8) a number
    code        "sign", "median", "hyperplanes" or "itq": also a binary code of each vector, learned from a sample of them; "own": that
                of the encoder, which is the default of one that has codes; bits: of it (default: a bit for each number)
    vectors     column of the source that has the vectors already; the encoder is then of the queries alone, or None
    similarity  of vectors (default: what the encoder was made for); dtype: in which they are kept
    stem, stop_words   languages of the index of words (Snowball's, bm25s's), or None; k1, b: of BM25
    precision   that a model of sentence-transformers computes in; "auto" takes bfloat16 where the hardware has it, for which a
                text takes a third of the time and the cosine to float32 is 0.9999
    engine      where models read the texts: "local", or "ray", the workers of a cluster, with the same result
    force       replace the index that is there; the old one stays until the new one is done

    The same call after a crash goes on from the last commit. Raises InputError for bad input, in one line.
    """
    return SearchIndex.create(
        source,
        out,
        encoder=encoder,
        sparse=sparse,
        tokens=tokens,
        token_bits=token_bits,
        code=code,
        bits=bits,
        vectors=vectors,
        similarity=similarity,
        dtype=dtype,
        stem=stem,
        stop_words=stop_words,
        k1=k1,
        b=b,
        precision=precision,
        engine=engine,
        text=text,
        id=id,
        limit=limit,
        force=force,
        weigher=weigher_of,
        opened=encoder_of,
        progress=progress,
    )


def open_index(folder: str | Path, *, encoder: Any = None) -> SearchIndex:
    """An index; FolderError where there is none.

    encoder  of queries, where the index does not know its own by name: a model, or for vectors that were given
    """
    return SearchIndex(folder, encoder=encoder, weigher=weigher_of, opened=encoder_of)


def evaluate(
    index: SearchIndex | str | Path,
    queries: Mapping[str, str] | str | Path,
    qrels: Qrels | str | Path,
    *,
    pipelines: Sequence[str | Stage] = (),
    measures: Sequence[str] = MEASURES,
    dev: tuple[Mapping[str, str] | str | Path, Qrels | str | Path] | None = None,
    progress: bool = True,
) -> Evaluation:
    """How much of what is relevant pipelines find in an index, whether they differ by more than chance, and what they cost.

    index      one, or its folder
    queries    texts by name, or a file: .jsonl (_id, text), .parquet, or a name, a tab and a text a line
    qrels      graded relevance by query and document, or a file of TREC, of BEIR, or .parquet
    pipelines  the first is what the others are compared with (default: bm25, and with vectors dense, and both fused)
    measures   ndcg, mrr, recall, p or map, each at a depth
    dev        queries and judgements of a development set, as above: each pipeline that is a text is tuned on it by the first
               measure (`hourglass.uses.search.tune`), and what was chosen is measured after it; what was tried is in `tuned`

    Raises InputError for bad input, in one line.
    """
    searched = index if isinstance(index, SearchIndex) else open_index(index)
    pipelines = pipelines or ("bm25", *(("dense", "bm25 | dense >> rrf") if searched.answers_vectors else ()))
    asked = _judged(queries, qrels)
    tuned: list[Tuned] = []
    if dev is not None:
        known = _judged(*dev)
        require_apart(known, asked)
        by = measures[0]
        texts = [pipeline for pipeline in pipelines if isinstance(pipeline, str)]
        tuned = [tune(searched, text, *known, measure=by, progress=progress) for text in texts]
        pipelines = with_chosen(pipelines, tuned)
    stages = [pipeline if isinstance(pipeline, Stage) else searched.pipeline(pipeline) for pipeline in pipelines]
    names = [pipeline.name if isinstance(pipeline, Stage) else pipeline for pipeline in pipelines]
    done = evaluate_pipelines(dict(zip(names, stages)), searched, *asked, measures=measures, progress=progress)
    return replace(done, tuned=tuned)


def _judged(queries: Mapping[str, str] | str | Path, qrels: Qrels | str | Path) -> tuple[Mapping[str, str], Qrels]:
    return (
        queries if isinstance(queries, Mapping) else read_queries(queries),
        qrels if isinstance(qrels, Mapping) else read_qrels(qrels),
    )
