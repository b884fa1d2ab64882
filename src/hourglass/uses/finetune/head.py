"""What the heads share: an encoder that goes on learning, texts to tensors, pooling, the folder.

A head is a `Waist`, so `hourglass.training.fit` trains it, encoder and all, and goes on bit for bit after a stop. Its examples
are labelled ones: what they are is said by each. It is made of a config and an encoder, of which it takes a copy:

    head = Classifier(ClassifierConfig(labels=("ham", "spam")), model)     # a text model, or (network, tokenizer)
    fit(head, [("Dear friend", "spam"), ...], TrainConfig(...), out=DIR)
    Classifier.from_pretrained(DIR / "model").predict(["Hello"])
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from hourglass.adapters.huggingface_loading import loading_errors
from hourglass.errors import ConfigError, FolderError, SourceError
from hourglass.storage.atomic import read_json
from hourglass.uses.finetune.encoder import Source, TokenEncoder, parts_of
from hourglass.waist import Batch, Waist, WaistConfig

Array = np.ndarray[Any, Any]
Pooling = Literal["mean", "cls"]

TEXTS_AT_ONCE = 32
NO_TOKEN = -100
"""The place of what has no token, and of padding."""


@dataclass(frozen=True, kw_only=True)
class HeadConfig(WaistConfig):
    """max_tokens: longest input, special tokens included, the rest is cut off; dropout: of what the head reads."""

    max_tokens: int = 128
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.max_tokens < 4:
            raise ConfigError(f"max_tokens {self.max_tokens}: expected 4 or more")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout {self.dropout}: expected a share, from 0 to below 1")


def checked_pooling(pooling: str) -> None:
    """ConfigError for a pooling that does not exist."""
    if pooling not in get_args(Pooling):
        raise ConfigError(f"pooling {pooling!r}: expected one of {', '.join(get_args(Pooling))}")


class Head(Waist):
    """Base class of the heads.

    config  of the head
    source  a text model, or a pair (network, tokenizer) of transformers; copied, so that several heads can start from one
    words   the network's own head over its vocabulary is copied as well
    """

    def __init__(self, config: HeadConfig, source: Source, words: bool = False) -> None:
        super().__init__(config)
        network, self.tokenizer = parts_of(source)
        self.network_config = network.config
        self.encoder = TokenEncoder(network, words)
        if self.encoder.positions is not None and config.max_tokens > self.encoder.positions:
            raise ConfigError(f"max_tokens {config.max_tokens}: the network has {self.encoder.positions} positions")
        self.dropout = nn.Dropout(config.dropout)

    # Texts to tensors -----------------------------------------------------------------------------

    def tokens(self, texts: Sequence[Any], seconds: Sequence[str] | None = None) -> dict[str, Tensor]:
        """{"ids", "mask", "types"} [n, L] of texts, or of pairs with `seconds`; SourceError for what is no text or has no token."""
        if not len(texts):
            raise SourceError("an empty batch: expected at least one example")
        for several in (texts, seconds or ()):
            for i, text in enumerate(several):
                if not isinstance(text, str):
                    raise SourceError(f"example {i}: expected a text, found {type(text).__name__}")
        more = {} if seconds is None else {"text_pair": list(seconds)}
        made = self.tokenizer(
            list(texts),
            **more,
            truncation=True,
            max_length=self.config.max_tokens,
            return_token_type_ids=True,
        )
        return self.padded(made["input_ids"], made["token_type_ids"])

    def padded(self, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """The same of tokens."""
        for i, row in enumerate(ids):
            if not row:
                raise SourceError(f"example {i}: there is no token in its text; leave it out")
        pad = self.tokenizer.pad_token_id or 0  # any would do: padding is masked wherever it is looked at
        return {
            "ids": pad_sequence([torch.tensor(row) for row in ids], batch_first=True, padding_value=pad),
            "mask": pad_sequence([torch.ones(len(row), dtype=torch.bool) for row in ids], batch_first=True),
            "types": pad_sequence([torch.tensor(row) for row in types], batch_first=True),
        }

    # Tensors to states ----------------------------------------------------------------------------

    def states(self, batch: Batch) -> Tensor:
        """[n, L, d] token states, dropped out while learning."""
        states: Tensor = self.dropout(self.encoder(batch["ids"], batch["mask"], batch["types"]))
        return states

    def pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """[n, d] mean over the tokens, special ones included, or the state of the first."""
        if self.config.pooling == "cls":
            return states[:, 0]
        weights = mask[..., None].to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1)

    @contextmanager
    def reading(self) -> Iterator[torch.device]:
        """Evaluation mode without gradients; yields where the tensors have to be."""
        training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                yield next(self.parameters()).device
        finally:
            self.train(training)

    # The folder -----------------------------------------------------------------------------------

    def _save_pretrained(self, save_directory: Path) -> None:
        config = {"system": self.system_name(), **self.config.to_dict()}
        (save_directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        save_model(self, str(save_directory / "model.safetensors"))
        self.network_config.save_pretrained(save_directory / "encoder")
        self.tokenizer.save_pretrained(save_directory / "encoder")

    @classmethod
    def _from_pretrained(cls, *, model_id: str, config: Any = None, **hub: Any) -> Self:
        from transformers import AutoConfig, AutoModel, AutoTokenizer

        folder = Path(model_id)
        values = read_json(folder / "config.json")
        system = values.pop("system", None)
        if system != cls.system_name():
            raise FolderError(f"{folder / 'config.json'}: holds {system!r}, expected {cls.system_name()!r}")
        with loading_errors(str(folder / "encoder"), "encoder"):
            network = AutoModel.from_config(AutoConfig.from_pretrained(folder / "encoder"))
            tokenizer = AutoTokenizer.from_pretrained(folder / "encoder")
        head = cls(cls.Config.from_dict(values), (network, tokenizer))  # type: ignore[arg-type]
        path = folder / "model.safetensors"
        try:
            load_model(head, path)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise FolderError(f"{path}: cannot be read ({str(error).splitlines()[-1].strip()})") from None
        return head.eval()


def first_tokens(starts: Any, stops: Any, spans: Sequence[tuple[int, int]], special: Sequence[int]) -> list[int]:
    """The place of the first token that reaches into each stretch of characters, `starts` to `stops`; NO_TOKEN of one
    that is cut off. `spans` and `special` are those of the tokens, as a fast tokenizer gives them."""
    tokens = np.flatnonzero(np.array(special) == 0)
    if not len(tokens):
        return [NO_TOKEN] * len(starts)
    begins, ends = np.array(spans)[tokens].T
    at = np.searchsorted(ends, starts, side="right")
    reaches = (at < len(tokens)) & (begins[np.minimum(at, len(tokens) - 1)] < np.asarray(stops))
    return [int(tokens[i]) if yes else NO_TOKEN for i, yes in zip(at, reaches)]


def in_batches(items: Sequence[Any], size: int = TEXTS_AT_ONCE) -> Iterator[Sequence[Any]]:
    """The items, `size` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def numbered(labels: Sequence[Any]) -> tuple[str, ...]:
    """Labels of a config as a tuple; ConfigError for fewer than two, or one twice."""
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise ConfigError(f"labels {list(labels)[:8]}: expected two or more, each once")
    return tuple(labels)
