"""Parts of COSMOS: the frozen encoder, the autoencoder's network, activations that are spoilt, latents of a corpus on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from hourglass.adapters import huggingface_loading as loading
from hourglass.adapters.pretrained import body, build_network
from hourglass.adapters.tokenizers import train_tokenizer
from hourglass.bottlenecks.diffusion import moments
from hourglass.bottlenecks.noising import SENTENCE_BREAKS
from hourglass.data.corpus import pieces
from hourglass.data.keeping import Kept, Unit, keep_rows
from hourglass.errors import ConfigError, SourceError
from hourglass.nn.cross_entropy import linear_cross_entropy
from hourglass.nn.positions import LearnedPositions
from hourglass.nn.resampler import FeedForward, ParallelDecoder, Resampler
from hourglass.storage.rows import RowFile, RowWriter

Array = np.ndarray[Any, Any]

_BYTES = 300
"""Size of a vocabulary without a corpus: the bytes, and the special tokens."""
_CHARACTERS = 8
"""Of a token, at most, in running text."""
_MEASURED = 200_000
"""Tokens whose features are measured."""
_LOGITS_AT_ONCE = 2**25


class FrozenEncoder(nn.Module):
    """A network of transformers that is read and never learns, whatever the mode of what it is a part of.

    encoder  "minilm", a folder or a Hub id; or settings of a new network, {"model_type": "bert", ...}, which reads bytes
    """

    def __init__(self, encoder: str | Mapping[str, Any]) -> None:
        super().__init__()
        if isinstance(encoder, str):
            tokenizer, network = loading.load(encoder, torch.float32)
        else:
            tokenizer = train_tokenizer([], _BYTES, "bpe")
            network = body(build_network(encoder, "masked", tokenizer))
        self.tokenizer, self.network = tokenizer, network.requires_grad_(False)
        self.before, self.after = loading.frame(tokenizer, "none")
        for name, there in (("a token at the end of a text", self.after), ("a mask token", tokenizer.mask_token)):
            if not there:
                raise ConfigError(f"encoder {encoder!r}: its tokenizer has not {name}; name another encoder")
        self._backend = loading.backend(tokenizer)
        self.eval()

    def save(self, folder: Path) -> None:
        """A folder that transformers opens."""
        with loading.quiet():
            self.network.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)

    def train(self, mode: bool = True) -> Self:
        return super().train(False)

    @property
    def width(self) -> int:
        return int(self.network.config.hidden_size)

    @property
    def longest(self) -> int:
        """Tokens that the network takes, special ones included."""
        return int(getattr(self.network.config, "max_position_embeddings", 0) or 2**20)

    @property
    def blank(self) -> Tensor:
        """[d] the embedding of the mask token."""
        weight: Tensor = self.network.get_input_embeddings().weight
        return weight[self.tokenizer.mask_token_id]

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special ones included."""
        return [[*self.before, *found.ids, *self.after] for found in loading.encode(self._backend, list(texts))]

    def knows(self, text: str) -> bool:
        """Whether a token of the text is more than the unknown one."""
        return any(token != self.tokenizer.unk_token_id for token in loading.encode(self._backend, [text])[0].ids)

    def padded(self, texts: Sequence[str], longest: int) -> tuple[Tensor, Tensor]:
        """Ids [n, L] and what of them is no padding [n, L] bool. Raises SourceError for a text of more than `longest` tokens."""
        rows = self.rows(texts)
        for i, (row, text) in enumerate(zip(rows, texts)):
            if len(row) > longest:
                raise SourceError(
                    f"example {i}: {len(row)} tokens, and the model takes {longest}; cut it (model.pieces(text)), or train with "
                    f"more max_tokens: {text[:40]!r}"
                )
        lengths = torch.tensor([len(row) for row in rows])
        ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, self._padding)
        return ids, torch.arange(ids.shape[1]) < lengths[:, None]

    @property
    def _padding(self) -> int:
        return int(self.tokenizer.pad_token_id or 0)

    @torch.no_grad()
    def states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """[n, L, width] last hidden states."""
        states: Tensor = self.network(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return states

    def text(self, ids: Sequence[int]) -> str:
        """The text of ids up to the first token that ends one."""
        end = self.after[0]
        kept = list(ids[: ids.index(end)]) if end in ids else list(ids)
        said: str = self.tokenizer.decode(kept, skip_special_tokens=True)
        return said.strip()

    def pieces(self, text: str, longest: int) -> Iterator[str]:
        """A text in pieces of at most `longest` tokens, special ones included: after a sentence where one ends behind the first
        quarter of what fits, else after a word, else anywhere."""
        room = longest - len(self.before) - len(self.after)
        for rest in pieces(text, _CHARACTERS * longest):
            rest = rest.strip()
            while len(found := loading.encode(self._backend, [rest])[0].ids) > room:
                stop = self._stop(rest, room)
                yield rest[:stop].strip()
                rest = rest[stop:].strip()
            if found:
                yield rest

    def _stop(self, text: str, room: int) -> int:
        """How many characters of `text` are at most `room` tokens, cut where it hurts least."""
        most = loading.encode(self._backend, [text])[0].offsets[room][0]
        sentences = [found.end() for found in SENTENCE_BREAKS["text"].finditer(text, most // 4, most)]
        words = [i for i in range(1, most + 1) if text[i - 1].isspace() or text[i : i + 1].isspace()]
        for stop in (*sentences[-1:], *words[-1:], *range(most, 1, -1)):
            # A part of a word may be more tokens than it was as a part of the whole.
            if len(loading.encode(self._backend, [text[:stop].strip()])[0].ids) <= room and text[:stop].strip():
                return stop
        raise SourceError(f"max_tokens leaves no room for {text[:10]!r}; raise it")


# The autoencoder ------------------------------------------------------------------------------------------


class Autoencoder(nn.Module):
    """Normalised features of L places to N latents, and latents to states of all places, of which tokens are written.

    features       numbers of a feature; embedding: of the mask token's
    vocabulary     tokens of the encoder; words: how many can be written (None: all)
    tokens         places that are written
    width          of the latents; None: that of the features, without projections
    position_scale of the learned places; None: width ** -0.5
    like_features  states are also to be like features

    feature_mean, feature_std    [features]
    written, place               which token a row of the head writes [words], which row writes a token [vocabulary]
    """

    feature_mean: Tensor
    feature_std: Tensor
    written: Tensor
    place: Tensor

    def __init__(
        self,
        *,
        features: int,
        embedding: int,
        vocabulary: int,
        tokens: int,
        latents: int,
        width: int | None,
        layers: int,
        heads: int,
        dropout: float,
        words: int | None,
        position_scale: float | None,
        like_features: bool,
    ) -> None:
        super().__init__()
        inner = features if width is None else width
        self.tokens = tokens
        self.inward = nn.Identity() if width is None else nn.Linear(features, inner)
        self.outward = nn.Linear(inner, features) if width is not None and like_features else nn.Identity()
        self.places = LearnedPositions(max(tokens, latents), inner, position_scale)
        self.resampler = Resampler(inner, heads, layers, latents, dropout)
        self.of_blank = FeedForward(embedding, inner, dropout)
        self.decoder = ParallelDecoder(inner, heads, layers, dropout)
        self.head = nn.Linear(inner, words or vocabulary, bias=False)
        self.register_buffer("feature_mean", torch.zeros(features))
        self.register_buffer("feature_std", torch.ones(features))
        self.register_buffer("written", torch.arange(words or vocabulary))
        self.register_buffer("place", torch.arange(vocabulary).clamp(max=len(self.written) - 1))

    def measure(self, states: Iterable[Tensor]) -> None:
        """Mean and spread of each feature, from states [tokens, features] in batches, up to 200,000 tokens."""

        def some() -> Iterator[Tensor]:
            count = 0
            for batch in states:
                yield batch
                count += len(batch)
                if count >= _MEASURED:
                    return

        mean, std, _ = moments(some())
        self.feature_mean.copy_(mean)
        self.feature_std.copy_(std)

    def choose_words(self, counts: Tensor, tokenizer: Any) -> None:
        """Special tokens and the commonest others are written, by their counts [vocabulary]."""
        counts[tokenizer.all_special_ids] = counts.sum() + 1
        chosen = counts.argsort(descending=True, stable=True)[: len(self.written)].sort().values
        self.written.copy_(chosen)
        self.place.fill_(int((chosen == tokenizer.unk_token_id).nonzero()[0]))
        self.place[chosen.to(self.place.device)] = torch.arange(len(chosen), device=self.place.device)

    def can_write(self, ids: Tensor, tokenizer: Any) -> Tensor:
        """Which of ids are written as they are, special tokens left out."""
        special = torch.tensor(tokenizer.all_special_ids, device=ids.device)
        return (self.written[self.place[ids]] == ids) & ~torch.isin(ids, special)

    def normalised(self, states: Tensor) -> Tensor:
        return (states - self.feature_mean) / self.feature_std

    def compressed(self, features: Tensor, mask: Tensor) -> Tensor:
        """[n, N, width] of normalised features [n, L, features] with mask [n, L] bool."""
        made: Tensor = self.resampler(self.places(self.inward(features)), mask)
        return made

    def decoded(self, latents: Tensor, blank: Tensor) -> Tensor:
        """[n, tokens, width] states; blank: the embedding of the mask token, which stands at every place."""
        stream = self.places(self.of_blank(blank).expand(len(latents), self.tokens, -1))
        everywhere = torch.ones(stream.shape[:2], dtype=torch.bool, device=stream.device)
        made: Tensor = self.decoder(stream, self.places(latents), everywhere)
        return made

    def token_loss(self, states: Tensor, ids: Tensor) -> Tensor:
        """Sum of the cross-entropies of states [t, width] at ids [t], in nats."""
        return linear_cross_entropy(states, self.head.weight, None, self.place[ids])

    def written_of(self, latents: Tensor, blank: Tensor) -> Tensor:
        """[n, tokens] the likeliest token of every place."""
        at_once = max(1, _LOGITS_AT_ONCE // (self.tokens * len(self.written)))
        parts = latents.split(at_once)
        return torch.cat([self.written[self.head(self.decoded(part, blank)).argmax(-1)] for part in parts])


# Activations ----------------------------------------------------------------------------------------------


def roles(n: int, masked: float, noised: float) -> Tensor:
    """[n] which examples of a batch are spoilt, at random: 1 masked, 2 noised, 0 neither; these shares of them, rounded."""
    first, both = round(n * masked), round(n * (masked + noised))
    places = torch.arange(n)
    kinds = torch.where(places < first, 1, torch.where(places < both, 2, 0))
    return kinds[torch.randperm(n)]


def noised(states: Tensor, kept: float) -> Tensor:
    """kept x states + sqrt(1 - kept^2) x noise, which leaves a variance of 1 as it is."""
    return kept * states + (1 - kept**2) ** 0.5 * torch.randn_like(states)


# Examples -------------------------------------------------------------------------------------------------


class Side(Sequence[str]):
    """Of pairs of a text and its source the texts (side 0), or the sources (1)."""

    def __init__(self, pairs: Sequence[Any], side: int) -> None:
        self._pairs, self._side = pairs, side

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: Any) -> Any:
        found = self._pairs[index]
        return [pair[self._side] for pair in found] if isinstance(index, slice) else found[self._side]


@dataclass(frozen=True)
class Read:
    """A text that the frozen encoder has read: ids [L] and states [L, width], special tokens included."""

    ids: Array
    states: Array


@dataclass(frozen=True)
class Latent:
    """The latents of a text side by side [N x width], and the source that it was written from, if any, which may be read already."""

    row: Array
    source: str | Read | None = None


class States(Sequence[Read]):
    """What the frozen encoder makes of a corpus on disk, in half precision: a row a token, its id where other files have spans."""

    def __init__(self, rows: RowFile, texts: int) -> None:
        self._rows = rows
        self._ends = np.searchsorted(rows.documents, np.arange(texts + 1))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.__getitems__(list(range(*index.indices(len(self)))))
        return self.__getitems__([int(index)])[0]

    def __getitems__(self, indices: list[int]) -> list[Read]:
        begins, ends = self._ends[indices], self._ends[1:][indices]
        places = np.concatenate([np.arange(0), *(np.arange(a, b) for a, b in zip(begins, ends))])
        cuts = np.cumsum(ends - begins)[:-1]
        ids, states = self._rows.spans[places, 0].astype(np.int64), self._rows.rows[places]
        return [Read(*pair) for pair in zip(np.split(ids, cuts), np.split(states, cuts))]


def keep_states(
    texts: Sequence[Any],
    folder: Path,
    width: int,
    made_with: str,
    at_once: int,
    read: Callable[[Sequence[Any]], list[Read]],
    advance: Callable[[int], None] | None = None,
) -> States:
    """What `read` makes of texts, a few at a time, kept in `folder`; as `keep_latents`."""

    def rows(part: Sequence[Any]) -> tuple[Tensor, list[int], Array]:
        found = read(part)
        ids = np.concatenate([one.ids for one in found]).astype(np.int32)
        states = torch.from_numpy(np.concatenate([one.states for one in found]))
        return states, [len(one.ids) for one in found], np.column_stack([ids, ids])

    return States(
        _keep(texts, Kept(folder, width, {"encoder": made_with, "texts": len(texts)}), at_once, rows, advance),
        len(texts),
    )


class Latents(Sequence[Latent]):
    """Latents of a corpus on disk, in half precision."""

    def __init__(self, rows: RowFile, sources: Sequence[str | Read] | None) -> None:
        self._rows, self._sources = rows, sources

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.__getitems__(list(range(*index.indices(len(self)))))
        return self.__getitems__([int(index)])[0]

    def __getitems__(self, indices: list[int]) -> list[Latent]:
        sources = [None if self._sources is None else self._sources[i] for i in indices]
        return [Latent(row, source) for row, source in zip(self._rows.rows[indices], sources)]


def keep_latents(
    texts: Sequence[Any],
    folder: Path,
    width: int,
    made_with: str,
    sources: Sequence[str | Read] | None,
    at_once: int,
    encode: Callable[[Sequence[Any]], Tensor],
    advance: Callable[[int], None] | None = None,
) -> Latents:
    """Latents [n, width] of texts, made by `encode` a few at a time and kept in `folder`.

    sources    what the texts were written from, which is not kept here
    made_with  what tells this encoder from others. After a stop the same call goes on; a folder of another encoder or of other
               texts is refused (FolderError)
    """

    def rows(part: Sequence[Any]) -> tuple[Tensor, list[int], Array]:
        return encode(part).float().cpu(), [1] * len(part), np.zeros((len(part), 2), np.int32)

    kept = Kept(folder, width, {"autoencoder": made_with, "texts": len(texts)})
    return Latents(_keep(texts, kept, at_once, rows, advance), sources)


def _keep(
    texts: Sequence[Any],
    kept: Kept,
    at_once: int,
    rows: Callable[[Sequence[Any]], tuple[Tensor, list[int], Array]],
    advance: Callable[[int], None] | None,
) -> RowFile:
    """What `rows` makes of texts, a few at a time, on disk: the rows of all, how many each text has, and two numbers of each row."""

    def unit(start: int) -> Unit:
        part = texts[start : start + at_once]

        def append(writers: Mapping[int, RowWriter], done: int) -> None:
            made, counts, numbers = rows(part)
            for writer in writers.values():
                writer.append(made, np.repeat(np.arange(start, start + len(part)), counts), numbers, done)

        return Unit(len(part), append)

    return keep_rows(map(unit, range(0, len(texts), at_once)), [kept], advance)[0]


def digest(tensors: Mapping[str, Tensor]) -> str:
    """By which weights are known again."""
    made = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        made.update(name.encode() + tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return made.hexdigest()[:16]
