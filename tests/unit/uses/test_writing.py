"""The baseline of tokens: likelihood by the definition, writing as transformers does, memory as derived."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from hourglass.adapters.vector_decoder import kv_bytes
from hourglass.errors import SourceError
from hourglass.metrics.writing import Likelihood, mean_of_texts, together
from hourglass.uses.writing import kv_bytes_of_tokens, score_tokens, write_tokens

PAIRS = [("It was late. ", "Nobody came."), ("", "é漢")]


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def model(request, causal_folder):
    folder = causal_folder / request.param
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def test_what_comes_after_is_scored_given_what_comes_before(model):
    network, tokenizer = model
    for (before, after), found in zip(PAIRS, score_tokens(network, tokenizer, PAIRS)):
        ids = torch.tensor([tokenizer(before + after)["input_ids"]])  # a token is a byte
        size = len(after.encode())
        with torch.no_grad():
            logits = network(input_ids=ids).logits[0, -size - 1 : -1]
        assert found.nats == pytest.approx(float(F.cross_entropy(logits, ids[0, -size:], reduction="sum")), rel=1e-4)
        assert (found.tokens, found.bytes) == (size, size)


def test_it_writes_what_transformers_does(model):
    network, tokenizer = model
    prompt = "It was late. "
    made = write_tokens(network, tokenizer, prompt, 20)
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    theirs = network.generate(ids, do_sample=False, min_new_tokens=20, max_new_tokens=20, pad_token_id=0)[
        0, ids.shape[1] :
    ]
    assert (made.tokens, made.bytes) == (20, len(tokenizer.decode(theirs, skip_special_tokens=True).encode()))
    assert made.kv_bytes == (ids.shape[1] + 19) * kv_bytes(network.config)
    assert made.seconds > 0 and made.prompt_seconds > 0 and made.tokens_per_second == 20 / made.seconds
    assert kv_bytes_of_tokens(network, tokenizer, prompt) == ids.shape[1] * kv_bytes(network.config)


def test_a_text_of_no_token_is_named(model):
    with pytest.raises(SourceError, match="a text of no token"):
        score_tokens(*model, [("", "")])


def test_units():
    parts = [Likelihood(2 * math.log(8), 2, 3), Likelihood(math.log(2), 1, 1)]
    assert parts[0].perplexity == pytest.approx(8) and parts[0].bits_per_byte == pytest.approx(2)
    assert together(parts) == Likelihood(parts[0].nats + parts[1].nats, 3, 4)
    assert together(parts).bits_per_byte == pytest.approx(7 / 4)
    assert mean_of_texts(parts) == pytest.approx(4)  # the text of two tokens counts as much as that of one
