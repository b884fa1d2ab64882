"""Cross-entropy recovered: how much of what a causal model predicts survives when a block passes through an autoencoder.

    found = splice(CausalModel("gpt2"), sae, 8, texts)
    found.recovered()          # {"value": 0.97, "low": 0.96, "high": 0.98}

Each text is predicted four times. The output of the block is
    clean     left as it is
    spliced   replaced by the autoencoder's reconstruction of it
    mean      replaced by its mean over all texts (mean ablation)
    zero      replaced by 0
and recovered = (ablated - spliced) / (ablated - clean), in losses: 1 where the reconstruction serves as well as the
output itself, 0 where it serves no better than the ablation, below 0 where it does harm. Zero is the harsher ablation, and
flatters: mean is the one to report.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from hourglass.adapters.causal import CausalModel
from hourglass.adapters.huggingface_loading import special_ids, window
from hourglass.bottlenecks.sparse.sae import SparseAutoencoder
from hourglass.errors import ConfigError, SourceError, nearest
from hourglass.metrics.ranking import bootstrap_interval
from hourglass.uses.replacing import Change, replacing

WAYS = ("clean", "spliced", "mean", "zero")
Ablation = Literal["mean", "zero"]
ABLATIONS: tuple[Ablation, ...] = get_args(Ablation)
_TOKENS_AT_ONCE = 1024  # padded; what weighs are the logits, a row as wide as the vocabulary for each


@dataclass(frozen=True)
class Spliced:
    """Losses of a causal model on texts, with a block as it is and replaced.

    table   a row for each text, in their order: tokens (predicted ones), and clean, spliced, mean, zero: the mean
            cross-entropy of these in nats; null for a text with nothing to predict
    layer   of the block, as it was asked for
    """

    model: str
    layer: int
    table: pd.DataFrame

    @property
    def losses(self) -> dict[str, float]:
        """Mean cross-entropy in nats per predicted token, over all texts together."""
        scored = self._scored
        return {way: float(np.average(scored[way], weights=scored["tokens"])) for way in WAYS}

    def recovered(self, ablation: Ablation = "mean", level: float = 0.95, seed: int = 0) -> dict[str, float]:
        """{"value", "low", "high"}: the share of the loss that the ablation costs which the autoencoder wins back.

        All tokens count alike; the interval is for other texts of the same kind. NaN where the ablation costs nothing.
        """
        if ablation not in ABLATIONS:
            raise ConfigError(f"ablation {ablation!r}{nearest(ablation, ABLATIONS)}")
        scored = self._scored
        weight = scored["tokens"] / scored["tokens"].mean()
        won = weight * (scored[ablation] - scored["spliced"])
        lost = weight * (scored[ablation] - scored["clean"])
        if lost.mean() == 0:
            return dict.fromkeys(("value", "low", "high"), float("nan"))
        value = won.mean() / lost.mean()
        # Of a text alone the share can be anything: it may lose next to nothing. So what is resampled is not the shares but
        # the pull of each text on the share of all, of which that share is the mean.
        low, high = bootstrap_interval((value + (won - value * lost) / lost.mean()).to_numpy(), level, seed=seed)
        return {"value": float(value), "low": low, "high": high}

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON: model, layer, texts and predicted tokens, losses, recovered by ablation, rows; null for NaN."""
        return {
            "model": self.model,
            "layer": self.layer,
            "texts": len(self._scored),
            "tokens": int(self.table["tokens"].sum()),
            "losses": _without_nan(self.losses),
            "recovered": {ablation: _without_nan(self.recovered(ablation)) for ablation in ABLATIONS},
            "rows": json.loads(self.table.to_json(orient="records")),
        }

    @property
    def _scored(self) -> pd.DataFrame:
        return self.table[self.table["tokens"] > 0]


def splice(
    model: CausalModel,
    sae: SparseAutoencoder,
    layer: int,
    texts: Sequence[str],
    *,
    special: bool = False,
    max_tokens: int | None = None,
) -> Spliced:
    """Predict each text with the output of block `layer` as it is, reconstructed, averaged and zeroed.

    layer       as in `HuggingFaceReader`: n is the raw output of block n, 0 the embeddings, -1 the last block
    special     replace the states of special tokens, too; most autoencoders have not learned them, and models lean on
                that of the first token. They are predicted, where the tokenizer adds them after the first, either way
    max_tokens  of a text, special ones included, beyond which it is cut; None: what the model takes, 512 at most

    Padding is neither replaced, nor averaged, nor predicted. Raises InputError, in one line, for what does not fit
    together, and when no text has two tokens.
    """
    if isinstance(texts, str):
        texts = [texts]
    if sae.W_dec.device != model.device:
        sae = copy.deepcopy(sae).to(model.device)
    longest = window(model.name, model.tokenizer, model.network, max_tokens)
    ids = [model.tokenizer(text, truncation=True, max_length=longest)["input_ids"] for text in texts]
    batches = list(_batches(ids))
    if not batches:
        raise SourceError(f"none of {len(ids)} texts has a second token that could be predicted")
    spared = torch.tensor([] if special else sorted(special_ids(model.tokenizer)), dtype=torch.int64)
    mean = _Mean()
    replacements: dict[str, Change] = {
        "clean": mean.seen,
        "spliced": lambda x: sae.decode(sae.codes(x)),
        "mean": lambda x: mean.value.expand(len(x), -1),
        "zero": torch.zeros_like,
    }
    losses = {way: np.full(len(ids), np.nan) for way in WAYS}
    # All texts pass clean first: only then is their mean known.
    for way, replace in replacements.items():
        for rows, tokens, real in batches:
            touched = (real & ~torch.isin(tokens, spared)).to(model.device)
            with replacing(model.network, layer, _only(touched, replace), width=sae.config.d_in):
                losses[way][rows] = _losses(model, tokens, real)
    table = pd.DataFrame({"tokens": [max(0, len(row) - 1) for row in ids], **losses})
    return Spliced(model.name, layer, table)


def _without_nan(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in values.items()}


class _Mean:
    """The mean of all states that have been seen."""

    def __init__(self) -> None:
        self._total, self._number = torch.zeros((), dtype=torch.float64), 0

    def seen(self, x: Tensor) -> Tensor:
        """x [n, d] as it is."""
        self._total = self._total + x.float().sum(0).cpu().double()
        self._number += len(x)
        return x

    @property
    def value(self) -> Tensor:
        """[d] float64"""
        return self._total / self._number


def _only(touched: Tensor, replace: Change) -> Change:
    """Replace the states [n, length, d] where `touched` [n, length] is true; `replace` is given them as rows."""

    def change(states: Tensor) -> Tensor:
        changed = states.clone()
        changed[touched] = replace(states[touched]).to(states)
        return changed

    return change


def _batches(ids: Sequence[list[int]]) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """(texts, tokens, real) of texts of like length, the longest first: both [n, longest], padded on the right.

    A causal model does not see what comes after, so that padding there changes nothing. Texts of less than two tokens are
    left out.
    """
    order = sorted((i for i, row in enumerate(ids) if len(row) > 1), key=lambda i: -len(ids[i]))
    while order:
        longest = len(ids[order[0]])
        number = max(1, _TOKENS_AT_ONCE // longest)
        rows, order = order[:number], order[number:]
        lengths = torch.tensor([len(ids[i]) for i in rows])
        tokens = torch.tensor([ids[i] + [0] * (longest - len(ids[i])) for i in rows])
        yield rows, tokens, torch.arange(longest) < lengths[:, None]


@torch.inference_mode()
def _losses(model: CausalModel, tokens: Tensor, real: Tensor) -> list[float]:
    """Mean cross-entropy in nats of the real tokens of each row after its first."""
    tokens = tokens.to(model.device)
    logits = model.network(input_ids=tokens, attention_mask=real.long().to(model.device), use_cache=False).logits
    lengths = real.sum(1).tolist()
    return [float(F.cross_entropy(row[: n - 1].float(), ids[1:n])) for row, ids, n in zip(logits, tokens, lengths)]
