"""Any frozen Hugging Face model as a reader: token states at any layer, fast on a CPU.

    reader = HuggingFaceReader("minilm")            # all-MiniLM-L6-v2, from an installed package
    reader = HuggingFaceReader("gpt2", layer=8)     # a folder or a Hub id; the raw output of block 8
    states = reader.read(["one text", "another"])   # TokenStates

What makes it fast: bfloat16 where the hardware multiplies it, windows sorted by length so that little is padded, no
attention mask where nothing is padded, a cache-sized batch for each core instead of all cores on one batch (no core
waits for another, which on a busy machine costs most of the time), and no block beyond the layer that is asked for.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from hourglass.adapters import huggingface_loading as loading
from hourglass.errors import ConfigError
from hourglass.waist import TokenStates, as_device

Array = np.ndarray[Any, Any]

PIECE = 100_000
"""Characters that are tokenised at once; the borders of pieces (at white space) are borders of windows."""
_PIECES_AT_ONCE = 64
_SURROGATES = re.compile("[\ud800-\udfff]")
_SMALLEST_BATCH = 256
_ALIGNED = 16  # at other lengths, attention in bfloat16 on a CPU takes about twice as long
_MOST_WORKERS = 8  # with more, the cores would wait for Python
_CPU = threading.Lock()  # two reads at a time would only take each other's cores


class HuggingFaceReader:
    """A frozen encoder, causal model, or the encoder of a sequence-to-sequence model.

    model           "minilm", a model folder (transformers or sentence-transformers) or a Hub id
    layer           None: the model's last state, its final norm included; 0: the embeddings; n: the raw output of block n,
                    before any final norm; negative: counted from the last block (-1)
    dtype           of the model: "auto" takes bfloat16 where the hardware has it
    role            wrap each text in the chat template as a turn of "user" or "assistant"; the template's own tokens are
                    left out of the states
    max_tokens      of a window, special ones included; None: what the model was made for, 512 at most. Longer texts are
                    read in windows that overlap by `overlap` tokens, and each token takes its state from the window in
                    which it is farthest from an edge
    tokens_per_batch  padded tokens that the model sees at once; None: 2048 on a CPU, 65,536 on a GPU

    Raises ConfigError for a setting or tokenizer that does not fit, FolderError for a model that cannot be had.
    """

    def __init__(
        self,
        model: str = "minilm",
        *,
        layer: int | None = None,
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
        role: Literal["none", "user", "assistant"] = "none",
        max_tokens: int | None = None,
        overlap: int = 32,
        tokens_per_batch: int | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self.device = as_device(device)
        self._dtype = loading.compute_dtype(dtype, self.device)
        tokenizer, network = loading.load(model, self._dtype)
        self._network = network.to(self.device).eval().requires_grad_(False)
        self._captured: dict[int, Tensor] = {}
        self.layer = self._stop_at(layer)
        self._tokenizer = loading.backend(tokenizer)
        self._prefix, self._suffix = loading.frame(tokenizer, role)
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        self.max_tokens = loading.window(model, tokenizer, network, max_tokens)
        self._room = self.max_tokens - len(self._prefix) - len(self._suffix)
        if self._room < 1:
            raise ConfigError(
                f"max_tokens {self.max_tokens}: no room for a text beside {len(self._prefix) + len(self._suffix)} special tokens"
            )
        if overlap < 0:
            raise ConfigError(f"overlap {overlap}: expected 0 tokens or more")
        self._overlap = min(overlap, self._room // 2)
        self._tokens_per_batch = tokens_per_batch or (2048 if self.device.type == "cpu" else 65_536)
        self._description = {
            "model": model,
            "revision": getattr(network.config, "_commit_hash", None),
            "layer": layer,
            "role": role,
            "dtype": str(self._dtype).removeprefix("torch."),
            "max_tokens": self.max_tokens,
            "overlap": self._overlap,
        }

    @property
    def width(self) -> int:
        """Size of a state."""
        return int(self._network.config.get_text_config().hidden_size)

    def describe(self) -> dict[str, Any]:
        """What it takes to have the same states again, for manifests."""
        return dict(self._description)

    def read(self, texts: Sequence[str]) -> TokenStates:
        """States of all tokens of `texts` in their order, in the model's number format.

        A text without tokens (an empty one) has none; no text is cut. Memory is that of the states (2 x width bytes a
        token in bfloat16) and of a batch for each core: read a corpus some texts at a time.
        """
        ids, spans, offsets, borders = self._tokenize(texts)
        states = torch.empty(len(ids), self.width, dtype=self._dtype)

        @torch.inference_mode()
        def compute(batch: Array) -> None:
            hidden = self._forward(ids, batch)
            source, target = self._kept(batch, hidden.shape[1])
            states[target] = hidden.reshape(-1, self.width)[source.to(self.device)].cpu()

        self._each(compute, self._windows(borders))
        return TokenStates(states, torch.from_numpy(offsets), torch.from_numpy(spans))

    # Tokens and windows -----------------------------------------------------------------------------

    def _tokenize(self, texts: Sequence[str]) -> tuple[Array, Array, Array, Array]:
        """ids [T], spans [T, 2], offsets of the texts [n + 1], offsets of the pieces."""
        parts = [(i, start, piece) for i, text in enumerate(texts) for start, piece in pieces(text)]
        ids, spans, lengths = [np.zeros(0, np.int64)], [np.zeros((0, 2), np.int32)], [np.zeros(0, np.int64)]
        # A group at a time: the tokenizer's own record of a token weighs a hundred times its id.
        for group in (parts[i : i + _PIECES_AT_ONCE] for i in range(0, len(parts), _PIECES_AT_ONCE)):
            encoded = self._encode([piece for _, _, piece in group])
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

    def _encode(self, parts: list[str]) -> list[Any]:
        """Tokens of each part, without special ones."""
        try:
            return list(self._tokenizer.encode_batch(parts, add_special_tokens=False))
        except TypeError:  # half a surrogate pair, as JSON can escape it, is no text to the tokenizer
            mended = [_SURROGATES.sub("\ufffd", part) for part in parts]
            return list(self._tokenizer.encode_batch(mended, add_special_tokens=False))

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

    def _batches(self, windows: Array, budget: int) -> Iterator[Array]:
        """Runs of windows of like length, the longest first, each within the budget of padded tokens."""
        lengths = windows[:, 1] - windows[:, 0] + len(self._prefix) + len(self._suffix)
        order = np.argsort(-lengths, kind="stable")
        start = 0
        while start < len(order):
            count = max(1, budget // self._padded(int(lengths[order[start]])))
            yield windows[order[start : start + count]]
            start += count

    def _padded(self, length: int) -> int:
        """Tokens to which windows of up to `length` are padded."""
        return min(-(-length // _ALIGNED) * _ALIGNED, self.max_tokens)

    def _kept(self, batch: Array, length: int) -> tuple[Tensor, Tensor]:
        """Where the wanted states are in the flattened output of a batch, and where they go."""
        count = batch[:, 3] - batch[:, 2]
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        first = np.arange(len(batch)) * length + len(self._prefix) + batch[:, 2] - batch[:, 0]
        source, target = np.repeat(first, count) + within, np.repeat(batch[:, 2], count) + within
        return torch.from_numpy(source), torch.from_numpy(target)

    # The network ------------------------------------------------------------------------------------

    def _each(self, compute: Callable[[Array], None], windows: Array) -> None:
        """Call `compute` on batches of all windows; on a CPU on several at the same time, each with its own cores."""
        if self.device.type != "cpu":
            for batch in self._batches(windows, self._tokens_per_batch):
                compute(batch)
            return
        with _CPU:
            threads = torch.get_num_threads()
            workers = threads // -(-threads // _MOST_WORKERS)
            tokens = int((windows[:, 1] - windows[:, 0]).sum())
            # Few texts make smaller batches, so that every core has one.
            budget = min(self._tokens_per_batch, max(_SMALLEST_BATCH, tokens // workers))
            batches = list(self._batches(windows, budget))
            workers = max(1, min(workers, len(batches)))

            def prepare() -> None:
                torch.get_num_threads()  # or the first operation would overwrite what is set next
                torch.set_num_threads(threads // workers)

            try:
                with ThreadPoolExecutor(workers, initializer=prepare) as pool:
                    for _ in pool.map(compute, batches):
                        pass
            finally:
                torch.set_num_threads(threads)

    def _forward(self, ids: Array, batch: Array) -> Tensor:
        """[windows, longest, width] hidden states of a batch of windows."""
        lengths = batch[:, 1] - batch[:, 0]
        before, after = len(self._prefix), len(self._suffix)
        tokens = np.full((len(batch), self._padded(before + int(lengths.max()) + after)), self._pad, np.int64)
        tokens[:, :before] = self._prefix
        for row, (start, stop) in enumerate(batch[:, :2].tolist()):
            tokens[row, before : before + stop - start] = ids[start:stop]
            tokens[row, before + stop - start : before + stop - start + after] = self._suffix
        arguments = {"input_ids": torch.from_numpy(tokens).to(self.device)}
        mask = np.arange(tokens.shape[1]) < (lengths + before + after)[:, None]
        if not mask.all():  # nothing padded, no mask: attention is faster without
            arguments["attention_mask"] = torch.from_numpy(mask.astype(np.int64)).to(self.device)
        output = self._network(**arguments)
        hidden = self._captured.pop(threading.get_ident(), output.last_hidden_state)
        if hidden.shape[:2] != tokens.shape:
            raise ConfigError(
                f"layer {self.layer}: blocks of {type(self._network).__name__} give {tuple(hidden.shape)} for {tokens.shape} tokens; "
                "leave it out to take the last state"
            )
        return hidden

    def _stop_at(self, layer: int | None) -> int | None:
        """Drop the blocks that are not needed and catch the state that is; the layer counted from 0."""
        if layer is None:
            return None
        parent, name, blocks = loading.blocks(self._network)
        number = len(blocks)
        wanted = number + 1 + layer if layer < 0 else layer
        if not 0 <= wanted <= number:
            raise ConfigError(
                f"layer {layer}: the model has {number} blocks; expected 0 (embeddings) to {number}, or -1 to {-number - 1}"
            )
        kept = blocks[: max(1, wanted)]
        setattr(parent, name, kept)
        # Many models loop over this number of blocks, whatever the list holds.
        self._network.config.get_text_config().num_hidden_layers = len(kept)
        if wanted == 0:
            kept[0].register_forward_pre_hook(self._catch_input, with_kwargs=True)
        else:
            kept[-1].register_forward_hook(self._catch_output)
        return wanted

    def _catch_input(self, block: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._captured[threading.get_ident()] = arguments[0] if arguments else named["hidden_states"]

    def _catch_output(self, block: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        self._captured[threading.get_ident()] = output if isinstance(output, Tensor) else output[0]


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
