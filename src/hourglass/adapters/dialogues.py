"""A frozen chat model as a reader of dialogues: a state for each token, the template's own tokens included.

    reader = DialogueReader("Qwen/Qwen2.5-0.5B-Instruct", layer=13)
    rows = reader.read([[{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good morning!"}]])
    rows.states[rows.special]      # those of <|im_start|>, user, <|im_end|> ...

`hourglass.data.flows` reads whole corpora: each dialogue alone, in blocks, or packed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hourglass.adapters import huggingface_loading as loading
from hourglass.adapters.chat_templates import ChatTemplate, Document, Rendered
from hourglass.adapters.huggingface_network import NetworkReader
from hourglass.errors import ConfigError, StatesError

Array = np.ndarray[Any, Any]

LONGEST_DIALOGUE = 8192
"""Tokens of a document where none are asked for, if the model can take so many."""


_PROBES = ("Whoever reads this,", "and then this, must not see what was before.")


@dataclass(frozen=True)
class Tokens:
    """Tokens of documents, one document after another.

    ids        [T] int64
    positions  [T] int32 place in its document; 0 is the first, of the template if it has one
    special    [T] bool: special tokens, and those that the template has put in
    offsets    [n + 1] int64, document i owns offsets[i] : offsets[i + 1]
    """

    ids: Array
    positions: Array
    special: Array
    offsets: Array

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def documents(self) -> Array:
        """[T] the document of each token, from 0."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


@dataclass(frozen=True)
class TokenRows:
    """States of tokens, each with what the token is, in the order of the documents.

    states     [T, width], as the model gives them
    documents  [T] int64 number of its document, never falling
    positions  [T] int32 place in its document; 0 is the first token, of the template if it has one
    special    [T] bool: special tokens, and those that the template has put in
    ids        [T] int64 of the tokenizer
    """

    states: Tensor
    documents: Tensor
    positions: Tensor
    special: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, keep: Tensor) -> TokenRows:
        """Only the tokens for which `keep` [T] is true."""
        return TokenRows(
            self.states[keep], self.documents[keep], self.positions[keep], self.special[keep], self.ids[keep]
        )


class DialogueReader(NetworkReader):
    """A frozen model, its tokenizer and its chat template.

    model        a folder or a Hub id
    layer, site, dtype, tokens_per_batch    as in `HuggingFaceReader`
    template     Jinja to write dialogues with; None: the tokenizer's own. Plain texts need none
    special_ids  the tokens to call special; None: those that the tokenizer calls so, and all that the template puts in
    max_tokens   of a document, the rest of which is left out; None: what the model takes, 8192 at most

    A dialogue is written with the template and tokenised once: its special tokens are the template's, no second first
    token. A token that holds a character of what a turn says is not the template's. A plain text has the special tokens
    around it that the tokenizer gives it.

    Raises ConfigError for a setting that does not fit, FolderError for a model that cannot be had.
    """

    def __init__(
        self,
        model: str,
        *,
        layer: int | None = None,
        site: str = "residual",
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
        template: str | None = None,
        special_ids: Collection[int] | None = None,
        max_tokens: int | None = None,
        tokens_per_batch: int | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        super().__init__(model, layer=layer, site=site, dtype=dtype, tokens_per_batch=tokens_per_batch, device=device)
        tokenizer, network = self._runs.tokenizer, self._runs.module
        self._tokenizer = loading.backend(tokenizer)
        # Some post-processors cut the white space off the characters that a token covers.
        self._tokenizer.post_processor = None
        self._prefix, self._suffix = loading.frame(tokenizer, "none")
        self._own_special = np.array(sorted(loading.special_ids(tokenizer)), np.int64)
        self._special = None if special_ids is None else np.array(sorted(special_ids), np.int64)
        self.template = ChatTemplate(model, tokenizer, template)
        self.longest = loading.window(model, tokenizer, network, None, usual=2**31)
        if max_tokens is not None and max_tokens < 1:
            raise ConfigError(f"max_tokens {max_tokens}: expected 1 or more")
        self.max_tokens = loading.window(model, tokenizer, network, max_tokens, usual=LONGEST_DIALOGUE)
        self._isolates: bool | None = None
        self._description |= {
            "chat_template": template,  # null: the tokenizer's own
            "special_ids": None if self._special is None else self._special.tolist(),
            "max_tokens": self.max_tokens,
        }

    def render(self, document: Document) -> Rendered:
        """A document as `tokenize` takes it; SourceError for a dialogue that the template refuses."""
        return self.template.render(document)

    def tokenize(self, rendered: Sequence[Rendered]) -> Tokens:
        """Tokens of documents, each cut off after `max_tokens`."""
        ids, special = [np.zeros(0, np.int64)], [np.zeros(0, bool)]
        for one, encoded in zip(rendered, loading.encode(self._tokenizer, [one.text for one in rendered])):
            own = np.array(encoded.ids, np.int64)
            marks = ~_within(np.array(encoded.offsets, np.int64).reshape(-1, 2), one.content)
            if one.plain:
                before, after = self._prefix, self._suffix
                own = np.concatenate([before, own, after]).astype(np.int64)
                marks = np.concatenate([np.ones(len(before)), np.zeros(len(marks)), np.ones(len(after))]).astype(bool)
            marks = marks | np.isin(own, self._own_special) if self._special is None else np.isin(own, self._special)
            ids.append(own[: self.max_tokens])
            special.append(marks[: self.max_tokens])
        lengths = np.array([len(some) for some in ids[1:]], np.int64)
        offsets = np.append(0, np.cumsum(lengths))
        positions = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Tokens(np.concatenate(ids), positions.astype(np.int32), np.concatenate(special), offsets)

    def read(self, documents: Sequence[Document]) -> TokenRows:
        """States of all tokens of documents, each read alone, from its first token on; documents are numbered from 0."""
        tokens = self.tokenize([self.render(document) for document in documents])
        return TokenRows(
            self.states(tokens, tokens.offsets),
            *map(torch.from_numpy, (tokens.documents, tokens.positions, tokens.special, tokens.ids)),
        )

    def states(self, tokens: Tokens, cuts: Array, *, apart: bool = False) -> Tensor:
        """[T, width] states of `tokens`, which the model sees in sequences between `cuts` [m + 1], from 0 to T.

        apart  documents within a sequence do not see each other, and each counts its positions from 0

        Raises ConfigError for a model that cannot keep them apart, StatesError, with the number of the document (from 0),
        for numbers that are not finite.
        """
        if apart:
            self.require_isolation()
        try:
            return self._states(tokens, cuts, apart)
        except StatesError:
            # What is not finite spreads to all of its sequence, through attention weights of 0 too: look for its beginning.
            self._states(tokens, tokens.offsets, False)
            raise

    def require_isolation(self) -> None:
        """Raise ConfigError where packed documents see each other, as in some models and older versions of transformers."""
        if self._isolates is None:
            probe = self.tokenize([Rendered(text, [(0, len(text))], True) for text in _PROBES])
            alone = self._states(probe, probe.offsets, False).float()
            try:
                packed = self._states(probe, probe.offsets[[0, -1]], True).float()
            except TypeError:  # the model takes no positions
                packed = torch.full_like(alone, torch.inf)
            # By token: the first one of a text can outweigh all others together.
            moved = (packed - alone).norm(dim=1) / alone.norm(dim=1).clamp_min(1e-12)
            self._isolates = bool(moved.max() < (1e-3 if alone.dtype == self._runs.dtype else 5e-2))
        if not self._isolates:
            raise ConfigError(
                f"pack 'masked': in {self._description['model']} packed documents see each other; use pack 'none', which "
                "gives the same states as masking would"
            )

    def _states(self, tokens: Tokens, cuts: Array, apart: bool) -> Tensor:
        starts, stops = cuts[:-1], cuts[1:]
        windows = np.column_stack([starts, stops, starts, stops, starts]).astype(np.int64)
        longest = int((stops - starts).max(initial=0))
        return self._runs.states(
            tokens.ids,
            windows[stops > starts],
            len(tokens),
            [self._place],
            longest=longest + 16 if apart else self.longest,  # positions begin anew: no limit but that of padding
            whose=lambda rows: np.searchsorted(tokens.offsets, rows, "right") - 1,
            positions=tokens.positions.astype(np.int64) if apart else None,
        )[0]


def _within(spans: Array, content: Sequence[tuple[int, int]]) -> Array:
    """[T] whether a token, of characters `spans` [T, 2], has a character of the content in it."""
    bounds = np.array(content, np.int64).reshape(-1, 2)
    bounds = bounds[bounds[:, 1] > bounds[:, 0]]
    if not len(bounds):
        return np.zeros(len(spans), bool)
    first, last = spans[:, 0], np.maximum(spans[:, 1], spans[:, 0] + 1)
    nearest = np.searchsorted(bounds[:, 1], first, "right")
    there = nearest < len(bounds)
    return there & (bounds[np.minimum(nearest, len(bounds) - 1), 0] < last)
