"""What every system that learns on texts is built on: a tokenizer and a transformers network, from scratch or from the Hub.

A system derives from `TextModel` and says how it learns (`collate`, `loss`) and, where the pooled last states are not its
latent, what that is (`encode`). What it has here:

    self.tokenizer, self.network     of transformers, the network with the head that `head` names
    self.tokens(texts)               texts to `Tokens`: ids, which are real, which are special, to which word each belongs
    self.states(ids, mask)           last hidden states of the body, without the head
    language_head.token_loss(...)    the head on chosen states

The folder of a trained model is one of transformers and of sentence-transformers at once: `AutoModel.from_pretrained(DIR)`
and `SentenceTransformer(DIR)` open it, and the latter gives what `encode` gives. What a system has beside its network is in
hourglass.safetensors, its settings under "hourglass" in config.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor

from hourglass.adapters import huggingface_loading as loading
from hourglass.adapters.cpu_attention import use_cpu_attention
from hourglass.adapters.pretrained import (
    Head,
    body,
    build_network,
    load_beside,
    load_network,
    save_around,
    settings_in,
    settings_of,
)
from hourglass.adapters.sentence_transformers_files import write_dense_files
from hourglass.adapters.tokenizers import Kind, keep_tokenizer, train_tokenizer
from hourglass.errors import ConfigError, SourceError
from hourglass.nn.attention import Attention, attention_mask, places
from hourglass.nn.text_system import TextSystem
from hourglass.waist import Batch, WaistConfig

Pooling = Literal["cls", "mean", "weightedmean", "lasttoken"]
"""How the states of a text become one vector: that of its first token, their mean, their mean with weights 1, 2, 3 ..., or
that of its last token."""

_CHARACTERS = 8
"""Of a token, at most, in running text: pieces of so many times `max_tokens` characters fill a window or more."""
_BYTES = 300  # a vocabulary without a corpus: the bytes, and the special tokens


@dataclass(frozen=True, kw_only=True)
class TextConfig(WaistConfig):
    """What every text model is made of.

    network     settings of the transformers network, {"model_type": "bert", ...}; of a model that starts from a checkpoint
                those of the checkpoint
    max_tokens  longest text, special tokens included. While learning, a window of a longer one is read, another each time;
                otherwise its beginning
    pooling     of the latent: "cls", "mean", "weightedmean" or "lasttoken"
    """

    network: dict[str, Any] = field(default_factory=dict)
    max_tokens: int = 128
    pooling: Pooling = "mean"

    def __post_init__(self) -> None:
        if self.pooling not in get_args(Pooling):
            raise ConfigError(f"pooling {self.pooling!r}: expected one of {', '.join(get_args(Pooling))}")
        if self.max_tokens < 4:
            raise ConfigError(f"max_tokens {self.max_tokens}: expected 4 or more")


@dataclass(frozen=True)
class Tokens:
    """Texts as tensors [n, L], padded on the right.

    ids      int64
    mask     bool, true for what is no padding
    words    int64, the number of the word within its text; -1 for special tokens and padding
    begins   int64, the first character of the token in its text; -1 likewise
    """

    ids: Tensor
    mask: Tensor
    words: Tensor
    begins: Tensor


class TextModel(TextSystem):
    """Base class of the systems that learn on texts; see the module's docstring.

    tokenizer, network    ready ones of transformers; by default one of bytes, and a new network by the config
    """

    library = "sentence-transformers"
    Config: ClassVar[type[TextConfig]]
    head: ClassVar[Head]
    vocabulary: ClassVar[Kind] = "wordpiece"
    """Kind of tokenizer that is trained on a corpus where a model starts from scratch."""

    def __init__(self, config: TextConfig, tokenizer: Any = None, network: Any = None) -> None:
        super().__init__(config)
        self.tokenizer = train_tokenizer([], _BYTES, "bpe") if tokenizer is None else tokenizer
        self.network = build_network(config.network, self.head, self.tokenizer) if network is None else network
        use_cpu_attention(self.network)
        if self.tokenizer.pad_token_id is None:
            # Padding is masked wherever it is looked at; any token can stand for it.
            self.tokenizer.pad_token = self.tokenizer.eos_token or self.tokenizer.unk_token
        self.tokenizer.padding_side = "right"  # as here, for whoever opens the folder
        if self._room < 1:
            raise ConfigError(f"max_tokens {config.max_tokens}: no room for a text beside the special tokens")
        positions = getattr(self.network.config, "max_position_embeddings", None)
        if positions and config.max_tokens > positions:
            raise ConfigError(f"max_tokens {config.max_tokens}: the network has {positions} positions")

    @classmethod
    def from_checkpoint(cls, model: str, **settings: Any) -> Self:
        """A system that goes on from "minilm", a folder or a Hub id; settings of its config, the network's excepted.

        Raises FolderError where there is no such model or it lacks the head, ConfigError for settings that do not fit.
        """
        tokenizer, network = load_network(model, cls.head)
        return cls(cls.Config.from_dict({**settings, "network": settings_of(network)}), tokenizer, network)

    def require_mask(self) -> int:
        """The id of the mask token; ConfigError where the tokenizer has none."""
        number = self.tokenizer.mask_token_id
        if number is None:
            raise ConfigError(
                f"{type(self.tokenizer).__name__}: its tokenizer has no mask token, and {self.system_name()} hides tokens "
                "behind one; start from a model with a mask token"
            )
        return int(number)

    @property
    def width(self) -> int:
        """Size of a hidden state."""
        return int(self.network.config.get_text_config().hidden_size)

    @property
    def longest(self) -> int:
        return _CHARACTERS * int(self.config.max_tokens)

    def with_corpus(self, texts: Sequence[str], folder: Path, vocabulary: int) -> Self:
        """The system with a tokenizer of the corpus."""
        tokenizer = keep_tokenizer(texts, vocabulary, self.vocabulary, folder / "tokenizer")
        return type(self)(self.config, tokenizer)

    # Texts to tensors -----------------------------------------------------------------------------

    @cached_property
    def _frame(self) -> tuple[list[int], list[int]]:
        return loading.frame(self.tokenizer, "none")

    @cached_property
    def _backend(self) -> Any:
        return loading.backend(self.tokenizer)

    @property
    def _room(self) -> int:
        before, after = self._frame
        return int(self.config.max_tokens) - len(before) - len(after)

    def tokens(self, texts: Sequence[Any]) -> Tokens:
        """Raises SourceError for an empty batch and for what is no text."""
        if not len(texts):
            raise SourceError("an empty batch: expected at least one text")
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise SourceError(f"example {i}: expected a text, found {type(text).__name__}")
        before, after = self._frame
        rows = []
        for text, encoding in zip(texts, loading.encode(self._backend, list(texts))):
            ids, words = np.array(encoding.ids, np.int64), _words(text, encoding)
            begins = np.array([begin for begin, _ in encoding.offsets], np.int64)
            if len(ids) > self._room:
                part = self._window(words)
                ids, words, begins = ids[part], words[part] - words[part.start], begins[part]
            rows.append((ids, words, begins))
        longest = max(1, max(len(ids) for ids, _, _ in rows) + len(before) + len(after))
        made = Tokens(
            torch.full((len(rows), longest), self.tokenizer.pad_token_id),
            torch.zeros(len(rows), longest, dtype=torch.bool),
            torch.full((len(rows), longest), -1),
            torch.full((len(rows), longest), -1),
        )
        for i, (ids, words, begins) in enumerate(rows):
            whole = [*before, *ids.tolist(), *after]
            made.ids[i, : len(whole)] = torch.tensor(whole)
            made.mask[i, : len(whole)] = True
            inner = slice(len(before), len(before) + len(ids))
            made.words[i, inner], made.begins[i, inner] = torch.from_numpy(words), torch.from_numpy(begins)
        return made

    def _window(self, words: np.ndarray) -> slice:
        """While learning a random part that begins with a word, else the beginning."""
        start = 0
        if self.training:
            starts = np.flatnonzero(np.diff(words, prepend=-1))
            starts = starts[starts <= len(words) - self._room]
            start = int(starts[int(torch.randint(len(starts), ()))])
        return slice(start, start + self._room)

    # Tensors to states ----------------------------------------------------------------------------

    def states(self, ids: Tensor, mask: Tensor, attention: Attention = "own", texts: Tensor | None = None) -> Tensor:
        """[n, L, d] last hidden states of the body; `texts` of rows that hold several, as for `attention_mask`."""
        return self.states_under(ids, attention_mask(mask, attention, self.network.dtype, texts), texts)

    def states_under(self, ids: Tensor, sees: Tensor, texts: Tensor | None = None) -> Tensor:
        """The same, under any mask of attention."""
        more = {} if texts is None else {"position_ids": places(texts)}
        states: Tensor = body(self.network)(input_ids=ids, attention_mask=sees, **more).last_hidden_state
        return states

    def pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """[n, d] one vector for each text."""
        match self.config.pooling:
            case "cls":
                return states[:, 0]
            case "mean" | "weightedmean":
                weights = mask[..., None].to(states.dtype)
                if self.config.pooling == "weightedmean":
                    weights = weights.cumsum(1) * weights
                return (states * weights).sum(1) / weights.sum(1).clamp(min=1)
            case _:
                last = (mask.sum(1) - 1).clamp(min=0)
                return states[torch.arange(len(states), device=states.device), last]

    def encode(self, batch: Batch) -> Tensor:
        """[n, d] pooled last states of the untouched text, as sentence-transformers gives them."""
        return self.pool(self.states(batch["ids"], batch["mask"]), batch["mask"])

    # The folder -----------------------------------------------------------------------------------

    def card_vector(self) -> str:
        return f"{self.width} numbers, pooling {self.config.pooling}, up to {self.config.max_tokens} tokens"

    def card_use(self) -> str:
        return """from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer("DIR").encode(["a text", "another"])"""

    def _save_pretrained(self, save_directory: Path) -> None:
        network, settings = self.network, self.config.to_dict()
        save_around(save_directory, network, self.tokenizer, self.system_name(), settings, self._beside())
        write_dense_files(
            save_directory,
            width=self.width,
            pooling=self.config.pooling,
            max_tokens=self.config.max_tokens,
            encoder_decoder=network.config.is_encoder_decoder,
        )

    def _beside(self) -> dict[str, Tensor]:
        """What the system has beside its network."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("network.")}

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **hub: Any) -> Self:
        folder = loading.local_folder(model_id, hub)
        config = cls.Config.from_dict(settings_in(folder, cls.system_name()))
        model = cls(config, *load_network(str(folder), cls.head))
        load_beside(folder, model, model._beside())
        return model.eval()


def _words(text: str, encoding: Any) -> np.ndarray:
    """[tokens] int64: to which word each belongs, counted from 0. A word ends where the tokenizer says so, or at white space."""
    starts = [start for start, _ in encoding.offsets]
    of = encoding.word_ids
    if not starts:
        return np.empty(0, np.int64)
    begins = [
        a != b or text[start : start + 1].isspace() or text[start - 1 : start].isspace()
        for a, b, start in zip(of[1:], of, starts[1:])
    ]
    return np.cumsum([0, *begins])
