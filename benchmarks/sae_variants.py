"""Every kind of sparse autoencoder on the same real rows: how much is left unexplained at how many active latents, and
what a step costs, against the libraries that have the kind.

    python benchmarks/sae_variants.py [--peer-python saelens=/opt/a/bin/python dictionary_learning=/opt/a/bin/python]
    python benchmarks/sae_variants.py --again               measure the cost anew; qualities are kept

Rows are token states of MiniLM over docstrings of the installed packages; documents of the held-out rows are not trained
on. Batch 1024, width 2048, one thread, the same number of steps and the same schedule for all; a process for each run.

quality   FVU, L0 and dead latents on held-out rows, at each of the L0s: as `k` where the kind has one, else as
          `target_l0`. The learning rate is chosen per kind from a grid at the middle L0, by FVU on validation rows
          (kinds without k: among the rates that come within a tenth of the target)
cost      CPU time per step at the middle L0, as in sae_training.py. Peers without a target take the price that they come
          with: theirs is dense arithmetic, whose time does not depend on it
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import statistics
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import machine
import numpy as np
from sae_training import BATCH, DISTRIBUTIONS, WARM, answering, ask, batches, cost

RESULT = Path(__file__).parent / "results" / "sae_variants.json"
WIDTH, LEVELS, MIDDLE = 2048, (8, 16, 32, 64), 32
RATES = (1e-3, 3e-3, 1e-2)
KINDS = ("topk", "abstopk", "batchtopk", "matryoshka", "relu", "gated", "jumprelu")
WITH_K = KINDS[:4]
PREFIXES = (0.25, 0.5, 1.0)
PEERS = {
    "saelens": KINDS,
    "dictionary_learning": ("topk", "batchtopk", "matryoshka", "relu", "gated", "jumprelu"),
    "sparsify": ("topk",),
}


# The rows ------------------------------------------------------------------------------------------------


def prepare(folder: Path, train: int, check: int) -> str:
    """Write train.npy, validation.npy and test.npy, each of documents of its own; returns what they are."""
    from hourglass.adapters.huggingface import HuggingFaceReader
    from hourglass.data import open_texts

    reader = HuggingFaceReader("minilm")
    texts = [t for batch in open_texts("docstrings:").batches() for t in batch.column("text").to_pylist() if t.strip()]
    np.random.default_rng(0).shuffle(texts)
    position = 0
    for split, wanted in (("validation", check), ("test", check), ("train", train)):
        parts: list[Any] = []
        while sum(map(len, parts)) < wanted:
            if position >= len(texts):
                sys.exit(f"the docstrings have fewer tokens than the {train + 2 * check} that are needed")
            parts.append(reader.read(texts[position : position + 500]).states.float().numpy())
            position += 500
        np.save(folder / f"{split}.npy", np.concatenate(parts)[:wanted])
    return f"MiniLM token states of {position} docstrings: {train} rows to train on, {check} to measure on"


# One run, in a process of its own -----------------------------------------------------------------------------


def ours(x: Any, kind: str, level: int, rate: float, steps: int) -> Any:
    import torch

    from hourglass.bottlenecks.sparse import SparseAutoencoder, SparseAutoencoderConfig
    from hourglass.training import TrainConfig, fit

    torch.manual_seed(0)
    sparsity = {"k": level} if kind in WITH_K else {"target_l0": float(level)}
    chosen = {"d_in": x.shape[1], "width": WIDTH, "activation": kind, **sparsity}
    if kind == "matryoshka":
        chosen["prefixes"] = PREFIXES
    model = SparseAutoencoder(SparseAutoencoderConfig.from_dict(chosen))
    config = TrainConfig(steps=steps, batch_size=BATCH, lr=rate, schedule="wsd", warmup=0.05, decay=0.2)
    fit(model, x, config, progress=False)
    return model


def saelens(x: Any, kind: str, level: int, rate: float, steps: int) -> Any:
    import sae_lens
    from sae_lens.config import SAETrainerConfig

    name = {
        "topk": "TopK",
        "abstopk": "AbsTopK",
        "batchtopk": "BatchTopK",
        "matryoshka": "MatryoshkaBatchTopK",
        "relu": "Standard",
        "gated": "Gated",
        "jumprelu": "JumpReLU",
    }[kind]
    settings: dict[str, Any] = {"d_in": x.shape[1], "d_sae": WIDTH, "device": "cpu"}
    if kind in WITH_K:
        settings["k"] = level
    if kind == "matryoshka":
        settings["matryoshka_widths"] = [int(share * WIDTH) for share in PREFIXES]
    model = getattr(sae_lens, f"{name}TrainingSAE")(getattr(sae_lens, f"{name}TrainingSAEConfig")(**settings))
    config = SAETrainerConfig(
        total_training_samples=steps * BATCH,
        train_batch_size_samples=BATCH,
        lr=rate,
        lr_end=rate / 10,
        lr_warm_up_steps=1,
        lr_decay_steps=1,
        device="cpu",
        dead_feature_window=100,
        logger=sae_lens.LoggingConfig(log_to_wandb=False),
    )
    sae_lens.SAETrainer(cfg=config, sae=model, data_provider=batches(x)).fit()


def dictionary_learning(x: Any, kind: str, level: int, rate: float, steps: int) -> Any:
    from dictionary_learning.training import trainSAE

    module, name = {
        "topk": ("top_k", "TopKTrainer"),
        "batchtopk": ("batch_top_k", "BatchTopKTrainer"),
        "matryoshka": ("matryoshka_batch_top_k", "MatryoshkaBatchTopKTrainer"),
        "relu": ("standard", "StandardTrainer"),
        "gated": ("gdm", "GatedSAETrainer"),
        "jumprelu": ("jumprelu", "JumpReluTrainer"),
    }[kind]
    trainer: dict[str, Any] = {
        "trainer": getattr(importlib.import_module(f"dictionary_learning.trainers.{module}"), name),
        "steps": steps,
        "activation_dim": x.shape[1],
        "dict_size": WIDTH,
        "layer": 0,
        "lm_name": "none",
        "lr": rate,
        "warmup_steps": 1,
        "device": "cpu",
        "seed": 0,
    }
    if kind in WITH_K:
        trainer["k"] = level
    else:
        trainer["sparsity_warmup_steps"] = None if kind == "jumprelu" else 1
    if kind == "jumprelu":
        trainer |= {"target_l0": float(level), "sparsity_warmup_steps": 1}
    if kind == "matryoshka":
        trainer["group_fractions"] = np.diff(PREFIXES, prepend=0.0).tolist()
    trainSAE(data=batches(x), trainer_configs=[trainer], steps=steps, device="cpu", use_wandb=False)


def sparsify(x: Any, kind: str, level: int, rate: float, steps: int) -> Any:
    import sae_training

    sae_training.sparsify(x, WIDTH, rate, steps)


LIBRARIES = {"ours": ours, "saelens": saelens, "dictionary_learning": dictionary_learning, "sparsify": sparsify}


def measure(library: str, kind: str, level: int, rate: float, steps: int, folder: Path) -> dict[str, Any]:
    """Cost per step when `steps` is 0, else quality of ours after so many steps."""
    import torch

    x = torch.from_numpy(np.load(folder / "train.npy"))
    if steps == 0:
        train = LIBRARIES[library]
        return dict(cost(lambda count: train(x[: WARM * BATCH], kind, level, rate, count)))
    from hourglass.metrics.autoencoders import measure_sae

    model = ours(x, kind, level, rate, steps)
    found = {split: measure_sae(model, np.load(folder / f"{split}.npy")) for split in ("validation", "test")}
    return {split: {key: found[split][key] for key in ("fvu", "l0", "dead_share")} for split in found}


def worker(arguments: argparse.Namespace) -> None:
    library, kind, level, rate, steps = arguments.worker
    with answering(threads=1) as answer:
        found = measure(library, kind, int(level), float(rate), int(steps), arguments.folder)
        with contextlib.suppress(PackageNotFoundError):
            found["version"] = version(DISTRIBUTIONS[library])
        answer(found)


# All runs ------------------------------------------------------------------------------------------------


def compare(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    pythons = dict.fromkeys(LIBRARIES, sys.executable)
    pythons.update(pair.split("=", 1) for pair in arguments.peer_python)

    def run(library: str, kind: str, level: int, rate: float, steps: int) -> dict[str, Any]:
        command = [pythons[library], str(Path(__file__).resolve()), "--folder", str(folder), "--worker"]
        command += [library, kind, str(level), str(rate), str(steps)]
        return ask(command, threads=1)

    if arguments.again:
        before = json.loads(arguments.out.read_text(encoding="utf-8"))
        what, mine = prepare(folder, WARM * BATCH, BATCH) and before["work"]["rows"], before["ours"]
    else:
        what = prepare(folder, arguments.rows, arguments.rows // 8)
        mine = {kind: quality(run, kind, arguments.steps) for kind in KINDS}
    rounds: dict[tuple[str, str], list[float]] = {}
    peers: dict[str, dict[str, Any]] = {name: {} for name in PEERS}
    for _ in range(arguments.rounds):
        for kind in KINDS:
            for name in ("ours", *(peer for peer, kinds in PEERS.items() if kind in kinds)):
                found = run(name, kind, MIDDLE, mine[kind]["lr"], 0)
                if "error" in found:
                    peers[name][kind] = found
                    continue
                rounds.setdefault((name, kind), []).append(found["cpu_ms"])
                entry = mine[kind] if name == "ours" else peers[name].setdefault(kind, {})
                entry |= {"cpu_ms": statistics.median(rounds[name, kind]), "version": found.get("version")}
    ratio = {
        name: {kind: mine[kind]["cpu_ms"] / entry["cpu_ms"] for kind, entry in of.items() if "cpu_ms" in entry}
        for name, of in peers.items()
    }
    for kind in KINDS:
        points = "  ".join(f"{level}: {p['fvu']:.3f} at {p['l0']:.1f}" for level, p in mine[kind]["levels"].items())
        print(
            f"{kind:<11} {mine[kind]['cpu_ms']:6.1f} ms  {points}  ours/theirs {[of.get(kind) for of in ratio.values()]}"
        )
    return {
        "work": {
            "what": "FVU at L0 on held-out rows, and CPU time per step, of each kind",
            "rows": what,
            "width": WIDTH,
            "batch": BATCH,
            "steps": arguments.steps,
            "threads": 1,
        },
        "ours": mine,
        "peers": peers,
        "ratio": ratio,
        "floor": {},
        "command": "python benchmarks/sae_variants.py",
        "versions": {"numpy": np.__version__},
        "machine": machine.describe(),
    }


def quality(run: Any, kind: str, steps: int) -> dict[str, Any]:
    """The learning rate that serves a kind best, and what is left unexplained at each L0 with it."""
    tried = {rate: run("ours", kind, MIDDLE, rate, steps) for rate in RATES}
    for rate, found in tried.items():
        if "error" in found:
            sys.exit(f"{kind} at lr {rate}: {found['error']}")
    near = [r for r in tried if abs(tried[r]["validation"]["l0"] / MIDDLE - 1) < 0.1] or list(tried)
    rate = min(near, key=lambda r: tried[r]["validation"]["fvu"])
    levels = {
        str(level): tried[rate]["test"] if level == MIDDLE else run("ours", kind, level, rate, steps)["test"]
        for level in LEVELS
    }
    print(kind, rate, levels, flush=True)
    return {
        "lr": rate,
        "validation_fvu_by_lr": {f"{r:g}": tried[r]["validation"]["fvu"] for r in tried},
        "levels": levels,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=131_072, help="to train on; an eighth as many to measure on")
    parser.add_argument("--steps", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=3, help="timings of each library")
    parser.add_argument("--peer-python", nargs="+", default=[], metavar="NAME=PATH", help="python that has the peer")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--again", action="store_true", help="time anew what the file OUT has the qualities of")
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return worker(arguments)
    with tempfile.TemporaryDirectory() as folder:
        result = compare(arguments, Path(folder))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
