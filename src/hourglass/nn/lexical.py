"""What a text says as a bag of words: a weight for each token of the vocabulary, from the largest logits of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from hourglass.nn.language_head import before_output
from hourglass.nn.max_logits import max_logits

Activation = Literal["log1p_relu", "raw"]
"""Of the largest logits: log(1 + relu), 0 or more, as in SPLADE; or none."""


def largest_logits(network: Any, states: Tensor, mask: Tensor) -> Tensor:
    """[n, V] by the network's own head: the maximum over the states [n, L, d] that `mask` [n, L] keeps; -inf without any."""
    n, length, width = states.shape
    rows = before_output(network, states.reshape(-1, width)).reshape(n, length, -1)
    matrix = network.get_output_embeddings()
    return max_logits(rows, mask, matrix.weight, matrix.bias)


def lexical_weights(largest: Tensor, special_ids: Sequence[int], activation: Activation = "log1p_relu") -> Tensor:
    """[n, V] of largest logits; 0 for special tokens, and for a text without any token."""
    weights = torch.log1p(F.relu(largest)) if activation == "log1p_relu" else largest.masked_fill(largest.isinf(), 0)
    dropped = torch.zeros(weights.shape[1], dtype=torch.bool, device=weights.device)
    dropped[list(special_ids)] = True
    return weights.masked_fill(dropped, 0)


def keep_largest(weights: Tensor, k: int | None) -> Tensor:
    """[n, V] with all but the k largest of each row at 0; None keeps all."""
    if k is None or k >= weights.shape[1]:
        return weights
    largest = weights.topk(k, dim=1)
    return torch.zeros_like(weights).scatter(1, largest.indices, largest.values)
