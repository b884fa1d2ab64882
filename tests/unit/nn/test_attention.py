"""Networks read causally or both ways by a mask, and decoders that become encoders."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from hourglass.adapters.pretrained import as_encoder
from hourglass.errors import ConfigError
from hourglass.nn.attention import attention_mask, check_apart, check_attention, places

_SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}
_DECODERS = {
    "llama": {"num_key_value_heads": 1},
    "mistral": {"num_key_value_heads": 1, "sliding_window": None},
    "qwen2": {"num_key_value_heads": 1},
}


def _network(kind, auto=AutoModelForCausalLM, **more):
    torch.manual_seed(0)
    network = auto.from_config(AutoConfig.for_model(kind, **{**_SIZES, **more})).eval()
    for parameter in network.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 1.0, 0.1)
    return network


def _states(network, ids, mask):
    with torch.no_grad():
        return network.base_model(input_ids=ids, attention_mask=mask).last_hidden_state


def test_a_mask_by_hand():
    real = torch.tensor([[True, True, False]])
    assert (attention_mask(real, "causal", torch.float32)[0, 0] == 0).tolist() == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]
    assert (attention_mask(real, "bidirectional", torch.float32)[0, 0] == 0).tolist() == [
        [True, True, False],
        [True, True, False],
        [True, True, True],
    ]
    assert attention_mask(real, "own", torch.float32).tolist() == [[1, 1, 0]]


@pytest.mark.parametrize("kind", _DECODERS)
def test_a_decoder_becomes_an_encoder_of_the_same_weights(kind):
    network = _network(kind, **_DECODERS[kind])
    encoder = as_encoder(network)
    ids, real = torch.randint(1, 40, (3, 9)), torch.ones(3, 9, dtype=torch.bool)
    real[1, 6:] = False
    both_ways = _states(network, ids, attention_mask(real, "bidirectional", torch.float32))
    torch.testing.assert_close(_states(encoder, ids, real.long())[real], both_ways[real], rtol=1e-5, atol=1e-5)
    causal = _states(network, ids, real.long())
    by_mask = _states(encoder, ids, attention_mask(real, "causal", torch.float32))
    torch.testing.assert_close(by_mask[real], causal[real], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(both_ways[real], causal[real], atol=1e-3)
    check_attention(encoder, "causal")
    check_attention(network, "bidirectional")
    torch.testing.assert_close(encoder.get_output_embeddings().weight, network.get_output_embeddings().weight)


def test_an_encoder_stays_as_it_is():
    network = _network("bert", AutoModelForMaskedLM)
    assert as_encoder(network) is network
    check_attention(network, "causal")


@pytest.mark.parametrize(
    ("kind", "more", "says"),
    [
        ("gpt2", {}, "GPT2LMHeadModel: no architecture .* llama, mistral, qwen2"),
        ("mistral", {"num_key_value_heads": 1, "sliding_window": 8}, "a window of 8 tokens"),
    ],
)
def test_a_decoder_that_has_no_twin(kind, more, says):
    network = _network(kind, **more)
    with pytest.raises(ConfigError, match=says):
        as_encoder(network)


def test_a_network_that_does_not_heed_the_mask():
    network = _network("bert", AutoModelForMaskedLM)
    forward = network.base_model.forward
    network.base_model.forward = lambda input_ids, attention_mask: forward(input_ids=input_ids)
    with pytest.raises(ConfigError, match="BertForMaskedLM: cannot be read with causal attention"):
        check_attention(network, "causal")


def test_texts_of_a_row_by_hand():
    texts = torch.tensor([[0, 0, 1, 1]])
    real = torch.tensor([[True, True, True, False]])
    assert (attention_mask(real, "causal", torch.float32, texts)[0, 0] == 0).tolist() == [
        [True, False, False, False],
        [True, True, False, False],
        [False, False, True, False],
        [False, False, True, True],
    ]
    assert places(torch.tensor([[0, 0, 1, 1], [0, 1, 2, 2], [0, 0, 0, 0], [1, 1, 1, 2]])).tolist() == [
        [0, 1, 0, 1],
        [0, 0, 0, 1],
        [0, 1, 2, 3],
        [0, 1, 2, 0],
    ]


def test_which_networks_keep_texts_apart():
    tokens = {"bos_token_id": 1, "eos_token_id": 2}
    for kind, more in (("bert", {}), ("eurobert", {"num_key_value_heads": 1, **tokens})):
        network = _network(kind, AutoModelForMaskedLM, **more).train()
        check_apart(network)
        assert network.training
    # RoBERTa counts positions from after the padding's number.
    with pytest.raises(ConfigError, match="cannot keep packed texts apart, it does not heed mask or positions"):
        check_apart(_network("roberta", AutoModelForMaskedLM, pad_token_id=1, **tokens))
    # FNet takes no heed of a mask; of one without positions the network says so.
    with pytest.raises(ConfigError, match="cannot keep packed texts apart, it does not heed mask or positions"):
        check_apart(_network("fnet", AutoModelForMaskedLM, **tokens))
    network = _network("bert", AutoModelForMaskedLM)
    read = network.base_model.forward
    network.base_model.forward = lambda input_ids, attention_mask: read(input_ids, attention_mask)
    with pytest.raises(ConfigError, match=r"cannot keep packed texts apart \(.*position_ids"):
        check_apart(network)
