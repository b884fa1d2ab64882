"""COSMOS: whole texts drawn at once from a small, smooth latent space (Meshchaninov et al. 2025, arXiv 2506.21170).

In: texts of up to L tokens. Out: N latents of d numbers for each, from which the text is written in one pass; and new texts,
drawn from latents that are drawn from noise, with a source text or without.

How it is learned:
1. A frozen encoder reads the text: h [L, d], each feature normalised over the corpus.
2. A resampler of learned queries makes N latents of h, of which positions are left out or which is noised; of the latents some
   numbers are put to 0. A decoder makes all L tokens of them at once, none of which it has seen.
3. Loss "ce" of the tokens, and "mse" between the decoder's last states and h as it was, unspoilt.
4. Then, in these latents, normalised by place and feature, a diffusion learns to tell latents from noised ones
   (`bottlenecks.diffusion`), by a Llama-like network with long skips that hears its own first guess.
5. The moving average of that network draws latents in any number of steps; the decoder writes them, each up to its end token.

Differences from the paper:
- masking of activations is by a boolean mask, as meant: in the authors' code zeros are overwritten (the attention mask alone acts,
  as here), and padding is told by `~` of integers, which spares the last two rows of the masked half; which half of a batch is
  masked is drawn;
- statistics of features come from the texts that are learned from (there: the test split);
- places are scaled by 0.3, not by width ** -0.5 (`position_scale`; the preset paper has it), with which much less is learned in
  the first hundreds of steps;
- `width` and `denoiser_width` may differ from the encoder's, with projections; `words` restricts what can be written;
- the guess for self-conditioning is drawn for a step, not an example; AdamW's epsilon is torch's; latents for the diffusion are kept
  in half precision;
- samplers other than "euler" end at t = 0, with the network's last word, and "dpm++" is not in the authors' code;
- the source (there in the module, not in the trainer) is read behind a learned state that stands for no source;
- interpolation is linear in normalised latents.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hourglass.adapters.huggingface_loading import local_folder
from hourglass.bottlenecks.diffusion import DiffusionConfig, LatentDiffusion, Prediction, Solver
from hourglass.data.scripts import other_script, scripts_of
from hourglass.errors import ConfigError, FolderError, InputError, SourceError
from hourglass.nn.denoiser import Denoiser
from hourglass.nn.text_system import Lesson, TextSystem
from hourglass.storage.atomic import read_json
from hourglass.systems.cosmos_parts import (
    Autoencoder,
    FrozenEncoder,
    Latent,
    Read,
    Side,
    digest,
    keep_latents,
    keep_states,
    noised,
    roles,
)
from hourglass.training.checkpoint import is_finished
from hourglass.uses.progress import Progress
from hourglass.waist import Batch, Losses, WaistConfig

Stage = Literal["autoencoder", "diffusion"]

_AT_ONCE = 64
_LOOKED_AT = 256
_SCRIPTS_OF = 10_000
"""Sources whose letters are counted at most."""
_MOST_BYTES = 4 << 30
"""Of a corpus's features on disk."""


@dataclass(frozen=True, kw_only=True)
class CosmosConfig(WaistConfig):
    """Autoencoder, diffusion, and how both are learned.

    encoder         frozen: "minilm", a folder or a Hub id; or settings of a new network
    max_tokens      longest text, special tokens included
    latents, width  of a text: so many vectors of so many numbers (None: the encoder's)
    layers, heads   of resampler and decoder each
    position_scale  of the learned places; None: width ** -0.5, as in the paper, with which it takes many more steps to learn the
                    first thing
    words           tokens that can be written, the commonest of the texts; the others become the unknown token. None: all
    feature_weight  of the loss "mse"; 0: without it
    masked_share, noised_share   of a batch: examples with positions left out, and with noise
    token_mask      share of the positions that is left out
    noise_keep      delta: h becomes delta h + sqrt(1 - delta^2) noise
    latent_mask     share of the latents' numbers that is put to 0

    schedule, d, prediction, self_conditioning, drop_source, t_min    of the diffusion: see `DiffusionConfig`
    denoiser_layers, denoiser_heads, denoiser_width    its network; width None: that of the latents, without projections
    ema             decay of the average of its weights
    source          column with the text that each text is written from, of at most `source_tokens`; None: texts from nothing
    autoencoder_steps    of a run's steps, the rest being the diffusion's; None: a third
    """

    encoder: str | dict[str, Any] = "minilm"
    max_tokens: int = 64
    latents: int = 16
    width: int | None = None
    layers: int = 4
    heads: int = 6
    dropout: float = 0.1
    position_scale: float | None = 0.3
    words: int | None = None
    feature_weight: float = 1.0
    masked_share: float = 0.5
    noised_share: float = 0.5
    token_mask: float = 0.3
    noise_keep: float = 0.7
    latent_mask: float = 0.4
    schedule: str = "tan"
    d: float = 5.0
    prediction: Prediction = "x0"
    self_conditioning: float = 0.5
    drop_source: float = 0.1
    t_min: float = 0.05
    denoiser_layers: int = 6
    denoiser_heads: int = 6
    denoiser_width: int | None = 384
    ema: float = 0.999
    source: str | None = None
    source_tokens: int = 128
    autoencoder_steps: int | None = None

    presets = {  # noqa: RUF012  (a ClassVar of the base)
        "tiny": {
            "encoder": {
                "model_type": "bert",
                "num_hidden_layers": 1,
                "hidden_size": 32,
                "num_attention_heads": 2,
                "intermediate_size": 64,
            },
            "max_tokens": 112,
            "latents": 4,
            "layers": 1,
            "heads": 2,
            "denoiser_layers": 2,
            "denoiser_heads": 2,
            "denoiser_width": None,
            "ema": 0.9,
        },
        "base": {},
        "paper": {
            "encoder": "bert-base-cased",
            "max_tokens": 128,
            "layers": 12,
            "heads": 12,
            "position_scale": None,
            "denoiser_layers": 12,
            "denoiser_heads": 12,
            "denoiser_width": None,
            "ema": 0.9999,
            "autoencoder_steps": 100_000,
        },
    }

    def __post_init__(self) -> None:
        for name in ("latents", "layers", "heads", "denoiser_layers", "denoiser_heads", "source_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)}: expected 1 or more")
        for name in ("dropout", "masked_share", "noised_share", "token_mask", "noise_keep", "latent_mask", "ema"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} {getattr(self, name)}: expected a share from 0 to 1")
        if self.masked_share + self.noised_share > 1:
            raise ConfigError(
                f"masked_share {self.masked_share}, noised_share {self.noised_share}: expected shares, at most 1 together"
            )
        if self.feature_weight < 0:
            raise ConfigError(f"feature_weight {self.feature_weight}: expected 0 or more")
        if self.autoencoder_steps is not None and self.autoencoder_steps < 1:
            raise ConfigError(f"autoencoder_steps {self.autoencoder_steps}: expected 1 or more")
        self.diffusion()

    def diffusion(self) -> DiffusionConfig:
        names = ("schedule", "d", "prediction", "self_conditioning", "drop_source", "t_min")
        return DiffusionConfig(**{name: getattr(self, name) for name in names})


_ADAMW = {"betas": (0.9, 0.98), "weight_decay": 1e-5, "schedule": "cosine", "min_lr": 0.5, "clip": 10.0}


class Cosmos(TextSystem):
    """Texts as a few vectors, and new texts drawn by diffusion of such vectors; see the module's docstring."""

    Config = CosmosConfig
    tags = frozenset({"decodes"})
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {**_ADAMW, "steps": 200, "batch_size": 16, "lr": 1e-3},
        "base": {**_ADAMW, "steps": 15_000, "batch_size": 64, "lr": 5e-4, "precision": "auto"},
        "paper": {**_ADAMW, "steps": 280_000, "batch_size": 512, "lr": 2e-4, "warmup": 0.01, "precision": "auto"},
        "init": {**_ADAMW, "steps": 10_000, "batch_size": 64, "lr": 5e-4, "precision": "auto"},
    }
    config: CosmosConfig

    def __init__(self, config: CosmosConfig, encoder: FrozenEncoder | None = None) -> None:
        super().__init__(config)
        self.encoder = encoder = FrozenEncoder(config.encoder) if encoder is None else encoder
        features = encoder.width
        width = self.latent_width = features if config.width is None else config.width
        for name, of, heads in (
            ("heads", width, config.heads),
            ("denoiser_heads", config.denoiser_width or width, config.denoiser_heads),
        ):
            if of % (2 * heads):
                raise ConfigError(f"{name} {heads}: expected a number that parts a width of {of} into even widths")
        for name in ("max_tokens", "source_tokens") if config.source else ("max_tokens",):
            asked, special = getattr(config, name), len(encoder.before) + len(encoder.after)
            if not special < asked <= encoder.longest:
                raise ConfigError(f"{name} {asked}: the encoder takes from {special + 1} to {encoder.longest}")
        known = len(encoder.tokenizer)
        if config.words is not None and not len(encoder.tokenizer.all_special_ids) <= config.words <= known:
            raise ConfigError(
                f"words {config.words}: the encoder has {known}, {len(encoder.tokenizer.all_special_ids)} special"
            )
        self.autoencoder = Autoencoder(
            features=features,
            embedding=encoder.blank.shape[0],
            vocabulary=known,
            tokens=config.max_tokens,
            latents=config.latents,
            width=config.width,
            layers=config.layers,
            heads=config.heads,
            dropout=config.dropout,
            words=config.words,
            position_scale=config.position_scale,
            like_features=config.feature_weight > 0,
        )
        network = Denoiser(
            width,
            config.denoiser_heads,
            config.denoiser_layers,
            config.denoiser_width,
            source=None if config.source is None else features,
            source_places=config.source_tokens,
        )
        self.diffusion = LatentDiffusion(config.diffusion(), network, (config.latents, width))
        self._has_autoencoder = False
        self._found: dict[str, str] = {}
        self._source_scripts: list[str] | None = None  # not known of a model that learned from batches alone
        self.begin("autoencoder")

    @classmethod
    def from_checkpoint(cls, model: str, **settings: Any) -> Self:
        """The autoencoder of a trained one, for a diffusion on other texts; settings of the diffusion."""
        if not (Path(model) / "config.json").is_file():
            raise ConfigError(
                f"init {model}: expected the folder of a trained cosmos, whose autoencoder is kept; the encoder is named by the "
                "setting encoder"
            )
        there = cls.from_pretrained(model)
        made = cls(
            cls.Config.from_dict({**there.config.to_dict(), "autoencoder_steps": None, **settings}), there.encoder
        )
        try:
            made.load_state_dict(there.autoencoder_state(), strict=False)
        except RuntimeError as error:
            raise ConfigError(
                f"init {model}: its autoencoder has other sizes ({str(error).splitlines()[1].strip()})"
            ) from None
        made._has_autoencoder = True
        return made

    # Stages ---------------------------------------------------------------------------------------

    def begin(self, stage: Stage) -> None:
        """What is learned from now on; the rest is frozen."""
        self.stage = stage
        for name, parameter in self.named_parameters():
            if not name.startswith("encoder."):
                parameter.requires_grad_(name.startswith("diffusion.") == (stage == "diffusion"))

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.stage == "diffusion":  # what is frozen has no dropout
            self.autoencoder.eval()
        return self

    def lessons(
        self, texts: Sequence[Any], held_out: Sequence[Any], folder: Path, steps: int, progress: bool = False
    ) -> Iterator[Lesson]:
        """The autoencoder, in the folder "autoencoder" of the run, then the diffusion, on latents that are kept beside it."""
        config = self.config
        first = 0 if self._has_autoencoder else config.autoencoder_steps or max(1, steps // 3)
        if first > steps:
            raise ConfigError(f"steps {steps}: expected autoencoder_steps, {first}, and more for the diffusion")
        if first:
            own = "" if first == steps else "autoencoder"
            read: Sequence[Any] = texts if config.source is None else Side(texts, 0)
            if not is_finished(folder / own):
                read = self._kept_states(read, folder / "states", config.max_tokens, progress)
            yield Lesson(own, first, read, held_out)
            shutil.rmtree(folder / "states", ignore_errors=True)
        self._measure(held_out)
        if first == steps:
            return
        self.begin("diffusion")
        if config.source is not None:
            some = np.linspace(0, len(texts) - 1, min(len(texts), _SCRIPTS_OF)).astype(int)
            self._source_scripts = scripts_of(texts[i][1] for i in some)
        learned, measured = (
            self.keep_latents(part, folder / name, progress) if len(part) else part
            for part, name in ((texts, "latents"), (held_out, "latents-held-out"))
        )
        usual = {"schedule": "constant", "clip": 1.0, "ema": config.ema, "min_lr": 0.0}
        yield Lesson("", steps - first, learned, measured, usual=usual)

    def _kept_states(self, texts: Sequence[str], folder: Path, longest: int, progress: bool) -> Sequence[Any]:
        """What the frozen encoder makes of texts, on disk, so that each is read once and not in every pass; the texts themselves where
        that is too much."""
        some = [texts[i] for i in np.linspace(0, len(texts) - 1, min(len(texts), _LOOKED_AT)).astype(int)]
        tokens = sum(map(len, self.encoder.rows(some))) / len(some) * len(texts)
        if 2 * tokens * self.encoder.width > _MOST_BYTES:
            return texts
        with self._evaluated(), Progress(progress) as bars:
            known, advance = digest(self.encoder.state_dict()), bars.counting("Reading texts", len(texts), "texts")
            return keep_states(
                texts, folder, self.encoder.width, known, _AT_ONCE, partial(self._read, longest=longest), advance
            )

    def _measure(self, held_out: Sequence[Any]) -> None:
        if len(held_out):
            texts = [text for text, _ in held_out] if self.config.source else held_out
            self._found = {"token accuracy": f"{self.accuracy(texts):.4f} on held-out texts, read and written again"}

    def keep_latents(self, texts: Sequence[Any], folder: Path, progress: bool = False) -> Sequence[Latent]:
        """Latents of texts, or of pairs of a text and its source, as examples of the diffusion, kept in `folder`; beside it what the
        frozen encoder makes of the sources."""

        def encode(part: Sequence[Any]) -> Tensor:
            return self.latents(part).flatten(1)

        known, sources = digest(self.autoencoder_state()), None
        if self.config.source is not None:
            beside = folder.with_name(f"{folder.name}-sources")
            sources = self._kept_states(Side(texts, 1), beside, self.config.source_tokens, progress)
            texts = Side(texts, 0)
        with Progress(progress) as bars:
            advance = bars.counting("Making latents", len(texts), "texts")
            return keep_latents(texts, folder, self.width, known, sources, _AT_ONCE, encode, advance)

    def autoencoder_state(self) -> dict[str, Tensor]:
        """All that makes the latents and reads them, the encoder included."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("diffusion.")}

    def initialize(self, batches: Iterable[Batch]) -> None:
        """Statistics of what the stage reads: of features, and which words are written; of latents."""
        if self.stage == "diffusion":
            with torch.no_grad():
                self.diffusion.measure(self._latents(batch) for batch in batches)
            return
        if self.config.words is not None:
            batches = list(batches)
            counts = torch.zeros(len(self.encoder.tokenizer), dtype=torch.int64)
            for batch in batches:
                counts += torch.bincount(batch["ids"][batch["mask"]].cpu(), minlength=len(counts))
            self.autoencoder.choose_words(counts, self.encoder.tokenizer)
        self.autoencoder.measure(self._states(batch)[batch["mask"]] for batch in batches)

    # Texts to tensors -----------------------------------------------------------------------------

    @property
    def width(self) -> int:
        """Numbers of a text: all of its latents."""
        return self.config.latents * self.latent_width

    @property
    def longest(self) -> int:
        return self.config.max_tokens

    @property
    def beside(self) -> str | None:
        return self.config.source

    def pieces(self, text: str) -> Iterator[str]:
        """A text in pieces that fit into the latents, cut after sentences where it can be."""
        return self.encoder.pieces(text, self.config.max_tokens)

    def read(self, texts: Sequence[str]) -> list[Read]:
        """What the frozen encoder makes of texts, as examples: for several trainings on the same texts."""
        return self._read(texts, self.config.max_tokens)

    def _read(self, texts: Sequence[str], longest: int) -> list[Read]:
        found = []
        for start in range(0, len(texts), _AT_ONCE):
            ids, mask = self.encoder.padded(_texts(texts[start : start + _AT_ONCE]), longest)
            device = self._device
            states = self.encoder.states(ids.to(device), mask.to(device)).half().cpu()
            found += [Read(i[m].numpy(), s[m].numpy()) for i, s, m in zip(ids, states, mask)]
        return found

    def collate(self, examples: Sequence[Any]) -> Batch:
        """Texts to {"ids", "mask" [n, L]}, and what else there is:

        states    [n, L, d] of examples that were read before (`read`)
        dropped   [n, L] bool, positions left out; noised [n] bool; while the autoencoder learns
        of        [n] mean number of tokens of an example, over the whole batch
        latent    [n, N x width] of examples of the diffusion that are `Latent`s, in place of all these
        source_mask                [n, S], of pairs (text, source) and `Latent`s with one: what a text is written from, by its
        source_ids                 [n, S] or, where it was read before,
        source_states              [n, S, d]

        Raises SourceError for an empty batch, for what is no text, and for a text that is too long.
        """
        if not len(examples):
            raise SourceError("an empty batch: expected at least one text")
        examples = list(examples)
        batch: dict[str, Tensor] = {}
        if isinstance(examples[0], Latent):
            batch["latent"] = torch.from_numpy(np.stack([example.row for example in examples])).float()
            sources = [example.source for example in examples]
        else:
            pairs = [example if isinstance(example, tuple) else (example, None) for example in examples]
            examples, sources = [text for text, _ in pairs], [source for _, source in pairs]
            batch |= self._read_batch(examples) if isinstance(examples[0], Read) else self._text_batch(examples)
            n, mask = len(examples), batch["mask"]
            batch["of"] = mask.sum().float().div(n).expand(n).clone()
            if self.training and self.stage == "autoencoder":
                kinds = roles(n, self.config.masked_share, self.config.noised_share)
                batch["noised"] = kinds == 2
                batch["dropped"] = (kinds == 1)[:, None] & mask & (torch.rand(mask.shape) < self.config.token_mask)
        if self.config.source is not None and sources[0] is not None:
            if isinstance(sources[0], Read):
                read = self._read_batch(sources)
                batch["source_states"], seen = read["states"], read["mask"]
            else:
                batch["source_ids"], seen = self.encoder.padded(_texts(sources), self.config.source_tokens)
            if self.training:
                seen = seen & (torch.rand(len(seen), 1) >= self.config.drop_source)
            batch["source_mask"] = seen
        return batch

    def _text_batch(self, texts: Sequence[Any]) -> dict[str, Tensor]:
        ids, mask = self.encoder.padded(_texts(texts), self.config.max_tokens)
        return {"ids": ids, "mask": mask}

    def _read_batch(self, read: Sequence[Read]) -> dict[str, Tensor]:
        lengths = torch.tensor([len(example.ids) for example in read])
        padded = [
            nn.utils.rnn.pad_sequence([torch.from_numpy(part) for part in parts], True)
            for parts in ([example.ids for example in read], [example.states for example in read])
        ]
        mask = torch.arange(padded[0].shape[1]) < lengths[:, None]
        return {"ids": padded[0], "mask": mask, "states": padded[1].float()}

    # The autoencoder ------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> Losses:
        """{"ce", "mse"}, means over tokens, the first in nats; {"diffusion"}: mean squared error, in its stage."""
        if self.stage == "diffusion":
            with torch.no_grad():
                latents = self._latents(batch)
            return {"diffusion": self.diffusion.loss(latents, self._source(batch))}
        config, mask, of = self.config, batch["mask"], batch["of"].sum()
        clean = self._features(batch)
        features, seen = clean, mask
        if "noised" in batch:
            features = torch.where(batch["noised"][:, None, None], noised(clean, config.noise_keep), clean)
            seen = mask & ~batch["dropped"]
        latents = self.autoencoder.compressed(features, seen)
        if self.training:
            latents = latents * (torch.rand_like(latents) >= config.latent_mask)
        states = self.autoencoder.decoded(latents, self.encoder.blank)[:, : mask.shape[1]][mask]
        losses = {"ce": self.autoencoder.token_loss(states, batch["ids"][mask]) / of}
        if config.feature_weight:
            error = (self.autoencoder.outward(states) - clean[mask]).square().mean(1).sum() / of
            losses["mse"] = config.feature_weight * error
        return losses

    def _states(self, batch: Batch) -> Tensor:
        states = batch.get("states")
        return self.encoder.states(batch["ids"], batch["mask"]) if states is None else states

    def _features(self, batch: Batch) -> Tensor:
        """[n, L, d] normalised."""
        return self.autoencoder.normalised(self._states(batch))

    def _latents(self, batch: Batch) -> Tensor:
        """[n, N, width]"""
        if "latent" in batch:
            return batch["latent"].unflatten(1, (self.config.latents, self.latent_width))
        return self.autoencoder.compressed(self._features(batch), batch["mask"])

    def encode(self, batch: Batch) -> Tensor:
        """[n, N x width] the latents of each text side by side, as they are before normalising for the diffusion."""
        return self._latents(batch).flatten(1)

    def decode(self, latent: Tensor) -> list[str]:
        """A text for each of the latents [n, N x width] or [n, N, width]."""
        return [self.encoder.text(ids) for ids in self.write(latent).tolist()]

    @torch.no_grad()
    def write(self, latent: Tensor) -> Tensor:
        """[n, max_tokens] the likeliest token of every place, those after the end too."""
        rows = latent.to(self._device).view(-1, self.config.latents, self.latent_width)
        return self.autoencoder.written_of(rows, self.encoder.blank)

    @property
    def _device(self) -> torch.device:
        return self.autoencoder.feature_mean.device

    # What it is for -------------------------------------------------------------------------------

    @torch.no_grad()
    def latents(self, texts: Sequence[str]) -> Tensor:
        """[n, N, width] of texts. Raises SourceError for one that is too long."""
        with self._evaluated():
            parts = []
            for start in range(0, len(texts), _AT_ONCE):
                batch = self._text_batch(texts[start : start + _AT_ONCE])
                parts.append(self._latents({k: v.to(self._device) for k, v in batch.items()}))
            return torch.cat(parts)

    def latents_of(self, parts: Sequence[str]) -> Tensor:
        """[n, N, width], normalised by place and number where the diffusion has measured them: what is alike in all latents of a
        place says nothing of a text."""
        return self.diffusion.normalised(self.latents(parts))

    def accuracy(self, texts: Sequence[str], written: Tensor | None = None) -> float:
        """Share of the tokens of texts that come back, special ones included; or that are in `written` [n, max_tokens]."""
        with self._evaluated():
            written = self.write(self.latents(texts)) if written is None else written
        right = total = 0
        for row, ids in zip(written.cpu(), self.encoder.rows(list(texts))):
            right += int((row[: len(ids)] == torch.tensor(ids)).sum())
            total += len(ids)
        return right / max(1, total)

    def reconstruct(self, texts: Sequence[str]) -> list[str]:
        """Each text written again from its latents; one that is too long in pieces, joined by spaces."""
        parted = [list(self.pieces(text)) for text in _texts(texts)]
        with self._evaluated():
            flat = [piece for parts in parted for piece in parts]
            again = iter(self.decode(self.latents(flat)) if flat else [])
        return [" ".join(next(again) for _ in parts) for parts in parted]

    def generate(
        self,
        n: int | None = None,
        sources: Sequence[str] | None = None,
        *,
        steps: int = 200,
        guidance: float = 1.0,
        seed: int = 0,
        solver: Solver = "euler",
    ) -> list[str]:
        """New texts: `n` (8), or `n` (1) for each source, those of the first source first.

        steps, solver  "euler" as in the paper; "dpm++" needs a tenth of the steps
        guidance       1: as learned; more: closer to the source

        The same seed gives the same texts. Raises InputError for a model without a trained diffusion, for sources it cannot take, as
        in a script that none of those it learned from had, and for guidance where no sources were learned from.
        """
        self._check(sources, guidance)
        each = (8 if sources is None else 1) if n is None else n
        if each < 1:
            raise InputError(f"n {n}: expected 1 or more")
        asked: list[Any] = [None] * each if sources is None else [s for s in sources for _ in range(each)]
        texts: list[str] = []
        with self._evaluated(), torch.no_grad():
            for part, start in enumerate(range(0, len(asked), _AT_ONCE)):
                here = asked[start : start + _AT_ONCE]
                seen = None if sources is None else self._seen(here)
                drawn = self.diffusion.sample(
                    len(here), seed=seed + 7919 * part, steps=steps, solver=solver, seen=seen, guidance=guidance
                )
                texts += self.decode(drawn)
        return texts

    def interpolate(self, first: str, last: str, n: int = 7, *, t: float = 0.0, seed: int = 0) -> list[str]:
        """`n` texts on the way from one text to another, both ends included.

        t  above 0: each is noised up to time t and cleaned by the diffusion, so that it is more like texts there are

        Raises InputError for an end of which no token can be written, as of another script than the texts learned from.
        """
        if n < 2:
            raise InputError(f"n {n}: expected 2 or more, the two ends")
        ends = self.latents(self._writable([first, last]))
        shares = torch.linspace(0, 1, n, device=ends.device)[:, None, None]
        between = torch.lerp(ends[:1], ends[1:], shares)
        with self._evaluated():
            if t > 0:
                between = self.diffusion.denoise_from(between, t, seed=seed)
            return self.decode(between)

    def _check(self, sources: Sequence[str] | None, guidance: float) -> None:
        self.diffusion.require_statistics()
        column, dropped = self.config.source, self.config.drop_source
        if column is None and sources is not None:
            raise ConfigError("sources: this model writes from nothing; train one with the setting source=COLUMN")
        if column is None and guidance != 1:
            raise ConfigError("guidance: this model writes from nothing, so that there is nothing to be guided by")
        if guidance != 1 and (sources is None or not dropped):
            why = "it was learned with drop_source 0" if sources is not None else "no sources are given"
            raise ConfigError(f"guidance: {why}; leave it out")
        if column is not None and sources is None and not dropped:
            raise ConfigError("sources: this model writes from a source, and was learned with drop_source 0; give some")
        if sources is not None and not len(sources):
            raise InputError("sources: expected at least one text")
        for i, source in enumerate(sources or []):
            if not isinstance(source, str) or not source.strip():
                raise InputError(f"source {i} is empty: expected a text to write from")
            if not self.encoder.knows(source):
                raise InputError(f"source {i} ({source[:40]!r}): the tokenizer of the encoder knows none of its script")
            known = self._source_scripts
            if known is not None and (other := other_script(source, known)):
                raise InputError(
                    f"source {i} ({source[:40]!r}): most of its letters are {other}; this model learned from sources in "
                    f"{', '.join(known) or 'no script'}"
                )

    def _writable(self, texts: Sequence[str]) -> list[str]:
        for text, row in zip(_texts(texts), self.encoder.rows(texts)):
            if not self.autoencoder.can_write(torch.tensor(row, device=self._device), self.encoder.tokenizer).any():
                raise InputError(
                    f"{text[:40]!r}: none of its tokens is among those that this model has learned to write"
                )
        return list(texts)

    def _seen(self, sources: Sequence[str]) -> Any:
        ids, mask = self.encoder.padded(sources, self.config.source_tokens)
        device = self._device
        return self._source({"source_ids": ids.to(device), "source_mask": mask.to(device)})

    def _source(self, batch: Batch) -> Any:
        if "source_mask" not in batch:
            return None
        mask, states = batch["source_mask"], batch.get("source_states")
        if states is None:
            # A source that is left out is still read, its states are not seen.
            states = self.encoder.states(batch["source_ids"], mask | ~mask.any(1, keepdim=True))
        return cast(Denoiser, self.diffusion.network).read(self.autoencoder.normalised(states), mask)

    @contextmanager
    def _evaluated(self) -> Iterator[None]:
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)

    # The folder -----------------------------------------------------------------------------------

    def card_rows(self) -> dict[str, str]:
        return {"latents": f"{self.config.latents} of {self.latent_width} numbers", **self._found}

    def card_use(self) -> str:
        return """import hourglass as hg

model = hg.load("DIR")
model.generate(8, seed=0)
model.interpolate("a text", "another")"""

    def _save_pretrained(self, save_directory: Path) -> None:
        config = {"system": self.system_name(), **self.config.to_dict()}
        if self._source_scripts is not None:
            config["source_scripts"] = self._source_scripts
        (save_directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        kept = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items() if not k.startswith("encoder.")}
        save_file(kept, save_directory / "model.safetensors", {"format": "pt"})
        self.encoder.save(save_directory / "encoder")

    @classmethod
    def _from_pretrained(cls, *, model_id: str, config: Any = None, **hub: Any) -> Self:
        folder = local_folder(model_id, hub)
        values = read_json(folder / "config.json")
        if (system := values.pop("system", None)) != cls.system_name():
            raise FolderError(f"{folder / 'config.json'}: holds the system {system!r}, expected {cls.system_name()!r}")
        scripts = values.pop("source_scripts", None)
        model = cls(cls.Config.from_dict(values), FrozenEncoder(str(folder / "encoder")))
        model._source_scripts = scripts
        try:
            found = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
            lacking = [name for name in found.missing_keys if not name.startswith("encoder.")]
            if lacking or found.unexpected_keys:
                raise RuntimeError(f"it lacks {lacking[:1]}, has besides {found.unexpected_keys[:1]}")
        except (OSError, RuntimeError, SafetensorError) as error:
            raise FolderError(f"{folder}: cannot be read: {str(error).splitlines()[-1].strip()}") from None
        return model.eval()


def _texts(given: Sequence[Any]) -> list[str]:
    for i, text in enumerate(given):
        if not isinstance(text, str):
            raise SourceError(f"example {i}: expected a text, found {type(text).__name__}")
    return list(given)
