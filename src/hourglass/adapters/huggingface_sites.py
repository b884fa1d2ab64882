"""How far a network runs, and where in its blocks states are taken.

    residual   the block's output: the residual stream
    attention  what attention adds to the stream: the output of its output projection
    head       the input of that projection: the heads' outputs side by side; "head:2" is head 2 alone, counted from 0
    mlp        what the feed-forward part adds to the stream: its output
    mlp_in     what goes into the feed-forward part: the stream, after the norm where one stands before that part

Attention and feed-forward part are taken before they are added, and before any norm or scale that some models put in
between. Models name these parts differently and build them alike; a new one is mostly a new name below.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from hourglass.adapters.huggingface_loading import blocks
from hourglass.errors import ConfigError, nearest

SITES = ("residual", "attention", "head", "mlp", "mlp_in")

_ATTENTION = ("attn", "self_attn", "attention", "self_attention", "SelfAttention")
_ATTENTION_OUT = ("c_proj", "o_proj", "out_proj", "dense", "out_lin", "o", "Wo")
_FEED_FORWARD = ("mlp", "ffn", "feed_forward", "DenseReluDense")
# Where the last projection goes by such a name it is taken rather than the part: some parts add the stream themselves.
_FEED_FORWARD_IN = ("fc1",)  # of a block that has no part of its own for it
_FEED_FORWARD_OUT = ("c_proj", "down_proj", "dense_4h_to_h", "fc2", "fc_out", "lin2", "wo", "Wo")

Heard = Callable[[Tensor, tuple[int, int]], list[Tensor]]
"""From the network's output and the shape of its tokens to the states at each place."""


@dataclass(frozen=True)
class Place:
    """One place in a network at which states are taken.

    module   whose input or output they are; None: the network's own output
    width    of a state
    columns  of the input or output that are the state; None: all
    """

    layer: int | None
    site: str
    width: int
    module: nn.Module | None = None
    is_input: bool = False
    columns: slice | None = None

    def __str__(self) -> str:
        return "the last state" if self.layer is None else f"layer {self.layer}, site {self.site!r}"


def count(layer: int, depth: int) -> int:
    """The layer counted from 0, the embeddings; negative ones are from the last of `depth` blocks."""
    wanted = depth + 1 + layer if layer < 0 else layer
    if not 0 <= wanted <= depth:
        raise ConfigError(
            f"layer {layer}: the model has {depth} blocks; expected 0 (embeddings) to {depth}, or -1 to {-depth - 1}"
        )
    return wanted


def stop_at(network: nn.Module, layer: int) -> tuple[int, int]:
    """Drop the blocks beyond the layer: (the layer counted from 0, the number of blocks there were)."""
    parent, name, there = blocks(network)
    wanted = count(layer, len(there))
    kept = there[: max(1, wanted)]
    setattr(parent, name, kept)
    # Many models loop over this number of blocks, whatever the list holds.
    config: Any = network.config
    config.get_text_config().num_hidden_layers = len(kept)
    return wanted, len(there)


def find(network: nn.Module, layer: int | None, site: str) -> Place:
    """The place of a site in the block whose output is layer `layer` (0: the embeddings; None: the last state).

    Raises ConfigError for a site that does not exist, and with the names of what there is for one that is not found.
    """
    kind, colon, head = site.partition(":")
    if kind not in SITES or (colon and not (kind == "head" and head.isdecimal())):
        raise ConfigError(
            f"site {site!r}: expected residual, attention, mlp, mlp_in, head, or head:N{nearest(kind, SITES)}"
        )
    config: Any = network.config
    config = config.get_text_config()
    if layer is None:
        if kind != "residual":
            raise ConfigError(f"site {site!r}: the last state has none; say of which layer")
        return Place(None, site, config.hidden_size)
    there = blocks(network)[2]
    if kind == "residual":
        # Layer 0 is what goes into the first block.
        return Place(layer, site, config.hidden_size, there[max(0, layer - 1)], is_input=layer == 0)
    if layer == 0:
        raise ConfigError(f"layer 0, site {site!r}: the embeddings have only the site 'residual'")
    block = there[layer - 1]
    if kind == "mlp":
        return Place(layer, site, config.hidden_size, _required(_feed_forward(block), "feed-forward part", site, block))
    if kind == "mlp_in":
        part = _required(_feed_forward_start(block), "start of a feed-forward part", site, block)
        return Place(layer, site, config.hidden_size, part, is_input=True)
    projection = _required(_projection(block), "attention with an output projection", site, block)
    if kind == "attention":
        return Place(layer, site, config.hidden_size, projection)
    width = _inputs(projection)
    if not head:
        return Place(layer, site, width, projection, is_input=True)
    heads = config.num_attention_heads
    if int(head) >= heads or width % heads:
        raise ConfigError(
            f"layer {layer}, site {site!r}: the block has {heads} heads, {width} wide together; expected 0 to {heads - 1}"
        )
    each = width // heads
    first = int(head) * each
    return Place(layer, site, each, projection, is_input=True, columns=slice(first, first + each))


@contextmanager
def listening(places: Sequence[Place]) -> Iterator[Heard]:
    """While the context lasts, keep what passes through `places`; the function that is given hands it out.

    It hands out what the calling thread's own last pass through the network had, so that threads can share a network.
    """
    kept: dict[tuple[int, int], Tensor] = {}

    def ear(number: int, place: Place) -> Callable[..., None]:
        def before(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            state = arguments[0] if arguments else named["hidden_states"]
            kept[threading.get_ident(), number] = state if place.columns is None else state[..., place.columns]

        def after(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            state = output if isinstance(output, Tensor) else output[0]
            # Of what is added to the stream a copy: some models add in place, to this very tensor.
            kept[threading.get_ident(), number] = state if place.site == "residual" else state.clone()

        return before if place.is_input else after

    def heard(output: Tensor, shape: tuple[int, int]) -> list[Tensor]:
        states = []
        for number, place in enumerate(places):
            state = output if place.module is None else kept.pop((threading.get_ident(), number), None)
            if state is None or state.shape[:2] != shape:
                given = "nothing" if state is None else tuple(state.shape)
                raise ConfigError(
                    f"{place}: {type(place.module).__name__} gives {given} for {shape} tokens; "
                    "leave it out to take the last state"
                )
            states.append(state)
        return states

    handles = []
    for number, place in enumerate(places):
        if place.module is None:
            continue
        if place.is_input:
            handles.append(place.module.register_forward_pre_hook(ear(number, place), with_kwargs=True))
        else:
            handles.append(place.module.register_forward_hook(ear(number, place)))
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


# The parts of a block --------------------------------------------------------------------------------


def _projection(block: nn.Module) -> nn.Module | None:
    """The output projection of a block's attention, wherever in it the model's author has put it."""
    attention = _named(block, _ATTENTION)
    return None if attention is None else _named(attention, _ATTENTION_OUT)


def _feed_forward(block: nn.Module) -> nn.Module | None:
    """What has the feed-forward part's output, nothing added yet."""
    part = _named(block, _FEED_FORWARD)
    if part is not None:
        # Only its own last projection: a mixture of experts has one in each, and its sum is the part's output.
        return _child(part, _FEED_FORWARD_OUT) or part
    if _child(block, ("intermediate",)) is not None:  # BERT and its kin add the stream in `output`, after its `dense`
        output = _child(block, ("output",))
        return None if output is None else _child(output, ("dense",))
    return _child(block, _FEED_FORWARD_OUT)  # BART and its kin have no part of its own for it


def _feed_forward_start(block: nn.Module) -> nn.Module | None:
    """What has the feed-forward part's input as its own: the part, or its first projection."""
    return _named(block, _FEED_FORWARD) or _child(block, ("intermediate", *_FEED_FORWARD_IN))


def _named(module: nn.Module, names: Sequence[str]) -> nn.Module | None:
    """The first module at any depth that goes by one of the names."""
    return next((m for path, m in module.named_modules() if path.rpartition(".")[2] in names and path), None)


def _child(module: nn.Module, names: Sequence[str]) -> nn.Module | None:
    """The module right below that goes by one of the names."""
    return next((child for name, child in module.named_children() if name in names), None)


def _required(found: nn.Module | None, what: str, site: str, block: nn.Module) -> nn.Module:
    if found is None:
        there = ", ".join(path for path, _ in block.named_modules() if path)
        raise ConfigError(f"site {site!r}: no {what} in a {type(block).__name__}, which has {there or 'no parts'}")
    return found


def _inputs(projection: Any) -> int:
    """Width of what goes into a projection; GPT-2 keeps its matrices the other way round."""
    return int(projection.in_features if hasattr(projection, "in_features") else projection.weight.shape[0])
