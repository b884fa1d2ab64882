"""Attention that is learned in bfloat16 by plain products, against torch's in float32, with its gradients."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from encoders import KINDS, make_pair
from hourglass.adapters import attending
from hourglass.adapters.attending import attend, by_products
from hourglass.adapters.cpu_attention import use_cpu_attention


def states(queries, keys, seed=0, n=3, heads=2, d=16):
    drawn = torch.Generator().manual_seed(seed)
    return [torch.randn(n, heads, length, d, generator=drawn).bfloat16() for length in (queries, keys, keys)]


def learned(attention, parts, sees, **how):
    """(what is attended to, gradients of q, k and v)."""
    leaves = [part.clone().requires_grad_() for part in parts]
    made = attention(*leaves, sees, **how)
    share = torch.linspace(-1, 1, made.numel()).view_as(made)
    return made.detach(), torch.autograd.grad((made.float() * share).sum(), leaves)


MASKS = {
    "none": None,
    "padding": (torch.arange(20) < torch.tensor([20, 7, 1])[:, None])[:, None, None],
    "pairs": (torch.rand(3, 1, 12, 20, generator=torch.Generator().manual_seed(1)) < 0.5).index_fill(
        3, torch.tensor(0), True
    ),
    "numbers": torch.randn(3, 1, 12, 20, generator=torch.Generator().manual_seed(2)),
}


@pytest.mark.parametrize("sees", MASKS.values(), ids=MASKS)
def test_what_is_learned_is_that_of_torch_in_float32(sees):
    parts = states(12, 20)
    assert by_products(parts[0].requires_grad_(), parts[1])
    ours = learned(attend, [part.detach() for part in parts], sees)
    theirs = learned(scaled_dot_product_attention, [part.detach().float() for part in parts], sees)
    torch.testing.assert_close(ours[0].float(), theirs[0], rtol=0.02, atol=0.03)
    for a, b in zip(ours[1], theirs[1]):
        torch.testing.assert_close(a.float(), b, rtol=0.05, atol=0.05)


def test_a_causal_place_sees_none_after_it():
    parts = states(9, 9)
    ours = learned(attend, parts, None, causal=True)
    theirs = learned(scaled_dot_product_attention, [part.float() for part in parts], None, is_causal=True)
    torch.testing.assert_close(ours[0].float(), theirs[0], rtol=0.02, atol=0.03)
    changed = [part.clone() for part in parts]
    changed[2][:, :, 5:] += 1
    assert torch.equal(learned(attend, changed, None, causal=True)[0][:, :, :5], ours[0][:, :, :5])


def test_under_autocast_too_and_what_is_left_out_is_left_out():
    parts = [part.float().requires_grad_() for part in states(9, 9)]
    with torch.autocast("cpu", torch.bfloat16):
        assert by_products(*parts[:2])
        assert attend(*parts).dtype == torch.bfloat16
        torch.manual_seed(0)
        kept = attend(*parts, dropout=0.9)
    assert float((kept - attend(*parts)).detach().abs().mean()) > 0.1


def test_all_else_is_torchs(monkeypatch):
    parts = states(9, 9)
    leaf = parts[0].clone().requires_grad_()
    with torch.no_grad():
        assert not by_products(leaf, parts[1])
    assert not by_products(*parts[:2])
    assert not by_products(leaf.float(), parts[1].float())
    assert not by_products(leaf, parts[1][:, :1])
    monkeypatch.setattr(attending, "_MOST", 80)
    assert not by_products(leaf, parts[1])
    assert torch.equal(attend(*parts, causal=True), scaled_dot_product_attention(*parts, is_causal=True))


@pytest.mark.parametrize("kind", KINDS)
def test_networks_learn_the_same_with_it(kind):
    network, _ = make_pair(kind)
    network = (network.get_encoder() if kind == "bart" else network).eval()
    ids = torch.randint(5, 100, (3, 24), generator=torch.Generator().manual_seed(0))
    real = (torch.arange(24) < torch.tensor([24, 13, 5])[:, None]).long()

    def slopes():
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            states = network(input_ids=ids, attention_mask=real).last_hidden_state
        (states[real.bool()].float() * torch.linspace(-1, 1, states.shape[-1])).sum().backward()
        return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])

    expected = slopes()
    use_cpu_attention(network)
    found = slopes()
    assert float(torch.cosine_similarity(found, expected, dim=0)) > 0.999
