"""Whether what fills in texts from their [CLS] makes a better retriever than filling in hidden words alone: MLM, RetroMAE, DupMAE.

    hourglass claim dupmae

Everything below up to `measure` was written before anything was measured.

A network of two layers learns on the bodies of docstrings, under each objective with the same texts, steps and batches (a seed
draws all three). Then a docstring's first line is to find its body among those of others, all of docstrings that no arm has
seen:
    cls     the [CLS] state, after the same few steps of contrast on other pairs (in-batch negatives, inner product)
    both    the [CLS] state and the lexical weights side by side, each of length 1, as the objective left them, untuned
Every arm is measured in both ways, so that the bag of words itself is not confused with having learned it. A unit is a
twentieth of the queries, a figure its mean MRR@10; the interval is over units, seeds of a unit averaged.

Differences from the paper: MS MARCO and BEIR are out of reach here; "both" is not tuned with labels, as that part was not
published. BM25 on such a set is at about 0.4: these networks are far too small to be of use by themselves.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from claims.base import Claim, Row
from claims.shared.docstrings import first_lines, to_bodies
from scipy import sparse

from hourglass.adapters.tokenizers import train_tokenizer
from hourglass.systems.dupmae import DupMAE, DupMAEConfig, Objective
from hourglass.training import TrainConfig, fit
from hourglass.uses.finetune import Pair, Retriever, RetrieverConfig
from hourglass.uses.probe.encoders import unit_length
from hourglass.uses.probe.retrieval import retrieval

PUBLIC_DATA = False
SEEDS = {"smoke": (0,), "laptop": (0, 1, 2), "full": (0, 1, 2, 3, 4)}
SEEDS_APART = True
LEARNED = {"smoke": 150, "laptop": 12_000, "full": 12_000}
QUERIES = {"smoke": 40, "laptop": 800, "full": 800}
OTHERS = {"smoke": 40, "laptop": 4000, "full": 4000}
"""Bodies without a query, to be told from those that have one."""
STEPS = {"smoke": (4, 3), "laptop": (4000, 150), "full": (20_000, 300)}
"""Before, and of contrast."""
LAYERS, WIDTH, VOCABULARY, LONGEST, BATCH, TERMS, GROUPS = 2, 64, 2000, 48, 32, 64, 20
OBJECTIVES: tuple[Objective, ...] = ("mlm", "retromae", "dupmae")


def _claim(statement: str, baseline: str, way: str) -> Claim:
    return Claim(
        paper="dupmae",
        statement=statement,
        data="docstrings of the installed packages, no first line and no body twice",
        split="bodies to learn from, pairs to tune by, queries with their corpus, drawn by the seed, apart",
        metric=f"MRR@10 of first line to body, by {way}",
        baseline=baseline,
        direction="ours is higher",
        margin=0.0,
    )


PAIRS: dict[str, tuple[str, Objective, Objective]] = {
    "retromae_over_mlm_cls": ("cls", "retromae", "mlm"),
    "dupmae_over_retromae_cls": ("cls", "dupmae", "retromae"),
    "retromae_over_mlm_both": ("both", "retromae", "mlm"),
    "dupmae_over_retromae_both": ("both", "dupmae", "retromae"),
}
CLAIMS = {
    "retromae_over_mlm_cls": _claim("Rebuilding from [CLS] makes a better [CLS] than hidden words alone", "MLM", "cls"),
    "dupmae_over_retromae_cls": _claim("Naming the text's words makes a better [CLS] still", "RetroMAE", "cls"),
    "retromae_over_mlm_both": _claim("Rebuilding from [CLS] makes both together better", "MLM", "both"),
    "dupmae_over_retromae_both": _claim("Naming the text's words makes both together better", "RetroMAE", "both"),
}


def measure(data: Any, seeds: Sequence[int], budget: str) -> list[Row]:
    rows = []
    for seed in seeds:
        split = _split(budget, seed)
        found = {objective: _arm(objective, split, seed, budget) for objective in OBJECTIVES}
        for part, (way, ours, baseline) in PAIRS.items():
            pairs = zip(np.array_split(found[ours][way], GROUPS), np.array_split(found[baseline][way], GROUPS))
            for unit, (a, b) in enumerate(pairs):
                rows.append(Row(part=part, unit=str(unit), seed=seed, ours=float(a.mean()), baseline=float(b.mean())))
    return rows


def _split(budget: str, seed: int) -> dict[str, Any]:
    known = first_lines(3 * (LEARNED[budget] + QUERIES[budget] + OTHERS[budget]))
    random.Random(seed).shuffle(known)
    asked, corpus = QUERIES[budget], QUERIES[budget] + OTHERS[budget]
    test, learned = known[:corpus], known[corpus : corpus + LEARNED[budget]]
    return {
        "learned": [body for _, body, _ in learned],
        "pairs": [Pair(line, body) for line, body, _ in learned],
        "judged": to_bodies(test, asked),
    }


def _arm(objective: Objective, split: dict[str, Any], seed: int, budget: str) -> dict[str, np.ndarray]:
    """MRR@10 of each query, by way."""
    before, steps = STEPS[budget]
    network = {**DupMAEConfig.presets["tiny"]["network"], "num_hidden_layers": LAYERS}
    network |= {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH}
    torch.manual_seed(seed)
    config = DupMAEConfig(network=network, max_tokens=LONGEST, objective=objective)
    model = DupMAE(config, train_tokenizer(split["learned"], VOCABULARY, "wordpiece"))
    train = TrainConfig(steps=before, batch_size=BATCH, lr=1e-3, weight_decay=0.01, schedule="linear", seed=seed)
    fit(model, split["learned"], train, progress=False)
    both = retrieval(_both(model), split["judged"], similarity="dot").values["mrr@10"]
    head = Retriever(RetrieverConfig(pooling="cls", similarity="dot", temperature=1.0, max_tokens=LONGEST), model)
    tune = TrainConfig(steps=steps, batch_size=BATCH, lr=1e-3, weight_decay=0.01, schedule="linear", seed=seed)
    fit(head, split["pairs"], tune, progress=False)
    return {"cls": retrieval(head, split["judged"], similarity="dot").values["mrr@10"], "both": both}


def _both(model: DupMAE) -> Any:
    """Texts to [CLS] and lexical weights side by side, in rows of SciPy."""
    model.eval()

    def encode(texts: Sequence[str]) -> Any:
        rows = []
        with torch.inference_mode():
            for start in range(0, len(texts), BATCH):
                batch = model.collate(texts[start : start + BATCH])
                parts = model.encode(batch).numpy(), sparse.csr_matrix(model.lexical(batch, TERMS).numpy())
                rows.append(sparse.hstack([sparse.csr_matrix(unit_length(part)) for part in parts], "csr"))
        return sparse.vstack(rows, "csr")

    return encode
