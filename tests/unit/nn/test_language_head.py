"""The head alone gives what the whole network gives, for architectures whose heads are built differently."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from hourglass.nn.language_head import before_output, logits, token_loss

ENCODERS = ["bert", "roberta", "electra", "mpnet", "eurobert"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TOKENS = {"vocab_size": 60, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "mask_token_id": 3}


def network_of(kind):
    auto = AutoModelForMaskedLM if kind in ENCODERS else AutoModelForCausalLM
    return auto.from_config(AutoConfig.for_model(kind, **TOKENS, **SIZES, embedding_size=32)).eval()


@pytest.mark.parametrize("kind", [*ENCODERS, "llama", "gpt2"])
def test_as_the_whole_network(kind):
    torch.manual_seed(0)
    network, ids = network_of(kind), torch.randint(5, 60, (2, 7))
    expected = network(input_ids=ids).logits.reshape(14, 60)
    states = network.base_model(input_ids=ids).last_hidden_state.reshape(14, 32)
    assert torch.allclose(logits(network, states), expected, atol=1e-5)
    matrix = network.get_output_embeddings()
    assert torch.allclose(matrix(before_output(network, states)), expected, atol=1e-5)
    loss = token_loss(network, states, ids.reshape(14))
    whole = F.cross_entropy(expected, ids.reshape(14), reduction="sum")
    assert torch.allclose(loss, whole, rtol=1e-5)
    loss.backward()
    ours = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    whole = F.cross_entropy(network(input_ids=ids).logits.reshape(14, 60), ids.reshape(14), reduction="sum")
    whole.backward()
    for name, slope in ours.items():
        assert torch.allclose(slope, dict(network.named_parameters())[name].grad, atol=1e-4), name


def test_the_network_is_left_as_it_was():
    network, ids = network_of("bert"), torch.randint(5, 60, (2, 7))
    before = network(input_ids=ids).logits
    with pytest.raises(RuntimeError):
        logits(network, torch.zeros(3, 31))
    with pytest.raises(RuntimeError):
        before_output(network, torch.zeros(3, 31))
    assert torch.equal(network(input_ids=ids).logits, before)
