"""COIL and uniCOIL: tokens that query and document share, compared in their contexts (Gao et al. 2021, arXiv
2104.07186; Lin and Ma 2021, arXiv 2106.14807).

    v_t     = W h_t + b in R^width (COIL), or relu(w . h_t + b) (uniCOIL, width None)
    s(q, d) = sum over q's tokens t of max(0, the largest <v_t, v_j> over d's tokens j that are t)
              + <cls_q, cls_d>                                                            # with `cls`

Special tokens have no part in the sum. One tower reads both sides. Take an encoder whose tokenizer gives a word the
same token wherever it stands, as WordPiece does; to byte-level ones the first word of a text is another token. Learned
from `Pair`: a query's own document against the others of the batch, with hard negatives and a teacher where the
examples have them.

    model = Coil(CoilConfig(), (network, tokenizer))
    fit(model, pairs, TrainConfig(lr=5e-6, ...))
    model.weigh(documents), model.weigh(queries, "query")          # {token: weight}, of uniCOIL
    write_vectors(model, source, "weights.parquet", sparse=True)   # as an index takes them, of uniCOIL
    model.similarity(queries, documents)                           # of both
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from hourglass.errors import ConfigError, SourceError
from hourglass.uses.finetune.distillation import Teaching, checked_teaching
from hourglass.uses.finetune.encoder import Source
from hourglass.uses.finetune.head import Head, HeadConfig, in_batches
from hourglass.uses.finetune.retriever import Pair, checked_learning, pair_batch, pair_losses
from hourglass.uses.search.stages import Array, Query
from hourglass.uses.search.term_weights.published import longest, read_published
from hourglass.uses.search.term_weights.rows import Terms
from hourglass.waist import Batch, Losses

Side = Literal["query", "document"]


class Read(NamedTuple):
    """Of n texts: tokens [n, L], which of them are compared [n, L], their vectors [n, L, width or 1], and [n, cls],
    cls 0 without."""

    ids: Tensor
    kept: Tensor
    vectors: Tensor
    cls: Tensor


@dataclass(frozen=True, kw_only=True)
class CoilConfig(HeadConfig):
    """width         of a token's vector (COIL's authors: 32); None: one number, 0 or more (uniCOIL)
    cls           width of a vector of the whole text, whose inner product is added (768); None: none. Only with `width`
    negatives     hard negatives of each example that are read
    contrastive, distillation    weights of the two losses
    teaching      what is learned of the teacher, as in `hourglass.uses.finetune.distillation`
    """

    width: int | None = None
    cls: int | None = None
    negatives: int = 0
    contrastive: float = 1.0
    distillation: float = 0.0
    teaching: Teaching = "kl"

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_teaching(self.teaching)
        checked_learning(self.negatives, self.contrastive, self.distillation)
        for name in ("width", "cls"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)}: expected 1 or more, or None")
        if self.cls is not None and self.width is None:
            raise ConfigError(
                f"cls {self.cls}: weights of tokens have no vector beside them; set a width, or leave cls out"
            )


class Coil(Head):
    """Examples: `Pair`."""

    Config = CoilConfig
    modality = "pairs of texts"
    tags = frozenset({"batch-coupled"})

    config: CoilConfig
    special: Tensor

    def __init__(self, config: CoilConfig, source: Source) -> None:
        super().__init__(config, source)
        self.tokens_linear = nn.Linear(self.encoder.width, config.width or 1)
        self.cls_linear = None if config.cls is None else nn.Linear(self.encoder.width, config.cls)
        self.kept_words = len(self.tokenizer)
        self.register_buffer("special", torch.tensor(sorted(self.tokenizer.all_special_ids)), persistent=False)

    @classmethod
    def published(cls, folder: str | Path, *, max_tokens: int | None = None) -> Self:
        """Of weights as their authors publish them: castorini/unicoil-*, or COIL's; see `read_published`."""
        found = read_published(folder, {"tok_proj", "cls_proj"}, {"tok_proj"})
        rows = found.linears["tok_proj"].out_features
        whole = found.linears.get("cls_proj")
        config = cls.Config(
            width=None if rows == 1 else rows,
            cls=None if whole is None else whole.out_features,
            max_tokens=longest(found, 256, max_tokens),
        )
        made = cls(config, (found.network, found.tokenizer))
        made.tokens_linear.load_state_dict(found.linears["tok_proj"].state_dict())
        if whole is not None and made.cls_linear is not None:
            made.cls_linear.load_state_dict(whole.state_dict())
        return made.eval()

    def collate(self, examples: Sequence[Pair]) -> Batch:
        """As `pair_batch`."""
        return pair_batch(self, examples, self.config.negatives, self.config.distillation > 0)

    def loss(self, batch: Batch) -> Losses:
        """{"contrastive", "distillation"}, each only where it has a weight."""
        queries = self._query(batch)
        documents = self.read({name: batch[name].flatten(0, 1) for name in ("ids", "mask", "types")})
        config = self.config
        return pair_losses(scores(queries, documents), batch, config.contrastive, config.distillation, config.teaching)

    def encode(self, batch: Batch) -> Tensor:
        """[n, L, width or 1] of the queries' tokens."""
        return self._query(batch).vectors

    def read(self, batch: Batch) -> Read:
        """Of texts' tokens {"ids", "mask", "types"} [n, L]."""
        states = self.states(batch)
        vectors = self.tokens_linear(states)
        if self.config.width is None:
            vectors = vectors.relu()
        kept = batch["mask"] & ~torch.isin(batch["ids"], self.special)
        whole = states[:, 0, :0] if self.cls_linear is None else self.cls_linear(states[:, 0])
        return Read(batch["ids"], kept, vectors, whole)

    # Reading texts --------------------------------------------------------------------------------

    def weigh(self, texts: Sequence[str], of: Side = "document") -> list[Terms]:
        """{token: weight} of uniCOIL, weights above 0: of a token that is there several times the largest in a
        document, the sum in a query, so that the inner product of the two is the score."""
        rows = self._rows(texts, of)
        names = self.tokenizer.convert_ids_to_tokens(range(rows.shape[1]))
        ends = rows.indptr
        return [{names[i]: float(w) for i, w in zip(rows.indices[a:b], rows.data[a:b])} for a, b in pairwise(ends)]

    def weigh_words(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """[n, V] rows of documents, as a `WordWeigher` has them, of uniCOIL."""
        return self._rows(texts, "document")

    def weigh_queries(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """The same of queries: what a token weighs is added up as often as it is there."""
        return self._rows(texts, "query")

    def similarity(self, queries: Sequence[str], documents: Sequence[str]) -> Array:
        """[queries, documents] scores."""
        with self.reading():
            asked = list(self._read(queries))
            columns = [
                np.concatenate([scores(query, part).float().cpu().numpy() for query in asked])
                for part in self._read(documents)
            ]
        return np.concatenate(columns, 1)

    def score_texts(self, query: Query, texts: Sequence[str]) -> Array:
        """[n] scores of texts for a query, as a `TextScorer` gives them."""
        return self.similarity([query.text], texts)[0]

    def _rows(self, texts: Sequence[str], of: Side) -> sparse.csr_matrix:
        if self.config.width is not None:
            raise ConfigError(
                f"width {self.config.width}: a token of COIL has no one weight; use similarity, or width None"
            )
        if of not in ("query", "document"):
            raise ConfigError(f"of {of!r}: expected 'query' or 'document'")
        rows = []
        width = len(self.tokenizer)
        with self.reading():
            for read in self._read(texts):
                weights = read.vectors[..., 0].where(read.kept, 0.0).float()
                made = weights.new_zeros(len(weights), width)
                made.scatter_reduce_(1, read.ids, weights, "sum" if of == "query" else "amax")
                rows.append(sparse.csr_matrix(made.cpu().numpy()))
        return sparse.vstack(rows, "csr")

    def _read(self, texts: Sequence[str]) -> Iterator[Read]:
        """A batch at a time, on the model's device."""
        if not len(texts):
            raise SourceError("no texts: expected one or more")
        device = self.tokens_linear.weight.device
        for part in in_batches(texts):
            yield self.read({name: tensor.to(device) for name, tensor in self.tokens(part).items()})

    def _query(self, batch: Batch) -> Read:
        return self.read({name: batch[f"query_{name}"] for name in ("ids", "mask", "types")})


def scores(queries: Read, documents: Read) -> Tensor:
    """[queries, documents] in float32, also where autocast is on."""
    with torch.autocast(queries.vectors.device.type, enabled=False):
        products = queries.vectors.float().flatten(0, 1) @ documents.vectors.float().flatten(0, 1).T
        same = queries.ids.flatten()[:, None] == documents.ids.flatten()
        same &= queries.kept.flatten()[:, None] & documents.kept.flatten()
        shape = (*queries.ids.shape, *documents.ids.shape)
        matched = products.masked_fill(~same, 0.0).view(shape).amax(3).sum(1)
        return matched + queries.cls.float() @ documents.cls.float().T
