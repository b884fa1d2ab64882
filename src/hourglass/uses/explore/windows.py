"""How much of a corpus is in memory at once: runs of documents, and parts of a document that is a run of its own.

A document longer than a window is coded in parts, and learned from its first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from hourglass.adapters.huggingface import pieces
from hourglass.data.states import WINDOW_CHARACTERS

if TYPE_CHECKING:
    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]


def runs(lengths: Array, positions: Array) -> Iterator[Array]:
    """Cut positions into runs of at most WINDOW_CHARACTERS (a single longer document is a run of its own)."""
    if not len(positions):
        return
    number = np.cumsum(lengths[positions]) // WINDOW_CHARACTERS
    # What comes after a longer one may have the same number.
    cut = (np.diff(number) > 0) | (lengths[positions[:-1]] > WINDOW_CHARACTERS)
    yield from np.split(positions, np.flatnonzero(cut) + 1)


def is_long(length: int) -> bool:
    """Whether a document of so many characters has to be read in parts."""
    return length > WINDOW_CHARACTERS


def parts(text: str) -> list[str]:
    """The parts of a long document, cut at white space."""
    return [piece for _, piece in pieces(text, WINDOW_CHARACTERS)]


def beginning(text: str) -> str:
    """What of a document is learned from and named on."""
    return text[:WINDOW_CHARACTERS]


def lengths_of(workspace: Workspace) -> Array:
    """Characters of every document."""
    columns = (table.column(0) for table in workspace.tables([workspace.text_column]))
    return np.concatenate([pc.utf8_length(column).to_numpy() for column in columns])


def beginnings(lengths: Array) -> Array:
    """Characters of the beginning of documents of so many characters."""
    return np.minimum(lengths, WINDOW_CHARACTERS)
