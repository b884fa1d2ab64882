"""Parts of the networks around a latent: what they see, what they do not, and what they are at the beginning."""

import pytest
import torch
from torch.nn import functional as F

from hourglass.nn.blocks import Block, SelfAttention, Transformer, join_heads, split_heads
from hourglass.nn.denoiser import Denoiser
from hourglass.nn.positions import LearnedPositions, rotated
from hourglass.nn.resampler import ParallelDecoder, Resampler, ResamplerBlock
from hourglass.nn.time_embedding import TimeEmbedding, sinusoids


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_places_are_turned_as_llama_turns_them():
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    q = torch.randn(2, 3, 7, 8)
    config = LlamaConfig(hidden_size=24, num_attention_heads=3, head_dim=8)
    cosine, sine = LlamaRotaryEmbedding(config)(q, torch.arange(7)[None])
    expected, _ = apply_rotary_pos_emb(q, q, cosine, sine)
    assert torch.allclose(rotated(q), expected, atol=1e-5)
    # Products depend on the distance alone.
    same = rotated(torch.ones(6, 8))
    assert float(same[1] @ same[3]) == pytest.approx(float(same[3] @ same[5]), abs=1e-5)


def test_heads_are_split_and_joined():
    x = torch.randn(2, 5, 12)
    assert split_heads(x, 3).shape == (2, 3, 5, 4)
    assert torch.equal(join_heads(split_heads(x, 3)), x)


def test_a_block_is_what_llama_has():
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

    config = LlamaConfig(hidden_size=16, num_attention_heads=2, num_key_value_heads=2, intermediate_size=64)
    config.rms_norm_eps = torch.finfo(torch.float32).eps  # torch's own
    config._attn_implementation = "eager"
    theirs, ours = LlamaDecoderLayer(config, 0), Block(16, 2)
    with torch.no_grad():
        attention = theirs.self_attn
        ours.attention.qkv.weight.copy_(
            torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
        )
        ours.attention.out.weight.copy_(attention.o_proj.weight)
        ours.feed.opened.weight.copy_(torch.cat([theirs.mlp.gate_proj.weight, theirs.mlp.up_proj.weight]))
        ours.feed.closed.weight.copy_(theirs.mlp.down_proj.weight)
        x = torch.randn(2, 6, 16)
        places = LlamaRotaryEmbedding(config)(x, torch.arange(6)[None])
        expected = theirs(x, position_embeddings=places)
        expected = expected[0] if isinstance(expected, tuple) else expected
        assert torch.allclose(ours(x), expected, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_padding_and_what_comes_later_are_not_seen(causal):
    attention = SelfAttention(16, 2, causal)
    x, mask = torch.randn(1, 6, 16), torch.tensor([[True] * 4 + [False] * 2])
    changed = x.clone()
    changed[:, 4:] += 1
    with torch.no_grad():
        assert torch.allclose(attention(x, mask)[:, :4], attention(changed, mask)[:, :4], atol=1e-6)
        later = x.clone()
        later[:, 3] += 1
        same = torch.allclose(attention(x)[:, :3], attention(later)[:, :3], atol=1e-6)
        assert same == causal
        assert torch.allclose(attention(x[:, :4]), attention(x, mask)[:, :4], atol=1e-6)


def test_the_number_of_latents_is_fixed_and_padding_does_not_count():
    resampler = Resampler(16, 2, 2, latents=3).eval()
    x, mask = torch.randn(2, 9, 16), torch.ones(2, 9, dtype=torch.bool)
    mask[:, 5:] = False
    changed = x.clone()
    changed[:, 5:] = 7
    with torch.no_grad():
        made = resampler(x, mask)
        assert made.shape == (2, 3, 16)
        assert torch.allclose(made, resampler(changed, mask), atol=1e-6)
        assert torch.allclose(made, resampler(x[:, :5], mask[:, :5]), atol=1e-6)
        assert not torch.allclose(made, resampler(x, torch.ones_like(mask)), atol=1e-3)
        # Nothing of the text is seen, and latents are made all the same.
        assert bool(torch.isfinite(resampler(x, torch.zeros_like(mask))).all())


def test_the_block_by_hand():
    block = ResamplerBlock(8, 2).eval()
    stream, other = torch.randn(1, 2, 8), torch.randn(1, 3, 8)
    with torch.no_grad():
        own, theirs = block.of_stream(stream), block.of_other(other)
        keys_values = torch.cat([block.kv_other(theirs), block.kv_stream(own)], 1)[0]
        heads = []
        for h in (slice(0, 4), slice(4, 8)):
            q, k, v = block.q(own)[0][:, h], keys_values[:, :8][:, h], keys_values[:, 8:][:, h]
            q, k = (
                part / (part.square().mean(-1, keepdim=True) + torch.finfo(torch.float32).eps).sqrt() for part in (q, k)
            )
            heads.append((q @ k.T / 2).softmax(-1) @ v)
        attended = stream + block.out(torch.cat(heads, -1))[None]
        assert torch.allclose(block(stream, other), attended + block.feed(attended), atol=1e-5)


def test_gates_begin_at_one_and_scale_by_what_is_blank():
    decoder = ParallelDecoder(16, 2, 2).eval()
    stream, latents = torch.randn(1, 4, 16), torch.randn(1, 3, 16)
    blank = torch.tensor([[True, True, False, True]])
    with torch.no_grad():
        first = decoder(stream, latents, blank)
        assert torch.equal(first, decoder(stream, latents, torch.zeros_like(blank)))
        for block in decoder.blocks:
            block.gates[:, 0] = 0.5
            block.gates[:, 1] = -1.0
        # Where something is given, 1 + b is 0 and the branch is shut.
        assert torch.allclose(decoder(stream, latents, blank)[:, 2], stream[:, 2])
        assert not torch.allclose(decoder(stream, latents, blank)[:, 1], stream[:, 1])


def test_learned_places_are_scaled():
    places = LearnedPositions(5, 16)
    assert torch.allclose(places(torch.zeros(1, 3, 16))[0], places.table[:3] / 4)


def test_times_are_told_apart():
    waves = sinusoids(torch.tensor([0.0, 1.0]), 9)
    assert waves.shape == (2, 9)
    assert torch.equal(waves[0, :4], torch.ones(4))
    assert float(waves[1, 0]) == pytest.approx(0.5403, abs=1e-4)
    made = TimeEmbedding(8)(torch.tensor([0.0, 0.3, 1.0]))
    assert float((made[0] - made[2]).detach().abs().max()) > 1e-2


@pytest.mark.parametrize("layers", [3, 4])
def test_the_second_half_sees_what_went_into_the_first(layers):
    """With every block an identity, a stream is added to itself once for each pair of layers."""
    network = Denoiser(8, 2, layers)
    for part in [*network.of_time, *network.of_guess]:
        for parameter in part.parameters():
            torch.nn.init.zeros_(parameter)
    for block in network.blocks:
        torch.nn.init.zeros_(block.attention.out.weight)
        torch.nn.init.zeros_(block.feed.closed.weight)
    seen = []
    network.norm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x = torch.randn(1, 3, 8)
    network(x, torch.tensor([0.5]), torch.zeros_like(x))
    assert torch.allclose(seen[0], x * (1 + layers // 2))


def test_time_guess_and_source_are_heard():
    network = Denoiser(8, 2, 2, width=12, source=6, source_places=5).eval()
    x, t, guess = torch.randn(2, 3, 8), torch.tensor([0.2, 0.2]), torch.zeros(2, 3, 8)
    states, mask = torch.randn(2, 5, 6), torch.tensor([[True] * 3 + [False] * 2] * 2)
    with torch.no_grad():
        first = network(x, t, guess)
        assert first.shape == x.shape
        assert not torch.allclose(first, network(x, t + 0.5, guess), atol=1e-4)
        assert not torch.allclose(first, network(x, t, guess + 1), atol=1e-4)
        read = network(x, t, guess, network.read(states, mask))
        assert not torch.allclose(first, read, atol=1e-4)
        changed = torch.where(mask[..., None], states, 9.0)
        assert torch.allclose(read, network(x, t, guess, network.read(changed, mask)), atol=1e-5)
        nothing = network.read(states, torch.zeros_like(mask))
        assert torch.allclose(first, network(x, t, guess, nothing), atol=1e-5)


def test_a_transformer_learns_to_copy_what_is_before():
    network, head = Transformer(16, 2, 1, causal=True), torch.nn.Linear(16, 4)
    table = torch.randn(4, 16)
    optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], 1e-2)
    for _ in range(80):
        ids = torch.randint(4, (16, 8))
        loss = F.cross_entropy(head(network(table[ids]))[:, 1:].flatten(0, 1), ids[:, :-1].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.3


def test_the_norm_is_that_of_float32_in_bfloat16_too():
    from hourglass.nn.blocks import RMSNorm

    norm = RMSNorm(32)
    norm.weight.data = torch.rand(32) + 0.5
    x = 0.01 * torch.randn(4, 32)
    exact = torch.nn.functional.rms_norm(x, (32,), norm.weight)
    assert torch.equal(norm(x), exact)
    assert torch.allclose(norm(x.bfloat16()).float(), exact, rtol=2e-2, atol=2e-2)
