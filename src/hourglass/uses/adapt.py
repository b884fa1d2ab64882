"""A better retriever for a corpus without labels: an encoder, and beside its vector the words of the text, weighed by how rare the
corpus has them.

    adapt("corpus.jsonl", "adapted")              # seconds: nothing is learned by gradients, the encoder is not even run
    SentenceTransformer("adapted")                # opens it; so do `hourglass encode` and whatever takes such a folder

An encoder that was trained on everything does not know what the rare words of a field are, and pools them away. Here a text is
    [ e / |e|,  sqrt(share) / s x sum_t idf_t r_t / sum_t idf_t ],   of length 1
e the encoder's vector; t the text's tokens; idf_t = log((1 + n) / (1 + documents with t)), 0 for special tokens; r_t a random
direction for each token of the vocabulary (`words` numbers: inner products of many such are sums over shared tokens, but for a noise of
1 / sqrt(words)); s such that a short text and a document that are the same in words add `share`.

A cosine of two texts is then the encoder's, and a share of one of rare words: search by meaning and by words, in one vector that any
index takes. It is not one of the papers' systems. That a text's vector has a part of its meaning and a part of its words is as in
DupMAE; there the words are learned, which takes a corpus larger than most and an encoder with its head.

All of it are stock modules of sentence-transformers, so that no code of ours is needed to open the folder.
"""

from __future__ import annotations

import math
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hourglass.adapters.huggingface_loading import backend, loading_errors, quiet, resolve
from hourglass.adapters.huggingface_loading import encode as tokenize
from hourglass.data import open_texts
from hourglass.errors import ConfigError, FolderError, SourceError
from hourglass.storage.atomic import atomic_folder
from hourglass.uses.progress import Progress

_TEXTS_AT_ONCE = 1024
_SHORT = 12
"""Tokens of a short text, as a query is."""
_KEPT = 2000
"""Texts whose words are kept to measure how long their part is."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Adapted:
    """What was made: documents and tokens (of the vocabulary) that were counted, and the numbers of a vector."""

    documents: int
    tokens: int
    width: int

    def to_dict(self) -> dict[str, int]:
        return asdict(self)


def adapt(
    source: Any,
    out: str | Path,
    *,
    encoder: str = "minilm",
    text: str | None = None,
    limit: int | None = None,
    words: int = 768,
    share: float = 0.25,
    seed: int = 0,
    progress: bool = True,
) -> Adapted:
    """Write a folder for `SentenceTransformer`: the encoder with the words of its texts beside; see the module's docstring.

    source, text, limit   as for `explore`
    encoder     "minilm", a folder of sentence-transformers or transformers, or a Hub id
    words       numbers that a vector has for the words
    share       what words that are all the same add to a cosine of 1, before both are divided by 1 + share
    seed        of the directions of the tokens

    Raises InputError for bad input, in one line.
    """
    out = Path(out)
    if out.exists():
        raise FolderError(f"{out}: exists; choose another --out")
    if words < 1:
        raise ConfigError(f"words {words}: expected 1 or more numbers")
    if not 0 < share < math.inf:
        raise ConfigError(f"share {share}: expected a number above 0, as 0.25")
    from sentence_transformers import SentenceTransformer

    with loading_errors(encoder, "model"):
        model = SentenceTransformer(
            resolve(encoder) if encoder == "minilm" else encoder, device="cpu", trust_remote_code=False
        )
    if not getattr(model.tokenizer, "is_fast", False):
        raise ConfigError(f"{encoder}: has no fast tokenizer of transformers; name a model that has one")
    if any(type(module).__name__ == "WordWeights" for module in model):
        raise ConfigError(f"{encoder}: has words beside its vector already; adapt the encoder that it was made of")
    texts = open_texts(source, text=text)
    if limit is not None:
        texts = texts.limited(limit)
    size = len(model.tokenizer)
    held, sample, documents = np.zeros(size, np.int64), _Sample(seed), 0
    tokenizer = backend(model.tokenizer)
    room = (model.max_seq_length or 512) - model.tokenizer.num_special_tokens_to_add()
    with Progress(progress) as bars:
        task = bars.start("counting", limit, "texts")
        for batch in texts.batches(_TEXTS_AT_ONCE):
            read = tokenize(tokenizer, batch.column(texts.text_column).to_pylist())
            rows = [ids for encoding in read if len(ids := np.array(encoding.ids[:room], np.int64))]
            documents += len(rows)
            for ids in rows:
                sample.add(ids)
            if rows:
                of_row = np.repeat(np.arange(len(rows)), [len(ids) for ids in rows])
                held += np.bincount(np.unique(of_row * size + np.concatenate(rows)) % size, minlength=size)
            bars.advance(task, batch.num_rows)
    if not documents:
        raise SourceError(f"{texts.name}: no text to adapt to")
    idf = np.log((1 + documents) / (1 + held))
    idf[model.tokenizer.all_special_ids] = 0
    made = _with_words(model, idf, words, share, sample.ids, seed)
    with atomic_folder(out) as folder, quiet():
        made.save(str(folder), create_model_card=False)
        (folder / "README.md").write_text(_card(encoder, texts.name, documents, words, share), encoding="utf-8")
    return Adapted(documents, int((held > 0).sum()), int(model.get_embedding_dimension() or 0) + words)


def _with_words(model: Any, idf: Array, words: int, share: float, sample: list[Array], seed: int = 0) -> Any:
    """A `SentenceTransformer` of one, with the words beside its vector.

    idf     [V] weights of the tokens; sample: token ids of some texts
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules.dense import Dense
    from sentence_transformers.base.modules.normalize import Normalize
    from sentence_transformers.sentence_transformer.modules.pooling import Pooling
    from sentence_transformers.sentence_transformer.modules.tokenizer.whitespace import WhitespaceTokenizer
    from sentence_transformers.sentence_transformer.modules.word_embeddings import WordEmbeddings
    from sentence_transformers.sentence_transformer.modules.word_weights import WordWeights

    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(len(idf), words, generator=generator) / math.sqrt(words)
    directions *= math.sqrt(share) / _length(idf, directions, sample, seed)
    width = model.get_embedding_dimension()
    tokens = model.tokenizer.convert_ids_to_tokens(range(len(idf)))
    # The vector waits where the second pooling looks for one of [CLS], while tokens become directions.
    keeps = Dense(
        width, width, bias=False, activation_function=None, init_weight=torch.eye(width),
        module_output_name="cls_token_embeddings",
    )  # fmt: skip
    return SentenceTransformer(
        modules=[
            *model,
            Normalize(),
            WordEmbeddings(WhitespaceTokenizer(), directions),
            keeps,
            WordWeights(tokens, dict(zip(tokens, idf.tolist())), 0.0),
            Pooling(words, ("cls", "mean")),
            Normalize(),
        ],
        device="cpu",
        prompts=model.prompts,
        default_prompt_name=model.default_prompt_name,
        similarity_fn_name="cosine",
    )


def _length(idf: Array, directions: torch.Tensor, sample: list[Array], seed: int) -> float:
    """Root of the mean length of the words of a text times that of a short one, by parts of the texts of the sample."""
    generator = random.Random(seed)
    whole, short = [], []
    for ids in sample:
        start = generator.randrange(max(len(ids) - _SHORT, 0) + 1)
        whole.append(_words(idf, directions, ids))
        short.append(_words(idf, directions, ids[start : start + _SHORT]))
    found = math.sqrt(np.mean(whole) * np.mean(short))
    return found if found > 0 else 1.0


def _words(idf: Array, directions: torch.Tensor, ids: Array) -> float:
    weights = torch.from_numpy(idf[ids]).float()
    total = weights.sum()
    return float((weights @ directions[ids]).norm() / total) if total > 0 else 0.0


class _Sample:
    """Some of all texts, each as likely as any other, in one pass (reservoir sampling)."""

    def __init__(self, seed: int) -> None:
        self.ids: list[Array] = []
        self._seen, self._random = 0, random.Random(seed)

    def add(self, ids: Array) -> None:
        self._seen += 1
        if len(self.ids) < _KEPT:
            self.ids.append(ids)
            return
        place = self._random.randrange(self._seen)
        if place < _KEPT:
            self.ids[place] = ids


def _card(encoder: str, source: str, documents: int, words: int, share: float) -> str:
    return f"""---
library_name: sentence-transformers
tags: [hourglass, sentence-transformers, feature-extraction, sentence-similarity]
---

# {encoder}, adapted to {source}

The vector of `{encoder}` and beside it {words} numbers for the words of a text, weighed by how rare {documents:,} documents have
them; words add {share:g} to a cosine of 1.

```python
from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer("DIR").encode(["a text", "another"])
```
"""
