"""The narrow waist: what everything above and below meets at.

A system is one class derived from `Waist`: raw examples become tensors in `collate`, tensors become a
loss in `loss` and a latent in `encode`. Training, saving, tests and uses know nothing else of it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, get_type_hints

import torch
from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from hourglass.errors import ConfigError, FolderError, nearest
from hourglass.storage.atomic import atomic_folder, read_json
from hourglass.storage.values import fits

Batch = Mapping[str, Tensor]
"""Tensors by name; the first axis of every tensor is the example."""

Losses = Mapping[str, Tensor]
"""Named scalar tensors; their sum is minimised."""


@dataclass(frozen=True, kw_only=True)
class WaistConfig:
    """Base of every system's config: the one thing that is written to config.json and rebuilds the system."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """The config called `name` ("tiny", "base", "paper"), with fields changed."""
        if name not in cls.presets:
            raise ConfigError(f"no preset {name!r}{nearest(name, cls.presets)}")
        return cls.from_dict({**cls.presets[name], **changes})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from plain values; an unknown key is an error that names the nearest valid one, a wrong type one too."""
        known = {field.name: field.type for field in dataclasses.fields(cls)}
        hints = get_type_hints(cls)
        for key, value in values.items():
            if key not in known:
                raise ConfigError(f"{cls.__qualname__} has no setting {key!r}{nearest(key, known)}")
            if not fits(value, hints[key]):
                raise ConfigError(f"{cls.__qualname__}: {key} {value!r}: expected {known[key]}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class Waist(nn.Module, PyTorchModelHubMixin, library_name="hourglass"):
    """Base class of every system. Subclasses are final: they vary by a config switch or by wrapping.

    A subclass sets `Config` and `modality`, takes its config as the only constructor argument, and defines
    `collate`, `loss` and `encode` (and `decode` where it has one).
    """

    Config: ClassVar[type[WaistConfig]]
    modality: ClassVar[str]
    """What a raw example is: "text" (str), "vectors" (1-D float array of width config.d_in), "pairs" (such a vector and what
    is to be made of it side by side, of width config.d_in + config.columns) or "dialogues" (a list of turns {"role",
    "content"})."""
    tags: ClassVar[frozenset[str]] = frozenset()
    """Capabilities: "decodes"; "batch-coupled" when an example's loss depends on its batch; "weighs-words" of a `WordWeigher`;
    "codes" of a `BitCoder`."""

    config: Any

    def __init__(self, config: WaistConfig) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def system_name(cls) -> str:
        """The name by which a user asks for the system: that of its file."""
        return cls.__module__.rsplit(".", 1)[-1]

    # The contract -------------------------------------------------------------------------------

    def collate(self, examples: Sequence[Any]) -> Batch:
        """Raw examples to tensors: tokenising, masking, spectrograms happen here."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> Losses:
        """Named scalar losses; their sum is minimised."""
        raise NotImplementedError

    def encode(self, batch: Batch) -> Tensor:
        """The latent; the subclass's docstring gives shape and meaning."""
        raise NotImplementedError

    def decode(self, latent: Tensor) -> Any:
        """Back from the latent, where the system can."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Losses:
        """Same as `loss`, so that wrappers for many devices see the training pass."""
        return self.loss(batch)

    # What `fit` offers ----------------------------------------------------------------------------

    def initialize(self, batches: Iterable[Batch]) -> None:
        """Once before the first step, for parameters that are set from data."""

    def begins_anew(self, step: int) -> bool:
        """Whether the optimiser forgets, before step 1, 2, ..., what it knows of the steps before."""
        return False

    def before_step(self, step: int) -> None:
        """After the gradients are there, before the optimiser uses them."""

    def after_step(self, step: int) -> None:
        """After the optimiser has moved the parameters."""

    # The folder -----------------------------------------------------------------------------------

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> str | None:
        """Write config.json, model.safetensors and README.md; the folder appears whole or not at all."""
        with atomic_folder(Path(save_directory)) as folder:
            super().save_pretrained(folder)
        if kwargs.pop("push_to_hub", False):
            return self.push_to_hub(kwargs.pop("repo_id", Path(save_directory).name), **kwargs)
        return None

    def _save_pretrained(self, save_directory: Path) -> None:
        config = {"system": self.system_name(), **self.config.to_dict()}
        (save_directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        save_model(self, str(save_directory / "model.safetensors"))

    @classmethod
    def _from_pretrained(cls, *, model_id: str, config: Any = None, **hub: Any) -> Self:
        folder = Path(model_id)
        if folder.is_dir():
            config_file, weights_file = folder / "config.json", folder / "model.safetensors"
        else:
            # What is left of `hub` when the download's own options are taken is not for us.
            options = {
                k: hub[k] for k in ("revision", "cache_dir", "force_download", "local_files_only", "token") if k in hub
            }
            config_file, weights_file = (
                Path(hf_hub_download(model_id, name, **options)) for name in ("config.json", "model.safetensors")
            )
        values = read_json(config_file)
        system = values.pop("system", None)
        if system != cls.system_name():
            raise FolderError(f"{config_file}: holds the system {system!r}, expected {cls.system_name()!r}")
        model = cls(cls.Config.from_dict(values))
        try:
            load_model(model, weights_file)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise FolderError(
                f"{weights_file}: does not fit {config_file}: {str(error).splitlines()[-1].strip()}"
            ) from None
        return model.eval()


# The other interfaces --------------------------------------------------------------------------------


@dataclass(frozen=True)
class TokenStates:
    """Hidden states of several texts, token by token; padding left out, special tokens too unless they were asked for.

    states   [T, d] float tensor, the texts' tokens one after another
    offsets  [n + 1] int64, text i owns rows offsets[i] : offsets[i + 1]
    spans    [T, 2] int32, first and past-last character of each token in its text; of a special token around the text,
             twice the place where it stands
    special  [T] bool, the special tokens; None where they are left out
    """

    states: Tensor
    offsets: Tensor
    spans: Tensor
    special: Tensor | None = None

    @property
    def lengths(self) -> Tensor:
        return self.offsets.diff()

    def where(self, keep: Tensor) -> TokenStates:
        """Only the tokens for which `keep` [T] is true; every text stays, if with fewer tokens or none."""
        before = torch.cat([keep.new_zeros(1, dtype=torch.int64), keep.cumsum(0)])
        special = None if self.special is None else self.special[keep]
        return TokenStates(self.states[keep], before[self.offsets], self.spans[keep], special)


class TextReader(Protocol):
    """A frozen model that reads texts and gives a state for each token."""

    @property
    def width(self) -> int:
        """Size of a state."""
        ...

    def read(self, texts: Sequence[str]) -> TokenStates:
        """States in the order of `texts`, whatever order they were computed in. Long texts are never cut."""
        ...


class TextEncoder(Protocol):
    """A vector for each text; queries and documents may be read in two ways, and meet in one space.

    Both give [n, d], dense or a SciPy matrix of rows: models of sentence-transformers have this form.
    """

    def encode_query(self, texts: Sequence[str]) -> Any: ...

    def encode_document(self, texts: Sequence[str]) -> Any: ...


class WordWeigher(Protocol):
    """A system that has weights of words of its own, for a lexical index; texts longer than `config.max_tokens` come in parts."""

    tokenizer: Any
    config: Any
    kept_words: int
    """Weights that a text keeps, its largest."""

    def weigh_words(self, texts: Sequence[str]) -> Any:
        """[n, V] rows of SciPy, 0 or more, of a vocabulary of V tokens."""
        ...

    def weigh_queries(self, texts: Sequence[str]) -> Any:
        """The same of queries, whose inner products with documents are the scores."""
        ...


class BitCoder(Protocol):
    """A system whose vectors are also binary codes."""

    @property
    def code_bits(self) -> int | None:
        """Bits of a code; None where its settings have none."""
        ...

    def bits_of(self, vectors: Tensor) -> Tensor:
        """[n, code_bits] bool of vectors [n, d] that `encode` made."""
        ...


def as_device(name: str | torch.device | None = None) -> torch.device:
    """The device asked for, or the best there is."""
    if name is not None:
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
