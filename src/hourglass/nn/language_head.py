"""The head of any transformers network, on hidden states that were chosen first.

A network computes logits at every token, and they cost as much as a small body. Its head alone is reached here without
knowing its names: its own forward runs with the body replaced by one that gives the chosen states.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from hourglass.nn.cross_entropy import linear_cross_entropy


def logits(network: Any, states: Tensor) -> Tensor:
    """[n, V] of last hidden states [n, d], by the network's own head."""
    with _body_gives(network, states):
        out: Tensor = network(input_ids=torch.zeros(1, len(states), dtype=torch.int64)).logits
    return out[0]


def before_output(network: Any, states: Tensor) -> Tensor:
    """[n, d'] what the head makes of last hidden states [n, d] before the output matrix."""
    matrix = network.get_output_embeddings()
    matrix.forward = lambda states: states
    try:
        return logits(network, states)
    finally:
        del matrix.forward


def token_loss(network: Any, states: Tensor, targets: Tensor, shares: Tensor | None = None) -> Tensor:
    """Sum of the cross-entropies of hidden states [n, d] at their targets: see `linear_cross_entropy`."""
    matrix = network.get_output_embeddings()
    return linear_cross_entropy(before_output(network, states), matrix.weight, matrix.bias, targets, shares)


class _Given(nn.Module):
    """Stands in for a body."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = states

    def forward(self, *_: Any, **__: Any) -> BaseModelOutputWithPastAndCrossAttentions:
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=self.states[None])


@contextmanager
def _body_gives(network: Any, states: Tensor) -> Iterator[None]:
    name = network.base_model_prefix
    body = network._modules[name]
    network._modules[name] = _Given(states)
    try:
        yield
    finally:
        network._modules[name] = body
