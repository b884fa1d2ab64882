"""A cross-encoder: one model reads the query with each document that was found, and scores the two."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np

from hourglass.adapters.huggingface_loading import loading_errors
from hourglass.errors import ConfigError
from hourglass.uses.search.stages import Array, Query

_PAIRS_AT_ONCE = 32


class CutTexts(UserWarning):
    """Documents are longer than the model that scores them; the message says how many."""


@final
class CrossEncoder:
    """Scores texts together with a query: `score_texts` is a `TextScorer`.

    model  a folder of a cross-encoder of sentence-transformers, or a Hub id
    cut    how many of the `scored` texts so far were longer than the model, of which it read the beginning; warned of once.
           For long documents score their passages (`ByPassages`)
    """

    def __init__(self, model: str) -> None:
        self.name, self._folder = f"cross({Path(model).name})", str(model)
        self.cut = self.scored = 0

    def score_texts(self, query: Query, texts: Sequence[str]) -> Array:
        """[n] scores of texts for a query."""
        self._count_cut(query.text, texts)
        pairs = [(query.text, text) for text in texts]
        made = np.asarray(self._model.predict(pairs, batch_size=_PAIRS_AT_ONCE, show_progress_bar=False), np.float32)
        if made.ndim != 1:
            raise ConfigError(
                f"{self._folder}: gives {made.shape[1]} numbers for a pair; expected a model with one score"
            )
        return made

    def _count_cut(self, query: str, texts: Sequence[str]) -> None:
        model, tokenizer = self._model, self._model.tokenizer
        longest = model.max_seq_length if hasattr(model, "max_seq_length") else model.max_length  # before version 6
        if longest is None:
            return
        room = longest - tokenizer.num_special_tokens_to_add(pair=True)
        asked = len(tokenizer(query, add_special_tokens=False)["input_ids"])
        lengths = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        cut = sum(asked + len(ids) > room for ids in lengths)
        if cut and not self.cut:
            warnings.warn(
                f"{self.name}: {cut} of {len(texts)} texts are longer than the {longest} tokens it reads and were cut",
                CutTexts,
                stacklevel=2,
            )
        self.cut += cut
        self.scored += len(texts)

    @cached_property
    def _model(self) -> Any:
        from sentence_transformers import CrossEncoder as Model

        with loading_errors(self._folder, "cross-encoder"):
            return Model(self._folder, trust_remote_code=False)
