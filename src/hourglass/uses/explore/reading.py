"""What an exploration reads of documents: the token states that features are made of, and the states in the middle of the model.

The last states of an encoder say what a text is about. On the way there they still say how it is written, too: by these
documents are compared (`together`, `predicted`, `alike_in_both`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from hourglass.adapters.huggingface import pooled
from hourglass.data.states import Site, SitesReader
from hourglass.storage.rows import RowFile
from hourglass.waist import TokenStates

if TYPE_CHECKING:
    from hourglass.uses.explore.workspace import Workspace

Array = np.ndarray[Any, Any]

TOKENS, MIDDLE = "sample", "sample/middle"
"""Folders of a workspace in which the two are kept while it is made."""


class DocumentReader(SitesReader, Protocol):
    """A reader that also says where it reads, and where the middle of its model is."""

    @property
    def place(self) -> Site: ...

    @property
    def middle(self) -> Site: ...


def read(reader: DocumentReader, texts: Sequence[str]) -> tuple[TokenStates, Array]:
    """Token states in half precision, as they are kept, so that a code does not depend on where they came from; and [n, d] the
    mean state of each text in the middle of the model."""
    found = reader.read_sites(texts, list(dict.fromkeys([reader.place, reader.middle])))
    own = found[reader.place]
    return replace(own, states=own.states.half()), means(found[reader.middle])


class KeptStates:
    """What was read for learning: the states of all tokens, and a row a document of the means in the middle of the model.

    Raises FolderError where there is less than was kept.
    """

    def __init__(self, folder: Path) -> None:
        self._tokens, self._middle = RowFile(folder / TOKENS), RowFile(folder / MIDDLE)

    @classmethod
    def of_all(cls, workspace: Workspace) -> KeptStates | None:
        """Those of the whole corpus, where they are at hand."""
        if workspace.manifest["stage"] == "coding" and workspace.manifest["learning"]["whole_corpus"]:
            return cls(workspace.folder)
        return None

    def of(self, window: Array) -> tuple[TokenStates, Array]:
        """As `read` gives them, of the documents in `window` (consecutive positions)."""
        bounds = np.searchsorted(self._tokens.documents, np.append(window, window[-1] + 1))
        at = slice(int(bounds[0]), int(bounds[-1]))
        states, spans = (torch.from_numpy(np.array(own[at])) for own in (self._tokens.rows, self._tokens.spans))
        return TokenStates(states, torch.from_numpy(bounds - bounds[0]), spans), self._middle.rows[window]


def means(tokens: TokenStates) -> Array:
    """[n, d] float16 mean state of each document; zero for one without tokens."""
    return np.asarray(pooled(tokens).half().numpy())
