"""The reader's attention in bfloat16 against torch's in float32, and what it leaves to torch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from encoders import KINDS, make_pair
from hourglass.adapters.cpu_attention import NAME, _attention, use_cpu_attention


def states(n, heads, length, d, seed=0):
    drawn = torch.Generator().manual_seed(seed)
    return [torch.randn(n, heads, length, d, generator=drawn).bfloat16() for _ in range(3)]


def padding(lengths, longest, *, left=False):
    real = torch.arange(longest) < torch.tensor(lengths)[:, None]
    return (real.flip(1) if left else real)[:, None, None].expand(-1, -1, longest, -1)


class Encoder(nn.Module):
    is_causal = False


@torch.inference_mode()
def attend(query, key, value, mask=None, **settings):
    return _attention(Encoder(), query, key, value, mask, **settings)[0]


def in_float32(query, key, value, mask=None, **settings):
    return scaled_dot_product_attention(query.float(), key.float(), value.float(), mask, **settings).transpose(1, 2)


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=4),
    heads=st.integers(1, 3),
    d=st.sampled_from([4, 32, 64]),
    left=st.booleans(),
    seed=st.integers(0, 99),
)
def test_texts_of_any_length_are_attended_to_as_in_float32(lengths, heads, d, left, seed):
    query, key, value = states(len(lengths), heads, max(lengths), d, seed)
    mask = padding(lengths, max(lengths), left=left)
    assert torch.allclose(
        attend(query, key, value, mask).float(), in_float32(query, key, value, mask), rtol=0.02, atol=0.03
    )


@pytest.mark.parametrize("length", [512, 700])  # some heads at a time; less than one
def test_long_texts_and_a_scale_of_its_own(length):
    query, key, value = states(1, 2, length, 32)
    assert torch.allclose(
        attend(query, key, value, scaling=0.1).float(), in_float32(query, key, value, scale=0.1), rtol=0.02, atol=0.03
    )


def test_what_is_not_ours_is_torchs_to_the_bit():
    query, key, value = states(2, 4, 20, 32)
    triangle = torch.ones(2, 1, 20, 20, dtype=torch.bool).tril()
    expected = scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2)
    assert torch.equal(attend(query, key, value, is_causal=True), expected)
    assert torch.allclose(attend(query, key, value, triangle).float(), expected.float(), atol=0.02)
    of_one = key[:, :1].expand_as(query)
    bias = torch.randn(1, 4, 20, 20).bfloat16()
    expected = scaled_dot_product_attention(query, of_one, value, bias).transpose(1, 2)
    assert torch.equal(attend(query, of_one, value, position_bias=bias), expected)
    full = [x.float() for x in (query, key, value)]
    assert torch.equal(attend(*full), scaled_dot_product_attention(*full).transpose(1, 2))


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_networks_read_the_same_with_it(kind):
    network, _ = make_pair(kind)
    network = (network.get_encoder() if kind == "bart" else network).bfloat16().eval()
    for name, parameter in network.named_parameters():
        if parameter.ndim == 2 and "embed" not in name and "wte" not in name:
            parameter.mul_(10)  # so that it matters who attends to whom
    ids = torch.randint(5, 100, (3, 24), generator=torch.Generator().manual_seed(0))
    real = (torch.arange(24) < torch.tensor([24, 13, 5])[:, None]).long()

    def read(mask):
        return network(input_ids=ids, attention_mask=mask).last_hidden_state.float()

    whole, padded = read(None), read(real)
    assert (whole - padded)[1, :13].abs().max() > 0.2 or kind in ("gpt2", "llama")
    use_cpu_attention(network)
    assert network.config._attn_implementation == NAME
    assert torch.allclose(read(None), whole, atol=0.06)
    assert torch.allclose(read(real)[real.bool()], padded[real.bool()], atol=0.06)
