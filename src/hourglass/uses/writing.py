"""A causal model of tokens as the baseline of one that writes otherwise: likelihood of the same bytes, speed, memory.

    score_tokens(network, tokenizer, [("It was late. ", "Nobody came.")])      # nats, tokens and bytes of what comes after
    write_tokens(network, tokenizer, "It was late. ", 512)                     # a bare loop with a cache, the likeliest token

`network` is one of transformers with its head. The tokens of a text are those of all of it: where a text that is scored begins
inside of a token, that token is its first, and its bytes are counted all the same.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hourglass.adapters.huggingface_loading import backend, encode
from hourglass.adapters.pretrained import body
from hourglass.adapters.vector_decoder import cache_bytes
from hourglass.errors import SourceError
from hourglass.metrics.writing import Likelihood, Written
from hourglass.nn.language_head import token_loss


@torch.no_grad()
def score_tokens(network: Any, tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> list[Likelihood]:
    """Of each (before, after), both of a text: -log p(after given before). The end of the text is not scored."""
    network.eval()
    found = []
    for before, after in pairs:
        ids, begins = _tokens(tokenizer, before + after)
        first = max(1, sum(end <= len(before) for end in begins))
        given = ids.to(network.device)
        states = body(network)(input_ids=given[None]).last_hidden_state[0]
        wanted = given[first:]
        nats = token_loss(network, states[first - 1 : -1], wanted)
        found.append(Likelihood(float(nats), len(wanted), len(after.encode())))
    return found


@torch.inference_mode()
def write_tokens(network: Any, tokenizer: Any, prompt: str, tokens: int) -> Written:
    """What it costs to write `tokens` tokens after a prompt, none of them the end: no processors, no streamer, a cache."""
    from transformers import DynamicCache

    network.eval()
    ids, _ = _tokens(tokenizer, prompt)
    cache = DynamicCache(config=network.config)
    given = ids.to(network.device)[None]
    written: list[int] = []
    began = time.perf_counter()
    logits = network(input_ids=given, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[0, -1]
    read = time.perf_counter()
    for place in range(tokens):
        if tokenizer.eos_token_id is not None:
            logits[tokenizer.eos_token_id] = -torch.inf
        best = logits.argmax()
        written.append(int(best))
        if place + 1 < tokens:
            logits = network(input_ids=best[None, None], past_key_values=cache, use_cache=True).logits[0, -1]
    done = time.perf_counter()
    size = len(tokenizer.decode(written, skip_special_tokens=True).encode())
    return Written(tokens, size, read - began, done - read, cache_bytes(cache))


@torch.inference_mode()
def kv_bytes_of_tokens(network: Any, tokenizer: Any, text: str) -> int:
    """Bytes of keys and values that a model of tokens holds to go on from a text."""
    from transformers import DynamicCache

    cache = DynamicCache(config=network.config)
    ids, _ = _tokens(tokenizer, text)
    body(network)(input_ids=ids.to(network.device)[None], past_key_values=cache, use_cache=True)
    return cache_bytes(cache)


def _tokens(tokenizer: Any, text: str) -> tuple[Tensor, list[int]]:
    """Ids [n] behind a first token that begins texts, and past which character each ends."""
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    (encoding,) = encode(backend(tokenizer), [text])
    if not encoding.ids:
        raise SourceError("a text of no token: expected some text")
    if start is None:
        return torch.tensor(encoding.ids), [end for _, end in encoding.offsets]
    return torch.tensor([start, *encoding.ids]), [0, *(end for _, end in encoding.offsets)]
