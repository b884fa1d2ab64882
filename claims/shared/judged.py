"""Public sets with questions and judgements."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from hourglass.data.judged import Judged


def judged(data: Path, name: str, queries: int | None = None, documents: int | None = None) -> Judged:
    """Documents, queries and judgements, all of which count alike; with `queries` and `documents` the first, at the size of a test."""
    texts, asked, judgements = (
        pd.read_parquet(data / name / f"{part}.parquet") for part in ("docs", "queries", "qrels")
    )
    if queries is not None:
        asked = asked.head(queries)
        judgements = judgements[judgements.query_id.isin(asked.query_id)]
        texts = texts[texts.doc_id.isin(judgements.doc_id)].head(documents)
    qrels: dict[str, dict[str, int]] = {}
    for query, document in zip(judgements.query_id.astype(str), judgements.doc_id.astype(str)):
        qrels.setdefault(query, {})[document] = 1
    return Judged(
        dict(zip(texts.doc_id.astype(str), texts.text)), dict(zip(asked.query_id.astype(str), asked.text)), qrels
    )


def sentences_by_questions(data: Path, documents: int, queries: int, seed: int) -> Judged:
    """squad_questions: so many sentences, drawn by the seed, and so many questions that one of them answers."""
    pairs = pd.read_parquet(data / "squad_questions" / "pairs.parquet").sample(frac=1, random_state=seed)
    sentences = pairs.sentence.drop_duplicates().head(documents).tolist()
    asked = pairs[pairs.sentence.isin(sentences)].drop_duplicates("question").head(queries)
    place = {sentence: str(i) for i, sentence in enumerate(sentences)}
    questions = dict(enumerate(asked.question))
    return Judged(
        {place[sentence]: sentence for sentence in sentences},
        {str(i): question for i, question in questions.items()},
        {str(i): {place[sentence]: 1} for i, sentence in enumerate(asked.sentence)},
    )
