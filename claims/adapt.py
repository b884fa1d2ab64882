"""Whether an encoder with the words of a corpus beside its vector finds more there than the encoder as it is shipped.

    hourglass claim adapt                 # docstrings of the installed packages
    hourglass claim adapt --data DIR      # public sets with questions and judgements

Everything below up to `measure` was written before anything was measured on docstrings, npl_vaswani and squad_questions. Of cranfield
the outcome of a first run was known (0.509 to 0.526); of an earlier recipe, which failed, cranfield and npl_vaswani had been looked at.

all-MiniLM-L6-v2 is adapted to the documents alone: it sees no query and no judgement. Nothing is tuned here: settings are the defaults
of `hourglass adapt`, chosen on three other sets (titles to stories of reuters21578, prompts to answers of alpaca_eval, pairs of stsb).
    docstrings        a docstring's first line is to find the rest of it, among those of others
    cranfield         questions to abstracts of aeronautics, all of the set
    npl_vaswani       questions to abstracts of electronics, all of the set
    squad_questions   questions to the sentences that answer them
The adapted vector has 1,152 numbers, the shipped one 384: the reader and what it sees of a text are the same, the storage is not.
A seed draws the documents and queries of the first and last, and the directions of the tokens in all. A unit is a query.

As context, not as the baseline, the same queries are asked of BM25 (k1 1.2, b 0.75, all words as they are); it is in `detail`.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from claims.base import Claim, Row
from claims.shared.docstrings import first_lines, to_bodies
from claims.shared.judged import judged, sentences_by_questions

from hourglass.data.judged import Judged
from hourglass.uses.adapt import adapt
from hourglass.uses.probe.lexical import BM25
from hourglass.uses.probe.retrieval import retrieval

SEEDS = {"smoke": (0,), "laptop": (0, 1, 2), "full": (0, 1, 2, 3, 4)}
QUERIES = {"smoke": 20, "laptop": 600, "full": 2000}
DOCUMENTS = {"smoke": 60, "laptop": 4000, "full": 20_000}


def _claim(data: str) -> Claim:
    return Claim(
        paper="adapt",
        statement="An encoder adapted to a corpus without labels finds more there than as it is shipped",
        data=data,
        split="adapted to the documents alone; queries and judgements are only asked",
        metric="nDCG@10, every relevant document counts alike",
        baseline="all-MiniLM-L6-v2",
        direction="ours is higher",
        margin=0.0,
    )


CLAIMS = {
    "docstrings": _claim("docstrings of the installed packages, no first line and no body twice"),
    "cranfield": _claim("cranfield"),
    "npl_vaswani": _claim("npl_vaswani"),
    "squad_questions": _claim("squad_questions"),
}


def measure(data: Any, seeds: Sequence[int], budget: str) -> list[Row]:
    sets = {"docstrings": _docstrings} if data is None else {
        "cranfield": _judged, "npl_vaswani": _judged, "squad_questions": _squad
    }  # fmt: skip
    rows = []
    for name, read in sets.items():
        for seed in seeds:
            found = _found(read(data, name, budget, seed), seed)
            for unit, ours, baseline, words in zip(*found):
                rows.append(Row(part=name, unit=unit, seed=seed, ours=ours, baseline=baseline, detail={"bm25": words}))
    return rows


def _found(asked: Judged, seed: int) -> tuple[list[str], list[float], list[float], list[float]]:
    """Queries, and nDCG@10 of each: adapted, shipped, BM25."""
    from sentence_transformers import SentenceTransformer

    with tempfile.TemporaryDirectory() as folder:
        adapt(
            pd.DataFrame({"text": list(asked.corpus.values())}),
            Path(folder) / "model",
            text="text",
            seed=seed,
            progress=False,
        )
        model = SentenceTransformer(str(Path(folder) / "model"), device="cpu")
    vectors: dict[str, Any] = {}

    def adapted(texts: Sequence[str]) -> Any:
        key = "\0".join(texts)
        if key not in vectors:
            vectors[key] = model.encode(list(texts), batch_size=32, show_progress_bar=False)
        return vectors[key]

    width = model[1].get_embedding_dimension()

    def shipped(texts: Sequence[str]) -> Any:
        # The first numbers of an adapted vector are the encoder's own, shorter: `tests/unit/uses/test_adapt.py`.
        return adapted(texts)[:, :width]

    with torch.inference_mode():
        ours, baseline = (retrieval(encode, asked, similarity="cosine") for encode in (adapted, shipped))
    words = retrieval(BM25(list(asked.corpus.values())), asked, similarity="dot")
    return (ours.queries, *(np.asarray(found.values["ndcg@10"]).tolist() for found in (ours, baseline, words)))


def _docstrings(_: Any, __: str, budget: str, seed: int) -> Judged:
    known = first_lines(4 * DOCUMENTS[budget])
    random.Random(seed).shuffle(known)
    known = known[: DOCUMENTS[budget]]
    return to_bodies(known, min(QUERIES[budget], len(known)))


def _judged(data: Path, name: str, budget: str, _: int) -> Judged:
    return judged(data, name, *((QUERIES[budget], DOCUMENTS[budget]) if budget == "smoke" else ()))


def _squad(data: Path, _: str, budget: str, seed: int) -> Judged:
    return sentences_by_questions(data, DOCUMENTS[budget], QUERIES[budget], seed)
