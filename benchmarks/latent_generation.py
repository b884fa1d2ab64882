"""Texts through a latent: what a step of COSMOS's two networks costs against x-transformers, and what writing costs against a model of tokens.

    python benchmarks/latent_generation.py [--parts steps writing] [--precision fp32 bf16] [--texts 32] [--rounds 5] [--threads 2] [--out FILE]

Sizes are those of the preset base: texts of 64 tokens of 30,522, features of 384 numbers, 16 latents of 384, 4 layers each of resampler and
decoder, a denoiser of 6 layers. Weights and data are new: they do not matter here.

steps     one training step, forward, backward and AdamW, of a batch of 64.
          autoencoder   features to latents to states and the cross-entropy of all tokens; x-transformers: two `Encoder`s that look at the
                        other sequence and at themselves, in two attentions where ours has one (as near as it comes), and its head
          denoiser      16 noised latents to clean ones; x-transformers: a `ContinuousTransformerWrapper` with RMSNorm, RoPE, SwiGLU and
                        U-Net skips; time and first guess go in once, beside the latents, where ours adds them before each block
writing   32 texts (--texts) of 64 tokens at once: ours in so many steps (solvers "euler" and "dpm++", which cost the same a step), against a model of
          tokens in Llama's style with as many numbers as denoiser and decoder, which keeps its keys and values (transformers'
          `LlamaForCausalLM.generate`) and writes one token of each text at a time
floor     multiply-adds of products of matrices alone, at the rate that a product of 4,096 x 1,024 by 1,024 x 1,024 has here

Sides take turns; figures are medians over rounds, in milliseconds by the clock (`ms`) and of all threads on a processor (`cpu_ms`). A peer that
does not import is named and left out.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hourglass  # noqa: F401  (before torch, whose threads it tells how to wait)

# isort: split
import machine
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from hourglass.bottlenecks.diffusion import DiffusionConfig, LatentDiffusion
from hourglass.nn.denoiser import Denoiser
from hourglass.storage.atomic import write_json
from hourglass.systems.cosmos_parts import Autoencoder

RESULT = Path(__file__).parent / "results" / "latent_generation.json"
PEER, BY_TOKENS = "x-transformers", "tokens with keys and values kept (transformers)"
WORDS, TOKENS, FEATURES, LATENTS, LAYERS, HEADS, DEEP, BATCH = 30_522, 64, 384, 16, 4, 6, 6, 64
STEPS = (10, 20, 50, 100, 200)

Step = Callable[[], Any]


def turns(sides: dict[str, Step], rounds: int) -> dict[str, dict[str, float]]:
    """Medians of each side, which take turns; each has gone twice before."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for work in (*sides.values(), *sides.values()):
        work()
    for turn in range(rounds):
        for name in list(sides)[:: -1 if turn % 2 else 1]:
            cpu, wall = time.process_time(), time.perf_counter()
            sides[name]()
            spent[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: {key: round(1e3 * statistics.median(part), 2) for key, part in zip(("ms", "cpu_ms"), zip(*found))}
        for name, found in spent.items()
    }


def rate() -> float:
    """Multiply-adds a second of a large product in float32."""
    a, b = torch.randn(4096, 1024), torch.randn(1024, 1024)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 4096 * 1024 * 1024 / best


def numbers(*parts: nn.Module) -> int:
    return sum(p.numel() for part in parts for p in part.parameters())


# Ours -----------------------------------------------------------------------------------------------------


def autoencoder() -> Autoencoder:
    return Autoencoder(
        features=FEATURES, embedding=FEATURES, vocabulary=WORDS, tokens=TOKENS, latents=LATENTS, width=None, layers=LAYERS,
        heads=HEADS, dropout=0.1, words=None, position_scale=0.3, like_features=True,
    )  # fmt: skip


def diffusion() -> LatentDiffusion:
    return LatentDiffusion(DiffusionConfig(), Denoiser(FEATURES, HEADS, DEEP, FEATURES), (LATENTS, FEATURES))


class Coded(nn.Module):
    """Our autoencoder's loss, of features that are there."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = autoencoder()
        self.register_buffer("blank", torch.randn(FEATURES))

    def forward(self, features: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
        latents = self.inner.compressed(features, mask)
        states = self.inner.decoded(latents, self.blank)
        losses = self.inner.token_loss(states[mask], ids[mask]) / mask.sum()
        return losses + (self.inner.outward(states) - features)[mask].square().mean()


class Cleaned(nn.Module):
    """Our network's error without a first guess of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Denoiser(FEATURES, HEADS, DEEP, FEATURES)

    def forward(self, x: Tensor, t: Tensor, guess: Tensor, x0: Tensor) -> Tensor:
        return (self.inner(x, t, guess) - x0).square().mean()


# The same of x-transformers ------------------------------------------------------------------------------


class PeerCoded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        from x_transformers import Encoder

        def looking() -> Any:
            return Encoder(
                dim=FEATURES, depth=LAYERS, heads=HEADS, cross_attend=True, use_rmsnorm=True, attn_qk_norm=True,
                attn_flash=True, attn_dim_head=FEATURES // HEADS, ff_dropout=0.1,
            )  # fmt: skip

        self.resampler, self.decoder = looking(), looking()
        self.queries = nn.Parameter(0.02 * torch.randn(LATENTS, FEATURES))
        self.places = nn.Parameter(0.3 * torch.randn(TOKENS, FEATURES))
        self.head = nn.Linear(FEATURES, WORDS, bias=False)

    def forward(self, features: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
        rows = len(features)
        latents = self.resampler(self.queries.expand(rows, -1, -1), context=features + self.places, context_mask=mask)
        states = self.decoder(self.places.expand(rows, -1, -1), context=latents)
        error = (states - features)[mask].square().mean()
        return F.cross_entropy(self.head(states[mask]), ids[mask]) + error


class PeerCleaned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        from x_transformers import ContinuousTransformerWrapper, Encoder

        layers = Encoder(
            dim=FEATURES, depth=DEEP, heads=HEADS, use_rmsnorm=True, rotary_pos_emb=True, ff_glu=True, ff_swish=True,
            ff_no_bias=True, attn_flash=True, attn_dim_head=FEATURES // HEADS, unet_skips=True,
        )  # fmt: skip
        self.inner = ContinuousTransformerWrapper(
            max_seq_len=LATENTS, attn_layers=layers, dim_in=2 * FEATURES + 1, dim_out=FEATURES, use_abs_pos_emb=False
        )

    def forward(self, x: Tensor, t: Tensor, guess: Tensor, x0: Tensor) -> Tensor:
        time_of = t[:, None, None].expand(-1, x.shape[1], 1)
        return (self.inner(torch.cat([x, guess, time_of], -1)) - x0).square().mean()


# Parts ----------------------------------------------------------------------------------------------------


def training(model: nn.Module, given: tuple[Tensor, ...], precision: str) -> Step:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext():
            loss = model(*given)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def steps(precisions: list[str], rounds: int, missing: dict[str, str]) -> dict[str, Any]:
    lengths = torch.randint(TOKENS // 2, TOKENS + 1, (BATCH, 1))
    mask = torch.arange(TOKENS) < lengths
    coded = (torch.randn(BATCH, TOKENS, FEATURES), mask, torch.randint(0, WORDS, (BATCH, TOKENS)))
    latents = [torch.randn(BATCH, LATENTS, FEATURES) for _ in range(3)]
    cleaned = (latents[0], torch.rand(BATCH), latents[1], latents[2])
    found: dict[str, Any] = {}
    for name, ours, theirs, given in (
        ("autoencoder", Coded, PeerCoded, coded),
        ("denoiser", Cleaned, PeerCleaned, cleaned),
    ):
        for precision in precisions:
            models = {"ours": ours()}
            try:
                models[PEER] = theirs()
            except ImportError as error:
                missing[PEER] = str(error)
                print(f"{PEER}: left out ({error})", flush=True)
            sides = {side: training(model, given, precision) for side, model in models.items()}
            figures = turns(sides, rounds)
            for side, model in models.items():
                figures[side]["million_numbers"] = round(numbers(model) / 1e6, 2)
            found[f"{name}, {precision}"] = figures
            print(name, precision, figures, flush=True)
    return found


def writing(rounds: int, texts: int) -> dict[str, Any]:
    """So many texts of 64 tokens."""
    coder, drawn = autoencoder().eval(), diffusion().eval()
    drawn.measured.fill_(1)
    blank = torch.randn(FEATURES)
    as_many = numbers(drawn, coder.decoder, coder.head)
    layer = 16 * FEATURES**2
    config = LlamaConfig(
        vocab_size=WORDS, hidden_size=FEATURES, intermediate_size=4 * FEATURES, num_attention_heads=HEADS,
        num_hidden_layers=max(1, round((as_many - WORDS * FEATURES) / layer)), max_position_embeddings=TOKENS,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=None, pad_token_id=1,
    )  # fmt: skip
    network = LlamaForCausalLM(config).eval()
    begin = torch.zeros(texts, 1, dtype=torch.int64)

    def ours(count: int) -> Step:
        def write() -> None:
            with torch.no_grad():
                coder.written_of(drawn.sample(texts, seed=0, steps=count), blank)

        return write

    def by_tokens() -> None:
        with torch.no_grad():
            network.generate(
                begin, attention_mask=torch.ones_like(begin), do_sample=True, use_cache=True,
                min_new_tokens=TOKENS - 1, max_new_tokens=TOKENS - 1,
            )  # fmt: skip

    figures = turns({**{f"{count} steps": ours(count) for count in STEPS}, "tokens": by_tokens}, rounds)
    fast = rate()
    once = texts * LATENTS * sum(p.numel() for p in drawn.network.parameters() if p.ndim == 2)
    last = (
        texts * TOKENS * sum(p.numel() for p in (*coder.decoder.parameters(), *coder.head.parameters()) if p.ndim == 2)
    )
    for count in STEPS:
        one = figures[f"{count} steps"]
        floor_ms = 1e3 * (count * once + last) / fast
        one |= {
            "network_evaluations": count,
            "floor_ms": round(floor_ms, 2),
            "share_of_floor": round(floor_ms / one["ms"], 3),
            "times_faster_than_tokens": round(figures["tokens"]["ms"] / one["ms"], 2),
        }
        print(count, one, flush=True)
    print("tokens", figures["tokens"], flush=True)
    figures["tokens"]["million_numbers"] = round(numbers(network) / 1e6, 2)
    figures["numbers"] = {"ours_million": round(as_many / 1e6, 2)}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("steps", "writing"), default=["steps", "writing"])
    parser.add_argument("--precision", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    missing: dict[str, str] = {}
    trained = steps(options.precision, options.rounds, missing) if "steps" in options.parts else {}
    written = writing(options.rounds, options.texts) if "writing" in options.parts else {}
    by_tokens = written.pop("tokens", None)
    result = {
        "work": f"a training step of {BATCH} texts of {TOKENS} tokens; {options.texts} texts of {TOKENS} tokens written at once",
        "ours": {**{name: each["ours"] for name, each in trained.items()}, **written},
        "peers": {
            **({PEER: {name: each[PEER] for name, each in trained.items() if PEER in each}} if trained else {}),
            **({BY_TOKENS: by_tokens} if by_tokens else {}),
        },
        "ratio": {
            **{
                name: {key: round(each["ours"][key] / each[PEER][key], 3) for key in ("ms", "cpu_ms")}
                for name, each in trained.items()
                if PEER in each
            },
            **{name: one["times_faster_than_tokens"] for name, one in written.items() if name != "numbers"},
        },
        "floor": {name: one["floor_ms"] for name, one in written.items() if "floor_ms" in one},
        "missing": missing,
        "threads": options.threads,
        "command": machine.command(),
        "versions": {p: version(p) for p in ("hourglass-ai", "torch", "transformers")},
        "machine": {**machine.describe(), "capability": torch.backends.cpu.get_cpu_capability()},
    }
    write_json(options.out, result)


if __name__ == "__main__":
    main()
