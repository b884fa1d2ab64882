"""The claim of FAST (Finetuning-aligned Sequential Training, Li et al. 2025), at laptop scale, at equal sparsity.

    hourglass claim fast_sae

Everything below up to `measure` was written before anything was measured.

A sparse autoencoder for a chat model learns from states of the second of three blocks (layer 1, counted from 0) of a small
chat model, which is itself made here (`claims/readers/chat.py`). What differs is which tokens it learns from and with what
before them:
    FAST    dialogues in the chat template, each read alone, from its first token
    BT(F)   the same dialogues one after another, cut into blocks
    BT(P)   plain text, documents one after another, cut into blocks
and, to tell flow from text, both packed in rows with a mask, so that no document sees another. Every flow gives as many
tokens, and every autoencoder has the same width, steps and learning rate; the rate is the one with the least error on
validation dialogues, mean over the three flows. It is then measured on test dialogues, of packages from which neither the
reader nor the autoencoder has seen anything, each read whole.

The figure is in bits, -log2(MSE / variance), so that a difference of 1 is half the error; the paper's tables, too, are
log2 of the MSE. MSE is the mean over columns, then tokens, then dialogues; on special tokens (<|im_start|>, <|im_end|>, user,
assistant) it is the paper's MSE_st. A reader is the unit: it has its own weights, its own split of the packages and its own
dialogues. Seeds are of the autoencoder.

Differences from the paper: TopK with 24 active latents first, so that no flow can win by activity; ReLU and JumpReLU are led
to 24 (the paper fixes their penalties and reports no activity), and what they come to is in each row.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from claims.base import Claim, Row
from claims.readers.chat import LONGEST, SPECIAL, Dialogue, chat_corpus, docstring_rows, fits, make_reader
from transformers import AutoTokenizer

from hourglass.adapters.dialogues import DialogueReader, TokenRows
from hourglass.bottlenecks.sparse import SparseAutoencoder, SparseAutoencoderConfig
from hourglass.data.dialogues import Documents, open_dialogues, text_documents
from hourglass.data.flows import Flow, read_flow
from hourglass.metrics.dialogues import measure_dialogues
from hourglass.training import TrainConfig, fit
from hourglass.training.randomness import seeded

Found = dict[str, Any]

PAPER = "fast-sae"
PUBLIC_DATA = False
LAYER, WIDTH, L0, BLOCK, BATCH = 2, 768, 24, 160, 512
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Size:
    """What a budget buys: readers and how they are made, tokens of a flow, steps of an autoencoder, dialogues to measure on."""

    readers: int
    docstrings: int
    steps: tuple[int, int]
    tokens: int
    sae_steps: int
    dialogues: int
    rates: tuple[float, ...]


SEEDS = {"smoke": (0, 1), "laptop": (0, 1, 2), "full": (0, 1, 2, 3, 4)}
SIZES = {
    "smoke": Size(2, 1200, (6, 3), 4000, 12, 30, (3e-3,)),
    "laptop": Size(3, 27_000, (700, 300), 200_000, 700, 400, (1e-3, 3e-3, 9e-3)),
    "full": Size(5, 60_000, (4000, 1500), 400_000, 4000, 1000, (1e-3, 3e-3, 9e-3)),
}
FLOWS = {
    "fast": ("dialogues", Flow()),
    "bt_f": ("dialogues", Flow(pack="blocks", block=BLOCK)),
    "bt_p": ("text", Flow(pack="blocks", block=BLOCK)),
    "masked_f": ("dialogues", Flow(pack="masked", block=4 * BLOCK)),
    "masked_p": ("text", Flow(pack="masked", block=4 * BLOCK)),
}
KINDS: dict[str, dict[str, Any]] = {
    "topk": {"k": L0},
    "relu": {"target_l0": float(L0)},
    "jumprelu": {"target_l0": float(L0)},
}

_claim = partial(
    Claim,
    paper=PAPER,
    data="docstrings of installed packages as text and as dialogues in ChatML",
    split="reader and autoencoder learn from other packages than those of the test dialogues; learning rate by validation dialogues of further ones",
    direction="higher is better",
)
SPECIAL_BITS = "-log2(MSE_st / variance), MSE over special tokens of a dialogue, mean over dialogues"
ALL_BITS = "-log2(MSE / variance), MSE over all tokens of a dialogue, mean over dialogues"

CLAIMS = {
    "special_flow": _claim(
        statement="On special tokens, an autoencoder that has learned from dialogues read alone (FAST) has at most 0.71 of the error of one that has learned from the same dialogues in blocks, at 24 active latents (TopK).",
        metric=SPECIAL_BITS,
        baseline="BT(F)",
        margin=0.5,
    ),
    "special_text": _claim(
        statement="On special tokens, blocks of dialogues leave at most 0.71 of the error that blocks of plain text leave (TopK).",
        metric=SPECIAL_BITS + "; ours is BT(F)",
        baseline="BT(P)",
        margin=0.5,
    ),
    "special_after_first": _claim(
        statement="FAST is better than blocks of the same dialogues on special tokens that are not the first of a dialogue, too (TopK).",
        metric="-log2(MSE_st / variance) without position 0",
        baseline="BT(F)",
        margin=0.25,
    ),
    "all_flow": _claim(
        statement="FAST is better than blocks of the same dialogues on all tokens (TopK).",
        metric=ALL_BITS,
        baseline="BT(F)",
        margin=0.0,
    ),
    "special_flow_relu": _claim(
        statement="The same as special_flow with ReLU and an L1 penalty, led to 24 active latents.",
        metric=SPECIAL_BITS,
        baseline="BT(F)",
        margin=0.5,
    ),
    "special_flow_jumprelu": _claim(
        statement="The same as special_flow with JumpReLU and an L0 penalty, led to 24 active latents.",
        metric=SPECIAL_BITS,
        baseline="BT(F)",
        margin=0.5,
    ),
    "masked_states": _claim(
        statement="Dialogues packed with a mask have the states of dialogues read alone.",
        metric="-log10 of the largest difference of a number of a state, in standard deviations of the states",
        baseline=f"a difference of {TOLERANCE}",
        margin=0.0,
    ),
    "masked_is_fast": _claim(
        statement="An autoencoder that has learned from dialogues packed with a mask is as good on special tokens as one of FAST: they differ by less than FAST does over its seeds (TopK).",
        metric="- difference of -log2 MSE_st between masked packing and FAST, same seed",
        baseline="- range of -log2 MSE_st of FAST over seeds",
        margin=0.0,
    ),
    "text_at_equal_flow": _claim(
        statement="With no document seeing another in either, dialogues leave at most 0.71 of the error on special tokens that plain text leaves (TopK).",
        metric=SPECIAL_BITS + "; ours is FAST",
        baseline="plain text packed with a mask",
        margin=0.5,
    ),
    "flow_of_plain_text": _claim(
        statement="Of plain text, too, documents kept apart make a better autoencoder for dialogues than blocks (TopK).",
        metric=ALL_BITS + "; ours is plain text packed with a mask",
        baseline="BT(P)",
        margin=0.0,
    ),
}


def measure(data: Path | None, seeds: Sequence[int], budget: str) -> list[Row]:
    """Rows of every part, for each reader."""
    size = SIZES[budget]
    docstrings = docstring_rows(size.docstrings)
    rows: list[Row] = []
    rate: float | None = None
    with tempfile.TemporaryDirectory() as folder:
        for number in range(size.readers):
            corpus = chat_corpus(docstrings, number)
            made = make_reader(Path(folder) / f"reader-{number}", corpus, seed=number, steps=size.steps)
            tokenizer = AutoTokenizer.from_pretrained(made)
            short = {
                split: [dialogue for dialogue in getattr(corpus, split) if fits(tokenizer, dialogue)]
                for split in ("train", "validation", "test")
            }
            bench = _Bench(made, tokenizer, corpus.text, short, size)
            rate = rate or _best_rate(bench, seeds[0], size.rates)
            rows += _rows(bench, f"reader {number}", seeds, seeds[number % len(seeds)], rate)
            last = next(row for row in reversed(rows) if row.part == "special_flow")
            print(f"{last.unit}: special tokens {last.ours:.2f} bits, BT(F) {last.baseline:.2f}", file=sys.stderr)
    return rows


def _rows(bench: _Bench, unit: str, seeds: Sequence[int], own_seed: int, rate: float) -> Iterator[Row]:
    """All parts of a reader; those beside the main ones with one seed, each reader with another."""

    def compared(part: str, seed: int, ours: str, baseline: str, tokens: str, kind: str = "topk") -> Row:
        a, b = (bench.test(kind, flow, seed, rate) for flow in (ours, baseline))
        detail = {"lr": rate, ours: _figures(a), baseline: _figures(b)}
        return Row(part=part, unit=unit, seed=seed, ours=_bits(a, tokens), baseline=_bits(b, tokens), detail=detail)

    for seed in seeds:
        yield compared("special_flow", seed, "fast", "bt_f", "special")
        yield compared("special_text", seed, "bt_f", "bt_p", "special")
        yield compared("special_after_first", seed, "fast", "bt_f", "special_after_first")
        yield compared("all_flow", seed, "fast", "bt_f", "all")
    for kind in ("relu", "jumprelu"):
        yield compared(f"special_flow_{kind}", own_seed, "fast", "bt_f", "special", kind)
    yield compared("text_at_equal_flow", own_seed, "fast", "masked_p", "special")
    yield compared("flow_of_plain_text", own_seed, "masked_p", "bt_p", "all")

    alone, masked = bench.states("fast"), bench.states("masked_f")
    moved = max(float((alone - masked).abs().max() / alone.std()), 1e-12)
    yield Row(part="masked_states", unit=unit, seed=own_seed, ours=-math.log10(moved), baseline=-math.log10(TOLERANCE))
    of_fast = [_bits(bench.test("topk", "fast", seed, rate), "special") for seed in seeds]
    of_masked = _bits(bench.test("topk", "masked_f", own_seed, rate), "special")
    yield Row(
        part="masked_is_fast",
        unit=unit,
        seed=own_seed,
        ours=-abs(of_masked - of_fast[list(seeds).index(own_seed)]),
        baseline=-float(np.ptp(of_fast)),
        detail={"fast": of_fast, "masked_f": of_masked},
    )


def _best_rate(bench: _Bench, seed: int, rates: Sequence[float]) -> float:
    """The learning rate with the least error on validation dialogues, all tokens, mean of the log over the three flows."""
    if len(rates) == 1:
        return rates[0]
    flows = ("fast", "bt_f", "bt_p")
    bits = [np.mean([_bits(bench.validation("topk", flow, seed, rate), "all") for flow in flows]) for rate in rates]
    return rates[int(np.argmax(bits))]


def _bits(found: Found, tokens: str) -> float:
    return -float(found[tokens]["log2_mse_of_variance"])


def _figures(found: Found) -> Found:
    """What is kept of a measurement: raw errors with the activity and unexplained variance beside them."""
    kept = ("mse", "fvu", "l0")
    parts = ("all", "special", "first", "special_after_first")
    return {"variance": found["variance"], **{part: {name: found[part][name] for name in kept} for part in parts}}


class _Bench:
    """A reader with its flows, and the autoencoders of them, each made once."""

    def __init__(
        self, folder: Path, tokenizer: Any, text: list[str], dialogues: dict[str, list[Dialogue]], size: Size
    ) -> None:
        special = tokenizer.convert_tokens_to_ids(list(SPECIAL))
        self._reader = DialogueReader(
            str(folder), layer=LAYER, dtype="float32", special_ids=special, max_tokens=LONGEST, device="cpu"
        )
        self._sources = {
            "dialogues": partial(open_dialogues, dialogues["train"]),
            "text": partial(text_documents, text),
        }
        self._size = size
        self._whole = {split: self._read(dialogues[split][: size.dialogues]) for split in ("validation", "test")}
        self._states: dict[str, torch.Tensor] = {}
        self._saes: dict[tuple[str, str, int, float], SparseAutoencoder] = {}

    def _read(self, dialogues: list[Dialogue]) -> list[TokenRows]:
        return list(read_flow(self._reader, open_dialogues(dialogues), Flow()))

    def states(self, flow: str) -> torch.Tensor:
        """[tokens, d] what an autoencoder learns from."""
        if flow not in self._states:
            source, how = FLOWS[flow]
            documents: Documents = self._sources[source]()
            read = read_flow(self._reader, documents, how, tokens=self._size.tokens)
            self._states[flow] = torch.cat([rows.states for rows in read])
        return self._states[flow]

    def test(self, kind: str, flow: str, seed: int, rate: float) -> Found:
        return measure_dialogues(self._sae(kind, flow, seed, rate), self._whole["test"])

    def validation(self, kind: str, flow: str, seed: int, rate: float) -> Found:
        return measure_dialogues(self._sae(kind, flow, seed, rate), self._whole["validation"])

    def _sae(self, kind: str, flow: str, seed: int, rate: float) -> SparseAutoencoder:
        key = (kind, flow, seed, rate)
        if key not in self._saes:
            states = self.states(flow)
            config = SparseAutoencoderConfig(
                d_in=states.shape[1],
                width=WIDTH,
                activation=kind,
                apply_b_dec_to_input=False,
                precision="float32",
                **KINDS[kind],
            )
            with seeded(torch.device("cpu"), seed):
                sae = SparseAutoencoder(config)
            train = TrainConfig(steps=self._size.sae_steps, batch_size=BATCH, lr=rate, min_lr=0.1, seed=seed)
            fit(sae, states, train, progress=False)
            self._saes[key] = sae
        return self._saes[key]
