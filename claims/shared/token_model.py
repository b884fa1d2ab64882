"""A plain language model of tokens, learned by the same loop as what it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hourglass.adapters.huggingface_loading import backend, encode
from hourglass.adapters.pretrained import body, build_network
from hourglass.nn.language_head import token_loss
from hourglass.waist import Batch, Losses, Waist, WaistConfig


@dataclass(frozen=True, kw_only=True)
class TokenModelConfig(WaistConfig):
    """network: settings of transformers; max_tokens: where a text is cut."""

    network: dict[str, Any] = field(default_factory=dict)
    max_tokens: int = 256


class TokenModel(Waist):
    """The next token, from those before it and an end token in front of them."""

    Config = TokenModelConfig
    modality = "text"

    def __init__(self, config: TokenModelConfig, tokenizer: Any) -> None:
        super().__init__(config)
        self.tokenizer, self._backend = tokenizer, backend(tokenizer)
        self.network = build_network(config.network, "causal", tokenizer)

    def collate(self, examples: Sequence[Any]) -> Batch:
        start = self.tokenizer.bos_token_id
        rows = [[start, *made.ids][: self.config.max_tokens] for made in encode(self._backend, list(examples))]
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
        real = torch.zeros_like(ids, dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)], real[i, : len(row)] = torch.tensor(row), True
        return {"ids": ids, "real": real, "of": torch.full((len(rows),), int(real[:, 1:].sum()) / len(rows))}

    def loss(self, batch: Batch) -> Losses:
        ids, real = batch["ids"], batch["real"]
        states = body(self.network)(input_ids=ids, attention_mask=real.long(), use_cache=False).last_hidden_state
        wanted = real[:, 1:]
        total = token_loss(self.network, states[:, :-1][wanted], ids[:, 1:][wanted])
        return {"next": total / batch["of"].sum()}

    def encode(self, batch: Batch) -> Tensor:
        """[n, L, d] the last states."""
        states: Tensor = body(self.network)(
            input_ids=batch["ids"], attention_mask=batch["real"].long()
        ).last_hidden_state
        return states
