"""Extractive question answering: where in a passage the answer begins and ends. Two linear scores of each token state.

A passage longer than the longest input is read in windows that overlap. While learning, a window that holds the answer whole is
read; for an answer, all of them are, and the best span of all windows wins.

Difference from the recipe that is usual for SQuAD: windows without the answer are not learned from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hourglass.errors import ConfigError, SourceError
from hourglass.metrics.estimates import Estimate
from hourglass.metrics.spans import answer_f1, exact_match
from hourglass.uses.finetune.encoder import Source
from hourglass.uses.finetune.head import Head, HeadConfig, in_batches
from hourglass.waist import Batch, Losses

_QUESTIONS_AT_ONCE = 8


@dataclass(frozen=True)
class Question:
    """A question, the passage, and the true answers: (first character in the passage, text), none where it has no answer."""

    question: str
    passage: str
    answers: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class AnswererConfig(HeadConfig):
    """stride: tokens that two windows of a passage share; longest: tokens of an answer; unanswerable: whether a question may
    have no answer, as in SQuAD 2, for which both scores of the first token then stand."""

    max_tokens: int = 384
    stride: int = 128
    longest: int = 30
    unanswerable: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.stride < self.max_tokens // 2:
            raise ConfigError(f"stride {self.stride}: expected 0 to below half of max_tokens {self.max_tokens}")
        if self.longest < 1:
            raise ConfigError(f"longest {self.longest}: expected 1 or more")


class Answerer(Head):
    """Examples: `Question`."""

    Config = AnswererConfig
    modality = "questions"

    def __init__(self, config: AnswererConfig, source: Source) -> None:
        super().__init__(config, source)
        self.linear = nn.Linear(self.encoder.width, 2)

    def collate(self, examples: Sequence[Question]) -> Batch:
        """Tokens, and the first and last token of the first answer; SourceError for an answer that is not in its passage."""
        windows = self._windows(examples)
        chosen, spans = [], []
        for i, example in enumerate(examples):
            if not example.answers and not self.config.unanswerable:
                raise SourceError(f"example {i}: no answer; leave it out, or set unanswerable")
            start, text = example.answers[0] if example.answers else (0, "")
            if not 0 <= start <= len(example.passage) - len(text) or example.passage[start : start + len(text)] != text:
                raise SourceError(f"example {i}: the answer {text[:40]!r} is not at character {start} of its passage")
            own = [window for window in windows if window.example == i]
            found = ((window, window.tokens_of(start, start + len(text))) for window in own if text)
            window, span = next(((w, s) for w, s in found if s is not None), (own[0], None))
            if text and span is None and not self.config.unanswerable:
                raise SourceError(
                    f"example {i}: no window of {self.config.max_tokens} tokens holds the answer {text[:40]!r}; raise max_tokens"
                )
            chosen.append(window)
            spans.append(span or (0, 0))
        return {**self._padded(chosen), "spans": torch.tensor(spans)}

    def loss(self, batch: Batch) -> Losses:
        start, end = (
            nn.functional.cross_entropy(scores, at) for scores, at in zip(self._scores(batch), batch["spans"].T)
        )
        return {"answering": (start + end) / 2}

    def encode(self, batch: Batch) -> Tensor:
        """[n, L, d] token states."""
        return self.states(batch)

    def predict(self, questions: Sequence[Question]) -> list[str]:
        """The answer to each, as it stands in its passage; "" where it has none."""
        said: list[str] = []
        with self.reading() as device:
            for part in in_batches(questions, _QUESTIONS_AT_ONCE):
                windows = self._windows(part)
                best = [(-np.inf, "")] * len(part)
                nothing = [np.inf] * len(part)
                for several in in_batches(windows):
                    batch = {name: t.to(device) for name, t in self._padded(several).items()}
                    starts, ends = (scores.float().cpu().numpy() for scores in self._scores(batch))
                    for window, start, end in zip(several, starts, ends):
                        i = window.example
                        score, span = window.best(start, end, self.config.longest)
                        if score > best[i][0]:
                            best[i] = score, part[i].passage[span[0] : span[1]]
                        nothing[i] = min(nothing[i], float(start[0] + end[0]))
                none = [self.config.unanswerable and empty > score for empty, (score, _) in zip(nothing, best)]
                said += ["" if no else text for no, (_, text) in zip(none, best)]
        return said

    def score(self, examples: Sequence[Question]) -> Estimate:
        """F1 of words, as in SQuAD."""
        return answer_f1(_answers(examples), self.predict(examples))

    def exact_match(self, examples: Sequence[Question]) -> Estimate:
        """Share of answers that are a true one."""
        return exact_match(_answers(examples), self.predict(examples))

    def _scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """[n, L] of a token as the first of the answer, and as the last; padding has none."""
        start, end = self.linear(self.states(batch)).masked_fill(~batch["mask"][..., None], -torch.inf).unbind(-1)
        return start, end

    def _padded(self, windows: Sequence[_Window]) -> dict[str, Tensor]:
        return self.padded([window.ids for window in windows], [window.types for window in windows])

    def _windows(self, questions: Sequence[Question]) -> list[_Window]:
        """All windows of all passages, in order."""
        if not len(questions):
            raise SourceError("an empty batch: expected at least one example")
        for i, question in enumerate(questions):
            if not isinstance(question, Question):
                raise SourceError(f"example {i}: expected a Question, found {type(question).__name__}")
        made = self.tokenizer(
            [self._cut(question.question) for question in questions],
            [question.passage for question in questions],
            truncation="only_second",
            max_length=self.config.max_tokens,
            stride=min(self.config.stride, self.config.max_tokens // 4),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_token_type_ids=True,
        )
        return [
            _Window(
                example,
                made["input_ids"][w],
                made["token_type_ids"][w],
                made["offset_mapping"][w],
                made.sequence_ids(w),
            )
            for w, example in enumerate(made["overflow_to_sample_mapping"])
        ]

    def _cut(self, question: str) -> str:
        """A question that leaves half of the window to the passage."""
        spans = self.tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        most = self.config.max_tokens // 2 - self.tokenizer.num_special_tokens_to_add(pair=True)
        return question if len(spans) <= most else question[: spans[max(most, 1) - 1][1]]


class _Window:
    """A question with a part of its passage, as tokens."""

    def __init__(
        self,
        example: int,
        ids: list[int],
        types: list[int],
        spans: list[tuple[int, int]],
        sequences: list[int | None],
    ) -> None:
        self.example, self.ids, self.types = example, ids, types
        self._tokens = np.flatnonzero([sequence == 1 for sequence in sequences])
        self._starts, self._ends = np.array(spans, np.int64).reshape(-1, 2)[self._tokens].T

    def tokens_of(self, start: int, end: int) -> tuple[int, int] | None:
        """First and last token of characters start : end of the passage; None where they are not all in the window."""
        if not len(self._tokens) or start < self._starts[0] or end > self._ends[-1]:
            return None
        first = int(np.searchsorted(self._ends, start, side="right"))
        last = int(np.searchsorted(self._starts, end, side="left")) - 1
        return int(self._tokens[first]), int(self._tokens[max(first, last)])

    def best(self, start: np.ndarray, end: np.ndarray, longest: int) -> tuple[float, tuple[int, int]]:
        """(score, characters of the passage) of the best span of at most so many tokens."""
        if not len(self._tokens):
            return -np.inf, (0, 0)
        both = start[self._tokens][:, None] + end[self._tokens][None, :]
        allowed = np.triu(np.ones_like(both, bool)) & ~np.triu(np.ones_like(both, bool), longest)
        first, last = np.unravel_index(np.argmax(np.where(allowed, both, -np.inf)), both.shape)
        return float(both[first, last]), (int(self._starts[first]), int(self._ends[last]))


def _answers(examples: Sequence[Question]) -> list[list[str]]:
    return [[text for _, text in example.answers] for example in examples]
