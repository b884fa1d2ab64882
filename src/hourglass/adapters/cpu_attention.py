"""Attention in bfloat16 on a CPU, for short texts that all read each other: in about 0.6 of the time of torch's own; and while it is learned.

    use_cpu_attention(network)

torch's fused kernel goes through a text in blocks of 32 queries and forms each block's sums anew; at 16 to 512 tokens and
heads of 32 to 64 numbers it comes to 50 GFLOP/s on a core that multiplies 440. Plain matrix products over some heads at a
time are faster as long as their scores stay in the core's cache. What learns goes by products too (`attending`), of any mask. Whatever
else is asked for (a causal mask, other number formats, a GPU) goes to torch's kernel as before.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import bidirectional_mask_function, sdpa_mask

from hourglass.adapters.attending import attend, by_products

NAME = "hourglass_cpu"
_SCORES = 1 << 18
"""Scores at a time: 0.5 MiB in bfloat16 and 1 MiB in float32, what a core's second cache holds."""

_NOT_OURS = ("cache", "output_attentions", "softcap")
"""What transformers' own function acts on beside its named arguments."""


def use_cpu_attention(network: Any) -> None:
    """Let a network of transformers attend so; one whose attention is not torch's kernel stays as it is."""
    if network.config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, _attention)
        AttentionMaskInterface.register(NAME, _mask)
        network.set_attn_implementation(NAME)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """[n, L, heads, d] from [n, heads, L, d] each, as transformers calls it."""
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    plain = scaling is None or math.isclose(scaling, query.shape[-1] ** -0.5)
    if plain and position_bias is None and not any(others.get(name) for name in _NOT_OURS) and by_products(query, key):
        alone = causal and attention_mask is None and query.shape[2] > 1
        made = attend(query, key, value, attention_mask, causal=alone, dropout=dropout)
        return made.transpose(1, 2).contiguous(), None
    if (
        (causal if attention_mask is None else not _hides_padding_only(attention_mask))
        or not (query.shape == key.shape == value.shape)
        or not (query.dtype == key.dtype == value.dtype == torch.bfloat16 and query.device.type == "cpu")
        or position_bias is not None
        or dropout
        or torch.is_grad_enabled()
        or any(others.get(name) for name in _NOT_OURS)
    ):
        return sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            is_causal=is_causal,
            position_bias=position_bias,
            **others,
        )
    n, heads, length, d = query.shape
    query = (query * (d**-0.5 if scaling is None else scaling)).reshape(n * heads, length, d)
    key, value = key.reshape(n * heads, length, d).mT, value.reshape(n * heads, length, d)
    if attention_mask is not None:
        first, hidden = _padding(attention_mask, heads)
    attended = torch.empty_like(query)
    step = max(1, _SCORES // length**2)
    for some in (slice(i, i + step) for i in range(0, n * heads, step)):
        scores = torch.bmm(query[some], key[some])
        weights = scores.float()
        if attention_mask is not None:
            weights[..., first:] += hidden[some]
        torch.softmax(weights, -1, out=weights)
        torch.bmm(scores.copy_(weights), value[some], out=attended[some])
    return attended.view(n, heads, length, d).transpose(1, 2), None


def _mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    *,
    mask_function: Callable[..., Any],
    attention_mask: Tensor | None = None,
    **others: Any,
) -> Tensor | None:
    """As transformers asks for it: where only padding is hidden, [n, 1, 1, L] bool spread over the queries, not copied."""
    if (
        mask_function is bidirectional_mask_function
        and attention_mask is not None
        and attention_mask.shape == (batch_size, kv_length)
        and not attention_mask.all()
    ):
        return attention_mask[:, None, None].bool().expand(-1, -1, q_length, -1)
    return sdpa_mask(
        batch_size, q_length, kv_length, mask_function=mask_function, attention_mask=attention_mask, **others
    )


def _padding(mask: Tensor, heads: int) -> tuple[int, Tensor]:
    """(first token that is padding in some text, what to add to scores from there on [n x heads, 1, L - first])."""
    padding = ~mask[:, 0, 0]
    first = int(padding.any(0).int().argmax())
    hidden = torch.zeros(padding[:, first:].shape).masked_fill_(padding[:, first:], float("-inf"))
    return first, hidden.repeat_interleave(heads, 0)[:, None]


def _hides_padding_only(mask: Tensor) -> bool:
    return mask.dtype == torch.bool and mask.shape[1] == 1 and mask.stride(2) == 0
