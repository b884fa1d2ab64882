"""The labelled public sets as tables: column text, cut where it is long, beside what is known of each text.

Every function takes the folder of data sets and gives all rows in one fixed shuffled order, so that the first n are a sample.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import pandas as pd

CUT = 400
"""Characters that are kept of a long text: how it is shows early, and reading is what takes time."""

ANSWER_PROPERTIES: dict[str, Callable[[str], bool]] = {
    "opens by agreeing": re.compile(r"\s*(Sure|Certainly|Of course|Absolutely|Yes)\b").match,
    "speaks in the first person": re.compile(r"\b(I|I'm|I'd|my|me)\b").search,
    "speaks to the reader": re.compile(r"\b[Yy]ou(r|rs)?\b").search,
    "has a numbered list": re.compile(r"^\s*\d+[.)] \S", re.M).search,
    "has a bulleted list": re.compile(r"^\s*[-*•] \S", re.M).search,
    "has bold text": re.compile(r"\*\*\w").search,
    "has code": re.compile(r"```").search,
    "asks a question": re.compile(r"\w\?(\s|$)").search,
    "exclaims": re.compile(r"\w!").search,
    "apologises or declines": re.compile(r"\b(sorry|apologi[sz]e|apologies|unable to|can ?not provide)\b", re.I).search,
    "speaks of being a model": re.compile(r"\b(language model|an AI|artificial intelligence)\b", re.I).search,
    "gives an instance": re.compile(r"\b(for example|such as|for instance|e\.g\.)", re.I).search,
    "opposes": re.compile(r"\b(however|although|on the other hand|nevertheless)\b", re.I).search,
    "quotes": re.compile(r"[\"“]\w[^\"”]{3,}[\"”]").search,
    "has a year": re.compile(r"\b(1[5-9]|20)\d\d\b").search,
}
"""How an answer is. Nothing here rests on line breaks alone, which the reader's tokenizer does not keep."""


def answers(data: Path) -> pd.DataFrame:
    """Answers of 24 chat models to 605 prompts: text, model."""
    table = pd.read_parquet(data / "alpaca_eval" / "outputs.parquet")
    table = table[table["output"].str.len() > 20]
    return _shuffled(table.assign(text=table["output"].str[:CUT])[["text", "model"]])


def essays(data: Path) -> pd.DataFrame:
    """Essays by pupils and by three models, two attacks among them: text, writer ("chatgpt, dipper"), essay_id of the task."""
    table = _essays(data)
    return table.assign(text=table["text"].str[:CUT])


def essay_pieces(data: Path) -> pd.DataFrame:
    """The same: text (400 characters), writer, essay_id."""
    return _pieces(_essays(data), 400)


def questions(data: Path) -> pd.DataFrame:
    """Questions by what they ask for: text, label (coarse), fine."""
    return _shuffled(pd.read_parquet(data / "trec_questions" / "docs.parquet")[["text", "label", "fine"]])


def requests(data: Path, commonest: int | None = 30) -> pd.DataFrame:
    """What customers of a bank ask, of the commonest intents or (None) of all: text, label."""
    table = pd.read_parquet(data / "banking77" / "docs.parquet")
    return _shuffled(table[table["label"].isin(table["label"].value_counts().index[:commonest])][["text", "label"]])


def statements(data: Path) -> pd.DataFrame:
    """What a person with a trait would say of himself, and would not: text, persona, matches."""
    table = pd.read_parquet(data / "persona" / "statements.parquet")
    return _shuffled(table.rename(columns={"statement": "text"})[["text", "persona", "matches"]])


def news_pieces(data: Path) -> pd.DataFrame:
    """News of five topics: text (200 characters), label."""
    table = pd.read_parquet(data / "bbc_news" / "docs.parquet")
    return _pieces(_shuffled(table[["text", "label"]]), 200)


def sentences(data: Path) -> pd.DataFrame:
    """Sentences of an encyclopedia: text (200 characters)."""
    table = pd.read_parquet(data / "squad_questions" / "pairs.parquet")
    return _shuffled(pd.DataFrame({"text": table["sentence"].str[:200]}))


def kinds_of_text(data: Path) -> pd.DataFrame:
    """Pieces of texts (200 characters) that have little to do with one another: text, kind."""
    made = {
        "requests to a bank": requests(data)["text"],
        "film reviews": pd.read_parquet(data / "imdb_counterfactual" / "docs.parquet")["text"],
        "aerodynamics": pd.read_parquet(data / "cranfield" / "docs.parquet")["text"],
        "electronics": pd.read_parquet(data / "npl_vaswani" / "docs.parquet")["text"],
        "rude comments": pd.read_parquet(data / "paradetox" / "pairs.parquet")["toxic"],
        "pupils' essays": essays(data).query("writer == 'human'")["text"],
        "statements about oneself": statements(data).query("matches")["text"],
        "drama": pd.Series((data / "tinyshakespeare" / "input.txt").read_text().split("\n\n")),
        "lines of receipts": pd.read_parquet(data / "receipt_text" / "lines.parquet")["text"],
        "names of pictures": pd.read_parquet(data / "noto_emoji" / "images.parquet")["caption"],
    }
    news = pd.read_parquet(data / "reuters21578" / "docs.parquet")
    for topic in ("crude", "interest", "ship", "trade"):
        made[f"news of {topic}"] = news[[list(topics) == [topic] for topics in news["topics"]]]["text"]
    parts = [pd.DataFrame({"text": texts.dropna().str[:200], "kind": kind}) for kind, texts in made.items()]
    return _shuffled(pd.concat(parts))


def comments(data: Path) -> pd.DataFrame:
    """Rude comments and what they say politely: text, label ("rude" or "polite"); of a pair only one is there."""
    pairs = pd.read_parquet(data / "paradetox" / "pairs.parquet").drop_duplicates("toxic")
    pairs = pairs.sample(frac=1, random_state=1)
    half = len(pairs) // 2
    texts = [*pairs["toxic"][:half], *pairs["neutral"][half:]]
    return _shuffled(pd.DataFrame({"text": texts, "label": ["rude"] * half + ["polite"] * (len(pairs) - half)}))


def _essays(data: Path) -> pd.DataFrame:
    table = pd.read_parquet(data / "outfox" / "essays.parquet")
    attacked = table["attack"].where(table["attack"] == "none", ", " + table["attack"]).replace("none", "")
    return _shuffled(table.assign(writer=table["source"] + attacked)[["text", "writer", "essay_id"]])


def _pieces(table: pd.DataFrame, length: int, most: int = 4) -> pd.DataFrame:
    """The first pieces of whole words of each text, one after another."""
    pieces = table.assign(text=[textwrap.wrap(text, length)[:most] for text in table["text"]]).explode("text")
    return pieces.drop_duplicates("text").reset_index(drop=True)


def _shuffled(table: pd.DataFrame) -> pd.DataFrame:
    table = table[table["text"].str.strip() != ""].drop_duplicates("text")
    return table.sample(frac=1, random_state=0).reset_index(drop=True)
