"""Who sees whom: a network of transformers read causally or in both directions, by a mask alone, its weights untouched.

    states = network(input_ids=ids, attention_mask=attention_mask(real, "causal", network.dtype))

A mask of four dimensions takes the place of the network's own. Not every architecture heeds it (`check_attention`).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from hourglass.adapters.pretrained import body
from hourglass.errors import ConfigError

Attention = Literal["own", "causal", "bidirectional"]
"""As the network was built; each token sees itself and those before it; each sees all of its text."""


def attention_mask(real: Tensor, attention: Attention, dtype: torch.dtype) -> Tensor:
    """What a network takes as `attention_mask`, from [n, L] bool, true for what is no padding.

    [n, L] int64 for "own"; else [n, 1, L, L] of `dtype` to add to the scores: 0 where row i sees token j, its least number
    where not. A row of padding sees itself.
    """
    if attention == "own":
        return real.long()
    length = real.shape[1]
    sees = real[:, None, :].expand(-1, length, -1)
    if attention == "causal":
        sees = sees.tril()
    return as_scores(sees | torch.eye(length, dtype=torch.bool, device=real.device), dtype)


def as_scores(sees: Tensor, dtype: torch.dtype) -> Tensor:
    """The same of any [n, L, L] bool, true where row i sees token j."""
    scores = torch.zeros(sees.shape, dtype=dtype, device=sees.device)
    return scores.masked_fill_(~sees, torch.finfo(dtype).min)[:, None]


def check_attention(network: Any, attention: Attention) -> None:
    """ConfigError where a network does not heed the mask: where a later token leaks, or where it is not seen.

    Three tokens are read twice, the last another. The network's mode and the state of random numbers stay as they were.
    """
    if attention == "own":
        return
    training = network.training
    network.eval()
    ids = torch.tensor([[0, 1, 2], [0, 1, 3]], device=network.device) % network.config.get_text_config().vocab_size
    try:
        with torch.no_grad():
            mask = attention_mask(torch.ones_like(ids, dtype=torch.bool), attention, network.dtype)
            states = body(network)(input_ids=ids, attention_mask=mask).last_hidden_state
        sees = not torch.equal(states[0, :2], states[1, :2])
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{type(network).__name__}: takes no mask of attention ({reason})") from None
    finally:
        network.train(training)
    if sees != (attention == "bidirectional"):
        raise ConfigError(
            f"{type(network).__name__}: cannot be read with {attention} attention, it does not heed the mask; "
            "start from a model of another architecture"
        )
