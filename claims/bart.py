"""Which noise a BART learns most from, for writing afterwards.

    hourglass claim bart

Everything below up to `measure` was written before anything was measured.

A model of 2 + 2 layers is trained on docstrings under each noise, with the same texts, steps and batches, and is then tuned to write a
docstring's first line, its summary, from the rest. Measured is the perplexity of the summaries of docstrings that were in neither, with
the weights of the step that was best on a development split. The paper's measure for writing is the same, and its order of the
noises on CNN/DailyMail (perplexity, base size, table 1): infilling with shuffling 5.41, infilling 5.83, deletion 5.87, token
masking 6.10, shuffling 7.89, rotation 10.59.

A figure is minus nats per token of the summaries, so that more is better; a unit is a twentieth of the test split. The
noises' own reconstruction losses are not compared: some noise is easier to undo.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from claims.base import Claim, Row
from claims.shared.docstrings import docstrings

from hourglass.adapters.tokenizers import train_tokenizer
from hourglass.systems.bart import Bart, BartConfig
from hourglass.systems.bart_parts import Writer
from hourglass.training import Callback, TrainConfig, fit

PUBLIC_DATA = False
SEEDS = {"smoke": (0,), "laptop": (0, 1, 2), "full": (0, 1, 2, 3, 4)}
SEEDS_APART = True
PRETRAINED = {"smoke": 200, "laptop": 12_000, "full": 40_000}
TUNED = {"smoke": 40, "laptop": 2000, "full": 8000}
HELD_OUT = {"smoke": 40, "laptop": 500, "full": 2000}
"""Pairs to test on, and as many to choose the step by."""
STEPS = {"smoke": (4, 4), "laptop": (2000, 600), "full": (10_000, 2000)}
"""Before and while tuning."""
CHECK_EVERY = {"smoke": 2, "laptop": 100, "full": 100}
WIDTH, LAYERS, HEADS, VOCABULARY, LONGEST = 96, 2, 3, 2000, 64
GROUPS = 20

_DATA = "docstrings of the installed packages, no summary twice"
_SPLIT = "documents to learn from, pairs to tune by, to choose the step by and to test on, drawn by the seed, apart"
_METRIC = "minus nats per token of the summary given the body"


def _claim(statement: str, baseline: str) -> Claim:
    return Claim(
        paper="bart",
        statement=statement,
        data=_DATA,
        split=_SPLIT,
        metric=_METRIC,
        baseline=baseline,
        direction="ours is higher",
        margin=0.0,
    )


PAIRS = {
    "infill_over_shuffle": ("infill", "shuffle"),
    "infill_over_rotate": ("infill", "rotate"),
    "infill_over_mask": ("infill", "mask"),
    "infill_over_delete": ("infill", "delete"),
    "both_over_infill": ("infill+shuffle", "infill"),
    "infill_over_none": ("infill", "none"),
}
"""Claim to (ours, baseline)."""
CLAIMS = {
    "infill_over_shuffle": _claim("Infilling teaches more than shuffling sentences alone", "shuffling alone"),
    "infill_over_rotate": _claim("Infilling teaches more than rotation alone", "rotation alone"),
    "infill_over_mask": _claim("Infilling teaches more than masking single tokens", "token masking"),
    "infill_over_delete": _claim("Infilling teaches more than deleting tokens", "token deletion"),
    "both_over_infill": _claim("Shuffling sentences beside infilling teaches more than infilling alone", "infilling"),
    "infill_over_none": _claim("Infilling teaches more than no training before", "no pre-training"),
}
ARMS = tuple(dict.fromkeys(arm for pair in PAIRS.values() for arm in pair))


def measure(data: Path | None, seeds: Sequence[int], budget: str) -> list[Row]:
    """A row a claim, seed and twentieth of the test split."""
    rows = []
    for seed in seeds:
        split = _split(budget, seed)
        with tempfile.TemporaryDirectory() as folder:
            found = {}
            for arm in ARMS:
                found[arm] = _arm(arm, split, seed, budget, Path(folder) / arm)
                print(f"seed {seed}, {arm}: {sum(found[arm]) / len(found[arm]):.4f}", file=sys.stderr, flush=True)
        for part, (ours, baseline) in PAIRS.items():
            for group, (a, b) in enumerate(zip(found[ours], found[baseline])):
                rows.append(Row(part=part, unit=f"group {group}", seed=seed, ours=a, baseline=b))
    return rows


def _split(budget: str, seed: int) -> dict[str, Any]:
    """Documents to learn from, and (body, summary) pairs in three parts."""
    number = PRETRAINED[budget] + 8 * (TUNED[budget] + 2 * HELD_OUT[budget])
    seen: dict[str, tuple[str, str]] = {}
    for text in docstrings(number):
        summary, _, body = (part.strip() for part in text.strip().partition("\n"))
        seen.setdefault(summary.lower(), (body, summary))
    known = list(seen.values())
    random.Random(seed).shuffle(known)
    pairs = [pair for pair in known if len(pair[0].split()) >= 12 and 3 <= len(pair[1].split()) <= 20]
    sizes = TUNED[budget], HELD_OUT[budget], HELD_OUT[budget]
    pairs = pairs[: sum(sizes)]
    chosen = set(pairs)
    documents = [f"{summary} {body}" for body, summary in known if (body, summary) not in chosen]
    return {
        "documents": documents[: PRETRAINED[budget]],
        "tune": pairs[: sizes[0]],
        "dev": pairs[sizes[0] : sizes[0] + sizes[1]],
        "test": pairs[sizes[0] + sizes[1] :],
    }


def _arm(arm: str, split: dict[str, Any], seed: int, budget: str, folder: Path) -> list[float]:
    """Minus nats per token in each twentieth of the test split."""
    before, steps = STEPS[budget]
    tokenizer = train_tokenizer(split["documents"], VOCABULARY, "bpe")
    network = {
        **BartConfig.presets["tiny"]["network"],
        "d_model": WIDTH,
        **{f"{part}_layers": LAYERS for part in ("encoder", "decoder")},
        **{f"{part}_attention_heads": HEADS for part in ("encoder", "decoder")},
        **{f"{part}_ffn_dim": 4 * WIDTH for part in ("encoder", "decoder")},
    }
    noise = "infill" if arm == "none" else arm
    torch.manual_seed(seed)
    config = BartConfig(network=network, max_tokens=LONGEST, noise=noise, sentences="text")  # type: ignore[arg-type]
    model = Bart(config, tokenizer)
    if arm != "none":
        train = TrainConfig(
            steps=before, batch_size=32, lr=1e-3, weight_decay=0.01, schedule="linear", seed=seed, precision="auto"
        )
        fit(model, split["documents"], train, progress=False)
    model.save_pretrained(folder)
    writer = Writer.from_folder(folder, max_tokens=LONGEST, label_smoothing=0.0)
    best = _Best(writer, split["dev"])
    tune = TrainConfig(
        steps=steps,
        batch_size=32,
        lr=5e-4,
        weight_decay=0.01,
        schedule="constant",
        seed=seed,
        precision="auto",
        log_every=CHECK_EVERY[budget],
    )
    fit(writer, split["tune"], tune, callbacks=[best], progress=False)
    writer.load_state_dict(best.weights)
    size = -(-len(split["test"]) // GROUPS)
    groups = [split["test"][i : i + size] for i in range(0, len(split["test"]), size)]
    return [-float(torch.tensor(writer.perplexity(group)).log()) for group in groups]


class _Best(Callback):
    """Keeps the weights that have the lowest perplexity on the development split."""

    def __init__(self, writer: Writer, dev: Sequence[tuple[str, str]]) -> None:
        self.writer, self.dev, self.lowest = writer, dev, float("inf")
        self.weights: dict[str, torch.Tensor] = {}

    def on_step(self, step: int, record: dict[str, Any]) -> None:
        perplexity = self.writer.perplexity(self.dev)
        self.writer.train()
        if perplexity < self.lowest:
            self.lowest = perplexity
            self.weights = {name: tensor.clone() for name, tensor in self.writer.state_dict().items()}
