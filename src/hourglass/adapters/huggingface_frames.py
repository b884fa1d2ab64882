"""Which row the state of each token goes to, with room for special tokens around each text where they are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Rows:
    """Where states go: a text's special tokens before it, its own tokens, those after it, then the next text's.

    windows  [windows, 5]: first and past-last token that the model sees, first and past-last that it gives states for
             (tokens before a text's first and after its last are special), the row of the first of these
    offsets  [n + 1] text i owns rows offsets[i] : offsets[i + 1]
    tokens   [T] the row of each token of the texts' own
    before   special tokens before each text
    """

    windows: Array
    offsets: Array
    tokens: Array
    before: int

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def texts(self, rows: Array) -> Array:
        """The text that owns each of `rows`."""
        return np.searchsorted(self.offsets, rows, "right") - 1

    def spans(self, spans: Array, texts: Sequence[str]) -> Array:
        """[rows, 2] from the spans [T, 2] of the texts' own tokens: a special one stands at an end of its text."""
        if len(spans) == len(self):
            return spans
        number = np.diff(self.offsets)
        ends = np.repeat(np.array([len(text) for text in texts], np.int32), number)
        within = np.arange(len(self)) - np.repeat(self.offsets[:-1], number)
        out = np.where(within < self.before, 0, ends).astype(np.int32)[:, None].repeat(2, axis=1)
        out[self.tokens] = spans
        return out

    def special(self, ids: Array, special: frozenset[int]) -> Array:
        """[rows] whether a token is special: around its text, or one of `ids` [T] that a tokenizer calls so."""
        out = np.ones(len(self), bool)
        out[self.tokens] = np.isin(ids, list(special))
        return out


def rows(windows: Array, offsets: Array, before: int, after: int) -> Rows:
    """Rows for the tokens that `windows` [windows, 4] give, and `before` and `after` more for each text that has any."""
    lengths = np.diff(offsets)
    grown = np.append(0, np.cumsum(lengths + (lengths > 0) * (before + after)))
    shift = grown[:-1] + before - offsets[:-1]
    tokens = np.arange(offsets[-1]) + np.repeat(shift, lengths)
    text = np.searchsorted(offsets, windows[:, 2], "right") - 1
    # The special tokens come from the windows that see the text's first and last token.
    first = windows[:, 2] - before * (windows[:, 2] == offsets[text])
    last = windows[:, 3] + after * (windows[:, 3] == offsets[text + 1])
    placed = np.column_stack([windows[:, :2], first, last, first + shift[text]])
    return Rows(placed, grown, tokens, before)
