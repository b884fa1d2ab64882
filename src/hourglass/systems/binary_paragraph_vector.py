"""Binary Paragraph Vector: a code of a few bytes for each document, learned from nothing but the documents.

Grzegorczyk and Kurdziel, *Binary Paragraph Vectors*, 2017 (arXiv 1611.01116), on Le and Mikolov's paragraph vectors, 2014. In:
texts. Out: for each text a code of `bits` bits for Hamming search, and the real vector that it is rounded from.

1. Each training document d has a vector P_d [bits]; its code is B(sigmoid(P_d)), B rounds to 0 or 1.
2. DBOW: softmax(O code + b) is to be the distribution of the document's words. DM: that of a word, of the code and the words
   around it (their mean, side by side with the code or added to it).
3. Backward B is the identity (straight-through). Dropout on the code keeps P from learning its words by heart.
4. "real_binary": a vector r_d [width] and a projection that all share, code = B(sigmoid(A r_d + a)): both are learned together.
5. A text that is new gets its vector by the same loss with all else frozen, from one fixed start: equal texts, equal codes, to the
   bit, whatever else is in the batch.

With DBOW a document is its counts of words, so that a step needs one softmax for each document and not for each of its tokens. Word
w weighs n_w min(1, sqrt(t / f_w) + t / f_w), the share of its tokens that subsampling at rate t would keep.

Differences from the paper:
- its text was not to be had beyond the abstract: sizes, rates, dropout and L2 are settings that were found to work on 20 Newsgroups;
- a document's loss is the mean over its words, all documents weigh the same, and Adam moves them where the authors take SGD;
- subsampling weighs words instead of leaving some out at random;
- how DM joins code and words is our choice (`combine`); at each step it learns `draws` words of a document;
- with negative sampling DBOW infers by the loss as it is on average, DM against draws that are the same for all documents;
- sampled softmax draws by unigram ** 0.75 with importance weights, with the exact weight of the word itself;
- texts that are equal are one document.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hourglass.adapters.huggingface_loading import local_folder
from hourglass.errors import ConfigError, FolderError, SourceError
from hourglass.nn.logistic_sums import logistic_sums
from hourglass.nn.text_system import TextSystem
from hourglass.nn.window_means import window_means
from hourglass.storage.atomic import read_json
from hourglass.systems.binary_paragraph_vector_parts import (
    Array,
    Draws,
    Tree,
    against_draws,
    as_bytes,
    kept_share,
    minimum,
    shares,
    side_by_side,
    straight_through,
    terms,
    text_hash,
    windows,
)
from hourglass.waist import Batch, Losses, WaistConfig

_NOISE = 0.75
_BLOCK = 32
"""Documents that are inferred at once; always so many, since products of other shapes round otherwise."""
_FEWEST = 16


@dataclass(frozen=True, kw_only=True)
class BinaryParagraphVectorConfig(WaistConfig):
    """What is learned, and from which words.

    model       "dbow": words of the document, in any order; "dm": a word by the words around it and the document
    latent      "binary": `bits`; "real": `width` numbers, no code; "real_binary": both
    bits        of a code
    binarise    "round"; for comparison "none" (a sigmoid, rounded afterwards), "noise" (of `sigma`, before the sigmoid) or
                "bernoulli" (a bit is 1 with the sigmoid's probability); the code is rounded in all
    objective   "full" softmax; "sampled" softmax, against `negatives` draws (64) for a whole step; "negative" sampling, against
                so many (5) for each word; "hierarchical" softmax, by a Huffman tree
    dropout     of the code, or of the real vector
    l2          weight of the squared length of a document's vector
    subsample   t above; 0: words weigh as often as they stand there
    words       size of the vocabulary, of words with `min_count` in all documents at least, without `stop_words`
    bigrams     two words in a row are in the vocabulary too (dbow)
    combine     dm: "concat" or "sum" of the code and the mean of word vectors, of `word_width` numbers with "concat"
    window      dm: words before, and after
    draws       dm: words of a document in a step; at inference so many, evenly spaced
    infer_lr, infer_steps   of Adam for a new document
    """

    model: Literal["dbow", "dm"] = "dbow"
    latent: Literal["binary", "real", "real_binary"] = "binary"
    bits: int = 128
    width: int = 300
    binarise: Literal["round", "none", "noise", "bernoulli"] = "round"
    sigma: float = 4.0
    objective: Literal["full", "sampled", "negative", "hierarchical"] = "full"
    negatives: int | None = None
    dropout: float = 0.7
    l2: float = 0.01
    subsample: float = 1e-4
    words: int = 8000
    min_count: int = 2
    stop_words: Literal["english", "none"] = "english"
    bigrams: bool = False
    combine: Literal["concat", "sum"] = "concat"
    word_width: int = 100
    window: int = 5
    draws: int = 32
    infer_lr: float = 0.05
    infer_steps: int = 20

    presets = {  # noqa: RUF012  (a ClassVar of the base)
        "tiny": {
            "bits": 16,
            "width": 24,
            "words": 200,
            "min_count": 1,
            "dropout": 0.2,
            "subsample": 0.0,
            "word_width": 8,
            "draws": 8,
        },
        "base": {},
        "base-32": {"bits": 32, "dropout": 0.5},
        "base-real": {"latent": "real", "width": 128, "l2": 0.3, "dropout": 0.0},
        "base-real-binary": {"latent": "real_binary", "bits": 28, "dropout": 0.5, "l2": 0.003},
        "paper": {"words": 10_000},
        "paper-32": {"words": 10_000, "bits": 32, "dropout": 0.5},
        "paper-dm": {"words": 10_000, "model": "dm"},
        "paper-real-binary": {
            "words": 10_000,
            "latent": "real_binary",
            "bits": 28,
            "dropout": 0.5,
            "l2": 0.003,
        },
    }

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} {getattr(self, name)!r}: expected one of {', '.join(choices)}")
        for name in (
            "bits",
            "width",
            "words",
            "min_count",
            "word_width",
            "window",
            "draws",
            "infer_steps",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)}: expected 1 or more")
        if self.negatives is not None and self.negatives < 1:
            raise ConfigError(f"negatives {self.negatives}: expected 1 or more")
        for name in ("sigma", "l2", "subsample"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} {getattr(self, name)}: expected a number, 0 or more")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout {self.dropout}: expected a share from 0 to below 1")
        if not 0 < self.infer_lr < math.inf:
            raise ConfigError(f"infer_lr {self.infer_lr}: expected a number above 0")
        if self.bigrams and self.model == "dm":
            raise ConfigError("bigrams: for model 'dbow'; dm reads words in their order")

    @property
    def size(self) -> int:
        """Numbers of a document's vector."""
        return self.bits if self.latent == "binary" else self.width

    @property
    def drawn(self) -> int:
        """Words that others are drawn against."""
        return self.negatives or (5 if self.objective == "negative" else 64)

    @property
    def hidden(self) -> int:
        """Numbers of what words are predicted from, the words around left out."""
        return self.width if self.latent == "real" else self.bits


_CHOICES = {
    "model": ("dbow", "dm"),
    "latent": ("binary", "real", "real_binary"),
    "binarise": ("round", "none", "noise", "bernoulli"),
    "objective": ("full", "sampled", "negative", "hierarchical"),
    "combine": ("concat", "sum"),
    "stop_words": ("english", "none"),
}

# 12 passes over 10,000 documents.
_ADAM = {"batch_size": 512, "lr": 0.01, "schedule": "constant", "warmup": 0.0, "clip": None}


class BinaryParagraphVector(TextSystem):
    """Binary codes of documents, learned from their words alone; see the module's docstring.

    The vocabulary and a row for each document come with `initialize`, when training begins. For each document its memory has
    three rows of `config.size` numbers (two are Adam's) and its words; the folder of the trained model keeps none of it.
    """

    Config = BinaryParagraphVectorConfig
    modality = "text"
    tags = frozenset({"codes"})
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {**_ADAM, "steps": 100, "batch_size": 16},
        **{name: {**_ADAM, "steps": 300} for name in BinaryParagraphVectorConfig.presets if name != "tiny"},
    }
    config: BinaryParagraphVectorConfig
    counts: Tensor
    hashes: Tensor
    spelled: Tensor

    def __init__(self, config: BinaryParagraphVectorConfig) -> None:
        super().__init__(config)
        dm = config.model == "dm"
        around = config.hidden if config.combine == "sum" else config.word_width
        across = config.hidden + (around if dm and config.combine == "concat" else 0)
        self.documents = nn.Parameter(torch.empty(0, config.size))
        self.out = nn.Parameter(torch.empty(0, across))
        self.bias = nn.Parameter(torch.empty(0))
        self.around = nn.Parameter(torch.empty(0, around)) if dm else None
        self.project = nn.Linear(config.width, config.bits) if config.latent == "real_binary" else None
        # Of the vocabulary: how often each word stands in the corpus, and how it is spelled; of the documents: what they are.
        self.register_buffer("counts", torch.empty(0, dtype=torch.int64))
        self.register_buffer("spelled", torch.empty(0, dtype=torch.uint8))
        self.register_buffer("hashes", torch.empty(0, dtype=torch.int64))
        self._words: list[str] = []
        self._number: dict[str, int] = {}
        self._row: dict[int, int] = {}
        self._read: dict[int, tuple[Array, Array]] = {}
        self._keep = np.empty(0)
        self._tree: Tree | None = None
        self._draws = Draws(np.ones(1))

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        return self.config.size

    @property
    def vocabulary(self) -> list[str]:
        """The words that are known, commonest first."""
        return list(self._words)

    # From data ------------------------------------------------------------------------------------

    def initialize(self, batches: Iterable[Batch]) -> None:
        """Words and documents, from one pass over the texts. Raises SourceError where no word is common enough."""
        found: Counter[str] = Counter()
        numbers: dict[str, int] = {}
        seen: dict[int, Array] = {}
        self._know([])
        for batch in batches:
            # Whole texts only while nothing is known: `collate` gives their bytes.
            for row, length in zip(batch["bytes"].cpu().numpy(), batch["length"].tolist()):
                text = row[:length].tobytes().decode("utf-8", "surrogatepass")
                if (number := text_hash(text)) not in seen:
                    words = self._terms(text)
                    found.update(words)
                    seen[number] = np.array([numbers.setdefault(word, len(numbers)) for word in words], np.int32)
        config = self.config
        kept = [(word, n) for word, n in found.items() if n >= config.min_count]
        kept = sorted(kept, key=lambda pair: (-pair[1], pair[0]))[: config.words]
        if not kept:
            raise SourceError(
                f"no word stands {config.min_count} times in the texts: give more texts, or a lower min_count"
            )
        device = self.out.device
        self.counts = torch.tensor([n for _, n in kept], device=device)
        self._know([word for word, _ in kept])
        self.spelled = torch.frombuffer(bytearray("\n".join(self._words).encode()), dtype=torch.uint8).to(device)
        self.hashes = torch.tensor(sorted(seen), device=device)
        self._row = {number: row for row, number in enumerate(sorted(seen))}
        known = np.array([self._number.get(word, -1) for word in numbers], np.int32)
        for number, row in self._row.items():
            ids = known[seen.pop(number)]
            self._read[row] = self._content(ids[ids >= 0])
        size = self._rows_for(len(kept))
        self.documents.data = 0.1 * torch.randn(len(self._row), config.size, device=device)
        self.out.data = 0.01 * torch.randn(size, self.out.shape[1], device=device)
        # Only of a softmax over all words a logit is a log probability; the others start at 0.
        whole = config.objective in ("full", "sampled")
        self.bias.data = (self.counts / self.counts.sum()).log() if whole else torch.zeros(size, device=device)
        if self.around is not None:
            self.around.data = 0.01 * torch.randn(len(kept), self.around.shape[1], device=device)

    def _rows_for(self, words: int) -> int:
        """Rows of `out`: of a hierarchical softmax the inner nodes of its tree."""
        return max(1, words - 1) if self.config.objective == "hierarchical" else words

    def _know(self, words: list[str]) -> None:
        self._words, self._number = words, {word: number for number, word in enumerate(words)}
        if self.config.objective == "hierarchical":
            self._tree = Tree(self.counts.tolist()[: len(words)])
        if self.config.objective == "negative" and words:
            self._draws = Draws(self.counts.cpu().numpy().astype(float) ** _NOISE)
        self._read, self._keep = {}, kept_share(self.counts.cpu().numpy()[: len(words)], self.config.subsample)

    def _load_from_state_dict(self, state: Mapping[str, Tensor], prefix: str, *rest: Any) -> None:
        """Sizes come from the data, so what is loaded says them."""
        for name in ("documents", "out", "bias", "around"):
            if (tensor := getattr(self, name)) is not None and prefix + name in state:
                tensor.data = torch.empty_like(state[prefix + name], device=tensor.device)
        for name in ("counts", "hashes", "spelled"):
            if prefix + name in state:
                setattr(self, name, torch.empty_like(state[prefix + name], device=self.out.device))
        super()._load_from_state_dict(state, prefix, *rest)
        spelled = self.spelled.cpu().numpy().tobytes().decode()
        self._know(spelled.split("\n") if spelled else [])
        self._row = {number: row for row, number in enumerate(self.hashes.tolist())}

    # Texts to tensors -----------------------------------------------------------------------------

    def collate(self, examples: Sequence[Any]) -> Batch:
        """Texts to the words that are to be predicted.

        ids, weights  [n, L] different words and their weights, 1 together; 0 where there is none. dm: `draws` words
        around        [n, L, 2 window] the words around each, -1 where there is none (dm)
        row           [n] row of the document, -1 of one that is new
        known         [n] whether a word of the text is known

        Before training: bytes [n, longest] and length [n]. Raises SourceError for an empty batch and for what is no text.
        """
        if not len(examples):
            raise SourceError("an empty batch: expected at least one text")
        for i, text in enumerate(examples):
            if not isinstance(text, str):
                raise SourceError(f"example {i}: expected a text, found {type(text).__name__}")
        if not self._words:
            return as_bytes(examples)
        rows = [self._row.get(text_hash(text), -1) for text in examples]
        read = [self._content_of(text, row) for text, row in zip(examples, rows)]
        batch = {"row": torch.tensor(rows), "known": torch.tensor([bool(len(words)) for words, _ in read])}
        if self.config.model == "dbow":
            return {**batch, **side_by_side(read)}
        ordered = [words for words, _ in read]
        return {**batch, **windows(ordered, self._keep, self.config.draws, self.config.window, at_random=self.training)}

    def _content(self, ids: Array) -> tuple[Array, Array]:
        """Words and their shares, of the ids of a text's words in order (dm: these, no shares)."""
        return shares(ids, self._keep) if self.config.model == "dbow" else (ids, ids[:0])

    def _content_of(self, text: str, row: int) -> tuple[Array, Array]:
        """The same of a text; of documents that are learned from read once only."""
        found = self._read.get(row)
        if found is None:
            known = [self._number[word] for word in self._terms(text) if word in self._number]
            found = self._content(np.array(known, np.int32))
            if row >= 0 and self.training:
                self._read[row] = found
        return found

    def _terms(self, text: str) -> list[str]:
        return terms(text, self.config.stop_words == "english", self.config.bigrams)

    # The loss -------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> Losses:
        """{"words": mean over documents of the mean -log p of their words, in nats (of negative sampling its loss), "l2"}.

        A document that is new is inferred first. Raises SourceError for one while learning, ConfigError before training.
        """
        if not self._words:
            raise ConfigError("binary_paragraph_vector: no words are known yet; train it first")
        rows = batch["row"]
        new = rows < 0
        if self.training and bool(new.any()):
            raise SourceError("a text that was not there when the training began; begin again in another folder")
        vectors = (
            self.documents[rows.clamp(min=0)] if len(self.documents) else self.out.new_zeros(len(rows), self.width)
        )
        if bool(new.any()):
            vectors = torch.where(new[:, None], self.encode(batch), vectors)
        known = batch["known"].to(vectors.dtype)
        words = self._words_loss(vectors, batch, learning=self.training)
        return {"words": (words * known).mean(), "l2": self.config.l2 * (vectors.square().sum(1) * known).mean()}

    def _hidden(self, vectors: Tensor, learning: bool) -> Tensor:
        """[n, hidden] what words are predicted from. Nothing is random unless `learning`."""
        if self.config.latent == "real":
            hidden = vectors
        else:
            logits, kind = self._logits(vectors), self.config.binarise
            if learning and kind == "noise":
                logits = logits + self.config.sigma * torch.randn_like(logits)
            hidden = torch.sigmoid(logits)
            if kind == "round":
                hidden = straight_through(hidden, logits >= 0)
            elif kind == "bernoulli" and learning:
                hidden = straight_through(hidden, torch.rand_like(hidden) < hidden)
        return F.dropout(hidden, self.config.dropout, training=learning)

    def _logits(self, vectors: Tensor) -> Tensor:
        return vectors if self.project is None else self.project(vectors)

    def _words_loss(self, vectors: Tensor, batch: Batch, learning: bool) -> Tensor:
        """[n] of each document."""
        hidden, ids, weights = self._hidden(vectors, learning), batch["ids"], batch["weights"]
        if self.around is None and self.config.objective == "full":
            # sum over words of weight x logit, without a logit for each: the words' rows of `out` are added up first.
            named = F.embedding_bag(ids, self.out, per_sample_weights=weights, mode="sum")
            biases = (self.bias[ids] * weights).sum(1)
            return (
                torch.logsumexp(hidden @ self.out.T + self.bias, 1) * weights.sum(1) - (hidden * named).sum(1) - biases
            )
        # Of a dbow document that is inferred, negative sampling is taken as it is on average: one product with all words for all of its own.
        # With the words around each, that would be a product for each word.
        sampled = self.config.objective == "negative" and (learning or self.around is not None)
        if sampled or self.config.objective == "hierarchical":
            return self._logistic(hidden, batch, learning)
        read = hidden[:, None]
        if self.around is not None:
            read = self._with_words(hidden, batch["around"])
        named = (self.out[ids] * read).sum(-1) + self.bias[ids]
        match self.config.objective:
            case "full":
                each = torch.logsumexp(read @ self.out.T + self.bias, -1) - named
            case "sampled":
                each = self._all_logits(read, ids, named, learning) - named
            case _:  # negative sampling as it is on average
                others = F.softplus(read @ self.out.T + self.bias) @ self._noise - self._noise[ids] * F.softplus(named)
                each = F.softplus(-named) + self.config.drawn * others
        return (each * weights).sum(1)

    def _logistic(self, hidden: Tensor, batch: Batch, learning: bool) -> Tensor:
        """[n] of each document, of few rows for each of its words."""
        ids, weights = batch["ids"], batch["weights"]
        there = weights > 0
        words, shares = ids[there], weights[there]
        if self._tree is not None:
            targets = self._tree.targets(words, shares)
        else:
            if learning:
                draws = self._draws.draw((len(words), self.config.drawn), ids.device)
            else:  # the same for all documents, place by place
                draws = self._fixed_draws.to(ids.device)[there.nonzero()[:, 1]]
            targets = against_draws(words, shares, draws)
        # What is read for a place where there is no word has no targets.
        counts = torch.zeros_like(ids).masked_scatter(there, targets.counts)
        if self.around is None:
            read, counts = hidden, counts.sum(1)
        else:
            read, counts = self._with_words(hidden, batch["around"]).flatten(0, 1), counts.flatten()
        ends = F.pad(counts.cumsum(0), (1, 0))
        out, bias = (self.out, self.bias) if learning else (self.out.detach(), self.bias.detach())
        losses = logistic_sums(read.float(), out, bias, *targets[:3], ends)
        return losses.view(len(ids), -1).sum(1)

    def _with_words(self, hidden: Tensor, around: Tensor) -> Tensor:
        assert self.around is not None
        mean = window_means(self.around, around.flatten(0, 1)).unflatten(0, around.shape[:2])
        if self.config.combine == "sum":
            return hidden[:, None] + mean
        return torch.cat([hidden[:, None].expand(-1, mean.shape[1], -1), mean], -1)

    @property
    def _fixed_draws(self) -> Tensor:
        """[draws, drawn] the words that a new document is set against."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self._draws.draw((self.config.draws, self.config.drawn), torch.device("cpu"))

    @property
    def _noise(self) -> Tensor:
        weights = self.counts.to(self.out.dtype) ** _NOISE
        return weights / weights.sum()

    def _all_logits(self, read: Tensor, ids: Tensor, named: Tensor, learning: bool) -> Tensor:
        """[n, L] log of the sum over all words of exp(logit); while learning by a sum over draws that is right on average."""
        if not learning:
            return torch.logsumexp(read @ self.out.T + self.bias, -1).expand(named.shape)
        draws = torch.multinomial(self._noise, self.config.drawn, replacement=True)
        logits = read @ self.out[draws].T + self.bias[draws] - (self.config.drawn * self._noise[draws]).log()
        hits = ids[..., None] == draws  # the word itself counts once, exactly
        logits = logits.expand(*ids.shape, -1).masked_fill(hits, -torch.inf)
        return torch.logsumexp(torch.cat([named[..., None], logits], -1), -1)

    # A vector for any text ------------------------------------------------------------------------

    def encode(self, batch: Batch) -> Tensor:
        """[n, size] the real vectors, by inference, of training documents too; zeros for a text without a known word.

        A row is the same to the bit whatever else is in the batch, on one machine.
        """
        if not self._words:
            return torch.zeros(len(next(iter(batch.values()))), self.width, device=self.out.device)
        made = torch.zeros(len(batch["ids"]), self.width, device=self.out.device)
        if self.config.model == "dm":
            rooms = torch.full_like(batch["row"], self.config.draws)
        elif self.config.objective == "full":
            rooms = torch.full_like(batch["row"], batch["ids"].shape[1])  # words are added up one by one, nothing last
        else:
            # How many places a document takes depends on itself alone, so that its sums have the same order everywhere.
            places = [max(_FEWEST, int(n)) for n in (batch["weights"] > 0).sum(1)]
            rooms = torch.tensor([1 << (n - 1).bit_length() for n in places], device=self.out.device)
        for room in sorted(set(rooms[batch["known"]].tolist())):
            inside = torch.nonzero(batch["known"] & (rooms == room)).flatten()
            for part in inside.split(_BLOCK):
                made[part] = self._inferred(batch, part, room)
        return made

    @property
    def code_bits(self) -> int | None:
        return None if self.config.latent == "real" else self.config.bits

    def bits_of(self, vectors: Tensor) -> Tensor:
        """[n, bits] bool, of vectors that `encode` made; all false for a vector of zeros, which has no known word.

        Raises ConfigError for latent "real".
        """
        if self.config.latent == "real":
            raise ConfigError("latent 'real' has no code; hash its vectors (hourglass.bottlenecks.discrete)")
        with torch.no_grad():
            # A product for each row by itself: its rounding does not depend on the others.
            logits = vectors if self.project is None else torch.cat([self.project(row[None]) for row in vectors])
            return (logits >= 0) & vectors.any(1, keepdim=True)

    def _inferred(self, batch: Batch, rows: Tensor, room: int) -> Tensor:
        """[len(rows), size] minima of the loss by Adam, all but the vectors frozen."""
        config = self.config
        with torch.inference_mode(False), torch.enable_grad():
            # Always a full block; rows beyond those asked for have no words.
            part = {"ids": torch.zeros(_BLOCK, room, dtype=torch.int64, device=self.out.device)}
            part["weights"] = torch.zeros(_BLOCK, room, device=self.out.device)
            if self.around is not None:
                part["around"] = torch.full((_BLOCK, room, 2 * config.window), -1, device=self.out.device)
            for name, tensor in part.items():
                given = batch[name][rows].clone()[:, :room]
                tensor[: len(rows), : given.shape[1]] = given
            start = torch.randn(config.size, generator=torch.Generator().manual_seed(0)).to(self.out.device)
            vectors = (0.01 * start).repeat(_BLOCK, 1)

            def loss(asked: Tensor) -> Tensor:
                return self._words_loss(asked, part, learning=False).sum() + config.l2 * asked.square().sum()

            vectors = minimum(loss, vectors, config.infer_steps, config.infer_lr)
            return vectors[: len(rows)]

    # The folder -----------------------------------------------------------------------------------

    def card_rows(self) -> dict[str, str]:
        code = {} if self.code_bits is None else {"code": f"{self.code_bits} bits"}
        return {**code, "vocabulary": f"{len(self._words):,} words", "documents learned": f"{len(self.hashes):,}"}

    def _save_pretrained(self, save_directory: Path) -> None:
        config = {"system": self.system_name(), **self.config.to_dict()}
        (save_directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (save_directory / "vocabulary.txt").write_text("\n".join(self._words) + "\n", encoding="utf-8")
        left_out = {"documents", "hashes", "spelled"}
        kept = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items() if k not in left_out}
        save_file(kept, save_directory / "model.safetensors", {"format": "pt"})

    @classmethod
    def _from_pretrained(cls, *, model_id: str, config: Any = None, **hub: Any) -> Self:
        folder = local_folder(model_id, hub)
        values = read_json(folder / "config.json")
        if (system := values.pop("system", None)) != cls.system_name():
            raise FolderError(f"{folder / 'config.json'}: holds the system {system!r}, expected {cls.system_name()!r}")
        model = cls(cls.Config.from_dict(values))
        try:
            words = (folder / "vocabulary.txt").read_text(encoding="utf-8").split("\n")[:-1]
            weights = load_file(folder / "model.safetensors")
            weights["spelled"] = torch.frombuffer(bytearray("\n".join(words).encode()), dtype=torch.uint8)
            if model._rows_for(len(words)) != len(weights["out"]):
                raise RuntimeError(f"{len(words):,} words for {len(weights['out']):,} rows")
            weights |= {"documents": model.documents.data, "hashes": model.hashes}
            model.load_state_dict(weights)
        except (OSError, RuntimeError, KeyError, SafetensorError, UnicodeDecodeError) as error:
            raise FolderError(f"{folder}: cannot be read: {str(error).splitlines()[-1].strip()}") from None
        return model.eval()
