"""The part of a transformers network that gives token states, every token seeing every other.

Fine-tuning reads in both directions, also with a network that was trained to see only what came before: a full attention
mask takes the place of its own. That it does is tried out when the encoder is made, since not every architecture heeds it.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from hourglass.adapters.pretrained import body
from hourglass.errors import ConfigError
from hourglass.nn.attention import attention_mask

Source = Any
"""A pair (network, tokenizer) of transformers, or whatever has both as attributes: a text model of ours."""


def parts_of(source: Source) -> tuple[Any, Any]:
    """(network, tokenizer); ConfigError for anything else, and for a tokenizer that cannot say which characters it covers."""
    network, tokenizer = (
        source
        if isinstance(source, tuple) and len(source) == 2
        else (
            getattr(source, "network", None),
            getattr(source, "tokenizer", None),
        )
    )
    if not isinstance(network, nn.Module) or not hasattr(network, "config") or tokenizer is None:
        raise ConfigError(
            f"a {type(source).__name__}: expected a text model, or a pair (network, tokenizer) of transformers"
        )
    if not tokenizer.is_fast:
        raise ConfigError(
            f"{type(tokenizer).__name__} does not say which characters a token covers; use its fast variant"
        )
    return network, tokenizer


class TokenEncoder(nn.Module):
    """Texts as ids to token states; a copy of the network that it is made of, without its head unless it is asked for.

    plain: the network by itself sees all that it is shown here, so that others who open it read as we do
    """

    def __init__(self, network: Any, head: bool = False) -> None:
        super().__init__()
        self._has_head = head
        self.network = copy.deepcopy(network if head else body(network))
        if not head and getattr(self._body, "pooler", None) is not None:
            self._body.pooler = None  # nothing would reach it
        self._body.config.use_cache = False
        config = network.config.get_text_config()
        self.width: int = config.hidden_size
        self.positions: int | None = getattr(config, "max_position_embeddings", None)
        self.has_types = (
            getattr(config, "type_vocab_size", 0) > 1
            and "token_type_ids" in inspect.signature(self._body.forward).parameters
        )
        self._full = False
        self._full = not self._looks_ahead()
        if self._full and not self._looks_ahead():
            raise ConfigError(
                f"{type(network).__name__} sees only what came before and heeds no other mask; it cannot be fine-tuned here"
            )
        self.plain = not self._full and not network.config.is_encoder_decoder

    @property
    def _body(self) -> Any:
        return body(self.network) if self._has_head else self.network

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor | None = None) -> Tensor:
        """[n, L, d] states.

        ids    [n, L]
        mask   [n, L] bool, true for what is no padding
        types  [n, L] 0 for the first text of a pair, 1 for the second; ignored where the network has no such thing
        """
        states: Tensor = self._read(ids, mask, types).last_hidden_state
        return states

    def layers(self, ids: Tensor, mask: Tensor, types: Tensor | None = None) -> tuple[Tensor, ...]:
        """[n, L, d] states before the first layer and after each; arguments as of `forward`."""
        made: tuple[Tensor, ...] = self._read(ids, mask, types, output_hidden_states=True).hidden_states
        return made

    def words(self, ids: Tensor) -> Tensor:
        """[n, L, d] the tokens' own vectors, which know of no neighbour."""
        made: Tensor = self._body.get_input_embeddings()(ids)
        return made

    def _read(self, ids: Tensor, mask: Tensor, types: Tensor | None, **options: Any) -> Any:
        more = {"token_type_ids": types} if self.has_types and types is not None else {}
        sees = attention_mask(mask, "bidirectional" if self._full else "own", next(self.parameters()).dtype)
        return self._body(input_ids=ids, attention_mask=sees, **more, **options)

    @torch.no_grad()
    def _looks_ahead(self) -> bool:
        """Whether the state of the first token changes with the last."""
        training = self.training
        self.eval()
        ids = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 9]], device=next(self.parameters()).device)
        first, second = self(ids, torch.ones_like(ids, dtype=torch.bool))[:, 0].double()
        self.train(training)
        return bool((first - second).norm() > 1e-6 * first.norm())
