"""What the pages read of a workspace: a page of documents, one feature over all of them, the tokens of one text.

The corpus stays on disk. What is kept in memory has one number a document at most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from hourglass.errors import InputError
from hourglass.uses.explore.diff import SMALLEST
from hourglass.uses.explore.overview import snippet, telling
from hourglass.uses.explore.scores import LEVEL, feature_rows, strengths, word_scores
from hourglass.uses.progress import Report

if TYPE_CHECKING:
    from hourglass.uses.explore import Correlations, Found, Workspace

Array = np.ndarray[Any, Any]

SNIPPET = 240
"""Characters of a document in a list."""
SHOWN = 8_000
"""Characters of a document that are shown, and read, token by token."""
MOST_GROUPS = 60
"""A column with more values is no grouping that a person reads, unless it was named to explore."""
ON_TOKEN = 8
"""Features told of a token, the strongest."""


@dataclass(frozen=True)
class Document:
    """A document in a list; `note` says why it is there."""

    position: int
    id: str
    group: str | None
    text: str
    note: str = ""


@dataclass(frozen=True)
class Token:
    """A piece of a text and what fires on it: (feature, strength from 0 to 1), the strongest first."""

    text: str
    fires: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Reading:
    """The beginning of a text token by token; `features` (number, name, strength) fire in it, the strongest first.

    `left_out` counts the characters that follow, `unnamed` the features that fire and have no name.
    """

    tokens: list[Token]
    features: list[tuple[int, str, float]]
    left_out: int
    unnamed: int


class Corpus:
    """A workspace as the pages read it; safe to use from several threads."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._model = Lock()
        # Methods that are worth keeping the answers of.
        self.column = lru_cache(maxsize=4)(self._column)
        self.strength = lru_cache(maxsize=32)(self._strength)

    def __len__(self) -> int:
        return len(self.workspace)

    # Names ---------------------------------------------------------------------------------------------

    def label(self, feature: int) -> str:
        """The name of a feature, or its number."""
        label = self.workspace.features["label"].iloc[feature]
        return label if isinstance(label, str) else f"feature {feature}"

    def check(self, feature: Any) -> int:
        """A feature's number, as a browser sent it. InputError where there is none such."""
        width = self.workspace.manifest["width"]
        if not isinstance(feature, int) or not 0 <= feature < width:
            raise InputError(f"no feature {feature!r}; they go from 0 to {width - 1}")
        return feature

    def check_position(self, position: Any) -> int:
        """A document's position, as a browser sent it. InputError where there is none such."""
        if not isinstance(position, int) or not 0 <= position < len(self):
            raise InputError(f"no document at {position!r}; they go from 0 to {len(self) - 1}")
        return position

    def named(self, search: str | None = "", order: str = "telling") -> pd.DataFrame:
        """The named features that hold every word of `search` (None, as an empty field comes, is none) in name or number, in the order asked for."""
        table = self.workspace.features
        table = table[table["label"].notna() & (table["documents"] > 0)]
        for word in (search or "").lower().split():
            number = table.index.astype(str) == word
            table = table[table["label"].str.lower().str.contains(word, regex=False).to_numpy(bool) | number]
        key = {
            "telling": -telling(table),
            "common": -table["frequency"],
            "rare": table["frequency"],
            "name": table["label"],
        }
        return table.loc[key[order].sort_values(kind="stable").index]

    # Groups --------------------------------------------------------------------------------------------

    def _column(self, name: str) -> Array:
        return self.workspace.column(name)

    @property
    def by(self) -> str | None:
        """The column by which documents are told apart: the one that was named to explore, or the first of the groupings."""
        return self.workspace.settings["by"] or next(iter(self.groupings), None)

    @cached_property
    def groupings(self) -> dict[str, list[str]]:
        """Columns that a person would compare groups by, each with the names of its groups, the largest first."""
        asked, found = self.workspace.settings["by"], {}
        columns = [c for c in self.workspace.columns if not c.startswith("_") and c != self.workspace.text_column]
        for name in sorted(columns, key=lambda c: c != asked):
            sizes = pd.Series(self.workspace.column(name)).value_counts()
            large = [str(group) for group, size in sizes.items() if size >= SMALLEST]
            if len(large) >= 2 and (name == asked or len(sizes) <= MOST_GROUPS):
                found[name] = large
        return found

    # Documents -----------------------------------------------------------------------------------------

    def documents(self, positions: Sequence[int] | Array, notes: Sequence[str] = ()) -> list[Document]:
        """The beginnings of the documents at these positions, in the order given."""
        if not len(positions):
            return []
        columns = ["_id", self.workspace.text_column, *([self.by] if self.by else [])]
        table = self.workspace.rows([int(p) for p in positions], columns)
        ids, texts = table.column(0).to_pylist(), table.column(1).to_pylist()
        groups = table.column(2).to_pylist() if self.by else [None] * len(ids)
        notes = notes or [""] * len(ids)
        return [
            Document(int(p), str(i), None if g is None else str(g), snippet(t, SNIPPET), n)
            for p, i, g, t, n in zip(positions, ids, groups, texts, notes)
        ]

    def text(self, position: int) -> str:
        """The whole of one document."""
        return str(self.workspace.rows([position], [self.workspace.text_column]).column(0)[0].as_py())

    def fields(self, position: int) -> dict[str, str]:
        """The other columns of one document that hold something, as text."""
        names = [c for c in self.workspace.columns if not c.startswith("_") and c != self.workspace.text_column]
        row = self.workspace.rows([position], names).to_pylist()[0] if names else {}
        return {name: snippet(str(value), 80) for name, value in row.items() if value not in (None, "")}

    def positions_of(self, ids: Sequence[str], texts: Sequence[str]) -> list[int | None]:
        """Where documents stand that have these ids and these texts; None for what the workspace does not have so.

        The text counts too: ids may be no more than the rows of two sources.
        """
        found = pc.index_in(pa.array([str(id) for id in ids], pa.string()), self._ids).to_pylist()
        there = sorted({position for position in found if position is not None})
        if not there:
            return found
        read = self.workspace.rows(there, [self.workspace.text_column]).column(0).to_pylist()
        own = dict(zip(there, map(str, read)))
        return [position if own.get(position) == text else None for position, text in zip(found, texts)]

    @cached_property
    def _ids(self) -> pa.Array:
        return pa.array(self.workspace.column("_id"), pa.string())

    def concepts(self, positions: Sequence[int]) -> dict[int, list[tuple[int, str, float]]]:
        """The named concepts that documents have, those that tell most of them first: (feature, name, strength from 0 to 1)."""
        rows = np.unique(np.asarray(positions, np.int64))
        if not len(rows):
            return {}
        strength = feature_rows(self.workspace, rows)
        named = self.workspace.features["label"].notna().to_numpy()
        made = {}
        for i, position in enumerate(rows.tolist()):
            inside = slice(strength.indptr[i], strength.indptr[i + 1])
            pairs = zip(strength.indices[inside].tolist(), strength.data[inside].tolist())
            made[position] = self._most_telling({f: s for f, s in pairs if s > LEVEL and named[f]})
        return made

    # One feature, one word -----------------------------------------------------------------------------

    def _strength(self, feature: int) -> Array:
        return strengths(self.workspace, [feature]).toarray()[:, 0]

    def has_word(self, word: str) -> Array:
        """[documents] true where a document has the word or pair of words."""
        return word_scores(self.workspace, {self.workspace.words.index(word): 1.0}) > 0

    def amount(self, kind: str, feature: Any, label: str) -> Array:
        """[documents] strength of a feature, or 1 where a document has the word."""
        return self.has_word(label).astype(np.float32) if kind == "word" else self.strength(int(feature))

    def find(self, query: str, **options: Any) -> Found:
        """As the workspace finds; one search at a time, since the model is one."""
        with self._model:
            return self.workspace.find(query, **options)

    def correlate(self, progress: bool | Report = False, **options: Any) -> Correlations:
        """As the workspace correlates; it may need the model too."""
        with self._model:
            return self.workspace.correlate(**options, progress=progress)

    # One text ------------------------------------------------------------------------------------------

    @property
    def model_is_ready(self) -> bool:
        """Whether the model that read the corpus is in memory."""
        return "coder" in self.workspace.__dict__

    def read(self, text: str | None) -> Reading:
        """What fires on each token of the beginning of a text. InputError for one in which there is nothing to read."""
        text = text or ""  # as an empty field may come
        shown = text[:SHOWN]
        with self._model:
            coder = self.workspace.coder
            states = coder.reader.read([shown])
            codes = coder.codes(states.states.half())  # as documents are coded
        if not len(codes):
            raise InputError("there is nothing in this text that the encoder reads")
        table, threshold = self.workspace.features, self.workspace.settings.get("threshold", 0.0)
        named, p90 = table["label"].notna().to_numpy(), table["p90"].to_numpy(np.float32)
        indices, values = codes.indices.numpy(), codes.values.float().numpy()
        scaled = values / np.where(p90[indices] > 0, p90[indices], np.inf)
        kept = (values > threshold) & (scaled > 0)
        tokens, at, offsets = [], 0, codes.offsets.numpy()
        best: dict[int, float] = {}
        for row, (start, end) in enumerate(states.spans.tolist()):
            here = np.arange(offsets[row], offsets[row + 1])
            here = here[kept[here] & named[indices[here]]]
            here = here[np.argsort(-scaled[here], kind="stable")]
            for i in here:
                best[int(indices[i])] = max(best.get(int(indices[i]), 0.0), float(scaled[i]))
            if start > at:
                tokens.append(Token(shown[at:start], ()))
            fires = tuple((int(indices[i]), min(1.0, float(scaled[i]))) for i in here[:ON_TOKEN])
            if tokens and end <= at:  # of the same characters as the one before
                tokens[-1] = Token(tokens[-1].text, _strongest(tokens[-1].fires + fires))
                continue
            tokens.append(Token(shown[max(at, start) : end], fires))
            at = end
        tokens.append(Token(shown[at:], ()))
        unnamed = len(np.unique(indices[kept & ~named[indices]]))
        return Reading(tokens, self._most_telling(best), len(text) - len(shown), unnamed)

    def _most_telling(self, strength: Mapping[int, float]) -> list[tuple[int, str, float]]:
        """(feature, name, strength from 0 to 1) of named features of a text, those that tell most of it first."""
        table = self.workspace.features
        # A name made of words that nearly every document has tells less than its strength.
        worth = {
            f: min(s, 1.5) * (1 - float(table["common"].iloc[f])) * float(table["score"].iloc[f])
            for f, s in strength.items()
        }
        return [(f, self.label(f), min(1.0, strength[f])) for f in sorted(strength, key=lambda f: -worth[f])]


def _strongest(fires: Sequence[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """What fires on several states of the same characters, each once."""
    best: dict[int, float] = {}
    for feature, strength in fires:
        best[feature] = max(best.get(feature, 0.0), strength)
    return tuple(sorted(best.items(), key=lambda item: -item[1])[:ON_TOKEN])
