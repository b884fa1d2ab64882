"""Any frozen Hugging Face model as a reader: token states at any layer, fast on a CPU.

    reader = HuggingFaceReader("minilm")            # all-MiniLM-L6-v2, from an installed package
    reader = HuggingFaceReader("gpt2", layer=8)     # a folder or a Hub id; the raw output of block 8
    reader = HuggingFaceReader("gpt2", layer=8, site="mlp")  # what the feed-forward part of block 8 adds to that
    states = reader.read(["one text", "another"])   # TokenStates
    states = reader.read_sites(texts, [(8, "residual"), (7, "head:2")])  # several, from one pass

What makes it fast is bfloat16 where the hardware multiplies it, and what `huggingface_network` does with windows. Where in
a block states can be taken, and under which names models keep it, is in `huggingface_sites`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from hourglass.adapters import huggingface_frames as frames
from hourglass.adapters import huggingface_loading as loading
from hourglass.adapters import huggingface_sites as sites
from hourglass.adapters.huggingface_network import NetworkReader
from hourglass.adapters.norms import within_norm
from hourglass.errors import ConfigError
from hourglass.waist import TokenStates

Array = np.ndarray[Any, Any]

PIECE = 100_000
"""Characters that are tokenised at once; the borders of pieces (at white space) are borders of windows."""
_PIECES_AT_ONCE = 64
MIDDLE = 2 / 3
"""Share of a model's blocks below its middle. Of MiniLM's six blocks the second to the fourth tell kinds of text about equally."""


class HuggingFaceReader(NetworkReader):
    """A frozen encoder, causal model, or the encoder of a sequence-to-sequence model.

    model           "minilm", a model folder (transformers or sentence-transformers) or a Hub id
    layer           None: the model's last state, its final norm included; 0: the embeddings; n: the raw output of block n,
                    before any final norm; negative: counted from the last block (-1)
    site            of block n: "residual", its output; "attention" or "mlp", what these add to it; "mlp_in", what goes into
                    the feed-forward part; "head", the heads' outputs side by side before attention's output projection;
                    "head:2", head 2 alone
    dtype           of the model: "auto" takes bfloat16 where the hardware has it
    role            wrap each text in the chat template as a turn of "user" or "assistant"; the template's own tokens are
                    left out of the states
    max_tokens      of a window, special ones included; None: what the model was made for, 512 at most. Longer texts are
                    read in windows that overlap by `overlap` tokens, and each token takes its state from the window in
                    which it is farthest from an edge
    special         keep the special and template tokens around each text that has tokens, and say which are special
    max_norm        leave out tokens whose state is longer than so many times the median of those that are read together:
                    attention sinks, which would drown the rest
    tokens_per_batch  padded tokens that the model sees at once; None: 2048 on a CPU, 65,536 on a GPU

    Raises ConfigError for a setting or tokenizer that does not fit, FolderError for a model that cannot be had.
    """

    def __init__(
        self,
        model: str = "minilm",
        *,
        layer: int | None = None,
        site: str = "residual",
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
        role: Literal["none", "user", "assistant"] = "none",
        max_tokens: int | None = None,
        overlap: int = 32,
        special: bool = False,
        max_norm: float | None = None,
        tokens_per_batch: int | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        super().__init__(model, layer=layer, site=site, dtype=dtype, tokens_per_batch=tokens_per_batch, device=device)
        tokenizer = self._runs.tokenizer
        self._tokenizer = loading.backend(tokenizer)
        self._special = loading.special_ids(tokenizer) if special else None
        self._prefix, self._suffix = loading.frame(tokenizer, role)
        self.max_tokens = loading.window(model, tokenizer, self._runs.module, max_tokens)
        self._room = self.max_tokens - len(self._prefix) - len(self._suffix)
        if self._room < 1:
            raise ConfigError(
                f"max_tokens {self.max_tokens}: no room for a text beside {len(self._prefix) + len(self._suffix)} special tokens"
            )
        if overlap < 0:
            raise ConfigError(f"overlap {overlap}: expected 0 tokens or more")
        self._overlap = min(overlap, self._room // 2)
        if max_norm is not None and not max_norm > 1:
            raise ConfigError(f"max_norm {max_norm}: expected a multiple of the median norm, above 1")
        self._max_norm = max_norm
        self._tokens_per_batch = tokens_per_batch
        self._description |= {
            "role": role,
            "max_tokens": self.max_tokens,
            "overlap": self._overlap,
            "special": special,
            "max_norm": max_norm,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        # To another process it goes by name, not by weight, and takes the best device there is.
        settings: dict[str, Any] = {
            name: value for name, value in self._description.items() if name not in ("model", "revision")
        }
        return partial(HuggingFaceReader, **settings, tokens_per_batch=self._tokens_per_batch), (
            self._description["model"],
        )

    def read(self, texts: Sequence[str]) -> TokenStates:
        """States of all tokens of `texts` in their order, in the model's number format.

        A text without tokens (an empty one) has none; no text is cut. Memory is that of the states (2 x width bytes a
        token in bfloat16) and of a batch for each core: read a corpus some texts at a time. StatesError names a text for
        which the model gives a number that is not finite.
        """
        return self._read(texts, [self._place])[0]

    def read_sites(
        self, texts: Sequence[str], places: Sequence[tuple[int | None, str]], *, aligned: bool = False
    ) -> dict[tuple[int | None, str], TokenStates]:
        """States at several (layer, site) from one pass, by what was asked; as if each had a reader of its own.

        The pass goes as far as the reader's own layer, so open the reader at the highest. With `max_norm`, each place leaves
        out its own tokens; `aligned`: all leave out those that any does. Raises ConfigError for a place that does not exist or
        that the reader does not come to.
        """
        if not places:
            raise ConfigError("no place to read: expected at least one (layer, site)")
        found = [self._runs.find(layer, site) for layer, site in places]
        return dict(zip(places, self._read(texts, found, aligned=aligned)))

    def _read(self, texts: Sequence[str], places: Sequence[sites.Place], *, aligned: bool = False) -> list[TokenStates]:
        """The states at each place, from one pass; `aligned`: of the tokens that no place leaves out."""
        ids, spans, offsets, borders = self._tokenize(texts)
        around = (0, 0) if self._special is None else (len(self._prefix), len(self._suffix))
        rows = frames.rows(self._windows(borders), offsets, *around)
        all_states = self._runs.states(
            ids,
            rows.windows,
            len(rows),
            places,
            longest=self.max_tokens,
            whose=rows.texts,
            prefix=self._prefix,
            suffix=self._suffix,
        )
        marks = torch.from_numpy(rows.spans(spans, texts))
        special = None if self._special is None else torch.from_numpy(rows.special(ids, self._special))
        read = [TokenStates(states, torch.from_numpy(rows.offsets), marks, special) for states in all_states]
        if self._max_norm is not None:
            keep = [within_norm(tokens.states, self._max_norm) for tokens in read]
            if aligned:
                keep = [torch.stack(keep).all(0)] * len(keep)
            read = [tokens.where(kept) for tokens, kept in zip(read, keep)]
        return read

    @cached_property
    def middle(self) -> tuple[int | None, str]:
        """Where in the model a text's form shows beside what it is about: the output of the block at two thirds of its depth.

        The reader's own layer where it stops before, its own place where blocks do not give states that can be read.
        """
        try:
            depth = self._runs.depth or len(loading.blocks(self._runs.module)[2])
            place = min(round(depth * MIDDLE), depth if self.layer is None else self.layer), "residual"
            self.read_sites(["a"], [place])
        except ConfigError:
            return self.place
        return place

    # Tokens and windows -----------------------------------------------------------------------------

    def _tokenize(self, texts: Sequence[str]) -> tuple[Array, Array, Array, Array]:
        """ids [T], spans [T, 2], offsets of the texts [n + 1], offsets of the pieces."""
        parts = [(i, start, piece) for i, text in enumerate(texts) for start, piece in pieces(text)]
        ids, spans, lengths = [np.zeros(0, np.int64)], [np.zeros((0, 2), np.int32)], [np.zeros(0, np.int64)]
        # A group at a time: the tokenizer's own record of a token weighs a hundred times its id.
        for group in (parts[i : i + _PIECES_AT_ONCE] for i in range(0, len(parts), _PIECES_AT_ONCE)):
            encoded = loading.encode(self._tokenizer, [piece for _, _, piece in group])
            length = np.array([len(e) for e in encoded], np.int64)
            first = np.repeat(np.array([start for _, start, _ in group], np.int32), length)
            span = chain.from_iterable(chain.from_iterable(e.offsets for e in encoded))
            ids.append(np.fromiter(chain.from_iterable(e.ids for e in encoded), np.int64, length.sum()))
            spans.append(np.fromiter(span, np.int32, 2 * length.sum()).reshape(-1, 2) + first[:, None])
            lengths.append(length)
        of_piece = np.concatenate(lengths)
        of_text = np.bincount([i for i, _, _ in parts], weights=of_piece, minlength=len(texts)).astype(np.int64)
        offsets, borders = (np.append(0, np.cumsum(of)) for of in (of_text, of_piece))
        return np.concatenate(ids), np.concatenate(spans), offsets, borders

    def _windows(self, borders: Array) -> Array:
        """[windows, 4]: first and past-last token of each window, first and past-last of those it gives states for."""
        windows = []
        for first, last in zip(borders[:-1].tolist(), borders[1:].tolist()):
            if last == first:
                continue
            starts = range(first, max(first + 1, last - self._overlap), self._room - self._overlap)
            # Of two windows that overlap, each keeps its half of the overlap.
            keeps = [first, *(start + self._overlap // 2 for start in starts[1:]), last]
            windows += [
                (start, min(start + self._room, last), keep, until)
                for start, keep, until in zip(starts, keeps, keeps[1:])
            ]
        return np.array(windows, np.int64).reshape(-1, 4)


def pooled(tokens: TokenStates) -> Tensor:
    """[n, d] float32 mean state of each text (zero for one without tokens): its dense vector, not normalised."""
    rows = torch.arange(len(tokens.states))
    return nn.functional.embedding_bag(rows, tokens.states.float(), tokens.offsets[:-1], mode="mean")


def pieces(text: str, size: int = PIECE) -> Iterator[tuple[int, str]]:
    """(first character, piece) of a text, cut at white space into at most `size` characters."""
    start = 0
    while len(text) - start > size:
        stop = start + size
        cut = max(text.rfind(sign, start + size // 2, stop) for sign in " \n\t")
        stop = cut if cut > 0 else stop
        yield start, text[start:stop]
        start = stop
    yield start, text[start:]
