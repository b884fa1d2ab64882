"""The two small networks of SentenceVAE, sentence to vector and vector to sentence, and how the large one writes with them.

A sentence's tokens are rows of `ids` [R, L]: its words, its end, padding. Both networks read them shifted right behind an
end token, as the authors do: OPT's beginning and end are one token.

A layer is that of "Attention Is All You Need", normed after each part. Attention to a single vector has weight 1 whatever asks:
the decoder's attention to its sentence is what is left of it, two linear maps of the vector, the same at every place.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hourglass.adapters.attending import attend
from hourglass.adapters.vector_decoder import cache_bytes
from hourglass.errors import ConfigError
from hourglass.training.randomness import number

_SENTENCES_AT_ONCE = 64

Keys = list[tuple[Tensor, Tensor]]
"""Keys and values [R, heads, places, d / heads] of each layer."""


def by_length(lengths: Tensor, at_once: int = _SENTENCES_AT_ONCE) -> Iterator[tuple[Tensor, int]]:
    """Rows in groups of like length, and the longest of each: little is padded."""
    for rows in lengths.argsort(descending=True, stable=True).split(at_once):
        if len(rows):  # of none split makes one part
            yield rows, int(lengths[rows[0]])


def shifted(ids: Tensor, end: int) -> Tensor:
    """[R, L] what is read before each token: an end, and the tokens but the last."""
    read = ids.roll(1, 1)
    read[:, 0] = end
    return read


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float, conditioned: bool) -> None:
        super().__init__()
        self.heads, self.rate = heads, dropout
        self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        nn.init.xavier_uniform_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        self.value = nn.Linear(width, width) if conditioned else None
        self.add = nn.Linear(width, width) if conditioned else None
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3 if conditioned else 2))
        self.dropout = nn.Dropout(dropout)

    def condition(self, memory: Tensor) -> Tensor:
        """[R, 1, d] what the sentence's vector [R, d] adds at every place."""
        assert self.value is not None and self.add is not None
        added: Tensor = self.add(self.value(memory))[:, None]
        return added

    def forward(
        self,
        states: Tensor,
        sees: Tensor | None,
        added: Tensor | None = None,
        cache: tuple[Tensor, Tensor] | None = None,
        place: int = 0,
    ) -> Tensor:
        """States [R, L, d]. sees: bool mask of attention; None is causal. cache: L is 1, keys up to `place` are kept there."""
        rows, length, width = states.shape
        asks, keys, values = self.project(states).view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if cache is not None:
            for kept, new in zip(cache, (keys, values)):
                kept[:, :, place] = new[:, :, 0]
            keys, values = (kept[:, :, : place + 1] for kept in cache)
        rate = self.rate if self.training else 0.0
        mixed = attend(asks, keys, values, sees, causal=sees is None and cache is None, dropout=rate)
        mixed = self.out(mixed.transpose(1, 2).reshape(rows, length, width))
        states = self.norms[0](states + self.dropout(mixed))
        if added is not None:
            states = self.norms[1](states + self.dropout(added.expand_as(states)))
        inner = self.narrow(self.dropout(F.relu(self.wide(states))))
        made: Tensor = self.norms[-1](states + self.dropout(inner))
        return made


class _Reader(nn.Module):
    """Tokens with their places, and layers: what both networks are made of."""

    layers: Any
    places: Tensor

    def __init__(
        self, tokens: int, width: int, layers: int, heads: int, longest: int, dropout: float, conditioned: bool
    ) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Embedding(tokens, width)
        self.layers = nn.ModuleList(_Layer(width, heads, dropout, conditioned) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("places", sinusoids(longest, width), persistent=False)

    def placed(self, ids: Tensor, first: int = 0) -> Tensor:
        states: Tensor = self.dropout(self.embed(ids) + self.places[first : first + ids.shape[1]])
        return states


class SentenceEncoder(_Reader):
    """Sentences to vectors: s = LayerNorm(sum of the states), the sum and the norm in float32.

    learnable_add   each state is weighed first, by a linear function of itself
    """

    def __init__(
        self, tokens: int, width: int, layers: int, heads: int, longest: int, dropout: float, learnable_add: bool
    ) -> None:
        super().__init__(tokens, width, layers, heads, longest, dropout, conditioned=False)
        self.weigh = nn.Linear(width, 1) if learnable_add else None
        self.norm = nn.LayerNorm(width)

    def forward(self, read: Tensor, lengths: Tensor) -> Tensor:
        """[R, d] float32, of `read` [R, L] and their lengths [R]."""
        real = torch.arange(read.shape[1], device=read.device) < lengths[:, None]
        states = self.placed(read)
        for layer in self.layers:
            states = layer(states, real[:, None, None])
        with torch.autocast(read.device.type, enabled=False):
            states = states.float() * real[..., None]
            if self.weigh is not None:
                states = self.weigh(states) * states
            vectors: Tensor = self.norm(states.sum(1))
        return vectors


class SentenceDecoder(_Reader):
    """A vector to its sentence, a token at a time."""

    def __init__(self, tokens: int, width: int, layers: int, heads: int, longest: int, dropout: float) -> None:
        super().__init__(tokens, width, layers, heads, longest, dropout, conditioned=True)
        self.head = nn.Linear(width, tokens)

    def forward(self, read: Tensor, memory: Tensor) -> Tensor:
        """[R, L, d] states that say the next token, of `read` [R, L] and vectors [R, d]."""
        states = self.placed(read)
        for layer in self.layers:
            states = layer(states, None, layer.condition(memory))
        return states

    def spell(
        self, memory: Tensor, end: int, banned: Tensor, most: Tensor, pick: Callable[[Tensor, Tensor], Tensor]
    ) -> Iterator[tuple[Tensor, Keys]]:
        """For each place the next token [R] of every sentence, -1 where it has ended, and the keys and values kept by now.

        memory   [R, d]; most [R], words of each at most: one that does not end by itself ends there
        banned   ids that are never written; a sentence does not begin with its end
        pick     tokens [r] of logits [r, V] for the sentences [r] that go on
        """
        rows, width = memory.shape
        longest = int(most.max())
        shape = rows, self.heads, longest, width // self.heads
        kept: Keys = [(memory.new_empty(shape), memory.new_empty(shape)) for _ in self.layers]
        added = [layer.condition(memory) for layer in self.layers]
        ids = torch.full((rows,), end, device=memory.device)
        going = torch.ones_like(ids, dtype=torch.bool)
        for place in range(longest):
            states = self.placed(ids[:, None], place)
            for layer, cache, more in zip(self.layers, kept, added):
                states = layer(states, None, more, cache, place)
            # Only those that go on are drawn for: an ended sentence waits, whatever the others do.
            there = (going & (place < most)).nonzero()[:, 0]
            logits = self.head(states[there, 0]).float()
            logits[:, banned] = -torch.inf
            if place == 0:
                logits[:, end] = -torch.inf
            ids = torch.full_like(ids, end).index_copy(0, there, pick(logits, there))
            going = ids != end
            if not bool(going.any()):
                return
            yield ids.where(going, -1), kept


def sinusoids(length: int, width: int) -> Tensor:
    """[length, width] sines and cosines of the place, in turn."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000) / width))
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


def as_long_as(ids: Tensor, lengths: Tensor, counted: Tensor, pad: int, end: int) -> tuple[Tensor, Tensor]:
    """What the released code reads and wants of sentences [R, L] of which it takes each to be `counted` [R] tokens long: the end
    is put there, before it what is missing is padding."""
    plain = ids.scatter(1, lengths[:, None] - 1, pad)
    return shifted(plain, end), plain.scatter(1, counted[:, None] - 1, end)


# Writing ----------------------------------------------------------------------------------------------


class Picker:
    """Chooses tokens: the likeliest at temperature 0, else drawn, with a stream of random numbers for each prompt.

    The k-th time that a prompt occurs has a stream of (seed, k), so that what is written for it does not depend on its batch.
    """

    def __init__(self, prompts: Sequence[str], temperature: float, top_p: float, seed: int) -> None:
        if temperature < 0:
            raise ConfigError(f"temperature {temperature}: expected 0 or more")
        if not 0 < top_p <= 1:
            raise ConfigError(f"top_p {top_p}: expected a share above 0 and up to 1")
        self._temperature, self._top_p = temperature, top_p
        seen: Counter[str] = Counter()
        self._streams = []
        for prompt in prompts:
            self._streams.append(torch.Generator().manual_seed(number(seed, seen[prompt])))
            seen[prompt] += 1

    def part(self, start: int, stop: int) -> Picker:
        """That of some of the prompts."""
        made = copy(self)
        made._streams = self._streams[start:stop]
        return made

    def __call__(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Tokens [r] of logits [r, V] for the prompts `rows`."""
        if self._temperature == 0:
            return logits.argmax(1)
        shares, ids = (logits / self._temperature).softmax(1).sort(dim=1, descending=True, stable=True)
        shares = shares.where(shares.cumsum(1) - shares < self._top_p, 0)
        drawn = torch.stack([torch.rand((), generator=self._streams[row]) for row in rows.tolist()]).to(logits.device)
        below = shares.cumsum(1) <= (drawn * shares.sum(1))[:, None]
        return ids.gather(1, below.sum(1, keepdim=True).clamp(max=ids.shape[1] - 1))[:, 0]


@dataclass(frozen=True)
class Limits:
    """sentences: of each prompt; words: of a sentence; tokens: of each prompt, in all; stop: whether the stop head is heeded."""

    sentences: int
    words: int
    tokens: int | None
    stop: bool


class Writing(Iterable[tuple[int, Tensor]]):
    """Sentences that come after those of each prompt: iterated, (place in the sentence, token [n]) one after another, -1 for a
    prompt that has none there. Place 0 begins a sentence.

    The network reads a vector a sentence and keeps its keys and values; the decoder keeps those of the sentence that it is at.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[Any]], limits: Limits, pick: Picker) -> None:
        """prompts: for each the tokens of its sentences, one at least; `model`: encoder, decoder, network, stop, end, banned."""
        from transformers import DynamicCache

        self._model, self.prompts, self._limits, self._pick = model, prompts, limits, pick
        self._cache = DynamicCache(config=model.network.config)
        self._most_of_decoder = 0
        self._begun: tuple[Tensor, Tensor] | None = None

    @torch.inference_mode()
    def begin(self) -> None:
        """Read the prompts, which writing does first where it is not done yet."""
        if self._begun is None:
            vectors, mask = self._read()
            self._begun = self._next(vectors, mask), mask

    def kv_bytes(self) -> int:
        """Bytes of keys and values: of the network by now, and the most that the decoder has had."""
        return cache_bytes(self._cache) + self._most_of_decoder

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        with torch.inference_mode():
            yield from self._write()

    def _write(self) -> Iterator[tuple[int, Tensor]]:
        model, limits = self._model, self._limits
        self.begin()
        assert self._begun is not None
        states, mask = self._begun
        device = states.device
        going = torch.ones(len(states), dtype=torch.bool, device=device)
        left = torch.full((len(states),), limits.tokens or limits.sentences * limits.words, device=device)
        for made in range(1, limits.sentences + 1):
            if limits.stop:
                going = going & (model.stop(states).argmax(1) == 1)
            rows = going.nonzero()[:, 0]
            if not len(rows):
                return
            spelled: list[Tensor] = []
            most = left[rows].clamp(max=limits.words)

            def pick(logits: Tensor, there: Tensor, rows: Tensor = rows) -> Tensor:
                return self._pick(logits, rows[there])

            for place, (ids, kept) in enumerate(model.decoder.spell(states[rows], model.end, model.banned, most, pick)):
                held = sum(2 * keys[:, :, : place + 1].numel() * keys.element_size() for keys, _ in kept)
                self._most_of_decoder = max(self._most_of_decoder, held)
                spelled.append(ids)
                yield place, torch.full_like(left, -1).index_copy(0, rows, ids)
            if made == limits.sentences:
                return
            written = torch.stack(spelled, 1)
            lengths = (written >= 0).sum(1)
            left[rows] -= lengths
            going = going & (left > 0)
            # Its end after its words, and what the encoder reads of it, are as in training.
            sentence = F.pad(written, (0, 1), value=-1).scatter(1, lengths[:, None], model.end).clamp(min=0)
            new = states.new_zeros(len(states), 1, states.shape[1])
            new[rows, 0] = model.encoder(shifted(sentence, model.end), lengths + 1)
            mask = F.pad(mask, (0, 1), value=True)
            states = self._next(new, mask)

    def _read(self) -> tuple[Tensor, Tensor]:
        """Vectors of the prompts' sentences [n, S, d] and which are real [n, S], padded on the left."""
        model = self._model
        of_each = [model.vectors_of(sentences) for sentences in self.prompts]
        longest = max(map(len, of_each))
        vectors = torch.stack([F.pad(rows, (0, 0, longest - len(rows), 0)) for rows in of_each])
        mask = torch.tensor([[i >= longest - len(rows) for i in range(longest)] for rows in of_each])
        return vectors, mask.to(vectors.device)

    def _next(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """[n, d] the states at the last of these sentences, whose keys and values join the others."""
        places = (mask.long().cumsum(1) - 1).clamp(min=0)[:, -vectors.shape[1] :]
        made = self._model.network(
            inputs_embeds=vectors,
            attention_mask=mask.long(),
            position_ids=places,
            past_key_values=self._cache,
            use_cache=True,
        )
        states: Tensor = made.last_hidden_state[:, -1]
        return states


def sentences_of(writing: Writing) -> list[list[list[int]]]:
    """The whole of it: for each prompt the tokens of each sentence."""
    found: list[list[list[int]]] = [[] for _ in writing.prompts]
    for place, ids in writing:
        for sentences, token in zip(found, ids.tolist()):
            if token >= 0:
                if place == 0:
                    sentences.append([])
                sentences[-1].append(token)
    return found


def pieces_of(writing: Writing, text_of: Callable[[Sequence[int]], str], before: str) -> Iterator[str]:
    """That of one prompt as text, each piece as soon as its characters are there; `before` comes first, where anything does."""
    sentence: list[int] = []
    shown = 0
    for place, ids in writing:
        if place == 0:
            yield from filter(None, [before if not sentence else text_of(sentence)[shown:]])
            sentence, shown = [], 0
        sentence.append(int(ids[0]))
        text = text_of(sentence)
        if not text.endswith("\ufffd"):  # half a character may be there yet
            yield from filter(None, [text[shown:]])
            shown = len(text)
    yield from filter(None, [text_of(sentence)[shown:]])
