"""Retrieval: queries and documents as vectors, as weights of words or as both, a query nearest to its own document. InfoNCE in
the batch, with hard negatives and distillation from a teacher where the examples have them.

    scores[i, j] = similarity(query i, document j) / temperature          # of both parts: see `representation`
    contrastive  = cross-entropy of a query's own document among all documents of the batch (van den Oord et al. 2018)
    distillation = KL(softmax(teacher's scores) || softmax(ours)) over a query's own document and its negatives

The one tower reads both sides. A document of the batch that is the same as a query's own, word for word, does not count as
wrong. A trained model is an encoder for `hourglass.uses.probe`: it has encode_query and encode_document.

    tuned = Retriever(RetrieverConfig.preset("dupmae"), model)            # a `DupMAE`, or any masked language model
    fit(tuned, pairs, TrainConfig(lr=2e-5, ...), out="tuned")
    found, scores = tuned.rows(queries, of="query").search(tuned.rows(documents))

The folder opens with AutoModel, and with SentenceTransformer, which gives the dense part; `save_sparse` writes another with the
lexical part, for SparseEncoder. Networks that others would read in another way than is done here, those made for one direction
and those that also write, are saved for this class alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from hourglass.adapters.huggingface_loading import frame, load
from hourglass.adapters.pretrained import load_beside, load_network, save_around, settings_in
from hourglass.adapters.sentence_transformers_files import save_sparse, write_dense_files
from hourglass.data.judged import Judged
from hourglass.errors import ConfigError, SourceError, nearest
from hourglass.metrics.estimates import Estimate
from hourglass.nn.lexical import Activation, keep_largest, largest_logits, lexical_weights
from hourglass.uses.finetune.distillation import Teaching, checked_teaching, distilled
from hourglass.uses.finetune.encoder import Source
from hourglass.uses.finetune.head import TEXTS_AT_ONCE, Head, HeadConfig, Pooling, checked_pooling
from hourglass.uses.finetune.representation import REPRESENTATIONS, JointRows, Parts, Representation
from hourglass.uses.probe.retrieval import SIMILARITIES, retrieval
from hourglass.waist import Batch, Losses

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Pair:
    """A query, its document, documents that look like it and are not, and a teacher's scores of document and negatives."""

    query: str
    document: str
    negatives: tuple[str, ...] = ()
    teacher: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class RetrieverConfig(HeadConfig):
    """representation  "dense": a vector; "lexical": weights of the vocabulary's tokens; "both" (the paper's cls, ot and both)
    pooling       of the vector: "mean" of the token states, or the first, "cls"
    reduced       numbers that a learned matrix brings the vector to; None: it stays as wide as a state
    k             weights that a document keeps, its largest; None: all. A query keeps all
    activation    of the weights: "log1p_relu", or the "raw" largest logits
    similarity    "cosine" or "dot", the inner product, which weights of words need
    temperature   that scores are divided by; with "dot" 1 is usual
    negatives     hard negatives of each example that are read; the others of the batch's documents are negatives as well
    contrastive, distillation    weights of the two losses; distillation needs negatives
    teaching      what is learned of the teacher: "kl", "margin" or "mse", as in `distillation`; of scores / temperature
    """

    representation: Literal["dense", "lexical", "both"] = "dense"
    pooling: Pooling = "mean"
    reduced: int | None = None
    k: int | None = 384
    activation: Activation = "log1p_relu"
    similarity: Literal["cosine", "dot"] = "cosine"
    temperature: float = 0.05
    negatives: int = 0
    contrastive: float = 1.0
    distillation: float = 0.0
    teaching: Teaching = "kl"

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "dupmae": {
            "representation": "both",
            "pooling": "cls",
            "reduced": 384,
            "k": 384,
            "similarity": "dot",
            "temperature": 1.0,
            "dropout": 0.0,
        }
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_pooling(self.pooling)
        checked_teaching(self.teaching)
        if self.similarity not in SIMILARITIES:
            raise ConfigError(f"similarity {self.similarity!r}{nearest(self.similarity, SIMILARITIES)}")
        if self.representation not in REPRESENTATIONS:
            raise ConfigError(f"representation {self.representation!r}{nearest(self.representation, REPRESENTATIONS)}")
        if self.activation not in get_args(Activation):
            raise ConfigError(f"activation {self.activation!r}{nearest(self.activation, get_args(Activation))}")
        if self.representation != "dense" and self.similarity != "dot":
            raise ConfigError(
                f"similarity {self.similarity!r}: weights of words are compared by 'dot', the inner product"
            )
        for name in ("reduced", "k"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)}: expected 1 or more, or None")
        if not self.temperature > 0:
            raise ConfigError(f"temperature {self.temperature}: expected a positive number")
        checked_learning(self.negatives, self.contrastive, self.distillation)


def checked_learning(negatives: int, contrastive: float, distillation: float) -> None:
    """ConfigError for settings that leave nothing to learn from."""
    if negatives < 0 or (distillation > 0 and negatives < 1):
        raise ConfigError(f"negatives {negatives}: expected 0 or more, and with distillation 1 or more")
    if min(contrastive, distillation) < 0 or not contrastive + distillation > 0:
        raise ConfigError(
            f"contrastive {contrastive}, distillation {distillation}: expected weights, 0 or more, not both 0"
        )


def checked_pair(i: int, example: Any, negatives: int, taught: bool) -> None:
    """SourceError for example `i` if it is no `Pair`, has too few negatives, or lacks a teacher's scores where it is
    `taught`."""
    if not isinstance(example, Pair):
        raise SourceError(f"example {i}: expected a Pair, found {type(example).__name__}")
    if len(example.negatives) < negatives:
        raise SourceError(f"example {i}: {len(example.negatives)} negatives; expected {negatives} or more: mine them")
    if taught and (example.teacher is None or len(example.teacher) != 1 + len(example.negatives)):
        raise SourceError(
            f"example {i}: expected a teacher's score of the document and of each of {len(example.negatives)} negatives"
        )


def pair_batch(head: Head, examples: Sequence[Pair], negatives: int, taught: bool) -> dict[str, Tensor]:
    """Tokens of the queries [n, L] ("query_ids" ...) and of the documents [n, 1 + negatives, L'] ("ids" ...), own one
    first; "teacher" [n, 1 + negatives] where examples are `taught`. Raises SourceError as `checked_pair`."""
    for i, example in enumerate(examples):
        checked_pair(i, example, negatives, taught)
    documents = [text for e in examples for text in (e.document, *e.negatives[:negatives])]
    batch = {f"query_{name}": tensor for name, tensor in head.tokens([e.query for e in examples]).items()}
    for name, tensor in head.tokens(documents).items():
        batch[name] = tensor.unflatten(0, (len(examples), 1 + negatives))
    if taught:
        batch["teacher"] = torch.tensor([e.teacher[: 1 + negatives] for e in examples if e.teacher is not None])
    return batch


def pair_losses(scores: Tensor, batch: Batch, contrastive: float, distillation: float, teaching: Teaching) -> Losses:
    """{"contrastive", "distillation"} of scores [n, n x (1 + negatives)] of a `pair_batch`, documents in its order;
    each only where it has a weight. A document that is the same as a query's own does not count as wrong."""
    n, group = batch["ids"].shape[:2]
    ids = batch["ids"].flatten(0, 1)
    own = torch.arange(n, device=ids.device) * group
    losses = {}
    if contrastive > 0:
        same = (ids[own][:, None] == ids[None]).all(-1)
        same[torch.arange(n), own] = False
        wrong = scores.masked_fill(same, -torch.inf)
        losses["contrastive"] = contrastive * nn.functional.cross_entropy(wrong, own)
    if distillation > 0:
        among = own[:, None] + torch.arange(group, device=ids.device)
        losses["distillation"] = distillation * distilled(scores.gather(1, among), batch["teacher"], teaching)
    return losses


class Retriever(Head):
    """Examples: `Pair`."""

    Config = RetrieverConfig
    modality = "pairs of texts"
    tags = frozenset({"batch-coupled"})

    config: RetrieverConfig

    def __init__(self, config: RetrieverConfig, source: Source) -> None:
        words = config.representation != "dense"
        super().__init__(config, source, words=words)
        if words and (not self.encoder.plain or self.encoder.network.get_output_embeddings() is None):
            raise ConfigError(
                f"{type(self.encoder.network).__name__}: weights of words need a masked language model with its head; "
                "start from one, as AutoModelForMaskedLM or a DupMAE"
            )
        unit = config.similarity == "cosine"
        self.representation = Representation(config.representation, self.encoder.width, config.reduced, unit)
        self._around = tuple(map(len, frame(self.tokenizer, "none")))

    def collate(self, examples: Sequence[Pair]) -> Batch:
        """Tokens of the queries [n, L] ("query_ids" ...) and of the documents [n, 1 + negatives, L'] ("ids" ...), own one first.

        Raises SourceError for an example with too few negatives, or without a teacher's scores where they are learned from.
        """
        return pair_batch(self, examples, self.config.negatives, self.config.distillation > 0)

    def loss(self, batch: Batch) -> Losses:
        queries = self._query(batch["query_ids"], batch["query_mask"], batch["query_types"])
        ids, mask, types = (batch[name].flatten(0, 1) for name in ("ids", "mask", "types"))
        documents = self._document(ids, mask, types)
        scores = self.representation.scores(queries, documents) / self.config.temperature
        config = self.config
        return pair_losses(scores, batch, config.contrastive, config.distillation, config.teaching)

    def encode(self, batch: Batch) -> Tensor:
        """[n, d' + V] of the queries, both parts side by side; of length 1 with "cosine"."""
        return torch.cat(self._query(batch["query_ids"], batch["query_mask"], batch["query_types"]), 1)

    def rows(self, texts: Sequence[str], of: Literal["query", "document"] = "document") -> JointRows:
        """Both parts of queries or of documents, in the order of the texts."""
        if not len(texts):
            raise SourceError("no texts: expected one or more")
        order = np.argsort([-len(text) for text in texts], kind="stable")
        dense, lexical = zip(*self._read([texts[i] for i in order], of))
        back = np.argsort(order)
        return JointRows(np.concatenate(dense)[back], sparse.vstack(lexical, "csr")[back])

    def encode_query(self, texts: Sequence[str]) -> Any:
        """[n, d'] float32; with a lexical part [n, d' + V], rows of SciPy: whose inner product with documents is the score."""
        return self.rows(texts, "query").stacked()

    def encode_document(self, texts: Sequence[str]) -> Any:
        """As `encode_query`, of documents."""
        return self.rows(texts).stacked()

    def _read(self, texts: Sequence[str], of: str) -> Iterator[tuple[Array, sparse.csr_matrix]]:
        """Dense and lexical rows of the texts, a batch at a time."""
        read = self._query if of == "query" else self._document
        with self.reading() as device:
            for start in range(0, len(texts), TEXTS_AT_ONCE):
                batch = self.tokens(texts[start : start + TEXTS_AT_ONCE])
                parts = read(**{name: tensor.to(device) for name, tensor in batch.items()})
                scale = self.representation.scale if of == "query" else 1.0
                yield (
                    parts.dense.float().cpu().numpy(),
                    sparse.csr_matrix((scale * parts.lexical).float().cpu().numpy()),
                )

    def score(self, judged: Judged) -> Estimate:
        """nDCG@10 over the whole corpus of `judged`."""
        return retrieval(self, judged, similarity=self.config.similarity).means()["ndcg@10"]

    def _query(self, ids: Tensor, mask: Tensor, types: Tensor) -> Parts:
        states = self.states({"ids": ids, "mask": mask, "types": types})
        return self.representation(lambda: self.pool(states, mask), lambda: self._weights(states, mask))

    def _document(self, ids: Tensor, mask: Tensor, types: Tensor) -> Parts:
        parts = self._query(ids, mask, types)
        return parts._replace(lexical=keep_largest(parts.lexical, self.config.k))

    def _weights(self, states: Tensor, mask: Tensor) -> Tensor:
        """Of the ordinary tokens: those around the text have no voice."""
        before, after = self._around
        place = torch.arange(mask.shape[1], device=mask.device)
        ordinary = (place >= before) & (place < mask.sum(1, keepdim=True) - after)
        largest = largest_logits(self.encoder.network, states, ordinary)
        return lexical_weights(largest, self.tokenizer.all_special_ids, self.config.activation)

    # The folder -----------------------------------------------------------------------------------

    def lexical(self) -> Self:
        """A retriever by the lexical part alone, with this one's encoder; ConfigError where there is no such part, or its
        weights are raw, and can be below 0."""
        if self.config.representation == "dense" or self.config.activation == "raw":
            raise ConfigError(
                f"representation {self.config.representation!r}, activation {self.config.activation!r}: expected 'lexical' or "
                "'both', and 'log1p_relu'; tune one with these"
            )
        alone = replace(self.config, representation="lexical", reduced=None)
        return type(self)(alone, (self.encoder.network, self.tokenizer)).train(self.training)

    def save_sparse(self, folder: str | Path) -> None:
        """A folder that `SparseEncoder` of sentence-transformers opens, and that gives the lexical part of documents."""
        alone = self.lexical()
        save_sparse(Path(folder), alone.encoder.network, self.tokenizer, self.config.max_tokens, self.config.k)

    def _save_pretrained(self, save_directory: Path) -> None:
        if not self.encoder.plain:
            return super()._save_pretrained(save_directory)
        network, linear = self.encoder.network, self.representation.linear
        save_around(save_directory, network, self.tokenizer, self.system_name(), self.config.to_dict(), self._beside())
        if self.representation.has_dense:
            write_dense_files(
                save_directory,
                width=self.encoder.width,
                pooling=self.config.pooling,
                max_tokens=self.config.max_tokens,
                linear=None if linear is None else linear.weight,
                unit=self.config.similarity == "cosine",
            )

    def _beside(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("encoder.")}

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **hub: Any) -> Self:
        folder = Path(model_id)
        if (folder / "encoder").is_dir():
            return super()._from_pretrained(model_id=model_id, **hub)
        config = cls.Config.from_dict(settings_in(folder, cls.system_name()))
        words = config.representation != "dense"
        tokenizer, network = load_network(model_id, "masked") if words else load(model_id, torch.float32)
        head = cls(config, (network, tokenizer))
        load_beside(folder, head, head._beside())
        return head.eval()
