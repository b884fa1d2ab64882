"""What of one text of the documents `correlate` looks at: features, words, pairs of words and signs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from hourglass.uses.explore.alike import first_alike, terms_of
from hourglass.uses.explore.labels import CLEAR, FORM, TERMS, clarity, said_words, says_form
from hourglass.uses.explore.presence import items_of, names_of, present_in

if TYPE_CHECKING:
    from hourglass.uses.explore.correlate import CorrelateOptions
    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]

ALIKE_DOCUMENTS = 20_000
"""Documents that are looked at, at most, to see which items are in about the same ones."""


@dataclass(frozen=True)
class Field:
    """One text of the documents.

    columns  [m] the items that are looked at: each a feature, or the width plus the number of a word
    present  [documents, m] 1 where a document has the item
    tokens   [documents] length of each
    level    [features] a feature fires on a token whose activation passes this
    """

    workspace: Workspace
    columns: Array
    present: csr_matrix
    tokens: Array
    level: Array

    @cached_property
    def items(self) -> pd.DataFrame:
        """A row an item: kind, feature, label."""
        return items_of(self.workspace, self.columns)

    @cached_property
    def named(self) -> Array:
        """[m] whether the item has a name."""
        return self.items["label"].notna().to_numpy()

    @cached_property
    def terms(self) -> list[list[str]]:
        """Of each item: a word is its own, a feature without a name has none."""
        return terms_of(self.workspace, self.items)

    @cached_property
    def stands(self) -> Array:
        """[m] the item that stands for each: for a word or a feature without a name one that tells more and is in about the
        same documents, where there is any, else itself.

        A named feature tells more than a word, a word more than a pair of words, these more than a feature without a name.
        """
        is_word = (self.items["kind"] == "word").to_numpy()
        is_pair = np.array([word and " " in label for word, label in zip(is_word, self.items["label"])], np.int64)
        rank = np.where(self.named, is_word + is_pair, 3)
        order = np.argsort(rank, kind="stable")
        some = np.linspace(0, len(self.tokens) - 1, min(len(self.tokens), ALIKE_DOCUMENTS)).astype(np.int64)
        stands = np.arange(len(order))
        stands[order] = order[first_alike(self.present[some][:, order])]
        return np.where(rank == 0, np.arange(len(order)), stands)

    @cached_property
    def words(self) -> list[set[str]]:
        """The words of each name that mean something, or all where none does."""
        return [said_words(own[:TERMS]) for own in self.terms]

    def names(self, at: Array) -> list[int | str]:
        """Some items, a feature by its number, a word as it is."""
        return names_of(self.items.iloc[at])

    def vectors(self, at: Array) -> Array:
        """[len(at), d] unit vectors of names, those of features and those of words each less their mean; NaN without a name.

        The mean of features' vectors is over all labels of the workspace, that of words over the words asked for, which
        are read for it.
        """
        from hourglass.uses.explore.find import text_vectors
        from hourglass.uses.explore.scores import unit

        everything = self.workspace.label_vectors
        vectors = np.zeros((len(at), everything.shape[1]))
        is_word = (self.items["kind"] == "word").to_numpy()[at]
        labelled = int(np.any(everything != 0, axis=1).sum())
        of_label = everything[self.columns[at[~is_word]]]
        named = self.named[at[~is_word], None]
        vectors[~is_word] = np.where(named, of_label - everything.sum(0) / max(labelled, 1), np.nan)
        if is_word.any():
            read = unit(text_vectors(self.workspace, self.items["label"].iloc[at[is_word]].tolist()))
            vectors[is_word] = read - read.mean(0)
        return np.asarray(unit(vectors))


def look_at(workspace: Workspace, rows: Array, options: CorrelateOptions, across: bool, notes: list[str]) -> Field:
    """The features and words that enough of the documents at `rows` have.

    Within one text "of" goes with "the" by grammar alone, so names of form are left out unless the options keep them, and a
    feature without a name cannot be told from another on the same thing. Across two texts neither holds: "how" in a question
    is what it asks for.
    """
    table, width = workspace.features, workspace.manifest["width"]
    keep_form = across if options.form is None else options.form
    named = table["label"].notna().to_numpy()
    formal = named & np.array([len(terms) > 0 and says_form(terms) for terms in table["terms"]])
    if "description" in table:  # the terms are those of the offline name, not of a model's
        formal &= table["description"].isna().to_numpy()
    features = named & (keep_form | ~formal) | ~named & (across and keep_form)
    # A pair of words with "the" at an end is found where the rest of it is.
    clear = np.array([clarity([word]) for word in workspace.words], np.int64)
    columns = np.flatnonzero(np.concatenate([features, (clear == CLEAR) | keep_form & (clear == FORM)]))
    present = present_in(workspace, columns, options.level, options.min_tokens)[rows]
    count = np.asarray(present.sum(0)).ravel()
    common = (count >= max(options.min_frequency * len(rows), options.min_documents)) & (count < len(rows))
    present = present[:, common]
    present.sort_indices()
    columns = columns[common]
    which = "" if across and keep_form else ", those with a name"
    left_out = "" if keep_form else f", {int(formal.sum()):,} that tell form alone left out"
    notes.append(
        f"{workspace.folder}: {int((columns < width).sum()):,} of {width:,} features are looked at{which}{left_out}, "
        f"and {int((columns >= width).sum()):,} words, pairs of words and signs, "
        f"in {100 * options.min_frequency:g} % of the documents or more."
    )
    tokens = np.concatenate([arrays["tokens"] for arrays in workspace.stored("tokens")])
    level = options.level * table["p90"].to_numpy(np.float32)
    return Field(workspace, columns, present, tokens[rows], level)
