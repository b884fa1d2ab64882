"""Whether `target_l0` is reached on rows that were not trained on, and what is left unexplained there.

    python benchmarks/target_l0.py [--kinds jumprelu relu gated] [--widths 512 2048] [--targets 8 16 32 64] [--seeds 3]

Rows are token states of docstrings of the installed packages: MiniLM's after block 3 and its last ones, and those of a small
Llama with random weights, which no training has shaped. Each run trains and is calibrated as `fit sae` does it, on ROWS rows, and is
measured on rows of other documents. One thread. Each run is kept as soon as it is there, in the place of an earlier one like it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from hourglass.adapters.huggingface import HuggingFaceReader
from hourglass.bottlenecks.sparse import SparseAutoencoder, SparseAutoencoderConfig
from hourglass.bottlenecks.sparse.recipe import recipe
from hourglass.data import open_texts
from hourglass.metrics.autoencoders import measure_sae
from hourglass.storage.atomic import write_json
from hourglass.training import fit
from hourglass.uses.coders import hold_out

RESULT = Path(__file__).parent / "results" / "target_l0.json"
ROWS = 130_000
HELD_OUT = 60_000
CLOSE = 0.05
"""Share of the target by which the number of active latents may be off."""
SAME = ("states", "kind", "width", "target", "seed")


@cache
def texts(number: int) -> list[str]:
    """Random docstrings, the same for every call on the same packages."""
    found = [text for batch in open_texts("docstrings:").batches() for text in batch.column("text").to_pylist()]
    return [found[i] for i in np.random.default_rng(0).permutation(len(found))[:number]]


def random_llama(folder: Path) -> str:
    """A Llama of 4 blocks and 128 columns with random weights; a token is a byte."""
    signs = ["<s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({sign: i for i, sign in enumerate(signs)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", pad_token="<s>", model_max_length=256
    ).save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
    LlamaModel(LlamaConfig(vocab_size=len(signs), initializer_range=0.1, **size)).save_pretrained(folder)
    return str(folder)


def states(model: str, layer: int | None) -> tuple[np.ndarray, np.ndarray]:
    """(rows to learn from, rows of other documents), float16."""
    reader = HuggingFaceReader(model, layer=layer, max_tokens=256)
    parts: list[np.ndarray] = []
    documents = iter(texts(4000))
    while sum(map(len, parts)) < ROWS + HELD_OUT:
        parts.append(reader.read([next(documents) for _ in range(40)]).states.half().numpy())
    rows = np.concatenate(parts)
    return rows[:ROWS], rows[ROWS : ROWS + HELD_OUT]


def train(
    rows: np.ndarray, held_out: np.ndarray, kind: str, width: int, target: float, seed: int, **settings: Any
) -> dict[str, Any]:
    torch.manual_seed(seed)
    config = SparseAutoencoderConfig(
        d_in=rows.shape[1],
        width=width,
        activation=kind,
        target_l0=target,
        **settings,  # type: ignore[arg-type]
    )
    started = time.perf_counter()
    sae = SparseAutoencoder(config)
    learned, calibration = hold_out(config, rows)
    fit(sae, learned, recipe(config, len(rows), seed=seed), progress=False)
    sae.calibrate(torch.from_numpy(calibration).float())
    seconds = time.perf_counter() - started
    measured = measure_sae(sae, held_out)
    return {
        "kind": kind,
        "width": width,
        "target": target,
        "seed": seed,
        "l0": round(measured["l0"], 3),
        "off": round(measured["l0"] / target - 1, 4),
        "fvu": round(measured["fvu"], 4),
        "dead_share": round(measured["dead_share"], 4),
        "seconds": round(seconds, 1),
    }


def runs(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        places: dict[str, tuple[str, int | None]] = {
            "minilm 3": ("minilm", 3),
            "minilm last": ("minilm", None),
            "random llama 2": (random_llama(Path(folder)), 2),
        }
        read = {name: states(*place) for name, place in places.items() if name in options.states}
    for seed, width, name, target, kind in product(
        range(options.seeds), options.widths, read, options.targets, options.kinds
    ):
        yield {"states": name, **train(*read[name], kind, width, target, seed)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", nargs="+", default=["minilm 3", "minilm last", "random llama 2"])
    parser.add_argument("--kinds", nargs="+", default=["jumprelu", "relu", "gated"])
    parser.add_argument("--widths", nargs="+", type=int, default=[512, 2048])
    parser.add_argument("--targets", nargs="+", type=float, default=[8, 16, 32, 64])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept = json.loads(RESULT.read_text(encoding="utf-8"))["runs"] if RESULT.is_file() else []
    found = {tuple(run[name] for name in SAME): run for run in kept}
    for run in runs(options):
        print(*run.values(), flush=True)
        found[tuple(run[name] for name in SAME)] = run
        write(list(found.values()))


def write(found: list[dict[str, Any]]) -> None:
    off = [abs(run["off"]) for run in found]
    alike: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for run in found:
        setting = f"{run['states']}, width {run['width']}, target {run['target']:g}"
        alike.setdefault(run["kind"], {}).setdefault(setting, []).append(run)
    write_json(
        RESULT,
        {
            "work": f"autoencoders led to a target_l0 on {ROWS:,} token states, measured on {HELD_OUT:,} of other documents",
            "ours": {
                kind: {
                    setting: f"L0 {', '.join(str(run['l0']) for run in same)}; FVU {', '.join(str(run['fvu']) for run in same)}"
                    for setting, same in settings.items()
                }
                for kind, settings in alike.items()
            },
            "peers": {},
            "ratio": {"runs": len(off), "within_5_percent": sum(o <= CLOSE for o in off), "farthest_off": max(off)},
            "floor": {"bounds": "within 5 % of the target in every run"},
            "runs": found,
            "command": machine.command(),
            "versions": {p: version(p) for p in ("hourglass-ai", "torch", "transformers", "numpy")},
            "machine": machine.describe(),
        },
    )


if __name__ == "__main__":
    main()
