"""PreTTR: a cross-encoder whose first layers read documents alone, once and for all queries.

MacAvaney, Nardini, Perego, Tonellotto, Goharian and Frieder 2020 (arXiv 2004.14255). In: a query and documents. Out: a score of each
document.

    query part    = [CLS] q [SEP], at places 0, 1, ..
    document part = d [SEP], at places from query_tokens + 2 on (with joint_from 0 from the end of the query part)
    layers 1 .. joint_from      tokens see those of their own part
    layers joint_from + 1 .. L  tokens see all
    score                       the network's own head over the first state

so that a document's states after `joint_from` layers do not hang on the query: they are computed once and kept, as float16 if asked for, and
for a query the other layers remain. With joint_from 0 nothing is computed before, and the score is the plain cross-encoder's. One that was trained
to see all in every layer gets worse with each that is split: train it so, by the same class.

    model = PreTTR(PreTTRConfig(joint_from=4), (cross_encoder, tokenizer))
    fit(model, pairs, TrainConfig(...), out="tuned")              # `uses.finetune.Pair`s with mined negatives
    search = bm25 % 100 >> prettr("tuned/model")

Differences from the paper: states are not compressed by a learned layer, half precision alone makes them smaller; padding takes no place in a
query that is shorter than query_tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, final

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hourglass.errors import ConfigError
from hourglass.nn.attention import as_scores
from hourglass.uses.finetune.encoder import Source
from hourglass.uses.finetune.head import Array, in_batches
from hourglass.uses.finetune.ranking import RankingConfig, RankingHead
from hourglass.uses.finetune.scoring import (
    Layers,
    frame_of,
    one_score,
    open_scoring,
    pieces,
    positions_of,
    save_scoring,
    scoring,
)
from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.stages import Query, Ranking, Rescorer
from hourglass.waist import Batch


@dataclass(frozen=True, kw_only=True)
class PreTTRConfig(RankingConfig):
    """joint_from    layers that read query and document apart
    query_tokens  of a query that are read; documents have the rest of max_tokens
    """

    joint_from: int = 0
    query_tokens: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.joint_from < 0 or self.query_tokens < 1:
            raise ConfigError(
                f"joint_from {self.joint_from}, query_tokens {self.query_tokens}: expected 0 or more, and 1 or more"
            )


class PreTTR(RankingHead):
    """Examples: `Pair`, a query with its document and negatives."""

    Config = PreTTRConfig

    config: PreTTRConfig

    def __init__(self, config: PreTTRConfig, source: Source) -> None:
        super().__init__(config, scoring(source), words=True)
        one_score(self.encoder.network)
        self._layers, self._frame = Layers(self.encoder.network), frame_of(self.tokenizer)
        if config.joint_from >= len(self._layers):
            raise ConfigError(
                f"joint_from {config.joint_from}: of {len(self._layers)} layers one or more must read query and document together"
            )
        self._room = config.max_tokens - config.query_tokens - self._frame.size
        if self._room < 1:
            raise ConfigError(
                f"max_tokens {config.max_tokens}, query_tokens {config.query_tokens}: no room for a document"
            )

    @classmethod
    def open(cls, model: str, joint_from: int | None = None) -> Self:
        """A folder of one that was trained, or a cross-encoder, with another `joint_from`; ConfigError for a plain one without."""
        settings, source = open_scoring(model, cls.system_name())
        if settings is None:
            if joint_from is None:
                raise ConfigError(
                    f"{model}: a plain cross-encoder; say how many layers read documents alone: joint_from="
                )
            most = positions_of(source[0])
            settings = {"max_tokens": most, "query_tokens": min(32, most // 4)}
        if joint_from is not None:
            settings["joint_from"] = joint_from
        return cls(cls.Config.from_dict(settings), source).eval()

    # All at once ------------------------------------------------------------------------------------------

    def pairs(self, queries: Sequence[str], documents: Sequence[str]) -> Batch:
        """ids, mask, types, places [n, L], and told [n, L] bool, a token of the document part."""
        asked = [self._frame.query(ids) for ids in pieces(self.tokenizer, queries, self.config.query_tokens)]
        told = [self._frame.document(ids) for ids in pieces(self.tokenizer, documents, self._room)]
        first, second = self._frame.types
        batch = self.padded(
            [[*q, *d] for q, d in zip(asked, told)],
            [[first] * len(q) + [second] * len(d) for q, d in zip(asked, told)],
        )
        places = [torch.cat([torch.arange(len(q)), self._places(len(q), len(d))]) for q, d in zip(asked, told)]
        at = torch.arange(batch["ids"].shape[1])
        batch["places"] = pad_sequence(places, batch_first=True)
        batch["told"] = (at >= torch.tensor([len(q) for q in asked])[:, None]) & batch["mask"]
        return batch

    def encode(self, batch: Batch) -> Tensor:
        """[n, L, d] states after the last layer."""
        states = self._layers.begin(batch["ids"], batch["types"], batch["places"])
        real, told = batch["mask"], batch["told"]
        apart = told[:, :, None] == told[:, None, :]
        for layer in range(len(self._layers)):
            states = self._layers.step(
                layer, states, _mask(real, states, apart if layer < self.config.joint_from else None)
            )
        return states

    def score(self, batch: Batch) -> Tensor:
        return self._layers.end(self.dropout(self.encode(batch)))[:, 0]

    def score_texts(self, query: Query, texts: Sequence[str]) -> Array:
        """[n] float32 scores of documents for a query, a `TextScorer`, with nothing computed before."""
        return self.scored(query.text, texts)

    # Documents first --------------------------------------------------------------------------------------

    def documents(self, texts: Sequence[str]) -> list[Array]:
        """[tokens, d] float32 states of each document part after `joint_from` layers; ConfigError where these are none."""
        if not self.config.joint_from:
            raise ConfigError("joint_from 0: no layer reads documents alone, and there is nothing to compute before")
        made: list[Array] = [np.zeros(0)] * len(texts)
        told = [self._frame.document(ids) for ids in pieces(self.tokenizer, texts, self._room)]
        order = sorted(range(len(told)), key=lambda i: len(told[i]))
        with self.reading() as device:
            for some in in_batches(order, self.documents_at_once):
                ids = [told[i] for i in some]
                batch = self.padded(ids, [[self._frame.types[1]] * len(row) for row in ids])
                places = self._places(0, batch["ids"].shape[1]).expand_as(batch["ids"])
                for i, state in zip(some, self._alone(batch, places, device)):
                    made[i] = state[: len(told[i])].cpu().numpy()
        return made

    def join(self, query: str, states: Sequence[Array]) -> Array:
        """[n] float32 scores of documents by the states that `documents` has made of them, in whatever precision they were kept."""
        made = np.empty(len(states), np.float32)
        order = sorted(range(len(states)), key=lambda i: len(states[i]))
        ids = self._frame.query(pieces(self.tokenizer, [query], self.config.query_tokens)[0])
        with self.reading() as device:
            batch = self.padded([ids], [[self._frame.types[0]] * len(ids)])
            asked = self._alone(batch, torch.arange(len(ids))[None], device)
            for some in in_batches(order, self.documents_at_once):
                told = [torch.from_numpy(np.array(states[i], np.float32)).to(device, asked.dtype) for i in some]
                both = torch.cat([asked.expand(len(some), -1, -1), pad_sequence(told, batch_first=True)], 1)
                lengths = torch.tensor([len(ids) + len(state) for state in told], device=device)
                real = torch.arange(both.shape[1], device=device) < lengths[:, None]
                for layer in range(self.config.joint_from, len(self._layers)):
                    both = self._layers.step(layer, both, _mask(real, both))
                made[some] = self._layers.end(both)[:, 0].float().cpu().numpy()
        return made

    def fingerprint(self) -> str:
        """Of all that a document's states hang on."""
        hashed = hashlib.sha256(json.dumps(self.config.to_dict(), sort_keys=True).encode())
        hashed.update(json.dumps(self._frame).encode())
        after = [f".layer.{i}." for i in range(self.config.joint_from, len(self._layers))]
        for name, tensor in sorted(self.encoder.state_dict().items()):
            if not any(part in name for part in after):
                hashed.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return hashed.hexdigest()[:12]

    def _alone(self, batch: Batch, places: Tensor, device: torch.device) -> Tensor:
        states = self._layers.begin(batch["ids"].to(device), batch["types"].to(device), places.to(device))
        for layer in range(self.config.joint_from):
            states = self._layers.step(layer, states, _mask(batch["mask"].to(device), states))
        return states

    def _places(self, asked: int, number: int) -> Tensor:
        """[number] of a document part, after a query part of `asked` tokens."""
        fixed = self.config.query_tokens + len(self._frame.before) + len(self._frame.between)
        return torch.arange(number) + (fixed if self.config.joint_from else asked)

    def _save_pretrained(self, save_directory: Path) -> None:
        save_scoring(self, save_directory)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **hub: Any) -> Self:
        return cls.open(model_id)


def _mask(real: Tensor, states: Tensor, also: Tensor | None = None) -> Tensor:
    """Tokens [n, L] that are real are seen, of these the ones of `also` [n, L, L]; a row of padding sees itself."""
    length = real.shape[1]
    sees = real[:, None, :].expand(-1, length, -1)
    sees = sees if also is None else sees & also
    return as_scores(sees | torch.eye(length, dtype=torch.bool, device=real.device), states.dtype)


@final
class Precomputed(Rescorer):
    """What has been found is scored again by a PreTTR whose states of all documents are made at the first search, and kept with the index.

    dtype  of the kept states: a document takes its tokens x the network's width x 2 bytes as float16
    """

    def __init__(self, index: SearchIndex, model: PreTTR, *, dtype: Literal["float16", "float32"] = "float16") -> None:
        if dtype not in ("float16", "float32"):
            raise ConfigError(f"dtype {dtype!r}: expected float16 or float32")
        self.name, self._index, self._model, self._dtype = "prettr", index, model, np.dtype(dtype)
        self._open: tuple[Array, Array] | None = None

    def again(self, query: Query, ranking: Ranking) -> Ranking:
        if not self._model.config.joint_from:
            return Ranking.of(ranking.rows, self._model.score_texts(query, self._index.texts(ranking.rows)))
        ends, states = self._kept()
        some = [states[ends[row] : ends[row + 1]] for row in ranking.rows]
        return Ranking.of(ranking.rows, self._model.join(query.text, some))

    def _kept(self) -> tuple[Array, Array]:
        if self._open is None:
            name = f"prettr-{self._model.fingerprint()}-{self._dtype.name}"
            folder = self._index.cached(name, self._build)
            ends = np.load(folder / "ends.npy")
            shape = (int(ends[-1]), self._model.encoder.width)
            self._open = ends, np.memmap(folder / "states.bin", self._dtype, "r", shape=shape).view(np.ndarray)
        return self._open

    def _build(self, folder: Path) -> None:
        ends = [0]
        with (folder / "states.bin").open("wb") as file:
            for state in self._states():
                # What float16 cannot hold would be infinite; states of trained networks are far below.
                limit = np.finfo(self._dtype).max
                file.write(np.clip(state, -limit, limit).astype(self._dtype).tobytes())
                ends.append(ends[-1] + len(state))
        np.save(folder / "ends.npy", np.array(ends, np.int64))

    def _states(self) -> Iterator[Array]:
        for batch in self._index.batches(["text"]):
            for texts in in_batches(batch.column("text").to_pylist(), 256):
                yield from self._model.documents(texts)
