"""A network that reads a query with a document and gives a score, as cross-encoders do: its inputs, its layers, its folder.

The folder is one of transformers (`AutoModelForSequenceClassification`), with a head's own settings beside; that of a cross-encoder
of the Hub is opened as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hourglass.adapters.pretrained import load_network, save_around, settings_in, with_score
from hourglass.errors import ConfigError
from hourglass.nn.attention import attention_mask
from hourglass.storage.atomic import read_json
from hourglass.uses.finetune.encoder import Source, parts_of
from hourglass.uses.finetune.head import Head

_PROBE_TOLERANCE = 1e-3


class Frame(NamedTuple):
    """The special tokens of a pair: before the first text, between the two, and after the second; and the types of both sides,
    both 0 where the tokenizer tells none, as transformers then reads a pair."""

    before: list[int]
    between: list[int]
    after: list[int]
    types: tuple[int, int]

    @property
    def size(self) -> int:
        """Tokens of a pair that are not of its texts."""
        return len(self.before) + len(self.between) + len(self.after)

    def query(self, ids: Sequence[int]) -> list[int]:
        """What stands before the document."""
        return [*self.before, *ids, *self.between]

    def document(self, ids: Sequence[int]) -> list[int]:
        """What stands after the query."""
        return [*ids, *self.after]


def frame_of(tokenizer: Any) -> Frame:
    """ConfigError for a tokenizer that takes no pairs."""
    made = tokenizer(["a"], ["a"])
    ids, sides = made["input_ids"][0], made.sequence_ids(0)
    types = made["token_type_ids"][0] if "token_type_ids" in made else [0] * len(ids)
    first, second = ([i for i, side in enumerate(sides) if side == one] for one in (0, 1))
    if not first or not second or second[0] == first[-1] + 1:
        raise ConfigError(
            f"{type(tokenizer).__name__}: sets nothing between a query and a document; a cross-encoder needs it"
        )
    return Frame(
        ids[: first[0]], ids[first[-1] + 1 : second[0]], ids[second[-1] + 1 :], (types[first[0]], types[second[0]])
    )


def pieces(tokenizer: Any, texts: Sequence[str], most: int) -> list[list[int]]:
    """The first `most` tokens of each text, without special ones."""
    made: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return [ids[:most] for ids in made]


# Layer by layer ----------------------------------------------------------------------------------------------


class Layers:
    """A network of BERT's kind, run layer by layer: `begin`, `layers` of (states, mask), `end`.

    The mask is added to the scores of attention, [n, 1, L, L], as `nn.attention` makes it. ConfigError for a network that does
    not give the same so as it gives by itself.
    """

    def __init__(self, network: Any) -> None:
        self.network, self._body = network, network.base_model
        encoder = getattr(self._body, "encoder", None)
        self.modules: Sequence[Any] = getattr(encoder, "layer", ())
        if not len(self.modules) or not hasattr(self._body, "embeddings"):
            raise self._refused()
        places = self._body.embeddings.position_embeddings
        self._first_place = 0 if places.padding_idx is None else places.padding_idx + 1
        self.width = int(network.config.hidden_size)
        self._check()

    def begin(self, ids: Tensor, types: Tensor, places: Tensor | None = None) -> Tensor:
        """[n, L, d] states before the first layer of tokens [n, L]; `places` [n, L], from 0, their own order by default."""
        if places is None:
            places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        made = self._body.embeddings(input_ids=ids, token_type_ids=types, position_ids=places + self._first_place)
        project = getattr(self._body, "embeddings_project", None)  # ELECTRA's are narrower than its states
        states: Tensor = made if project is None else project(made)
        return states

    def step(self, layer: int, states: Tensor, mask: Tensor) -> Tensor:
        """[n, L, d] states after a layer, from 0."""
        made = self.modules[layer](states, mask)
        after: Tensor = made[0] if isinstance(made, tuple) else made
        return after

    def end(self, states: Tensor) -> Tensor:
        """[n, labels] what the network's own head makes of the last states."""
        pooler = getattr(self._body, "pooler", None)
        made: Tensor = self.network.classifier(states if pooler is None else self.network.dropout(pooler(states)))
        return made

    def __len__(self) -> int:
        return len(self.modules)

    @torch.no_grad()
    def _check(self) -> None:
        training = self.network.training
        self.network.eval()
        ids = torch.arange(4, 10, device=self.network.device)[None] % self.network.config.vocab_size
        real, types = torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids)
        try:
            expected = self.network(input_ids=ids, attention_mask=real.long(), token_type_ids=types).logits
            states = self.begin(ids, types)
            for layer in range(len(self)):
                states = self.step(layer, states, attention_mask(real, "bidirectional", states.dtype))
            moved = float((self.end(states) - expected).abs().max() / (1 + expected.abs().max()))
        except (RuntimeError, TypeError, ValueError, AttributeError):
            raise self._refused() from None
        finally:
            self.network.train(training)
        if not moved < _PROBE_TOLERANCE:
            raise self._refused()

    def _refused(self) -> ConfigError:
        return ConfigError(
            f"{type(self.network).__name__}: its layers cannot be run one by one; name a cross-encoder of BERT's, RoBERTa's or "
            "ELECTRA's architecture"
        )


# The folder --------------------------------------------------------------------------------------------------


def beside(head: Head) -> dict[str, Tensor]:
    """What a head has beside its network."""
    return {name: tensor for name, tensor in head.state_dict().items() if not name.startswith("encoder.")}


def save_scoring(head: Head, folder: Path) -> None:
    """As transformers saves it, settings and what it has beside."""
    network = head.encoder.network
    save_around(folder, network, head.tokenizer, head.system_name(), head.config.to_dict(), beside(head))


def open_scoring(model: str, system: str) -> tuple[dict[str, Any] | None, Source]:
    """(the settings of the head `system` that a folder holds, or None of one that holds a plain cross-encoder, (network, tokenizer)).

    Raises FolderError for a folder of another head, ConfigError for a network that has no trained head which gives scores.
    """
    tokenizer, network = load_network(model, "score")
    if network.new_head:
        raise ConfigError(f"{model}: a network without a head that gives scores; name a cross-encoder, or train one")
    config = Path(model) / "config.json"
    ours = config.is_file() and "hourglass" in read_json(config)
    return (settings_in(Path(model), system) if ours else None), (network, tokenizer)


def scoring(source: Source) -> Source:
    """A pair (network, tokenizer) as it is, where its network gives scores; else with a new head that gives one."""
    network, tokenizer = parts_of(source)
    return with_score(network), tokenizer


def positions_of(network: Any) -> int:
    """Tokens that a network can read, 512 at most."""
    positions: int = getattr(network.config, "max_position_embeddings", None) or 512
    places = getattr(getattr(network.base_model, "embeddings", None), "position_embeddings", None)
    if places is not None and places.padding_idx is not None:
        positions -= places.padding_idx + 1  # RoBERTa counts from after the padding's
    return min(512, positions)


def one_score(network: Any) -> None:
    """ConfigError for a network that gives more than one number."""
    if network.config.num_labels != 1:
        raise ConfigError(
            f"a network of {network.config.num_labels} numbers for a pair: expected a model with one score"
        )
