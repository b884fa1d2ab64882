"""Whether an encoder that learned the next token first is better than one that only filled in hidden tokens, and when.

    hourglass claim clm_mlm

Everything below up to `measure` was written before anything was measured.

A network of two layers learns on docstrings: from nothing, for a small and for a large number of steps, by CLM, by MLM with 40 %
hidden, or by CLM for the first quarter (half) and MLM for the rest. Within a seed all arms begin with the same weights and see the
same windows in the same order, at the same learning rate. Then each is tuned, read in both directions, with a few steps on
labelled texts, at every rate of a grid; the rate is chosen on validation texts, what counts are test texts that no step has seen:
    retrieval        a docstring's first line is to find its body among those of others, MRR@10
    classification   of which package a docstring is, accuracy
    steadiness       minus the accuracy that is lost from the best to the worst rate of the grid, both chosen on validation texts
A unit is a twentieth of the test queries (texts), a figure its mean; the interval is over units, seeds of a unit averaged.

"At least as good" is stated as: not more than a point worse.

The network must be past the stretch in which MLM only learns how frequent tokens are: of every arm that ends with MLM the loss on
validation texts is printed beside the entropy of single tokens, and is to be half a nat below. What an arm read, predicted and cost
is printed too, since CLM predicts every token and MLM 40 % of them: the arms are equal in steps, not in predicted tokens.

Differences from the paper: the data, networks of 210 million to a billion weights, 42,000 steps of two million tokens. What shows at
that size only, MLM overtaking CLM late, question answering, the mask ratio's effect, is not claimed here.
"""

from __future__ import annotations

import copy
import math
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from claims.base import Claim, Row
from claims.shared.docstrings import first_lines, to_bodies

from hourglass.adapters.tokenizers import train_tokenizer
from hourglass.systems.clm_mlm import CLMMLM, CLMMLMConfig
from hourglass.training import TrainConfig, fit
from hourglass.uses.finetune import Classifier, ClassifierConfig, Pair, Retriever, RetrieverConfig
from hourglass.uses.probe.retrieval import retrieval

PUBLIC_DATA = False
SEEDS = {"smoke": (0,), "laptop": (0, 1, 2), "full": (0, 1, 2, 3, 4)}
SEEDS_APART = True


@dataclass(frozen=True)
class Size:
    """learned: texts; small, large: steps; labelled, classified: texts to tune by and to test on, of the commonest packages;
    validation: texts to choose the rate by, of both tasks; queries, others: of the test, bodies with and without a query;
    tuning: steps of retrieval and of classification."""

    learned: int
    small: int
    large: int
    labelled: int
    classified: int
    validation: int
    queries: int
    others: int
    tuning: tuple[int, int]


SIZES = {
    "smoke": Size(150, 4, 8, 60, 60, 60, 40, 40, (2, 2)),
    "laptop": Size(12_000, 1500, 4000, 1000, 2000, 1000, 800, 4000, (200, 100)),
    "full": Size(12_000, 1500, 16_000, 1000, 2000, 1000, 800, 4000, (200, 100)),
}
LAYERS, WIDTH, VOCABULARY, LONGEST, BATCH, RATE, CLASSES, GROUPS = 2, 64, 2000, 48, 32, 1.5e-3, 12, 20
RATES = {"retrieval": (5e-4, 1.5e-3, 5e-3), "classification": (3e-4, 1e-3, 3e-3, 1e-2)}
CUT = 8 * LONGEST
"""Characters of a body that are kept, as `hourglass fit` keeps pieces: tuning and tests read its first 48 tokens."""

Phases = tuple[tuple[str, float], ...]
ARMS: dict[str, tuple[str, Phases]] = {
    "none": ("none", ()),
    "mlm_small": ("small", (("mlm", 1.0),)),
    "clm_small": ("small", (("clm", 1.0),)),
    "mlm": ("large", (("mlm", 1.0),)),
    "quarter": ("large", (("clm", 0.25), ("mlm", 0.75))),
    "half": ("large", (("clm", 0.5), ("mlm", 0.5))),
}
"""Number of steps, and what is learned in them."""


def _claim(statement: str, baseline: str, measure: str, margin: float = 0.0) -> Claim:
    return Claim(
        paper="clm_mlm",
        statement=statement,
        data="docstrings of the installed packages, no first line and no body twice",
        split="texts to learn from and to tune by, to choose the rate by, and to test on, drawn by the seed, apart",
        metric=_METRICS[measure],
        baseline=baseline,
        direction="ours is higher" if margin == 0 else "ours is not lower by more than the margin",
        margin=margin,
    )


_METRICS = {
    "retrieval": "MRR@10 of first line to body",
    "classification": "accuracy of the package, 12 classes",
    "steadiness": "minus the accuracy lost from the best to the worst learning rate",
}
PAIRS = {
    "early_retrieval": ("retrieval", "clm_small", "mlm_small"),
    "early_classification": ("classification", "clm_small", "mlm_small"),
    "early_steadiness": ("steadiness", "clm_small", "mlm_small"),
    "quarter_retrieval": ("retrieval", "quarter", "mlm"),
    "quarter_classification": ("classification", "quarter", "mlm"),
    "quarter_steadiness": ("steadiness", "quarter", "mlm"),
    "half_retrieval": ("retrieval", "half", "mlm"),
    "half_classification": ("classification", "half", "mlm"),
    "trained_retrieval": ("retrieval", "quarter", "none"),
    "trained_classification": ("classification", "quarter", "none"),
}
"""Claim to (what is measured, ours, baseline)."""
_EARLY = "After few steps CLM makes a better encoder than MLM"
_STEADY = "varies less with the learning rate of tuning"
CLAIMS = {
    "early_retrieval": _claim(_EARLY, "MLM, as many steps", "retrieval"),
    "early_classification": _claim(_EARLY, "MLM, as many steps", "classification"),
    "early_steadiness": _claim(f"After few steps of CLM an encoder {_STEADY}", "MLM, as many steps", "steadiness"),
    "quarter_retrieval": _claim("A quarter of CLM, then MLM, is at least as good as MLM", "MLM", "retrieval", -0.01),
    "quarter_classification": _claim(
        "A quarter of CLM, then MLM, is at least as good as MLM", "MLM", "classification", -0.01
    ),
    "quarter_steadiness": _claim(f"After a quarter of CLM, then MLM, an encoder {_STEADY}", "MLM", "steadiness"),
    "half_retrieval": _claim("Half CLM, half MLM is at least as good as MLM", "MLM", "retrieval", -0.01),
    "half_classification": _claim("Half CLM, half MLM is at least as good as MLM", "MLM", "classification", -0.01),
    "trained_retrieval": _claim("CLM, then MLM, makes a better encoder than no training", "no training", "retrieval"),
    "trained_classification": _claim(
        "CLM, then MLM, makes a better encoder than no training", "no training", "classification"
    ),
}


def measure(data: Any, seeds: Sequence[int], budget: str) -> list[Row]:
    """A row a claim, seed and twentieth of the test split; what the arms cost is in the detail of the first."""
    rows = []
    size = SIZES[budget]
    known = [
        (line, body[:CUT], package)
        for line, body, package in first_lines(3 * (size.learned + size.validation + size.queries + size.others))
    ]
    for seed in seeds:
        split = _split(known, size, seed)
        found, told = {}, {}
        for arm in ARMS:
            found[arm], told[arm] = _arm(arm, split, seed, size)
            print(f"seed {seed}, {arm}: {told[arm]}", file=sys.stderr, flush=True)
        for part, (what, ours, baseline) in PAIRS.items():
            pairs = zip(np.array_split(found[ours][what], GROUPS), np.array_split(found[baseline][what], GROUPS))
            for unit, (a, b) in enumerate(pairs):
                detail = {"ours": told[ours], "baseline": told[baseline]} if unit == 0 else None
                means = {"ours": float(a.mean()), "baseline": float(b.mean())}
                rows.append(Row(part=part, unit=str(unit), seed=seed, **means, detail=detail))
    return rows


def _split(known: Sequence[tuple[str, str, str]], size: Size, seed: int) -> dict[str, Any]:
    known = random.Random(seed).sample(known, len(known))
    common = Counter(package for _, _, package in known).most_common(CLASSES)
    classes = tuple(package for package, _ in common)
    tested = size.queries + size.others
    test, validation = known[:tested], known[tested : tested + size.validation]
    learned = known[tested + size.validation :][: size.learned]

    def labelled(texts: list[tuple[str, str, str]]) -> list[tuple[str, str]]:
        return [(f"{line}\n{body}", package) for line, body, package in texts if package in classes]

    texts = [f"{line}\n{body}" for line, body, _ in learned]
    tokenizer = train_tokenizer(texts, VOCABULARY, "wordpiece")
    return {
        "learned": texts,
        "tokenizer": tokenizer,
        "entropy": _entropy(tokenizer, texts),
        "classes": classes,
        "labelled": labelled(learned)[: size.labelled],
        "to_choose": labelled(validation),
        "classified": labelled(test)[: size.classified],
        "pairs": [Pair(line, body) for line, body, _ in learned],
        "judged_to_choose": to_bodies(validation, len(validation) // 2),
        "judged": to_bodies(test, size.queries),
    }


def _arm(arm: str, split: dict[str, Any], seed: int, size: Size) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What is measured for each query or text of the test, and what is told beside it."""
    model, told = _learned(arm, split, seed, size)
    of_retrieval, of_classification = size.tuning
    found = {
        "retrieval": _retrieval(model, split, seed, of_retrieval, told),
        **_classification(model, split, seed, of_classification, told),
    }
    return found, told


def _learned(arm: str, split: dict[str, Any], seed: int, size: Size) -> tuple[CLMMLM, dict[str, Any]]:
    length, phases = ARMS[arm]
    steps = size.large if length == "large" else size.small
    network = {**CLMMLMConfig.presets["tiny"]["network"], "num_hidden_layers": LAYERS, "hidden_size": WIDTH}
    network |= {"intermediate_size": 4 * WIDTH, "max_position_embeddings": 2 * LONGEST}
    torch.manual_seed(seed)
    config = CLMMLMConfig(network=network, max_tokens=LONGEST, phases=phases or (("mlm", 1.0),), steps=steps)
    model = CLMMLM(config, split["tokenizer"])
    if not phases:
        return model.eval(), {}
    train = TrainConfig(
        steps=steps,
        batch_size=BATCH,
        lr=RATE,
        betas=(0.9, 0.95),
        weight_decay=0.1,
        schedule="wsd",
        warmup=0.05,
        decay=0.1,
        seed=seed,
    )
    fit(model, split["learned"], train, progress=False)
    told: dict[str, Any] = model.spent()
    if phases[-1][0] == "mlm":
        loss = _mlm_loss(model, split)
        told |= {"mlm_loss": loss, "entropy": split["entropy"], "past_plateau": loss < split["entropy"] - 0.5}
    return model, told


def _mlm_loss(model: CLMMLM, split: dict[str, Any]) -> float:
    """Of validation texts, in nats a hidden token."""
    texts = [text for text, _ in split["to_choose"]]
    torch.manual_seed(0)
    with torch.inference_mode():
        losses = [float(model.loss(model.collate(texts[i : i + BATCH]))["mlm"]) for i in range(0, len(texts), BATCH)]
    return float(np.mean(losses))


def _entropy(tokenizer: Any, texts: Sequence[str]) -> float:
    """Of single tokens, in nats."""
    counts: Counter[int] = Counter()
    for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]:
        counts.update(ids)
    shares = np.array(list(counts.values())) / counts.total()
    return -math.fsum(shares * np.log(shares))


def _retrieval(model: CLMMLM, split: dict[str, Any], seed: int, steps: int, told: dict[str, Any]) -> np.ndarray:
    """[queries] MRR@10 at the rate that is best on validation queries."""
    best, chosen = -1.0, None
    for rate in RATES["retrieval"]:
        torch.manual_seed(seed)
        head = Retriever(RetrieverConfig(max_tokens=LONGEST), model)
        fit(head, split["pairs"], _tuning(rate, steps, seed), progress=False)
        score = head.score(split["judged_to_choose"]).value
        if score > best:
            best, chosen, told["retrieval_rate"] = score, copy.deepcopy(head), rate
    assert chosen is not None
    values = retrieval(chosen, split["judged"]).values["mrr@10"]
    told["mrr"] = float(values.mean())
    return values


def _classification(
    model: CLMMLM, split: dict[str, Any], seed: int, steps: int, told: dict[str, Any]
) -> dict[str, np.ndarray]:
    """[texts] each: right or not at the rate that is best on validation texts, and minus what the worst one loses."""
    config = ClassifierConfig(labels=split["classes"], max_tokens=LONGEST)
    texts, labels = zip(*split["classified"])
    scores, right = [], []
    for rate in RATES["classification"]:
        torch.manual_seed(seed)
        head = Classifier(config, model)
        fit(head, split["labelled"], _tuning(rate, steps, seed), progress=False)
        scores.append(head.score(split["to_choose"]).value)
        right.append(np.array(head.predict(texts)) == np.array(labels))
    best, worst = (right[pick(scores)].astype(float) for pick in (np.argmax, np.argmin))
    told["classification_rate"] = RATES["classification"][int(np.argmax(scores))]
    told["accuracies"] = [float(of_rate.mean()) for of_rate in right]
    return {"classification": best, "steadiness": worst - best}


def _tuning(rate: float, steps: int, seed: int) -> TrainConfig:
    return TrainConfig(
        steps=steps, batch_size=BATCH, lr=rate, schedule="linear", warmup=0.1, weight_decay=0.01, seed=seed
    )
