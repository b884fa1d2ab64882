"""Whether an encoder that learns without labels gets better for search, and whether its vectors fall into one: told beside the
loss, which tells neither.

    fit(model, texts, config, eval_data=held_out, callbacks=[SelfRetrieval(model, held_out)])

A held-out text is parted into its first sentence and the rest, and the first sentences look for their rests among all. That is
no measure of search by what people ask, but it moves with it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from hourglass.bottlenecks.noising import SENTENCE_BREAKS
from hourglass.data.judged import Judged
from hourglass.training.callbacks import Callback, Record
from hourglass.training.randomness import preserved
from hourglass.uses.probe.encoders import dense_vectors, unit_length
from hourglass.uses.probe.retrieval import retrieval
from hourglass.waist import Waist

_LEAST_WORDS = 3
"""Of a first sentence, and of what follows."""
_LEAST_TEXTS = 20
COLLAPSED = 1e-4
"""Spread below which all texts have about the same vector: one part in ten thousand of their squared lengths."""

_log = logging.getLogger("hourglass")


class SelfRetrieval(Callback):
    """Adds to the record of an evaluation:

    self_retrieval  MRR@10 of first sentences among the rests, by cosine; not there with fewer than 20 texts that have both
    spread          variance of the vectors of whole texts, each of length 1: 1 - |mean|^2, from 0 (all alike) to 1

    A spread below 0.0001 is a warning of the logger "hourglass".
    """

    def __init__(self, model: Waist, texts: Sequence[str]) -> None:
        """texts: those held out; nothing is drawn, and the training is the same with it and without."""
        self._model, self._texts = model, [text for text in texts if text.strip()]
        self._parted = [parts for text in self._texts if (parts := first_sentence(text)) is not None]

    def on_eval(self, step: int, record: Record) -> None:
        if len(self._texts) < 2:
            return
        record |= self.measure()
        if record["spread"] < COLLAPSED:
            _log.warning(
                "step %d: all texts have about the same vector (spread %.1e); train on, lower lr, or choose an objective that the "
                "vector has a part in (of dupmae: retromae or dupmae)",
                step,
                record["spread"],
            )

    def measure(self) -> dict[str, float]:
        """What is added, of the model as it is."""
        device = next(self._model.parameters()).device
        with preserved(device):
            unit = unit_length(dense_vectors(self._model, self._texts))
            found: dict[str, float] = {"spread": max(0.0, float(1 - np.square(unit.mean(0, dtype=float)).sum()))}
            if len(self._parted) >= _LEAST_TEXTS:
                firsts, rests = ({str(i): text for i, text in enumerate(part)} for part in zip(*self._parted))
                judged = Judged(rests, firsts, {name: {name: 1} for name in firsts})
                found["self_retrieval"] = float(retrieval(self._model, judged).values["mrr@10"].mean())
        return found


def first_sentence(text: str) -> tuple[str, str] | None:
    """(first sentence, the rest), of three words or more each; None where there is no such."""
    for found in SENTENCE_BREAKS["text"].finditer(text):
        first, rest = text[: found.end()].strip(), text[found.end() :].strip()
        if len(first.split()) >= _LEAST_WORDS:
            return (first, rest) if len(rest.split()) >= _LEAST_WORDS else None
    return None
