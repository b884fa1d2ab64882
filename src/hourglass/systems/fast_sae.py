"""FAST, Training Superior Sparse Autoencoders for Instruct Models (Li, Ye, Y. Chen, X. Li, Zhang, Alinejad-Rokny, Peng and
Yang, 2025).

In: dialogues, each a list of turns {"role", "content"}. Out: for each token of a dialogue, the chat template's own tokens
included, a sparse code [width].

How it works:
1. Dialogues that share 20 words in a row with one before them are left out (`open_dialogues(..., unique=True)`).
2. A dialogue is written with the model's chat template and tokenised once, so that it has no second first token.
3. The frozen model reads each dialogue alone, from its first token on, up to 8192 tokens. The usual way, against which this
   is measured, joins documents and cuts them every 2048 tokens: the beginnings are at wrong places, and see what is not
   theirs (`hourglass.data.flows`: pack "none" here, "blocks" for BT(P) and BT(F); "masked" gives the states of "none" from
   full rows).
4. States are mixed: a buffer is filled, half of it served in random order and filled again (`hourglass.data.mixing`).
5. A ReLU autoencoder with an L1 price, or a JumpReLU one with an L0 price, learns to rebuild them; the encoder sees the
   state as it is, decoder rows have norm 1, the price rises from 0.

Differences from the paper:
- The preset "base" is TopK with scaled rows, because the paper's prices (5 and 0.01) mean something at the scale of its models'
  states only, and leave the number of active latents wherever it falls; the preset "paper" is the published ReLU setting
  and `PAPER_JUMPRELU` the JumpReLU one, states unscaled.
- The decoder starts at whitened differences of states and the encoder at half of it; the thresholds, or the bias, where an
  eighth of d_in is active (paper: Kaiming-uniform, thresholds 0.001).
- `PAPER_TRAINING` lets the cosine fall over all steps after the warm-up; over what the paper's "decay" of 64,000 steps goes
  is not said. The losses are divided by d_in, which Adam does not feel. No gradient is clipped, as none is mentioned.
- The centre is the geometric median of 8,192 states, to a tolerance of 1e-5 of their mean distance (paper: of some states,
  to the end of an iteration limit).
- States are kept on disk in float16 and drawn from there, each step from all of them; `buffer` is the paper's way.
- Layers count from 1, the output of the first block (0: the embeddings); the paper's layer 18 is 19 here.
- A text from which the template takes something away or adds something to is found by what stands around it; templates that
  write the date write a fixed one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from hourglass.adapters.dialogues import DialogueReader
from hourglass.bottlenecks.sparse.codes import SparseCodes
from hourglass.bottlenecks.sparse.recipe import recipe
from hourglass.bottlenecks.sparse.sae import SparseAutoencoder, SparseAutoencoderConfig
from hourglass.data.dialogues import Documents, as_turns
from hourglass.data.flows import Flow, cache_flow, gather
from hourglass.data.mixing import MixedRows
from hourglass.errors import ConfigError, SourceError
from hourglass.training import FitResult, TrainConfig, fit
from hourglass.waist import Batch, Losses, Waist, WaistConfig

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
)
"""The template of Qwen and many others, for a tokenizer that has none."""

LLAMA_SPECIAL = (882, 78191, 128006, 128007, 128009)
"""Ids of Llama 3 that the paper calls special: user, assistant, <|start_header_id|>, <|end_header_id|>, <|eot_id|>."""
QWEN_SPECIAL = (872, 77091, 151644, 151645)
"""Of Qwen 2.5: user, assistant, <|im_start|>, <|im_end|>."""

_AS_PUBLISHED = {"normalize": False, "apply_b_dec_to_input": False, "aux_k": 0, "dead_after": 128_000}

PAPER_RELU: dict[str, Any] = {**_AS_PUBLISHED, "activation": "relu", "sparsity": 5.0, "sparsity_warmup": 10_000}
"""The paper's Standard autoencoder: settings of `SparseAutoencoderConfig`, for `FastSAEConfig.sae`."""

PAPER_JUMPRELU: dict[str, Any] = {
    **_AS_PUBLISHED,
    "activation": "jumprelu",
    "sparsity": 0.01,
    "sparsity_warmup": 10_000,
    "bandwidth": 0.001,
}
"""The paper's JumpReLU autoencoder."""

PAPER_TRAINING = TrainConfig(
    steps=320_000,
    batch_size=128,
    lr=7e-5,
    betas=(0.9, 0.999),
    schedule="cosine",
    warmup=0.05,
    min_lr=0.1,
    clip=None,
    seed=42,
)
"""Batches of 128 tokens, 40,960,000 in all; the learning rate rises for 16,000 steps and falls to a tenth."""

PAPER_ALPHAS = (0, 15, 25, 50, 100, 150, 200)
"""Strengths at which the paper adds the direction of the feature that `features_of_token` puts first on a special token."""


@dataclass(frozen=True, kw_only=True)
class FastSAEConfig(WaistConfig):
    """Reader, flow and autoencoder.

    model, layer, site, dtype, template, special_ids, max_tokens    the reader: see `DialogueReader`
    pack, block   in which context states are taken to learn from: see `Flow`. For use a dialogue is read alone, always
    special       learn from special and template tokens
    width         latents
    sae           the other settings of the autoencoder, as in `SparseAutoencoderConfig`
    """

    model: str = "Qwen/Qwen2.5-0.5B-Instruct"
    layer: int | None = 13
    site: str = "residual"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    template: str | None = None
    special_ids: tuple[int, ...] | None = None
    max_tokens: int | None = None
    pack: Literal["none", "blocks", "masked"] = "none"
    block: int = 2048
    special: bool = True
    width: int = 7168
    sae: dict[str, Any] | None = None

    presets = {  # noqa: RUF012  (a ClassVar of the base)
        "tiny": {
            "model": "minilm",
            "layer": None,
            "dtype": "float32",
            "template": CHATML,
            "width": 64,
            "sae": {"activation": "topk", "k": 4},
        },
        "base": {"sae": {"activation": "topk", "k": 32}},
        "paper": {
            "model": "Qwen/Qwen2.5-7B-Instruct",
            "layer": 19,
            "special_ids": QWEN_SPECIAL,
            "max_tokens": 8192,
            "width": 28_672,
            "sae": PAPER_RELU,
        },
    }

    def __post_init__(self) -> None:
        if self.special_ids is not None:
            object.__setattr__(self, "special_ids", tuple(self.special_ids))  # JSON has lists
        _ = self.flow  # refuses what cannot be

    @property
    def flow(self) -> Flow:
        return Flow(pack=self.pack, block=self.block, special=self.special)


@lru_cache(maxsize=1)
def _reader(model: str, layer: int | None, site: str, dtype: Any, *more: Any) -> DialogueReader:
    """The reader of these settings; it is frozen, so all systems in a row that ask for the same one share it."""
    template, special_ids, max_tokens = more
    return DialogueReader(
        model, layer=layer, site=site, dtype=dtype, template=template, special_ids=special_ids, max_tokens=max_tokens
    )


class FastSAE(Waist):
    """A frozen chat model and a sparse autoencoder over the states of its dialogues; see the module's docstring.

    The reader is kept by name, not by weight: a saved model holds the autoencoder alone.
    """

    Config = FastSAEConfig
    modality = "dialogues"
    tags = frozenset({"batch-coupled"})  # the loss is a mean over tokens, and dialogues differ in length

    config: FastSAEConfig

    def __init__(self, config: FastSAEConfig) -> None:
        super().__init__(config)
        self.reader = _reader(
            config.model,
            config.layer,
            config.site,
            config.dtype,
            config.template,
            config.special_ids,
            config.max_tokens,
        )
        self.reader.template.require()
        settings = {"d_in": self.reader.width, "width": config.width, **(config.sae or {})}
        self.sae = SparseAutoencoder(SparseAutoencoderConfig.from_dict(settings))

    @property
    def width(self) -> int:
        """Number of latents."""
        return int(self.sae.config.width)

    def codes(self, states: Tensor) -> SparseCodes:
        """Sparse codes of token states [T, d]."""
        return self.sae.codes(states)

    def collate(self, examples: Sequence[Any]) -> Batch:
        """Dialogues to states, by dialogue and token, padded at the end.

        states   [n, longest, d] float32
        mask     [n, longest] true where there is a token
        special  [n, longest] true for a special or template token
        """
        if not len(examples):
            raise SourceError("an empty batch: expected at least one dialogue")
        dialogues = []
        for i, example in enumerate(examples):
            turns, wrong = as_turns(example)
            if wrong is not None:
                raise SourceError(f"example {i}: {wrong}")
            dialogues.append((i, turns))
        flow = replace(self.config.flow if self.training else Flow(), special=True)
        rows = gather(self.reader, dialogues, flow)
        lengths = rows.documents.bincount(minlength=len(examples))
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        states, special = torch.zeros(*mask.shape, self.reader.width), torch.zeros_like(mask)
        states[mask], special[mask] = rows.states.float(), rows.special
        return {"states": states, "mask": mask, "special": special}

    def loss(self, batch: Batch) -> Losses:
        """The autoencoder's losses over the tokens that are learned from."""
        return self.sae.loss(self._rows(batch))

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        """[n, longest, width] the code of each token of each dialogue, 0 behind its last; `codes` is for many tokens."""
        mask = batch["mask"]
        codes = torch.zeros(*mask.shape, self.width, device=mask.device)
        codes[mask] = self.codes(batch["states"][mask]).to_dense().float()
        return codes

    def initialize(self, batches: Iterable[Batch]) -> None:
        self.sae.initialize(self._rows(batch) for batch in batches)

    def before_step(self, step: int) -> None:
        self.sae.before_step(step)

    def after_step(self, step: int) -> None:
        self.sae.after_step(step)

    def _rows(self, batch: Batch) -> Batch:
        wanted = batch["mask"] if self.config.special else batch["mask"] & ~batch["special"]
        return {"x": batch["states"][wanted]}


def train_fast(
    model: FastSAE,
    documents: Documents,
    *,
    out: str | Path,
    tokens: int | None = None,
    train: TrainConfig | None = None,
    buffer: int | None = None,
    progress: bool = True,
) -> FitResult:
    """Train the autoencoder of `model` on single tokens, mixed over many dialogues, as the paper does.

    documents  of `open_dialogues`, or of `text_documents` for the flow that the paper compares with
    tokens     read so many, as every flow that is compared must; None: all there are
    train      PAPER_TRAINING, or whatever fits (default: what `recipe` says for so many tokens)
    buffer     tokens of the mixing buffer, from which each half is served; None: every step draws from all tokens

    Leaves the states in `out`/states, the autoencoder's run in `out`/sae, and the system in `out`/model. The same call after a crash
    goes on where it stopped.
    """
    folder = Path(out)
    states = cache_flow(model.reader, documents, model.config.flow, folder / "states", tokens=tokens)
    train = train or recipe(model.sae.config, len(states))
    data: Any = states.rows
    if buffer is not None:
        if 2 * train.batch_size > buffer:
            raise ConfigError(f"buffer {buffer}: expected at least two batches of {train.batch_size} tokens")
        data = MixedRows(states.rows, buffer, seed=train.seed)
    result = fit(model.sae, data, train, out=folder / "sae", progress=progress)
    model.eval().save_pretrained(folder / "model")
    return replace(result, model=model)
