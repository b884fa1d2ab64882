"""Interpretable Embeddings with Sparse Autoencoders: A Data Analysis Toolkit (Jiang, Sun, Dunlap, Smith and Nanda, 2025).

In: texts. Out: for each text a sparse vector [width] whose entries are features that can be named; an entry is
the largest activation of its feature over the text's tokens.

How it works:
1. A frozen reader gives a state [d] for every token of a text, special tokens left out.
2. A sparse autoencoder turns each state into a few active features out of `width`.
3. The codes of a text's tokens are pooled (maximum), over all windows of a long text.
4. Features are named by contrast of contexts, and a name is kept only if it holds on contexts not used to find it.
5. Differences, searches and the rest read only the pooled codes and the names (`hourglass.uses.explore`).

Differences from the paper:
- The default reader is all-MiniLM-L6-v2 and the autoencoder is trained on the corpus at hand (the paper: Llama 3.3 70B
  and a ready autoencoder of width 65,536). Any Hugging Face encoder or causal model can be the reader, or the latents of a system of ours, and `sae` a ready one.
- Special and template tokens are never pooled (the reference implementation pools them).
- Names come from contrastive n-grams; a language model's take their place where they score better (`relabel`). The held-out
  score and the cut at 0.75 are kept.
- A feature counts as present above half of its 90th percentile; the paper's rules are `level=0` and `min_tokens`.
- Differences are estimated on documents that did not select them and carry intervals and false discovery rates; words
  compete with features in one list, and in pairs. Pairs and trends are tested among documents of like length. Groups are told
  by everything at once, too, one text's items by everything in the other, and documents that are alike in both texts.
- Searches are fused with dense vectors and words, and from examples learned, with votes by how each ranking parts them;
  clusters are drawn on the graph of the nearest.
- `PAPER_DIFF`, `PAPER_FIND`, `PAPER_CLUSTER`, `PAPER_CORRELATE` and `PAPER_TREND` switch to the paper's procedure.
- Differences are verified on documents that did not select them, and what a judge refuses is no "no" (`verify`).
- One target against several others: the paper's text (nearest other) is `metric="nearest"`; the released code's paired
  union is `pair=COLUMN`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hourglass.bottlenecks.sparse import SparseAutoencoder, SparseCodes, Transcoder
from hourglass.bottlenecks.sparse.coder import SparseCoder
from hourglass.errors import ConfigError, SourceError
from hourglass.systems.readers import Reader, open_reader
from hourglass.uses.explore.cluster import ClusterOptions
from hourglass.uses.explore.correlate import CorrelateOptions
from hourglass.uses.explore.diff import DiffOptions
from hourglass.uses.explore.find import FindOptions
from hourglass.uses.explore.trend import TrendOptions
from hourglass.waist import Batch, Losses, Waist, WaistConfig

PAPER_DIFF = DiffOptions(metric="nearest", level=0.0, split=False, false_discovery=None, threshold=0.03, top=100)
"""Any activation counts; differences above 0.03, the 200 largest of both directions, estimated where they were selected."""

PAPER_FIND = FindOptions(k=100, temperature=0.2, scale=True, fuse=(), learn=False)
"""The 100 features whose names are nearest to the query, features alone."""

PAPER_CLUSTER = ClusterOptions(k=100, words=False, each=False, level=0.0, neighbours=1_000_000_000)
"""The 100 features nearest to each key phrase and no words, any activation, all documents against all."""

PAPER_CORRELATE = CorrelateOptions(
    level=0.0, min_documents=1, min_npmi=0.5, match_length=False, form=False, split=False, false_discovery=1.0
)
"""Any activation counts; features in 1 % of the documents, NPMI of 0.5 as in its case study, nothing of form, no test."""

PAPER_TREND = TrendOptions(
    level=0.0,
    min_documents=1,
    match_length=False,
    monotone=True,
    threshold=0.0,
    false_discovery=1.0,
    top=50,
)
"""Any activation counts; what rises or falls at every step, no test."""


@dataclass(frozen=True, kw_only=True)
class InterpretableEmbeddingsConfig(WaistConfig):
    """Reader and autoencoder.

    encoder, layer, site, role, dtype  the reader: see `HuggingFaceReader`; of a trained system's folder, its latents
    width, k, activation         the autoencoder: features, active features a token, "topk" or "batchtopk"
    sae                          settings of an autoencoder or transcoder ("system") that was trained before, in place of
                                 these three
    threshold                    an activation counts towards a text's code only above this value
    """

    encoder: str = "minilm"
    layer: int | None = None
    site: str = "residual"
    role: Literal["none", "user", "assistant"] = "none"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    width: int = 4096
    k: int = 32
    activation: Literal["topk", "batchtopk"] = "topk"
    threshold: float = 0.0
    sae: dict[str, Any] | None = None

    presets = {  # noqa: RUF012  (a ClassVar of the base)
        "tiny": {"dtype": "float32", "width": 64, "k": 4},
        "base": {},
        "paper": {
            "encoder": "meta-llama/Llama-3.3-70B-Instruct",
            "layer": 50,
            "role": "assistant",
            "width": 65_536,
            "k": 64,
            "activation": "batchtopk",
        },
    }


_CODERS: dict[str, type[SparseCoder]] = {cls.system_name(): cls for cls in (SparseAutoencoder, Transcoder)}


@lru_cache(maxsize=1)
def _reader(encoder: str, layer: int | None, site: str, dtype: Any, role: Any) -> Reader:
    """The reader of these settings; it is frozen, so all coders in a row that ask for the same one share it."""
    return open_reader(encoder, layer=layer, site=site, dtype=dtype, role=role)


class InterpretableEmbeddings(Waist):
    """A frozen reader and a sparse autoencoder over its token states; see the module's docstring.

    The reader is kept by name, not by weight: a saved model holds the autoencoder alone.

    ready    a trained autoencoder or transcoder with the settings `config.sae`; `trained` is then true, and nothing has to be learned
    """

    Config = InterpretableEmbeddingsConfig
    modality = "text"
    tags = frozenset({"batch-coupled"})  # the loss is a mean over tokens, and texts differ in length

    def __init__(self, config: InterpretableEmbeddingsConfig, ready: SparseCoder | None = None) -> None:
        super().__init__(config)
        self.reader = _reader(config.encoder, config.layer, config.site, config.dtype, config.role)
        learned = {
            "d_in": self.reader.width,
            "width": config.width,
            "k": config.k,
            "activation": config.activation,
        }
        chosen = dict(config.sae or learned)
        if chosen["d_in"] != self.reader.width:
            raise ConfigError(
                f"the autoencoder reads states of {chosen['d_in']} numbers, those of {config.encoder} have {self.reader.width}; "
                "name the encoder, layer and site that it was trained on"
            )
        self.trained = ready is not None
        kind = _CODERS[chosen.pop("system", "sae")]
        self.sae: SparseCoder = ready or kind(kind.Config.from_dict(chosen))

    @staticmethod
    def forget_reader() -> None:
        """Let go of the last reader, which stays at hand for the next coder, so that its memory is free."""
        _reader.cache_clear()

    @property
    def width(self) -> int:
        """Number of features."""
        return int(self.sae.config.width)

    @property
    def reconstructs(self) -> bool:
        """Whether codes decode to the states that they are of: those of a transcoder do not."""
        return isinstance(self.sae, SparseAutoencoder)

    def codes(self, states: Tensor) -> SparseCodes:
        """Sparse codes of token states [T, d]."""
        return self.sae.codes(states)

    def collate(self, examples: Sequence[Any]) -> Batch:
        """Texts to {"states": [n, longest, d] float32, "mask": [n, longest] true where there is a token}."""
        if not len(examples):
            raise SourceError("an empty batch: expected at least one text")
        for i, text in enumerate(examples):
            if not isinstance(text, str):
                raise SourceError(f"example {i}: expected a text, found {type(text).__name__}")
        tokens = self.reader.read(list(examples))
        mask = torch.arange(int(tokens.lengths.max())) < tokens.lengths[:, None]
        states = torch.zeros(*mask.shape, self.reader.width)
        states[mask] = tokens.states.float()
        return {"states": states, "mask": mask}

    def loss(self, batch: Batch) -> Losses:
        """The autoencoder's losses over the batch's tokens."""
        return self.sae.loss(self._rows(batch))

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        """[n, width] largest activation of each feature over the text's tokens; 0 where it never fires."""
        mask = batch["mask"]
        codes = self.codes(batch["states"][mask])
        codes = codes.where(codes.values > self.config.threshold)
        return codes.largest(F.pad(mask.sum(1).cumsum(0), (1, 0))).float()

    def initialize(self, batches: Iterable[Batch]) -> None:
        self.sae.initialize(self._rows(batch) for batch in batches)

    def before_step(self, step: int) -> None:
        self.sae.before_step(step)

    def after_step(self, step: int) -> None:
        self.sae.after_step(step)

    @staticmethod
    def _rows(batch: Batch) -> Batch:
        return {"x": batch["states"][batch["mask"]]}
