"""What fires on each token of a text: pooled codes do not say where, so the text is read again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix

from hourglass.uses.explore import windows

if TYPE_CHECKING:
    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class TokenCodes:
    """A text and the features of its tokens.

    text   what was read: of a very long document its beginning
    spans  [T, 2] characters of each token
    codes  [T, features] activations, each divided by its feature's 90th percentile: 1 is strong
    """

    text: str
    spans: Array
    codes: csr_matrix

    def pieces(self) -> Iterator[tuple[str, int]]:
        """The text cut at its tokens: (piece, number of its token), -1 for what lies between two."""
        at = 0
        for number, (start, stop) in enumerate(self.spans.tolist()):
            start = max(start, at)  # tokens of one character may overlap
            if start > at:
                yield self.text[at:start], -1
            if stop > start:
                yield self.text[start:stop], number
            at = max(at, stop)
        if at < len(self.text):
            yield self.text[at:], -1

    def of_token(self, number: int) -> list[tuple[int, float]]:
        """(feature, strength) of a token, the strongest first."""
        row = self.codes[number]
        order = np.argsort(-row.data, kind="stable")
        return [(int(row.indices[i]), float(row.data[i])) for i in order]

    def strongest(self) -> list[tuple[int, float]]:
        """(feature, its strongest token) of the whole text, the strongest first."""
        if not self.codes.shape[0]:
            return []
        most = self.codes.max(axis=0).toarray().ravel()
        order = np.argsort(-most, kind="stable")
        return [(int(f), float(most[f])) for f in order[: int((most > 0).sum())]]

    def along(self, feature: int) -> Array:
        """[T] the strength of one feature."""
        return np.asarray(self.codes[:, [feature]].todense()).ravel()


def token_codes(workspace: Workspace, text: str) -> TokenCodes:
    """Read a text as the workspace reads its documents. A text without tokens has none."""
    text = windows.beginning(text)
    read = workspace.coder.reader.read([text])
    codes = workspace.coder.codes(read.states.half()).to_scipy().tocsr()
    codes.data[codes.data <= workspace.settings["threshold"]] = 0
    p90 = workspace.features["p90"].to_numpy(np.float32)
    codes.data = codes.data / np.maximum(p90[codes.indices], 1e-6)
    codes.eliminate_zeros()
    return TokenCodes(text, read.spans.numpy(), codes)
