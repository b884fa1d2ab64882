"""What a training step of a sparse autoencoder costs, and what it buys, against the libraries people use.

    python benchmarks/sae_training.py                       every peer that the running python can import
    python benchmarks/sae_training.py --peer-python saelens=/opt/a/bin/python sparsify=/opt/a/bin/python
    python benchmarks/sae_training.py --rows states.npy     real rows [N, d] instead of simulated ones
    python benchmarks/sae_training.py --again               measure the cost anew; qualities, which take long, are kept
    python benchmarks/sae_training.py --again --rates 5e-3  the same, and a rate more for everyone
    python benchmarks/sae_training.py --quick               one small width, a minute

Same rows, batch 1024, k 32, one thread, the same number of steps for all; every measurement in a process of its own.

cost      CPU time (user + system) of `TIMED` steps less that of `WARM` steps, per step, so that start-up, first
          compilation and initialisation cancel; the libraries take turns, the median of the rounds counts
quality   FVU on held-out rows after `--steps` steps. The learning rate is chosen per library and width from one grid,
          by the FVU on validation rows; every library that offers it warms up over 5 % and decays over the last 20 %
equal     where a library has the lower FVU after as many steps: how many ours takes to be there, a sixth more at a time, and what
          that costs; with --again --rounds 0 of qualities and costs that are kept
floor     operations and bytes that a step cannot do without, and their time at the speed this machine measures; and the
          share of the measured bfloat16 rate at which ours does the operations
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np

BATCH, K = 1024, 32
WARM, TIMED = 8, 40
TRAIN_ROWS, CHECK_ROWS = 32_768, 8_192
DEFAULTS: dict[str, Any] = {
    "widths": [2048, 8192],
    "rates": [3e-3, 1e-2, 3e-2],
    "only": [],
    "steps": 96,
    "rounds": 3,
}
DISTRIBUTIONS = {
    "ours": "hourglass-ai",
    "saelens": "sae-lens",
    "dictionary_learning": "dictionary-learning",
    "sparsify": "eai-sparsify",
    "hypothesaes": "hypothesaes",
}
RESULT = Path(__file__).parent / "results" / "sae_training.json"

# The data ------------------------------------------------------------------------------------------------


def prepare(folder: Path, source: Path | None, d: int) -> tuple[int, str]:
    """Write train.npy, validation.npy and test.npy; returns the width of a row and a description."""
    wanted = TRAIN_ROWS + 2 * CHECK_ROWS
    if source is None:
        from hourglass.data.simulated import simulated_rows

        x, what = simulated_rows(wanted, d=d).rows, "1024 unit atoms with power-law use, 12 per row, noise 0.02"
    else:
        states = np.load(source, mmap_mode="r")
        if len(states) < wanted:
            sys.exit(f"{source}: {len(states)} rows; at least {wanted} are needed")
        chosen = np.sort(np.random.default_rng(0).choice(len(states), wanted, replace=False))
        x, what = np.asarray(states[chosen], dtype=np.float32), f"{wanted} rows of {source.name}"
        np.random.default_rng(1).shuffle(x)
    np.save(folder / "train.npy", x[:TRAIN_ROWS])
    np.save(folder / "validation.npy", x[TRAIN_ROWS : TRAIN_ROWS + CHECK_ROWS])
    np.save(folder / "test.npy", x[TRAIN_ROWS + CHECK_ROWS :])
    return x.shape[1], what


# The libraries: train on X for a number of steps, return x -> (reconstruction, active [n, width] bool) ----------

Model = Callable[[Any], tuple[Any, Any]]


def batches(x: Any) -> Iterator[Any]:
    """Shuffled epochs without end."""
    import torch

    generator = torch.Generator().manual_seed(0)
    while True:
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            if len(rows) == BATCH:
                yield x[rows]


def warm_up(steps: int) -> int:
    return max(1, steps // 20)


def decay(steps: int) -> int:
    return steps // 5


def ours(x: Any, width: int, rate: float, steps: int) -> Model:
    import torch

    from hourglass.bottlenecks.sparse import SparseAutoencoder, SparseAutoencoderConfig
    from hourglass.training import TrainConfig, fit

    torch.manual_seed(0)
    model = SparseAutoencoder(SparseAutoencoderConfig(d_in=x.shape[1], width=width, k=K))
    config = TrainConfig(steps=steps, batch_size=BATCH, lr=rate, schedule="wsd", warmup=0.05, decay=0.2)
    fit(model, x, config, progress=False)

    def apply(rows: Any) -> tuple[Any, Any]:
        codes = model.codes(rows)
        return model.decode(codes), codes.to_dense() > 0

    return apply


def saelens(x: Any, width: int, rate: float, steps: int) -> Model:
    from sae_lens import LoggingConfig, SAETrainer, TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig

    model = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=x.shape[1], d_sae=width, k=K, device="cpu"))
    config = SAETrainerConfig(
        total_training_samples=steps * BATCH,
        train_batch_size_samples=BATCH,
        lr=rate,
        lr_end=rate / 10,
        lr_warm_up_steps=warm_up(steps),
        lr_decay_steps=decay(steps),
        device="cpu",
        dead_feature_window=100,
        logger=LoggingConfig(log_to_wandb=False),
    )
    SAETrainer(cfg=config, sae=model, data_provider=batches(x)).fit()

    def apply(rows: Any) -> tuple[Any, Any]:
        codes = model.encode(rows)
        return model.decode(codes), codes > 0

    return apply


def dictionary_learning(x: Any, width: int, rate: float, steps: int) -> Model:
    from dictionary_learning.dictionary import AutoEncoder  # noqa: F401  (fails early where a dependency is missing)
    from dictionary_learning.trainers.top_k import AutoEncoderTopK, TopKTrainer
    from dictionary_learning.training import trainSAE

    trainer = {
        "trainer": TopKTrainer,
        "steps": steps,
        "activation_dim": x.shape[1],
        "dict_size": width,
        "k": K,
        "layer": 0,
        "lm_name": "none",
        "lr": rate,
        "warmup_steps": warm_up(steps),
        "decay_start": steps - decay(steps),
        "device": "cpu",
        "seed": 0,
    }
    with tempfile.TemporaryDirectory() as folder:
        trainSAE(
            data=batches(x), trainer_configs=[trainer], steps=steps, save_dir=folder, device="cpu", use_wandb=False
        )
        model = AutoEncoderTopK.from_pretrained(Path(folder) / "trainer_0" / "ae.pt", device="cpu")

    def apply(rows: Any) -> tuple[Any, Any]:
        codes = model.encode(rows)
        return model.decode(codes), codes > 0

    return apply


def sparsify(x: Any, width: int, rate: float, steps: int) -> Model:
    os.environ["SPARSIFY_DISABLE_TRITON"] = "1"
    import torch
    from sparsify import SparseCoder, SparseCoderConfig

    torch.manual_seed(0)
    model = SparseCoder(x.shape[1], SparseCoderConfig(num_latents=width, k=K))
    stream = batches(x)
    model.b_dec.data = next(stream).mean(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / warm_up(steps), 1.0, (steps - s) / max(1, decay(steps)))
    )
    for _, batch in zip(range(steps), stream):
        model.set_decoder_norm_to_unit_norm()
        optimizer.zero_grad()
        model(batch).fvu.backward()
        model.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        schedule.step()
    model.set_decoder_norm_to_unit_norm()

    def apply(rows: Any) -> tuple[Any, Any]:
        out = model(rows)
        active = torch.zeros(len(rows), width, dtype=torch.bool)
        return out.sae_out, active.scatter_(1, out.latent_indices, out.latent_acts > 0)

    return apply


def hypothesaes(x: Any, width: int, rate: float, steps: int) -> Model:
    import torch
    from hypothesaes.sae import SparseAutoencoder

    torch.manual_seed(0)
    model = SparseAutoencoder(x.shape[1], width, K, device="cpu")
    epochs, left = divmod(steps * BATCH, len(x))
    if left:
        sys.exit(f"{steps} steps are not whole epochs of {len(x)} rows, which is all that hypothesaes can train")
    model.fit(x, batch_size=BATCH, learning_rate=rate, n_epochs=epochs, show_progress=False)
    model.eval()

    def apply(rows: Any) -> tuple[Any, Any]:
        reconstruction, information = model(rows)
        return reconstruction, information["activations"] > 0

    return apply


LIBRARIES: dict[str, Callable[[Any, int, float, int], Model]] = {
    "ours": ours,
    "saelens": saelens,
    "dictionary_learning": dictionary_learning,
    "sparsify": sparsify,
    "hypothesaes": hypothesaes,
}

# One measurement, in a process of its own ---------------------------------------------------------------------


def clock() -> tuple[float, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, time.perf_counter()


def cost(train: Callable[[int], Any]) -> dict[str, float]:
    """What a step costs of a training that takes so many; the first run loads and compiles."""
    spent = {}
    for label, count in (("first", WARM), ("short", WARM), ("long", TIMED)):
        before = clock()
        train(count)
        spent[label] = [after - b for after, b in zip(clock(), before)]
    cpu, wall = (1e3 * (b - a) / (TIMED - WARM) for a, b in zip(spent["short"], spent["long"]))
    return {"cpu_ms": cpu, "wall_ms": wall, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def measure(library: str, folder: Path, width: int, rate: float, steps: int) -> dict[str, float]:
    """Cost per step when `steps` is 0, else quality after `steps` steps."""
    import torch

    train = LIBRARIES[library]
    x = torch.from_numpy(np.load(folder / "train.npy"))
    if steps == 0:
        return cost(lambda count: train(x[: WARM * BATCH], width, rate, count))
    model = train(x, width, rate, steps)
    result = {}
    for split in ("validation", "test"):
        rows = torch.from_numpy(np.load(folder / f"{split}.npy"))
        error, fired = 0.0, torch.zeros(width, dtype=torch.bool)
        with torch.no_grad():
            for part in rows.split(BATCH):
                reconstruction, active = model(part)
                error += float((reconstruction - part).double().square().sum())
                fired |= active.any(0)
        result[f"{split}_fvu"] = error / float((rows - rows.mean(0)).double().square().sum())
        result[f"{split}_dead"] = 1 - float(fired.float().mean())
    return result


def worker(arguments: argparse.Namespace) -> None:
    with answering(arguments.threads) as answer:
        result: dict[str, Any] = dict(
            measure(arguments.worker, arguments.folder, arguments.width, arguments.rate, arguments.steps)
        )
        result["versions"] = {"python": platform.python_version()}
        for name in ("torch", DISTRIBUTIONS[arguments.worker]):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                result["versions"][name] = importlib.metadata.version(name)
        answer(result)


@contextlib.contextmanager
def answering(threads: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """In a process of its own: what prints a result where `ask` reads it. What libraries print goes to stderr."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import torch

    torch.set_num_threads(threads)
    yield lambda result: print(json.dumps(result), file=answer, flush=True)


def ask(command: Sequence[str], threads: int) -> dict[str, Any]:
    """What a process of its own answers; {"error"} with its last line where it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1", "WANDB_MODE": "disabled"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


# All measurements --------------------------------------------------------------------------------------------


def floor(d: int, width: int, threads: int, cpu_ms: float) -> dict[str, float]:
    """What a step must do at least, the time of that at measured speeds of bf16 products and of copying, and the share
    of the former speed at which a step of `cpu_ms` does it."""
    import torch

    torch.set_num_threads(threads)
    a, b = torch.randn(BATCH, d).bfloat16(), torch.randn(width, d).bfloat16()
    big = torch.empty(16_000_000)

    def best(action: Callable[[], Any]) -> float:
        times = []
        for _ in range(7):
            start = time.process_time()
            action()
            times.append(time.process_time() - start)
        return min(times)

    flops = 2 * BATCH * d * width
    rate = flops / best(lambda: torch.nn.functional.linear(a, b))
    bandwidth = 2 * big.nbytes / best(lambda: big.clone())
    # Pre-activations once in bf16; decoding, slopes and two gradients for k pairs a row; the optimiser reads four
    # and writes three numbers per weight of two matrices, the encoder is cast once.
    pairs = 4 * 2 * BATCH * K * d
    moved = 2 * width * d * (7 * 4) + width * d * 6 + 2 * BATCH * width * 2
    return {
        "encoder_gflop": flops / 1e9,
        "sparse_gflop": pairs / 1e9,
        "moved_mb": moved / 1e6,
        "bf16_gflop_per_s": rate / 1e9,
        "copy_gb_per_s": bandwidth / 1e9,
        "ms": 1e3 * (flops / rate + moved / bandwidth),
        "share_of_bf16_rate": (flops + pairs) / (cpu_ms / 1e3) / rate,
    }


def kept(file: Path, timed: bool) -> dict[str, dict[str, dict[str, Any]]]:
    """The qualities of an earlier result by width and library, and what has been timed if `timed`."""
    result = json.loads(file.read_text(encoding="utf-8"))
    entries = {width: {"ours": ours, **result["peers"][width]} for width, ours in result["ours"].items()}
    for entry in (e for of_width in entries.values() for e in of_width.values() if "error" not in e):
        entry["rounds"] = entry["rounds"] if timed else []
    return entries


def command(arguments: argparse.Namespace) -> str:
    """What makes the result: the arguments that decide what is measured, without the paths of this machine."""
    said = ["python benchmarks/sae_training.py"]
    if arguments.rows:
        said.append(f"--rows {arguments.rows.name}")
    elif arguments.d != 384:
        said.append(f"--d {arguments.d}")
    for name, usual in DEFAULTS.items():
        chosen = getattr(arguments, name)
        if chosen != usual:
            values = chosen if isinstance(chosen, list) else [chosen]
            said += [f"--{name}", *(f"{value:g}" if isinstance(value, float) else str(value) for value in values)]
    if arguments.out != RESULT:
        said.append(f"--out {arguments.out.name}")
    return " ".join(said)


def run_worker(python: str, library: str, folder: Path, width: int, rate: float, steps: int, threads: int) -> Any:
    command = [python, str(Path(__file__).resolve()), "--worker", library, "--folder", str(folder)]
    command += ["--width", str(width), "--rate", str(rate), "--steps", str(steps), "--threads", str(threads)]
    return ask(command, threads)


def compare(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    d, what = prepare(folder, arguments.rows, arguments.d)
    pythons = dict.fromkeys(LIBRARIES, sys.executable)
    pythons.update(pair.split("=", 1) for pair in arguments.peer_python)
    names = [name for name in LIBRARIES if name == "ours" or not arguments.only or name in arguments.only]
    results = (
        kept(arguments.out, not arguments.rounds) if arguments.again else {str(width): {} for width in arguments.widths}
    )
    widths = [int(width) for width in results]

    def run(name: str, width: int, rate: float, steps: int) -> Any:
        return run_worker(pythons[name], name, folder, width, rate, steps, arguments.threads)

    for width in widths:
        for name in names:
            entry = results[str(width)].get(name, {"validation_fvu_by_lr": {}, "rounds": []})
            by_rate = entry.get("validation_fvu_by_lr", {})
            new = [rate for rate in arguments.rates if f"{rate:g}" not in by_rate]
            if "error" in entry or not new:
                continue
            tried = {rate: run(name, width, rate, arguments.steps) for rate in new}
            broken = next((r["error"] for r in tried.values() if "error" in r), None)
            if broken:
                results[str(width)][name] = {"error": broken}
                print(f"{width:>6} {name:<20} {broken}", flush=True)
                continue
            rate = min(tried, key=lambda r: tried[r]["validation_fvu"])
            chosen = tried[rate]
            if chosen["validation_fvu"] < min(by_rate.values(), default=float("inf")):
                entry |= {"lr": rate, "fvu": chosen["test_fvu"], "dead": chosen["test_dead"]}
            by_rate |= {f"{r:g}": tried[r]["validation_fvu"] for r in tried}
            results[str(width)][name] = {**entry, "versions": chosen["versions"]}
            listed = "  ".join(f"{r}: {fvu:.4f}" for r, fvu in by_rate.items())
            print(f"{width:>6} {name:<20} fvu {entry['fvu']:.4f}  dead {entry['dead']:.3f}  ({listed})", flush=True)
    for _ in range(arguments.rounds):
        for width in widths:
            for name, entry in results[str(width)].items():
                if "error" not in entry:
                    timed = run(name, width, entry["lr"], 0)
                    entry["rounds"].append({key: timed[key] for key in ("cpu_ms", "wall_ms", "peak_mb")})
    # With --again the command is the one that makes all of it at once.
    arguments.widths, arguments.rounds = widths, len(results[str(widths[0])]["ours"]["rounds"])
    arguments.rates = sorted({float(rate) for rate in results[str(widths[0])]["ours"]["validation_fvu_by_lr"]})
    ratio: dict[str, dict[str, Any]] = {}
    for width, entries in results.items():
        ratio[width] = {}
        for entry in entries.values():
            for key in ("cpu_ms", "wall_ms", "peak_mb"):
                if "error" not in entry:
                    entry[key] = statistics.median(r[key] for r in entry["rounds"])
        mine = entries["ours"]
        for name, entry in entries.items():
            if "error" not in entry:
                ratio[width][name] = {key: mine[key] / entry[key] for key in ("cpu_ms", "wall_ms", "peak_mb", "fvu")}
                steps, fvu = arguments.steps, mine["fvu"]
                while fvu > entry["fvu"] and steps < 2 * arguments.steps:
                    steps += arguments.steps // 6
                    fvu = run("ours", int(width), mine["lr"], steps)["test_fvu"]
                if steps > arguments.steps:
                    cost_of_equal = ratio[width][name]["cpu_ms"] * steps / arguments.steps
                    ratio[width][name]["equal"] = {"steps": steps, "fvu": fvu / entry["fvu"], "cpu": cost_of_equal}
                    print(
                        f"{width:>6} {name:<20} after {steps} steps of ours: {ratio[width][name]['equal']}", flush=True
                    )
                print(
                    f"{width:>6} {name:<20} {entry['cpu_ms']:8.1f} ms CPU  {entry['wall_ms']:8.1f} ms  "
                    f"{entry['peak_mb']:6.0f} MB  fvu {entry['fvu']:.4f}   ours/theirs: "
                    f"CPU {ratio[width][name]['cpu_ms']:.3f}  fvu {ratio[width][name]['fvu']:.3f}",
                    flush=True,
                )
    return {
        "work": {
            "what": "one training step of a TopK sparse autoencoder",
            "rows": what,
            "d_in": d,
            "widths": widths,
            "k": K,
            "batch": BATCH,
            "steps_for_fvu": arguments.steps,
            "threads": arguments.threads,
        },
        "ours": {width: entries["ours"] for width, entries in results.items()},
        "peers": {width: {n: e for n, e in entries.items() if n != "ours"} for width, entries in results.items()},
        "ratio": {width: {n: r for n, r in entries.items() if n != "ours"} for width, entries in ratio.items()},
        "floor": {
            width: floor(d, int(width), arguments.threads, entries["ours"]["cpu_ms"])
            for width, entries in results.items()
        },
        "command": command(arguments),
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "machine": machine.describe(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="width 2048, 32 steps, one rate, one round; writes nothing"
    )
    parser.add_argument("--rows", type=Path, help="a .npy file of rows [N, d] (float16 or float32)")
    parser.add_argument("--d", type=int, default=384, help="columns of simulated rows")
    parser.add_argument("--widths", type=int, nargs="+", default=DEFAULTS["widths"])
    parser.add_argument(
        "--rates", type=float, nargs="+", help="learning rates to choose from; with --again further ones"
    )
    parser.add_argument(
        "--steps", type=int, default=DEFAULTS["steps"], help="steps before FVU is measured; a multiple of 32"
    )
    parser.add_argument("--rounds", type=int, default=DEFAULTS["rounds"], help="timings of each library")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=sorted(LIBRARIES), default=DEFAULTS["only"], help="peers to run")
    parser.add_argument("--peer-python", nargs="+", default=[], metavar="NAME=PATH", help="python that has the peer")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--again", action="store_true", help="time anew what the file OUT has the qualities of")
    parser.add_argument("--worker", choices=sorted(LIBRARIES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--width", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return worker(arguments)
    if arguments.rates is None:
        arguments.rates = [] if arguments.again else DEFAULTS["rates"]
    if arguments.quick:
        arguments.widths, arguments.rates, arguments.steps, arguments.rounds = [2048], [3e-3], 32, 1
    with tempfile.TemporaryDirectory() as folder:
        result = compare(arguments, Path(folder))
    if not arguments.quick:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
