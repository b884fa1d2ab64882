"""Writing: tokens a second and keys and values of a model of sentences against transformers' generate of its network on tokens.

    python benchmarks/sentence_generation.py [--sizes small opt-125m] [--tokens 256] [--rounds 3] [--threads N] [--out FILE]

Both sides have the same network, new: the weights do not matter here. Ours has an encoder and a decoder of one layer around it.
Prompts are docstrings of the installed packages one after another; ours writes sentences as long as theirs are on average, and both
write the same number of tokens, the likeliest each time.

small      6 layers of 256, GPT-2's kind, 2,000 tokens
opt-125m   12 layers of 768, OPT's kind, 50,272 tokens

ours           sentences, with both caches
generate       transformers' generate(use_cache=True)
lookup         the same with prompt_lookup_num_tokens=10, which writes the same text in fewer passes
bare           a loop around the network with its cache and nothing else
floor          multiply-adds of a token, of the network on tokens and of ours (decoder, and a sentence's share of encoder and network)

A figure is the median over rounds, sides taking turns; the prompt's reading is apart (lookup's and generate's by a run of one token).
"""

from __future__ import annotations

import argparse
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import machine
import torch
from transformers.utils import logging

from hourglass.adapters.pretrained import build_network
from hourglass.adapters.tokenizers import train_tokenizer
from hourglass.adapters.vector_decoder import kv_bytes
from hourglass.data import open_texts
from hourglass.data.passages import SentenceCutter
from hourglass.data.sentences import ended
from hourglass.storage.atomic import write_json
from hourglass.systems.sentencevae import SentenceVAE, SentenceVAEConfig
from hourglass.uses.writing import kv_bytes_of_tokens, write_tokens

RESULT = Path(__file__).parent / "results" / "sentence_generation.json"
MOST_TOKENS = 32
SIZES: dict[str, dict[str, Any]] = {
    "small": {"model_type": "gpt2", "n_layer": 6, "n_embd": 256, "n_head": 4, "n_positions": 1024},
    "opt-125m": {
        "model_type": "opt",
        "num_hidden_layers": 12,
        "hidden_size": 768,
        "word_embed_proj_dim": 768,
        "ffn_dim": 3072,
        "num_attention_heads": 12,
        "vocab_size": 50_272,
    },
}
OURS, GENERATE, LOOKUP, BARE = "hourglass", "transformers generate", "transformers generate, prompt lookup", "bare loop"


def prompt_of(tokenizer: Any, texts: list[str], tokens: int) -> str:
    """Docstrings one after another, of about so many tokens."""
    text = ""
    for part in texts:
        text += ended(part)
        if len(tokenizer(text, add_special_tokens=False)["input_ids"]) >= tokens:
            break
    return text


def generate(network: Any, tokenizer: Any, prompt: str, tokens: int, **how: Any) -> tuple[float, float]:
    """(tokens a second without the prompt, seconds of the prompt)."""
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]])
    seconds = []
    for number in (1, tokens):
        began = time.perf_counter()
        network.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            use_cache=True,
            min_new_tokens=number,
            max_new_tokens=number,
            pad_token_id=tokenizer.pad_token_id,
            **how,
        )
        seconds.append(time.perf_counter() - began)
    return (tokens - 1) / (seconds[1] - seconds[0]), seconds[0]


def floor(model: SentenceVAE, words: int) -> dict[str, float]:
    """Millions of multiply-adds for each token that is written, products of matrices alone."""

    def weights(part: Any) -> int:
        return sum(
            p.numel()
            for name, p in part.named_parameters()
            if p.ndim == 2 and "embed" not in name and "wpe" not in name
        )

    network, encoder, decoder = map(weights, (model.network, model.encoder, model.decoder))
    head = model.decoder.head.weight.numel()
    # The cross-attention's two maps are once a sentence; little.
    return {
        "network_on_tokens": round((network + head) / 1e6, 2),
        "hourglass": round((decoder + encoder + network / words) / 1e6, 2),
    }


def compare(name: str, tokens: int, rounds: int, source: list[str]) -> dict[str, Any]:
    tokenizer = train_tokenizer(source, 2000, "bpe")
    torch.manual_seed(0)
    model = SentenceVAE(SentenceVAEConfig(network=SIZES[name], max_tokens=MOST_TOKENS), tokenizer).eval()
    model.learned.fill_(2)
    network = build_network(SIZES[name], "causal", tokenizer).eval()
    lengths = [
        len(ids) for row in SentenceCutter(tokenizer, "clause", MOST_TOKENS - 1).ids(source[:500]) for ids in row
    ]
    words = round(statistics.mean(lengths))
    prompt = prompt_of(tokenizer, source, 256)

    def ours() -> tuple[float, float]:
        made = model.write(prompt, tokens, words=words)
        return made.tokens_per_second, made.prompt_seconds

    def bare() -> tuple[float, float]:
        made = write_tokens(network, tokenizer, prompt, tokens)
        return made.tokens_per_second, made.prompt_seconds

    sides = {
        OURS: ours,
        GENERATE: lambda: generate(network, tokenizer, prompt, tokens),
        LOOKUP: lambda: generate(network, tokenizer, prompt, tokens, prompt_lookup_num_tokens=10),
        BARE: bare,
    }
    for side in sides.values():  # once before it counts
        side()
    taken: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    for turn in range(rounds):
        for side in list(sides) if turn % 2 == 0 else list(sides)[::-1]:
            taken[side].append(sides[side]())
    text = prompt_of(tokenizer, source, 512)
    read = len(text.encode())
    return {
        "words_of_a_sentence": words,
        "tokens_per_second": {side: round(statistics.median(t for t, _ in found), 1) for side, found in taken.items()},
        "prompt_seconds": {side: round(statistics.median(p for _, p in found), 4) for side, found in taken.items()},
        "ratio_range": {
            side: [round(f([a[0] / b[0] for a, b in zip(taken[OURS], taken[side])]), 2) for f in (min, max)]
            for side in (GENERATE, LOOKUP, BARE)
        },
        "kv_bytes_per_byte_of_text": {
            OURS: round(model.kv_bytes(text) / read, 1),
            GENERATE: round(kv_bytes_of_tokens(network, tokenizer, text) / read, 1),
        },
        "kv_bytes_of_a_position": kv_bytes(network.config),
        "floor": floor(model, words),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of torch; by default all cores")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    source = [t for b in open_texts("docstrings:").batches() for t in b.column("text").to_pylist() if t.strip()][:5000]
    runs = {name: compare(name, arguments.tokens, arguments.rounds, source) for name in arguments.sizes}
    key, kept = "tokens_per_second", "kv_bytes_per_byte_of_text"
    result = {
        "work": f"{arguments.tokens} tokens after a prompt of 256, batch 1, greedy, new weights; keys and values of a text of 512 tokens",
        "ours": {name: {key: run[key][OURS], kept: run[kept][OURS]} for name, run in runs.items()},
        "peers": {
            name: {**{f"{key}, {side}": v for side, v in run[key].items() if side != OURS}, kept: run[kept][GENERATE]}
            for name, run in runs.items()
        },
        "ratio": {
            name: {
                **{f"{key}, {side}": round(run[key][OURS] / v, 2) for side, v in run[key].items() if side != OURS},
                kept: round(run[kept][OURS] / run[kept][GENERATE], 3),
            }
            for name, run in runs.items()
        },
        "floor": {name: run["floor"] for name, run in runs.items()},
        "sizes": runs,
        "threads": torch.get_num_threads(),
        "command": machine.command(),
        "versions": {p: version(p) for p in ("hourglass-ai", "torch", "transformers")},
        "machine": {**machine.describe(), "capability": torch.backends.cpu.get_cpu_capability()},
    }
    write_json(arguments.out, result)
    for name, run in runs.items():
        print(
            f"{name}: tokens a second {run[key]}, ratio {run['ratio_range']}, keys and values {run[kept]}, floor {run['floor']}"
        )


if __name__ == "__main__":
    main()
