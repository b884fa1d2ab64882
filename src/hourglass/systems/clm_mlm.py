"""CLM, then MLM: one network learns to say the next token, then to fill in hidden ones, and is an encoder.

Gisserot-Boukhlef, Boizard, Faysse, Alves, Malherbe, Martins, Hudelot and Colombo, *Should We Still Pretrain Encoders with
Masked Language Modeling?*, 2025 (arXiv 2507.00994). In: texts. Out: an encoder that transformers opens, and for each text a
vector [d], the mean of its states, read in both directions whatever it was trained with.

1. The network is EuroBERT's: pre-norm, RMSNorm, SwiGLU, rotary positions, no biases, no dropout.
2. CLM: a token sees what is before it, its state predicts the next one; every token is a target.
3. MLM: all see all, each token is replaced by the mask token with probability `ratio`, and predicted at its own place.
4. A run is a row of phases, each with one objective. At a switch only the mask of attention and the targets change: weights,
   head, optimiser and learning rate go on, and the mask token is there from the first step.
5. Learning rate: warm-up, constant, linear decay at the end of the last phase (schedule "wsd"). A quarter of CLM is the paper's advice.
6. With `packed`, as in the paper's presets, an example is a row of full length, of texts one after another.

A decoder of Llama's kind can be gone on from: it becomes an encoder with the same weights (`adapters.pretrained.as_encoder`).

Differences from the paper:
- outside its presets a text is an example, and one longer than `max_tokens` is learned from in windows (`packed`: as in the paper,
  rows of full length; the special tokens that the tokenizer puts around a text are between two, and the last row ends in padding);
- `apart` keeps the texts of a row from seeing each other, in the reference they do;
- from scratch the byte pairs are those of the corpus, where the paper takes Llama 3's;
- at least one token of a text is hidden, whatever `ratio`;
- the decay begins and ends a step later than in the authors' schedule, whose last step has a rate of 0; its lengths are shares
  of a run, where the paper has 2,000 steps each; AdamW's epsilon is 1e-8, where the paper has 1e-5;
- the paper does not say what becomes of the optimiser at the switch: here it is kept, unless `reset_optimizer_at_switch`;
- how a published checkpoint is gone on from (rate, share of warm-up and decay) is our choice;
- "mntp", "mlm_causal" and "prefix" are not the paper's: they part what it changes together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from hourglass.adapters.pretrained import body, load_encoder, settings_of
from hourglass.bottlenecks.masking import choose_tokens, corrupt
from hourglass.data.packing import PackedRow, PackedRows, keep_packed
from hourglass.errors import ConfigError, SourceError, nearest
from hourglass.nn.attention import attention_mask, check_apart, check_attention, places
from hourglass.nn.language_head import token_loss
from hourglass.nn.text_model import TextConfig, TextModel, Tokens
from hourglass.nn.text_system import Lesson
from hourglass.waist import Batch, Losses


@dataclass(frozen=True)
class Objective:
    """What is predicted from what.

    attention  as of `nn.attention`; "prefix": the beginning of a text sees all of itself, the rest what is before it
    hides      tokens are hidden and predicted; otherwise all that can be are, none hidden
    shifted    by the state of the token before, otherwise by its own
    """

    attention: Literal["own", "causal", "prefix"]
    hides: bool
    shifted: bool


OBJECTIVES = {
    "clm": Objective("causal", hides=False, shifted=True),
    "mlm": Objective("own", hides=True, shifted=False),
    "mntp": Objective("own", hides=True, shifted=True),
    "mlm_causal": Objective("causal", hides=True, shifted=False),
    "prefix": Objective("prefix", hides=False, shifted=True),
}
"""By name. "mntp" is LLM2Vec's, "mlm_causal" has MLM's targets under CLM's mask, "prefix" CLM's targets under half of MLM's."""
_NAMES = tuple(OBJECTIVES)


def _eurobert(layers: int, width: int, inner: int, heads: int, groups: int | None = None) -> dict[str, Any]:
    return {
        "model_type": "eurobert",
        "num_hidden_layers": layers,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_key_value_heads": groups or heads,
        "max_position_embeddings": 2048,
    }


_WHOLE = {"max_tokens": 2048, "steps": 42_000, "packed": True}


@dataclass(frozen=True, kw_only=True)
class CLMMLMConfig(TextConfig):
    """Network, objectives and their order.

    phases  (objective, length) one after another: objectives of `OBJECTIVES`; lengths are shares of the steps, 1 together, or
            numbers of steps. The last goes on for as long as the training does
    steps   of the training, which shares are of; `hourglass fit` fills it in, `fit` in Python needs the same in both places
    ratio   share of the tokens that is hidden; masked, random: of these, what becomes the mask token, and any token; the
            rest stays
    packed  an example is a row of `max_tokens` tokens, filled with texts one after another (`CLMMLM.pack`), instead of a text
    apart   of packed texts none sees another, and each counts its positions from 0
    reset_optimizer_at_switch  AdamW forgets its averages when a phase ends
    decay_before_switch        each phase is a training of its own, with warm-up, decay and AdamW's averages, on the texts
                               from the first on; of `hourglass fit` (`lessons`)
    """

    network: dict[str, Any] = field(default_factory=lambda: _eurobert(4, 256, 1024, 4))
    phases: tuple[tuple[str, float], ...] = (("clm", 0.25), ("mlm", 0.75))
    steps: int = 4000
    ratio: float = 0.4
    masked: float = 1.0
    random: float = 0.0
    packed: bool = False
    apart: bool = False
    reset_optimizer_at_switch: bool = False
    decay_before_switch: bool = False

    presets = {  # noqa: RUF012  (a ClassVar of the base)
        "tiny": {"network": _eurobert(2, 32, 64, 4), "max_tokens": 48, "steps": 200},
        "base": {},
        "paper": {"network": _eurobert(12, 768, 3072, 12), **_WHOLE},
        "paper-610m": {"network": _eurobert(26, 1152, 4096, 18, 6), **_WHOLE},
        "paper-1b": {"network": _eurobert(28, 1728, 5120, 18, 6), **_WHOLE},
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.phases:
            raise ConfigError("phases (): expected one or more, as [['clm', 0.25], ['mlm', 0.75]]")
        for phase in self.phases:
            if not isinstance(phase, list | tuple) or len(phase) != 2 or not isinstance(phase[1], Real):
                raise ConfigError(f"phase {phase!r}: expected an objective and its length, as ['clm', 0.25]")
            if phase[0] not in OBJECTIVES:
                raise ConfigError(f"no objective {phase[0]!r}{nearest(str(phase[0]), OBJECTIVES)}")
        object.__setattr__(self, "phases", tuple((name, length) for name, length in self.phases))
        lengths = [length for _, length in self.phases]
        if not min(lengths) > 0:
            raise ConfigError(f"phases {self.phases}: expected lengths above 0")
        if max(lengths) <= 1:
            if not math.isclose(sum(lengths), 1, abs_tol=1e-6):
                raise ConfigError(f"phases {self.phases}: expected shares that are 1 together, not {sum(lengths):g}")
        elif not all(float(length).is_integer() for length in lengths):
            raise ConfigError(f"phases {self.phases}: expected shares up to 1, or whole numbers of steps")
        if self.steps < 1:
            raise ConfigError(f"steps {self.steps}: expected 1 or more")
        if not 0 < self.ratio <= 1:
            raise ConfigError(f"ratio {self.ratio}: expected a share above 0 and up to 1")
        if min(self.masked, self.random) < 0 or self.masked + self.random > 1:
            raise ConfigError(f"masked {self.masked}, random {self.random}: expected shares, at most 1 together")
        if self.apart and not self.packed:
            raise ConfigError("apart true: is of texts in one row; set packed to true")

    def ends(self) -> list[int]:
        """For each phase the step with which it ends."""
        lengths = [length for _, length in self.phases]
        unit = self.steps if max(lengths) <= 1 else 1
        return [round(unit * end) for end in accumulate(lengths)]

    def objective(self, made: int) -> str:
        """What is learned in the step after `made` steps."""
        under_way = (name for (name, _), end in zip(self.phases, self.ends()) if made < end)
        return next(under_way, self.phases[-1][0])


_WSD = {"schedule": "wsd", "warmup": 0.05, "decay": 0.1, "betas": (0.9, 0.95), "weight_decay": 0.1}
_PAPER = {
    **_WSD,
    "steps": 42_000,
    "batch_size": 2304,  # 192 devices with 12 rows each
    "lr": 5e-4,
    "warmup": 2000 / 42_000,
    "decay": 2000 / 42_000,
    "precision": "auto",
}


class CLMMLM(TextModel):
    """An encoder that learns the next token first, then hidden ones; see the module's docstring."""

    Config = CLMMLMConfig
    head = "masked"
    vocabulary = "bpe"
    follows = ("steps",)
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {**_WSD, "steps": 200, "batch_size": 16, "lr": 3e-3},
        "base": {**_WSD, "steps": 4000, "batch_size": 32, "lr": 1e-3},
        "paper": _PAPER,
        "paper-610m": _PAPER,
        "paper-1b": _PAPER,
        "init": {**_WSD, "steps": 1000, "batch_size": 32, "lr": 5e-5},
    }
    config: CLMMLMConfig
    steps_made: Tensor
    counts: Tensor

    def __init__(self, config: CLMMLMConfig, tokenizer: Any = None, network: Any = None) -> None:
        super().__init__(config, tokenizer, network)
        self._mask_id = self.require_mask()
        for attention in {OBJECTIVES[name].attention for name, _ in config.phases}:
            check_attention(self.network, "causal" if attention == "prefix" else attention)
        if config.apart:
            check_apart(self.network)
        self._before = 0  # steps of the lessons before this one
        # Training is taken up where it stopped: also the phase, and what was counted.
        self.register_buffer("steps_made", torch.zeros((), dtype=torch.int64))
        self.register_buffer("counts", torch.zeros(4, dtype=torch.int64))
        self._of_batch = [0] * 4

    @classmethod
    def from_checkpoint(cls, model: str, **settings: Any) -> Self:
        """A system that goes on from "minilm", a folder or a Hub id, a decoder too; where no phases are given, with MLM alone.

        A decoder without a mask token gets one. Raises FolderError where there is no such model, ConfigError for a decoder
        that cannot be read in both directions and for settings that do not fit.
        """
        tokenizer, network = load_encoder(model)
        values = {"phases": (("mlm", 1.0),), **settings, "network": settings_of(network)}
        return cls(cls.Config.from_dict(values), tokenizer, network)

    # A step ---------------------------------------------------------------------------------------

    def initialize(self, batches: Any) -> None:
        """A new run begins with the first phase, also of a model that was trained before."""
        self.steps_made.fill_(self._before)
        if not self._before:
            self.counts.zero_()

    def pack(self, texts: Sequence[str], folder: Path) -> PackedRows:
        """Texts as the examples of a model with `packed`, kept in `folder` (`data.packing`)."""
        return keep_packed(texts, self.tokenizer, self.config.max_tokens, folder)

    def lessons(
        self, texts: Sequence[str], held_out: Sequence[str], folder: Path, steps: int, progress: bool = False
    ) -> Iterator[Lesson]:
        """One; a lesson for each phase with `decay_before_switch`. Packed rows are kept in `folder`."""
        examples: tuple[Sequence[Any], Sequence[Any]] = (texts, held_out)
        if self.config.packed:
            rows = self.pack(texts, folder / "rows")
            examples = rows, self.pack(held_out, folder / "rows-held-out") if len(held_out) else held_out
        names = [name for name, _ in self.config.phases] if self.config.decay_before_switch else [""]
        ends = [*self.config.ends()[: len(names) - 1], steps]
        if min(np.diff(ends, prepend=0)) < 1:
            raise ConfigError(
                f"steps {steps}: expected enough for each of {len(names)} phases, which end at {ends[:-1]}"
            )
        try:
            for number, (name, end) in enumerate(zip(names, ends), 1):
                yield Lesson("" if number == len(names) else f"phase-{number}-{name}", end - self._before, *examples)
                self._before = end
        finally:
            self._before = 0

    def collate(self, examples: Sequence[Any]) -> Batch:
        """Texts, or packed rows, to what the objective of the step that comes next needs.

        ids, mask  [n, L] the text, and what of it is no padding
        read       [n, L] what the network reads of it
        wanted     [n, L] bool, the tokens that are predicted
        prefix     [n, L] bool, the beginning, of "prefix"; none otherwise
        texts      [n, L] the number of the text within its row; with `apart` alone
        of         [n] mean number of predicted tokens of an example, over the whole batch
        objective  [n] its place among `OBJECTIVES`
        """
        tokens, texts = self._read(examples)
        name = self.config.objective(int(self.steps_made))
        kind = OBJECTIVES[name]
        n, length = tokens.ids.shape
        read, wanted = tokens.ids, tokens.mask.clone()
        prefix = torch.zeros_like(wanted)
        if kind.hides:
            wanted = choose_tokens(tokens.words, self.config.ratio)
            shares = {"masked": self.config.masked, "random": self.config.random}
            read = corrupt(tokens.ids, wanted, self._mask_id, len(self.tokenizer), **shares)
        elif kind.attention == "prefix":
            lengths = torch.zeros(n, int(texts.max()) + 1, dtype=torch.int64).scatter_add_(1, texts, tokens.mask.long())
            sizes = (torch.rand(lengths.shape) * lengths).long()
            prefix = (places(texts) <= sizes.gather(1, texts)) & tokens.mask
            wanted &= ~prefix
        if kind.shifted:
            wanted &= places(texts) > 0  # nothing is before the first
        predicted = int(wanted.sum())
        self._of_batch = [int(tokens.mask.sum()), predicted, n * length, n * length**2]
        batch = {
            "ids": tokens.ids,
            "mask": tokens.mask,
            "read": read,
            "wanted": wanted,
            "prefix": prefix,
            "of": torch.full((n,), max(1, predicted) / n),
            "objective": torch.full((n,), _NAMES.index(name)),
        }
        return {**batch, "texts": texts} if self.config.apart and isinstance(examples[0], PackedRow) else batch

    def _read(self, examples: Sequence[Any]) -> tuple[Tokens, Tensor]:
        """The tokens, and [n, L] the number of each one's text in its row as far as the network is to know: 0 unless `apart`."""
        if len(examples) and isinstance(examples[0], PackedRow):
            ids, special, begins, real = (
                torch.from_numpy(np.stack([getattr(row, name) for row in examples]))
                for name in ("ids", "special", "begins", "real")
            )
            at = torch.arange(ids.shape[1]).expand_as(ids)
            tokens = Tokens(ids, real, at.where(real & ~special, -1), torch.full_like(ids, -1))
            begins[:, 0] = False  # the first of a row is number 0, whether it began there or before
            return tokens, begins.cumsum(1) if self.config.apart else torch.zeros_like(ids)
        if self.training and self.config.packed:
            raise SourceError(
                "a model with packed true learns from rows: make them by its pack, or set packed to false"
            )
        tokens = self.tokens(examples)
        return tokens, torch.zeros_like(tokens.ids)

    def loss(self, batch: Batch) -> Losses:
        """{objective: mean over the predicted tokens of -log p}, in nats."""
        name = _NAMES[int(batch["objective"][0])]
        kind, wanted = OBJECTIVES[name], batch["wanted"]
        states = self._states(batch, kind)[wanted.roll(-1, 1) if kind.shifted else wanted]
        return {name: token_loss(self.network, states, batch["ids"][wanted]) / batch["of"].sum()}

    def _states(self, batch: Batch, kind: Objective) -> Tensor:
        texts = batch.get("texts")
        if kind.attention != "prefix":
            attention = "bidirectional" if kind.attention == "own" and texts is not None else kind.attention
            return self.states(batch["read"], batch["mask"], attention, texts)
        causal, both = (
            attention_mask(batch["mask"], way, self.network.dtype, texts) for way in ("causal", "bidirectional")
        )
        sees = torch.where(batch["prefix"][:, None, None], both, causal)
        return self.states_under(batch["read"], sees, texts)

    def begins_anew(self, step: int) -> bool:
        return self.config.reset_optimizer_at_switch and step - 1 in self.config.ends()[:-1]

    def after_step(self, step: int) -> None:
        self.steps_made.fill_(self._before + step)
        self.counts += torch.tensor(self._of_batch, device=self.counts.device)

    # What it cost ---------------------------------------------------------------------------------

    def spent(self) -> dict[str, int]:
        """What the training took: steps, tokens (no padding), predicted tokens, and FLOPs.

        FLOPs of the products of matrices, forward and back, padding included: six for each weight of a layer and token, twelve
        for each layer, dimension of the heads and pair of tokens, six for each weight of the head and predicted token.
        """
        tokens, predicted, read, pairs = self.counts.tolist()
        config = self.network.config
        inner, whole = (_weights(part) for part in (body(self.network), self.network))
        across = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        attention = 2 * config.num_hidden_layers * config.num_attention_heads * across
        flops = 6 * (inner * read + attention * pairs + (whole - inner) * predicted)
        return {"steps": int(self.steps_made), "tokens": tokens, "predicted": predicted, "flops": flops}

    def card_rows(self) -> dict[str, str]:
        spent = self.spent()
        phases = ", ".join(
            f"{name} up to step {end:,}" for (name, _), end in zip(self.config.phases, self.config.ends())
        )
        packed = (
            {"packed": f"rows of {self.config.max_tokens} tokens, in place of pieces"} if self.config.packed else {}
        )
        return {
            "objectives": phases,
            **packed,
            "tokens read, predicted": f"{spent['tokens']:,}, {spent['predicted']:,}",
            "FLOPs": f"{spent['flops']:.2g}",
        }


def _weights(part: nn.Module) -> int:
    """Of its linear layers."""
    return sum(module.weight.numel() for module in part.modules() if isinstance(module, nn.Linear))
