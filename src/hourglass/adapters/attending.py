"""Attention that is learned in bfloat16 on a CPU, by plain products: forward and back in a quarter of the time of torch's own kernel.

Back through torch's fused kernel, texts of 8 to 128 places take four to six times as long as the products that they consist of, and in
float32 as long. Longer rows, other number formats and a GPU go to torch's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_MOST = 1 << 18
"""Scores of a head, up to which they are kept for the way back: 512 places by 512."""


def attend(
    q: Tensor, k: Tensor, v: Tensor, sees: Tensor | None = None, *, causal: bool = False, dropout: float = 0.0
) -> Tensor:
    """As torch's `scaled_dot_product_attention`, [n, heads, Q, d] of q [n, heads, Q, d], k and v [n, heads, K, d].

    sees    bool, true for what is seen, or numbers that are added to the scores; spread over [n, heads, Q, K]
    causal  instead: each place sees those up to it
    """
    if not by_products(q, k):
        return F.scaled_dot_product_attention(q, k, v, sees, dropout_p=dropout, is_causal=causal)
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    if causal:
        sees = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if sees is not None:
        scores = (
            scores.masked_fill(~sees, float("-inf")) if sees.dtype == torch.bool else scores + sees.to(scores.dtype)
        )
    return F.dropout(scores.softmax(-1), dropout) @ v


def by_products(q: Tensor, k: Tensor) -> bool:
    """Whether attention of queries [n, heads, Q, d] to keys [n, heads, K, d] is learned, and faster so."""
    if q.device.type != "cpu" or not (torch.is_grad_enabled() and q.requires_grad):
        return False
    autocast = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if autocast else q.dtype
    return dtype == torch.bfloat16 and q.shape[1] == k.shape[1] and q.shape[-2] * k.shape[-2] <= _MOST
