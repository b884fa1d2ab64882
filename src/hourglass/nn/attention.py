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


def attention_mask(real: Tensor, attention: Attention, dtype: torch.dtype, texts: Tensor | None = None) -> Tensor:
    """What a network takes as `attention_mask`, from [n, L] bool, true for what is no padding.

    [n, L] int64 for "own"; else [n, 1, L, L] of `dtype` to add to the scores: 0 where row i sees token j, its least number
    where not. A row of padding sees itself.

    texts  [n, L] int64, rising: of a row that holds several texts the number of each token's; those of another are not seen
           either. Not with "own"
    """
    if attention == "own":
        return real.long()
    length = real.shape[1]
    sees = real[:, None, :].expand(-1, length, -1)
    if attention == "causal":
        sees = sees.tril()
    if texts is not None:
        sees = sees & (texts[:, :, None] == texts[:, None, :])
    return as_scores(sees | torch.eye(length, dtype=torch.bool, device=real.device), dtype)


def places(texts: Tensor) -> Tensor:
    """[n, L] int64 the place of each token within its text, from their numbers [n, L], rising along a row."""
    at = torch.arange(texts.shape[1], device=texts.device).expand_as(texts)
    begins = torch.zeros_like(at)
    begins[:, 1:] = at[:, 1:] * (texts.diff(dim=1) > 0)
    return at - begins.cummax(1).values


def as_scores(sees: Tensor, dtype: torch.dtype) -> Tensor:
    """The same of any [n, L, L] bool, true where row i sees token j."""
    scores = torch.zeros(sees.shape, dtype=dtype, device=sees.device)
    return scores.masked_fill_(~sees, torch.finfo(dtype).min)[:, None]


def check_attention(network: Any, attention: Attention) -> None:
    """ConfigError where a network does not heed the mask: where a later token leaks, or where it is not seen."""
    if attention == "own":
        return
    real = torch.ones(1, 3, dtype=torch.bool, device=network.device)
    try:
        ahead = _looks_ahead(network, attention_mask(real, attention, network.dtype))
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{type(network).__name__}: takes no mask of attention ({reason})") from None
    if ahead != (attention == "bidirectional"):
        raise ConfigError(
            f"{type(network).__name__}: cannot be read with {attention} attention, it does not heed the mask; "
            "start from a model of another architecture"
        )


@torch.no_grad()
def check_apart(network: Any) -> None:
    """ConfigError where a text that shares a row with another, kept apart by mask and positions, has not the states it has alone."""
    training = network.training
    network.eval()
    ids = torch.arange(5, device=network.device)[None] % network.config.get_text_config().vocab_size
    texts = torch.tensor([[0, 0, 1, 1, 1]], device=network.device)
    real = torch.ones_like(ids, dtype=torch.bool)
    try:
        alone = body(network)(input_ids=ids[:, 2:], attention_mask=real[:, 2:].long()).last_hidden_state
        mask = attention_mask(real, "bidirectional", network.dtype, texts)
        both = body(network)(input_ids=ids, attention_mask=mask, position_ids=places(texts)).last_hidden_state
        moved = float((both[:, 2:] - alone).norm() / alone.norm())
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{type(network).__name__}: cannot keep packed texts apart ({reason})") from None
    finally:
        network.train(training)
    if not moved < (1e-3 if network.dtype == torch.float32 else 5e-2):
        raise ConfigError(
            f"{type(network).__name__}: cannot keep packed texts apart, it does not heed mask or positions; set apart to false"
        )


def check_own_attention(network: Any, attention: Literal["causal", "bidirectional"]) -> None:
    """ConfigError where a network, as it is built, is not read so."""
    ahead = _looks_ahead(network, torch.ones(1, 3, dtype=torch.int64, device=network.device))
    if ahead != (attention == "bidirectional"):
        raise ConfigError(
            f"{type(network).__name__}: reads {'both ways' if ahead else 'only what came before'}, whatever its settings say; "
            f"set attention to {'bidirectional' if ahead else 'causal'}, or start from a model of another architecture"
        )


@torch.no_grad()
def _looks_ahead(network: Any, mask: Tensor) -> bool:
    """Whether the first states of three tokens change with the last. The network's mode stays as it was."""
    training = network.training
    network.eval()
    size = network.config.get_text_config().vocab_size
    read = []
    try:
        # One by one: rows of a batch may be added up in another order each.
        for last in (2, 3):
            ids = torch.tensor([[0, 1, last]], device=network.device) % size
            read.append(body(network)(input_ids=ids, attention_mask=mask).last_hidden_state[0, :2])
    finally:
        network.train(training)
    return not torch.equal(*read)
