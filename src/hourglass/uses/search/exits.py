"""Early exit: a cross-encoder that stops at the layer at which it is sure of a document.

Xin, Nogueira, Yu and Lin 2020 (Early exiting BERT for efficient document ranking); DeeBERT, Xin, Tang, Lee, Yu and Lin 2020 (arXiv
2004.12993). In: a query and documents. Out: a score of each document, and how many layers were read for it.

    h_l    = the first state of [query, document] after layer l, 1 .. L
    s_l    = w_l . h_l + b_l for l < L, learned;  s_L = what the cross-encoder's own head says
    p_l    = sigmoid(s_l)
    score  = s_l of the first layer with max(p_l, 1 - p_l) > exit_at; s_L where there is none
    loss   = mean over the layers of the binary cross-entropy of p_l, documents being relevant or not

    model = EarlyExit(ExitConfig(frozen=True), (cross_encoder, tokenizer))
    fit(model, pairs, TrainConfig(...), out="tuned")              # `uses.finetune.Pair`s with mined negatives
    search = bm25 % 50 >> exits("tuned/model", exit_at=0.9)

`frozen` leaves the cross-encoder as it is and learns w and b alone; else all learn together. With exit_at 1 no document leaves early,
and the score is the full model's. A document that leaves makes the batch smaller: time goes down with the layers that are read.

Differences from the papers: all heads learn at once, none after the others; one threshold for both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, final

import numpy as np
import torch
from torch import Tensor, nn

from hourglass.adapters.pretrained import load_beside
from hourglass.errors import ConfigError
from hourglass.nn.attention import attention_mask
from hourglass.uses.finetune.encoder import Source
from hourglass.uses.finetune.head import Array
from hourglass.uses.finetune.ranking import RankingConfig, RankingHead
from hourglass.uses.finetune.scoring import Layers, beside, frame_of, one_score, open_scoring, save_scoring, scoring
from hourglass.uses.search.stages import Query
from hourglass.waist import Batch


@dataclass(frozen=True, kw_only=True)
class ExitConfig(RankingConfig):
    """frozen  the cross-encoder stays as it is"""

    objective: Literal["group", "each"] = "each"
    frozen: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective != "each":
            raise ConfigError(f"objective {self.objective!r}: how sure a layer is comes of 'each', a sigmoid")


class EarlyExit(RankingHead):
    """Examples: `Pair`, a query with its document and negatives."""

    Config = ExitConfig

    config: ExitConfig

    def __init__(self, config: ExitConfig, source: Source) -> None:
        super().__init__(config, scoring(source), words=True)
        one_score(self.encoder.network)
        self._layers = Layers(self.encoder.network)
        self._typed = any(frame_of(self.tokenizer).types)
        self.heads = nn.ModuleList(nn.Linear(self._layers.width, 1) for _ in range(len(self._layers) - 1))
        if config.frozen:
            self.encoder.requires_grad_(False)

    def pairs(self, queries: Sequence[str], documents: Sequence[str]) -> Batch:
        """ids, mask, types [n, L]."""
        batch = self.tokens(queries, documents)
        return batch if self._typed else {**batch, "types": torch.zeros_like(batch["types"])}

    def score(self, batch: Batch) -> Tensor:
        """[n, L] of every layer, the full model's last."""
        if self.config.frozen:
            self.encoder.eval()
        states = self._layers.begin(batch["ids"], batch["types"])
        mask = attention_mask(batch["mask"], "bidirectional", states.dtype)
        made = []
        for layer, head in enumerate([*self.heads, None]):
            states = self._layers.step(layer, states, mask)
            made.append(self._layers.end(states) if head is None else head(self.dropout(states[:, 0])))
        return torch.cat(made, 1)

    def encode(self, batch: Batch) -> Tensor:
        """[n] the full model's scores."""
        return self.score(batch)[:, -1]

    def exiting(self, query: str, documents: Sequence[str], exit_at: float) -> tuple[Array, Array]:
        """([n] float32 scores of documents, [n] int64 layers that were read), by the formula above."""
        order = np.argsort([len(text) for text in documents], kind="stable")
        scores, layers = np.empty(len(documents), np.float32), np.empty(len(documents), np.int64)
        with self.reading() as device:
            for start in range(0, len(order), self.documents_at_once):
                some = torch.from_numpy(order[start : start + self.documents_at_once])
                batch = self.pairs([query] * len(some), [documents[i] for i in some])
                batch = {name: tensor.to(device) for name, tensor in batch.items()}
                states = self._layers.begin(batch["ids"], batch["types"])
                mask = attention_mask(batch["mask"], "bidirectional", states.dtype)
                for layer, head in enumerate([*self.heads, None]):
                    states = self._layers.step(layer, states, mask)
                    made = (self._layers.end(states) if head is None else head(states[:, 0]))[:, 0].float()
                    p = made.sigmoid()
                    leaves = (torch.maximum(p, 1 - p) > exit_at) | (head is None)
                    out = some[leaves.cpu()].numpy()
                    scores[out], layers[out] = made[leaves].cpu().numpy(), layer + 1
                    some, states, mask = some[~leaves.cpu()], states[~leaves], mask[~leaves]
                    if not len(some):
                        break
        return scores, layers

    def _save_pretrained(self, save_directory: Path) -> None:
        save_scoring(self, save_directory)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **hub: Any) -> Self:
        settings, source = open_scoring(model_id, cls.system_name())
        if settings is None:
            raise ConfigError(f"{model_id}: a cross-encoder without exits; train them: EarlyExit(ExitConfig(), ...)")
        made = cls(cls.Config.from_dict(settings), source)
        load_beside(Path(model_id), made, beside(made))
        return made.eval()


@final
class Exits:
    """A `TextScorer` that leaves at the first layer that is sure.

    exit_at  how sure, from 0.5 (the first layer) to 1 (never early)
    """

    def __init__(self, model: EarlyExit, exit_at: float = 0.9) -> None:
        if not 0.5 <= exit_at <= 1:
            raise ConfigError(f"exit_at {exit_at}: expected a share from 0.5, the first layer, to 1, never early")
        self._model, self._exit_at = model, exit_at
        self._layers = self._scored = 0

    def score_texts(self, query: Query, texts: Sequence[str]) -> Array:
        """[n] float32 scores of texts for a query."""
        scores, layers = self._model.exiting(query.text, texts, self._exit_at)
        self._layers += int(layers.sum())
        self._scored += len(layers)
        return scores

    @property
    def mean_layers(self) -> float:
        """Layers that were read of a text, mean over all so far; NaN before the first."""
        return self._layers / self._scored if self._scored else float("nan")

    def told(self) -> list[str]:
        """The same as a line."""
        return [
            f"exits: {self.mean_layers:.2f} of {1 + len(self._model.heads)} layers were read of a text, in the mean"
        ]
