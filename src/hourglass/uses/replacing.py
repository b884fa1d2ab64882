"""The hook: what a block of a transformers model gives is replaced by a function of it, while a context lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hourglass.adapters.huggingface_loading import blocks
from hourglass.adapters.huggingface_sites import count
from hourglass.errors import ConfigError

Change = Callable[[Tensor], Tensor]
"""From the states [n, length, d] of a forward pass to others of the same shape and number format."""


@contextmanager
def replacing(
    model: nn.Module, layer: int | None, change: Change, *, width: int, after: int = 0
) -> Iterator[nn.Module]:
    """While inside, the states of every forward pass at `layer` are what `change` makes of them; then all is as before.

    layer   as in `HuggingFaceReader`: n is the raw output of block n, 0 the embeddings, -1 the last block
    width   of the states that the autoencoder behind `change` has learned
    after   the first so many tokens of a sequence stay as they are: the length of a prompt, padding included, leaves
            the prompt alone and changes what is written after it

    Raises ConfigError, in one line, where layer or width do not fit the model.
    """
    _, _, stack = blocks(model)
    wanted = _number(layer, len(stack))
    config: Any = model.config
    found = config.get_text_config().hidden_size
    if width != found:
        raise ConfigError(
            f"the autoencoder reads states of {width} numbers, those of {type(model).__name__} have {found}; "
            "it was trained on another model"
        )
    hook = _Hook(change, after)
    handles = []
    try:
        if after:
            handles.append(model.register_forward_pre_hook(hook.note_start, with_kwargs=True))
        if wanted == 0:
            handles.append(stack[0].register_forward_pre_hook(hook.change_input, with_kwargs=True))
        else:
            handles.append(stack[wanted - 1].register_forward_hook(hook.change_output))
        yield model
    finally:
        for handle in handles:
            handle.remove()


def _number(layer: int | None, number: int) -> int:
    """The layer counted from 0, the embeddings."""
    if layer is None:
        raise ConfigError(
            "no layer: an autoencoder of the last state, after the final norm, has no block whose output it could change; "
            f"train one on the output of a block (layer 1 to {number})"
        )
    return count(layer, number)


class _Hook:
    """Changes the states of a forward pass from position `after` on."""

    def __init__(self, change: Change, after: int) -> None:
        self._change = change
        self._after = after
        self._start = 0

    def note_start(self, model: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        """With a cache of keys and values a pass sees the last tokens only: remember how many were there before."""
        cache = named.get("past_key_values")
        self._start = int(cache.get_seq_length()) if cache is not None else 0

    def change_output(self, block: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, Tensor):
            return self._changed(output)
        return (self._changed(output[0]), *output[1:])

    def change_input(self, block: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if arguments:
            return (self._changed(arguments[0]), *arguments[1:]), named
        return arguments, {**named, "hidden_states": self._changed(named["hidden_states"])}

    def _changed(self, hidden: Tensor) -> Tensor:
        """hidden [n, length, d]"""
        kept = max(0, self._after - self._start)
        if kept == 0:
            return self._change(hidden)
        return torch.cat([hidden[:, :kept], self._change(hidden[:, kept:])], 1) if kept < hidden.shape[1] else hidden
