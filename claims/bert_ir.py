"""Whether each of the survey's categories helps where it says, and what it costs.

    hourglass claim bert_ir                 # docstrings of the installed packages
    hourglass claim bert_ir --data DIR      # cranfield and npl_vaswani; what is trained has learned on squad_questions

Everything below up to `measure` was written before anything was measured here; of long documents and of term weights the outcome of a trial
by others was known (MaxP above whole documents; DeepCT below counts on docstrings where its encoder began at random).

Words are the baseline everywhere: BM25 with stems and stop words, whose k1 and b are chosen on development queries, for each arm anew, as is
every other setting: the weights of what is fused, the share of RM3, the scale of DeepCT's weights. Of docstrings a first line is to find the
rest; lines and bodies that are learned from are in no corpus that is searched. Of the public sets a half of the queries, drawn by the seed,
is for development. A unit is a query.

    long documents       eight bodies of one package are a document: its passages (150 words, every 75) by BM25, folded
    semantics            BM25 and all-MiniLM-L6-v2, fused by scores; a cross-encoder that began as MiniLM and learned from
                         pairs with three negatives of BM25, mixed with BM25 over its first 30
    efficiency           MiniLM picks 10 of the 30 for the same cross-encoder
    term weights         DeepCT that began as MiniLM, against counts of the same words; on simulated documents, which quote another's
                         text twice, so that counts mislead, and on documents as they are
    query expansion      RM3
    document expansion   a BART of 2 + 2 layers from scratch, which learned to write a first line, adds three to each document

Of DeepCT on documents as they are, and of a writer from scratch, no gain is expected: the survey's come from models that learned on millions of
pairs. They are measured to say so.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from claims.base import Claim, Row
from claims.shared.docstrings import first_lines
from claims.shared.judged import judged, sentences_by_questions
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

import hourglass as hg
from hourglass.adapters.huggingface_loading import compute_dtype, load
from hourglass.adapters.tokenizers import train_tokenizer
from hourglass.metrics.ranking import measure_run
from hourglass.systems.bart import Bart, BartConfig
from hourglass.systems.bart_parts import Writer
from hourglass.training import TrainConfig, fit
from hourglass.uses.finetune.retriever import Pair
from hourglass.uses.search.dense import Dense
from hourglass.uses.search.document_expansion import QueryWriter
from hourglass.uses.search.expansion import RM3
from hourglass.uses.search.fusion import Interpolated
from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.lexical import BM25
from hourglass.uses.search.parade import Parade, ParadeConfig
from hourglass.uses.search.passages import ByText, Folded, passages
from hourglass.uses.search.stages import Query, Ranking, Stage
from hourglass.uses.search.term_weights.deepct import DeepCT, DeepCTConfig, recalled
from hourglass.uses.search.term_weights.rows import as_matrix, bm25_weights, frequencies, word_spans

Array = np.ndarray[Any, Any]

SEEDS = {"smoke": (0,), "laptop": (0, 1, 2), "full": (0, 1, 2, 3, 4)}
SEEDS_APART = True


@dataclass(frozen=True)
class Size:
    """Documents, test and development queries; of long documents; pairs to learn from; steps of cross-encoder, DeepCT and writer."""

    documents: int
    test: int
    dev: int
    long: int
    pairs: int
    steps: tuple[int, int, int]


SIZES = {
    "smoke": Size(24, 6, 6, 8, 16, (1, 1, 1)),
    "laptop": Size(2000, 200, 100, 800, 4000, (200, 200, 800)),
    "full": Size(20_000, 1000, 500, 4000, 20_000, (2000, 2000, 10_000)),
}
LONGEST = {"smoke": 300}
"""Characters of a docstring's body; a test has little time to read."""
K1, B = (0.6, 0.9, 1.2, 1.5, 2.0), (0.4, 0.75, 0.9)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
DEEPCT_K1, DEEPCT_B = (1.2, 5.0, 10.0, 20.0), (0.4, 0.75, 0.9)
FIRST, PICKED = 30, 10
TIMED = 20
"""Queries by which a pipeline's time is taken."""

_DOCSTRINGS = "docstrings of the installed packages, no first line and no body twice"
_SPLIT = "pairs to learn from, development queries and test queries, drawn by the seed, apart"


def _claim(statement: str, baseline: str, data: str, metric: str, margin: float = 0.0) -> Claim:
    return Claim(
        paper="bert_ir",
        statement=statement,
        data=data,
        split=_SPLIT,
        metric=metric,
        baseline=baseline,
        direction="ours is higher",
        margin=margin,
    )


def _claims(data: str, suffix: str, metric: str) -> dict[str, Claim]:
    """Those that are measured on every set."""
    made = {
        "fused": _claim("Words and vectors fused find more than words", "BM25", data, metric),
        "cross": _claim("A cross-encoder over the first of words finds more than words", "BM25", data, metric),
        "cascade": _claim(
            "Vectors before the cross-encoder lose no more than a hundredth",
            "the cross-encoder over all 30",
            data,
            metric,
            -0.01,
        ),
        "cascade_cost": _claim(
            "Vectors before the cross-encoder at least halve the time of a query",
            "the cross-encoder over all 30",
            data,
            "minus the logarithm, to the base 2, of milliseconds a query",
            1.0,
        ),
        "deepct": _claim("DeepCT's weights find more than counts", "BM25 over the same words", data, metric),
        "rm3": _claim("RM3 finds more of what is relevant", "BM25", data, "recall@100"),
    }
    return {name + suffix: claim for name, claim in made.items()}


PUBLIC = ("cranfield", "npl_vaswani")
CLAIMS = {
    "maxp": _claim(
        "MaxP finds more than whole documents", "BM25 over documents", f"{_DOCSTRINGS}, eight in one", "MRR@10"
    ),
    "maxp_firstp": _claim("MaxP finds more than FirstP", "FirstP", f"{_DOCSTRINGS}, eight in one", "MRR@10"),
    "maxp_sump": _claim("MaxP finds more than SumP", "SumP", f"{_DOCSTRINGS}, eight in one", "MRR@10"),
    "deepct_simulated": _claim(
        "DeepCT's weights find more than counts where texts quote others",
        "BM25 over the same words",
        f"simulated: {_DOCSTRINGS}, each with another quoted twice",
        "MRR@10",
    ),
    "doc2query": _claim("Written queries in the documents find more", "BM25", _DOCSTRINGS, "MRR@10"),
    **_claims(_DOCSTRINGS, "", "MRR@10"),
    **{name: claim for each in PUBLIC for name, claim in _claims(each, f" {each}", "nDCG@10").items()},
}


@dataclass(frozen=True)
class Task:
    """A corpus, queries of both splits, what is relevant, and pairs of query and document to learn from."""

    corpus: dict[str, str]
    test: dict[str, str]
    dev: dict[str, str]
    qrels: dict[str, dict[str, int]]
    pairs: list[tuple[str, str]]
    measure: str

    def values(self, run: dict[str, dict[str, float]], measure: str | None = None) -> Array:
        """Of the queries of a run, in their order."""
        name = measure or self.measure
        return np.asarray(measure_run(run, {query: self.qrels[query] for query in run}, [name])[1][name])


def measure(data: Path | None, seeds: Sequence[int], budget: str) -> list[Row]:
    """A row a claim, seed and query."""
    size = SIZES[budget]
    rows: list[Row] = []
    for seed in seeds:
        if data is None:
            known = first_lines(8 * (size.documents + size.pairs + 8 * size.long), LONGEST.get(budget))
            random.Random(seed).shuffle(known)
            rows += _long_documents(known, size, seed)
            task = _docstrings(known, size)
            rows += _every_category(task, size, seed, "")
            rows += _term_weights(_quoting(task, seed), size, seed, "deepct_simulated")
            rows += _document_expansion(task, size, seed)
        else:
            for name in PUBLIC:
                rows += _every_category(_public(data, name, size, seed, budget), size, seed, f" {name}")
        for part in dict.fromkeys(row.part for row in rows):
            some = [row for row in rows if row.part == part and row.seed == seed]
            if some:
                ours, baseline = (np.mean([getattr(row, side) for row in some]) for side in ("ours", "baseline"))
                print(f"seed {seed}, {part}: {ours:.4f}, {baseline:.4f}", file=sys.stderr, flush=True)
    return rows


# Sets -----------------------------------------------------------------------------------------------------


def _docstrings(known: Sequence[tuple[str, str, str]], size: Size) -> Task:
    searched, learned = known[: size.documents], known[size.documents : size.documents + size.pairs]
    lines = {str(i): line for i, (line, _, _) in enumerate(searched)}
    names = list(lines)
    return Task(
        {str(i): body for i, (_, body, _) in enumerate(searched)},
        {name: lines[name] for name in names[: size.test]},
        {name: lines[name] for name in names[size.test : size.test + size.dev]},
        {name: {name: 1} for name in names},
        [(line, body) for line, body, _ in learned],
        "mrr@10",
    )


def _public(data: Path, name: str, size: Size, seed: int, budget: str) -> Task:
    found = judged(data, name, *((2 * size.test, size.documents) if budget == "smoke" else ()))
    asked = [query for query in found.queries if query in found.qrels]
    random.Random(seed).shuffle(asked)
    half = len(asked) // 2
    learned = sentences_by_questions(data, size.pairs, size.pairs, seed)
    return Task(
        found.corpus,
        {query: found.queries[query] for query in asked[half:]},
        {query: found.queries[query] for query in asked[:half]},
        {query: dict(found.qrels[query]) for query in asked},
        [(text, learned.corpus[next(iter(learned.qrels[query]))]) for query, text in learned.queries.items()],
        "ndcg@10",
    )


def _quoting(task: Task, seed: int) -> Task:
    """Every document, and of every pair the document, with another of its kind quoted twice, before it or after it."""
    draw = random.Random(seed)

    def quoted(texts: Sequence[str]) -> list[str]:
        others = list(texts)
        draw.shuffle(others)
        made = []
        for text, other in zip(texts, others):
            quote = "\n".join(f"> {line}" for line in other.splitlines() if line.strip())
            parts = [text, quote, quote]
            draw.shuffle(parts)
            made.append("\n".join(parts))
        return made

    corpus = dict(zip(task.corpus, quoted(list(task.corpus.values()))))
    queries, documents = zip(*task.pairs)
    return Task(corpus, task.test, task.dev, task.qrels, list(zip(queries, quoted(documents))), task.measure)


# Categories -----------------------------------------------------------------------------------------------


def _long_documents(known: Sequence[tuple[str, str, str]], size: Size, seed: int) -> list[Row]:
    by_package: dict[str, list[tuple[str, str]]] = {}
    for line, body, package in known:
        by_package.setdefault(package, []).append((line, body))
    groups = [some[i : i + 8] for some in by_package.values() for i in range(0, len(some) - 7, 8)]
    random.Random(seed).shuffle(groups)
    groups = groups[: size.long]
    texts = {str(i): "\n\n".join(body for _, body in group) for i, group in enumerate(groups)}
    draw = random.Random(seed)
    lines = {name: draw.choice(group)[0] for name, group in zip(texts, groups)}
    names = list(lines)
    task = Task(
        texts,
        {name: lines[name] for name in names[: 2 * size.test]},
        {name: lines[name] for name in names[2 * size.test : 2 * size.test + size.dev] or names},
        {name: {name: 1} for name in names},
        [],
        "mrr@10",
    )
    cut = [(name, part.text) for name, text in texts.items() for part in passages(text)]
    parents = np.array([names.index(name) for name, _ in cut])
    with tempfile.TemporaryDirectory() as folder:
        whole = _index(texts, Path(folder) / "whole", encoder=None)
        pieces = _index({str(i): text for i, (_, text) in enumerate(cut)}, Path(folder) / "pieces", encoder=None)
        arms: dict[str, Array] = {"whole": _tuned(task, whole, lambda k1, b: BM25(whole, k1, b))[1]}
        for aggregate in ("max", "first", "sum"):
            arms[aggregate] = _tuned(
                task, whole, lambda k1, b, fold=aggregate: Folded(BM25(pieces, k1, b), parents, fold)
            )[1]
    pairs = {"maxp": "whole", "maxp_firstp": "first", "maxp_sump": "sum"}
    return [row for part, other in pairs.items() for row in _rows(part, task, seed, arms["max"], arms[other])]


def _every_category(task: Task, size: Size, seed: int, suffix: str) -> list[Row]:
    """Semantics, efficiency, term weights and query expansion."""
    with tempfile.TemporaryDirectory() as folder:
        index = _index(task.corpus, Path(folder) / "index", encoder="minilm")
        words, by_words = _tuned(task, index, lambda k1, b: BM25(index, k1, b))
        dense = Dense(index)
        rows = []
        fused = _best(task, index, [(words | dense) >> Interpolated(1 - w, w) for w in SHARES])[1]
        rows += _rows("fused" + suffix, task, seed, fused, by_words)

        cross = _cross_encoder(task, size, seed)
        read = ByText(index, _Remembering(cross.score_texts), "cross")
        weights = [Interpolated(1 - w, w) for w in SHARES]
        by_cross = _best(task, index, [words % FIRST >> (words | read) >> w for w in weights])[1]
        cascades = [words % FIRST >> dense % PICKED >> (words | read) >> w for w in weights]
        by_cascade = _best(task, index, cascades)[1]
        rows += _rows("cross" + suffix, task, seed, by_cross, by_words)
        rows += _rows("cascade" + suffix, task, seed, by_cascade, by_cross)
        fresh = ByText(index, cross.score_texts, "cross")
        pipelines = (words % FIRST >> dense % PICKED >> fresh, words % FIRST >> fresh)
        timed = [-np.log2(_milliseconds(stage, task)) for stage in pipelines]
        rows += _rows("cascade_cost" + suffix, task, seed, *timed)

        wider = [words >> RM3(index, index.words, share=share) >> words for share in SHARES]
        expanded = _best(task, index, wider, "recall@100")[1]
        recall = task.values(_run(words, index, task.test), "recall@100")
        rows += _rows("rm3" + suffix, task, seed, expanded, recall)
    return rows + _term_weights(task, size, seed, "deepct" + suffix)


def _term_weights(task: Task, size: Size, seed: int, part: str) -> list[Row]:
    """BM25 over DeepCT's frequencies and over counts: the same words, the same formula, k1 and b chosen for each."""

    def spans(text: str) -> Iterable[tuple[int, int, str]]:
        return (span for span in word_spans(text) if span[2] not in ENGLISH_STOP_WORDS)

    model = DeepCT(DeepCTConfig(max_tokens=256), _minilm())
    examples = [recalled(document, [query], spans) for query, document in task.pairs]
    fit(model, examples, _training(size.steps[1], 16, 5e-5, seed), progress=False)
    texts = list(task.corpus.values())
    in_what = compute_dtype("auto", torch.device("cpu"))
    with torch.autocast("cpu", in_what, enabled=in_what == torch.bfloat16):
        weights = model.weigh(texts, spans)
    counts = [Counter(term for _, _, term in spans(text)) for text in texts]
    learned = [(frequencies(weights, root=root), DEEPCT_K1, DEEPCT_B) for root in (False, True)]
    arms = []
    for choices in (learned, [(counts, K1, B)]):
        rows = [bm25_weights(frequency, k1, b) for frequency, k1s, bs in choices for k1 in k1s for b in bs]
        best = max(rows, key=lambda row: float(task.values(_by_weights(row, task, task.dev, spans)).mean()))
        arms.append(task.values(_by_weights(best, task, task.test, spans)))
    return _rows(part, task, seed, *arms)


def _document_expansion(task: Task, size: Size, seed: int) -> list[Row]:
    torch.manual_seed(seed)
    tokenizer = train_tokenizer([f"{query} {document}" for query, document in task.pairs], 4000, "bpe")
    network = {
        **BartConfig.presets["tiny"]["network"],
        "d_model": 128,
        **{f"{part}_layers": 2 for part in ("encoder", "decoder")},
        **{f"{part}_attention_heads": 4 for part in ("encoder", "decoder")},
        **{f"{part}_ffn_dim": 512 for part in ("encoder", "decoder")},
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Bart(BartConfig(network=network, max_tokens=128), tokenizer).save_pretrained(folder / "bart")
        writer = Writer.from_folder(folder / "bart", max_tokens=128)
        fit(writer, [(d, q) for q, d in task.pairs], _training(size.steps[2], 32, 1e-3, seed), progress=False)
        writer.save_pretrained(folder / "writer")
        wrote = QueryWriter(str(folder / "writer"), max_tokens=16, longest=128, seed=seed)
        longer = {name: " ".join([text, *wrote.write(text, 3)]) for name, text in task.corpus.items()}
        arms = []
        for place, corpus in (("longer", longer), ("plain", task.corpus)):
            index = _index(corpus, folder / place, encoder=None)
            arms.append(_tuned(task, index, lambda k1, b, index=index: BM25(index, k1, b))[1])
    return _rows("doc2query", task, seed, *arms)


# Models ---------------------------------------------------------------------------------------------------


def _minilm() -> tuple[Any, Any]:
    tokenizer, network = load("minilm", torch.float32)
    return network, tokenizer


def _cross_encoder(task: Task, size: Size, seed: int) -> Parade:
    """monoBERT, which is PARADE of one passage; its negatives are drawn among the first 50 of BM25."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        documents = {str(i): document for i, (_, document) in enumerate(task.pairs)}
        learned = _index(documents, Path(folder) / "pairs", encoder=None)
        found = BM25(learned).retrieve([Query(str(i), query) for i, (query, _) in enumerate(task.pairs)], 50)
    pairs = []
    for i, ((query, document), ranking) in enumerate(zip(task.pairs, found)):
        wrong = [task.pairs[row][1] for row in ranking.rows.tolist() if row != i and task.pairs[row][1] != document]
        if len(wrong) >= 3:
            pairs.append(Pair(query, document, tuple(draw.sample(wrong, 3))))
    torch.manual_seed(seed)
    config = ParadeConfig(aggregate="avg", most=1, size=100, stride=100, max_tokens=144, negatives=3)
    model = Parade(config, _minilm())
    fit(model, pairs, _training(size.steps[0], 8, 5e-5, seed), progress=False)
    return model


def _training(steps: int, batch: int, lr: float, seed: int) -> TrainConfig:
    return TrainConfig(
        steps=steps,
        batch_size=batch,
        lr=lr,
        weight_decay=0.01,
        schedule="linear",
        warmup=0.1,
        seed=seed,
        precision="auto",  # bfloat16 where the processor multiplies it, which is several times as fast as where it does not
    )


class _Remembering:
    """A scorer of texts that is asked for each pair once: the weights of a mixture are chosen over the same scores."""

    def __init__(self, score: Callable[[Query, Sequence[str]], Array]) -> None:
        self._score = score
        self._known: dict[tuple[str, str], float] = {}

    def __call__(self, query: Query, texts: Sequence[str]) -> Array:
        new = [text for text in dict.fromkeys(texts) if (query.text, text) not in self._known]
        if new:
            self._known |= {(query.text, text): float(s) for text, s in zip(new, self._score(query, new))}
        return np.array([self._known[query.text, text] for text in texts], np.float32)


# Measuring ------------------------------------------------------------------------------------------------


def _index(corpus: dict[str, str], folder: Path, encoder: str | None) -> SearchIndex:
    table = pd.DataFrame({"id": list(corpus), "text": list(corpus.values())})
    return hg.index(table, out=folder, encoder=encoder, id="id", text="text", progress=False)


def _run(stage: Stage, names: SearchIndex, queries: dict[str, str]) -> dict[str, dict[str, float]]:
    asked = [Query(name, text) for name, text in queries.items()]
    return {
        query.id: dict(zip(names.names(ranking.rows), ranking.scores.tolist()))
        for query, ranking in zip(asked, stage.run(asked))
    }


def _best(task: Task, names: SearchIndex, stages: Sequence[Stage], measure: str | None = None) -> tuple[Stage, Array]:
    """The stage that is best on development queries, and its values on the test queries."""
    best = max(stages, key=lambda stage: float(task.values(_run(stage, names, task.dev), measure).mean()))
    return best, task.values(_run(best, names, task.test), measure)


def _tuned(task: Task, names: SearchIndex, make: Callable[[float, float], Any]) -> tuple[Any, Array]:
    """The same of BM25's k1 and b."""
    return _best(task, names, [make(k1, b) for k1 in K1 for b in B])


def _by_weights(
    rows: Sequence[dict[str, float]], task: Task, queries: dict[str, str], spans: Callable[[str], Any]
) -> dict[str, dict[str, float]]:
    """The first 100 documents by inner products of `rows` with the queries' counts."""
    matrix, terms = as_matrix(rows)
    number = {term: i for i, term in enumerate(terms)}
    by_term = matrix.tocsc()
    names = list(task.corpus)
    run = {}
    for name, text in queries.items():
        scores = np.zeros(len(names), np.float32)
        for _, _, term in spans(text):
            if term in number:
                column = by_term.indptr[number[term]], by_term.indptr[number[term] + 1]
                scores[by_term.indices[slice(*column)]] += by_term.data[slice(*column)]
        there = np.flatnonzero(scores > 0)
        found = Ranking.of(there, scores[there], 100)
        run[name] = {names[row]: score for row, score in zip(found.rows.tolist(), found.scores.tolist())}
    return run


def _milliseconds(stage: Stage, task: Task) -> Array:
    """Of each of the first queries, asked alone."""
    queries = [Query(name, text) for name, text in list(task.test.items())[:TIMED]]
    stage.run(queries[:1])  # what is loaded once is no cost of a query
    taken = []
    for query in queries:
        start = time.perf_counter()
        stage.run([query])
        taken.append(1000 * (time.perf_counter() - start))
    return np.array(taken)


def _rows(part: str, task: Task, seed: int, ours: Array, baseline: Array) -> list[Row]:
    return [
        Row(part=part, unit=name, seed=seed, ours=float(a), baseline=float(b))
        for name, a, b in zip(task.test, ours, baseline)
    ]
