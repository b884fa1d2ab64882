"""What a feature says straight to the model's head: the words that it makes likelier and less likely."""

from __future__ import annotations

import pandas as pd
import torch

from hourglass.adapters.causal import CausalModel
from hourglass.bottlenecks.sparse.sae import SparseAutoencoder
from hourglass.errors import ConfigError


@torch.no_grad()
def logit_effect(model: CausalModel, sae: SparseAutoencoder, feature: int, top: int = 10) -> pd.DataFrame:
    """The `top` tokens that are raised most and those lowered most: columns token, logit; the raised ones first.

    logit is the product of the token's output embedding with the feature's decoder row (of length 1), less the mean over
    all tokens: the path from the block straight to the head, past later blocks and the final norm.
    """
    head = model.network.get_output_embeddings()
    if head is None or head.weight.shape[1] != sae.config.d_in:
        raise ConfigError(
            f"{model.name}: has no output embeddings of {sae.config.d_in} numbers to compare a feature with"
        )
    logits = head.weight.float() @ sae.W_dec[feature].float().to(head.weight.device)
    logits = (logits - logits.mean()).cpu()
    top = min(top, len(logits) // 2)
    order = logits.argsort(descending=True)
    chosen = torch.cat([order[:top], order[len(order) - top :]])
    tokens = [model.tokenizer.decode([i]) for i in chosen.tolist()]
    return pd.DataFrame({"token": tokens, "logit": logits[chosen].numpy().round(4)})
