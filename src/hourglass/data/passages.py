"""Texts as sentences of tokens, none longer than a model takes and none lost; on disk, and read as sentences or as passages.

cutter = SentenceCutter(tokenizer, "clause", room=31)
cutter.ids(["Once upon a time, there was"])                 # for each text the tokens of each of its sentences
kept = keep_sentences(texts, cutter, Path("run/sentences"))
kept.sentences()[0], kept.passages(64)[0]                   # a passage of one sentence, a passage of up to 64
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hourglass.adapters.huggingface_loading import backend, encode
from hourglass.data.sentences import Rule, segment
from hourglass.errors import FolderError, SourceError
from hourglass.storage.atomic import atomic_folder, read_json, write_json
from hourglass.storage.rows import DiskArray

Array = np.ndarray[Any, Any]

_TEXTS_AT_ONCE = 256
_CHARACTERS = 8
"""Of a token, at most, in running text."""
_MOST_UNKNOWN = 0.5


@dataclass(frozen=True)
class Passage:
    """Sentences in a row. `sentences`: the token ids of each, none special; `ends`: whether their text ends with them."""

    sentences: Sequence[Array]
    ends: bool


class SentenceCutter:
    """Cuts texts into sentences by a rule, and those of more than `room` tokens into several.

    A sentence that is too long ends before a word of the second half of the room, where there is one, else between any two
    characters. Special tokens that a text spells out are text.
    """

    def __init__(self, tokenizer: Any, rule: Rule, room: int) -> None:
        self.rule, self.room = rule, room
        self._backend = backend(tokenizer)
        self._backend.encode_special_tokens = True
        self.unknown = tokenizer.unk_token_id

    @cached_property
    def digest(self) -> str:
        """Of the tokenizer."""
        return hashlib.sha256(self._backend.to_str().encode()).hexdigest()[:16]

    def parts(self, texts: Sequence[str]) -> list[list[str]]:
        """For each text its sentences: joined, they are the text."""
        return [[part for part, _ in row] for row in self.cut(texts)]

    def ids(self, texts: Sequence[str]) -> list[list[Array]]:
        """For each text the token ids of its sentences."""
        return [[ids for _, ids in row] for row in self.cut(texts)]

    def cut(self, texts: Sequence[str]) -> list[list[tuple[str, Array]]]:
        """Both. Raises SourceError for a character that is more than the room."""
        rows = [segment(text, self.rule) for text in texts]
        encoded = iter(encode(self._backend, [part for row in rows for part in row]))
        return [
            [(piece, np.array(made.ids, np.int32)) for part in row for piece, made in self._fitted(part, next(encoded))]
            for row in rows
        ]

    def _fitted(self, text: str, encoding: Any) -> list[tuple[str, Any]]:
        if len(encoding.ids) <= self.room:
            return [(text, encoding)]
        found: list[tuple[str, Any]] = []
        start = 0
        while start < len(text):
            # A window at a time: a sentence can be a whole book without a mark.
            window = text[start : start + _CHARACTERS * self.room]
            (encoding,) = encode(self._backend, [window])
            whole = len(encoding.ids) <= self.room and start + len(window) == len(text)
            found.append((window, encoding) if whole else self._head(window, encoding))
            start += len(found[-1][0])
        return found

    def _head(self, text: str, encoding: Any) -> tuple[str, Any]:
        """The beginning of a text that fits."""
        cuts = [begin for begin, _ in encoding.offsets[: self.room + 1]]
        if len(encoding.ids) <= self.room:
            cuts.append(len(text))
        words = [cut for cut in cuts[self.room // 2 :] if text[cut - 1 : cut + 1].strip() != text[cut - 1 : cut + 1]]
        # Tokens of the piece by itself can be more than those of it within the text: then a shorter one is tried.
        for cut in [*words[::-1], *cuts[::-1]]:
            if cut > 0:
                (head,) = encode(self._backend, [text[:cut]])
                if len(head.ids) <= self.room:
                    return text[:cut], head
        raise SourceError(
            f"{text[:1]!r} alone is more than the {self.room} tokens that a sentence has room for; raise max_tokens"
        )


class KeptSentences:
    """Sentences of a corpus in a folder:

    ids.i32         [T, 1] tokens, one sentence after another
    sentences.i64   [N + 1, 1] sentence i owns tokens sentences[i] : sentences[i + 1]
    texts.i64       [M + 1, 1] text j owns sentences texts[j] : texts[j + 1]
    sentences.json  what they were made of, and how many tokens are unknown to the tokenizer
    """

    def __init__(self, folder: Path) -> None:
        about = read_json(folder / "sentences.json")
        self.texts: int = about["texts"]
        self.unknown: int = about["unknown"]
        self._ids = DiskArray(folder / "ids.i32", np.int32, (about["tokens"], 1))
        self._sentences = DiskArray(folder / "sentences.i64", np.int64, (about["sentences"] + 1, 1))
        self._edges = DiskArray(folder / "texts.i64", np.int64, (about["texts"] + 1, 1))

    @property
    def tokens(self) -> int:
        return len(self._ids)

    def __len__(self) -> int:
        return len(self._sentences) - 1

    def sentences(self) -> Sequence[Passage]:
        """Each sentence by itself."""
        first = np.arange(len(self))
        return _Passages(self, first, first + 1, np.zeros(len(self), bool))

    def passages(self, most: int) -> Sequence[Passage]:
        """Up to `most` sentences of a text in a row, two at least. A passage begins with the last sentence of the one before
        it, so that every sentence of a text but the first comes after another once."""
        edges = self._edges[:][:, 0]
        begins, lasts, ends = [], [], []
        for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist()):
            for begin in range(start, max(start + 1, stop - 1), most - 1):
                begins.append(begin)
                lasts.append(min(begin + most, stop))
                ends.append(begin + most >= stop)
        return _Passages(self, np.array(begins, np.int64), np.array(lasts, np.int64), np.array(ends, bool))

    def read(self, start: int, stop: int) -> list[Array]:
        """Tokens of the sentences start : stop."""
        edges = self._sentences[start : stop + 1][:, 0]
        ids = self._ids[int(edges[0]) : int(edges[-1])][:, 0]
        return np.split(ids, edges[1:-1] - edges[0])


class _Passages(Sequence[Passage]):
    def __init__(self, kept: KeptSentences, begins: Array, stops: Array, ends: Array) -> None:
        self._kept, self._begins, self._stops, self._ends = kept, begins, stops, ends

    def __len__(self) -> int:
        return len(self._begins)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = int(index)
        return Passage(self._kept.read(int(self._begins[i]), int(self._stops[i])), bool(self._ends[i]))


def keep_sentences(texts: Sequence[str], cutter: SentenceCutter, folder: Path) -> KeptSentences:
    """Cut texts in their order into `folder`, which appears whole; one that is there is taken as it is.

    Raises FolderError for a folder that was made otherwise, SourceError where there is no text and where more than half of the
    tokens are unknown to the tokenizer: what it does not know would be lost.
    """
    made_from = {"rule": cutter.rule, "room": cutter.room, "texts": len(texts), "tokenizer": cutter.digest}
    if folder.exists():
        there = read_json(folder / "sentences.json")["made_from"]
        if there != made_from:
            raise FolderError(f"{folder}: holds sentences made with {there}, now {made_from}; choose another folder")
        return KeptSentences(folder)
    unknown = 0
    of_sentences, of_texts = [np.zeros(1, np.int64)], [np.zeros(1, np.int64)]
    tokens = sentences = 0
    with atomic_folder(folder) as new:
        with (new / "ids.i32").open("wb") as file:
            for start in range(0, len(texts), _TEXTS_AT_ONCE):
                rows = [row for row in cutter.ids(texts[start : start + _TEXTS_AT_ONCE]) if row]
                flat = [ids for row in rows for ids in row]
                if not flat:
                    continue
                joined = np.concatenate(flat)
                file.write(joined.tobytes())
                unknown += int((joined == cutter.unknown).sum()) if cutter.unknown is not None else 0
                of_sentences.append(tokens + np.cumsum([len(ids) for ids in flat]))
                of_texts.append(sentences + np.cumsum([len(row) for row in rows]))
                tokens, sentences = int(of_sentences[-1][-1]), int(of_texts[-1][-1])
        if not tokens:
            raise SourceError("no sentence to learn from: expected a text at least")
        if unknown > _MOST_UNKNOWN * tokens:
            raise SourceError(
                f"{unknown / tokens:.0%} of the tokens are unknown to the tokenizer, and would be lost; start from scratch, or from a "
                "model that knows the script of these texts"
            )
        for name, edges in (("sentences.i64", of_sentences), ("texts.i64", of_texts)):
            (new / name).write_bytes(np.concatenate(edges).astype(np.int64).tobytes())
        about = {
            "sentences": sentences,
            "texts": int(sum(map(len, of_texts))) - 1,
            "tokens": tokens,
            "unknown": unknown,
        }
        write_json(new / "sentences.json", {**about, "made_from": made_from})
    return KeptSentences(folder)
