"""A system on texts from a source of them: corpus on disk, what it makes of it first, training, model card.

    out/corpus/       the texts, long ones in pieces
    out/tokenizer/    of a transformer that starts from scratch
    out/checkpoint/   of `training.fit`
    out/model/        the trained model, a transformer's for sentence-transformers too, with its card

The same call after a kill at any moment goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hourglass.data import open_texts
from hourglass.data.corpus import Corpus, keep_corpus
from hourglass.errors import ConfigError, FolderError, nearest
from hourglass.nn.text_system import Lesson, TextSystem
from hourglass.storage.atomic import atomic_file
from hourglass.training import FitResult, TrainConfig, fit
from hourglass.training.checkpoint import is_finished
from hourglass.training.randomness import seeded
from hourglass.uses.probe.self_retrieval import SelfRetrieval

_HELD_OUT = 512
_LEAST_BETWEEN = 100
"""Steps between checkpoints, which are three times the size of the model, at least."""


def learn(
    system: type[TextSystem],
    source: Any,
    out: Path,
    *,
    init: str | None = None,
    preset: str = "base",
    text: str | None = None,
    limit: int | None = None,
    vocabulary: int = 8000,
    train: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> FitResult:
    """Train `system` on the texts of a source; the result's evaluations are of texts that were held out, and have what
    `SelfRetrieval` finds on them beside the losses.

    source, text, limit   as for `explore`
    init        "minilm", a folder or a Hub id to go on from; without it a new network by `preset`, and a tokenizer of at most
                `vocabulary` tokens made of the corpus
    train       settings of `TrainConfig` in place of the system's recipe for the preset (or for a checkpoint)
    settings    of the system's config, in place of the preset's

    Raises InputError for bad input, in one line.
    """
    if is_finished(out):
        raise FolderError(f"{out}: holds a finished model; choose another --out")
    start = "init" if init is not None else preset
    if init is not None and "init" not in system.recipes:
        raise ConfigError(f"{system.system_name()} starts from scratch alone: leave out init (--init)")
    if start not in system.recipes:
        raise ConfigError(f"no preset {preset!r}{nearest(preset, system.Config.presets)}")
    recipe = {**system.recipes[start], **(train or {})}
    config = TrainConfig(**{"save_every": max(_LEAST_BETWEEN, recipe["steps"] // 10), **recipe})
    settings = {**{name: getattr(config, name) for name in system.follows}, **(settings or {})}
    # The model first: what does not fit is said before the texts are read.
    seed = config.seed
    with seeded(torch.device("cpu"), seed):
        if init is not None:
            model = system.from_checkpoint(init, **settings)
        else:
            model = system(system.Config.preset(preset, **settings))
    beside = model.beside
    texts = open_texts(source, text=text, require=() if beside is None else (beside,))
    if limit is not None:
        texts = texts.limited(limit)
    made_from = {"source": texts.name, "text": text, "limit": limit, "longest": model.longest}
    made_from |= {} if beside is None else {"beside": beside}
    corpus = keep_corpus(texts, out / "corpus", made_from, model.pieces, beside)
    if init is None:
        with seeded(torch.device("cpu"), seed):
            model = model.with_corpus(corpus, out, vocabulary)
    held_out = min(_HELD_OUT, len(corpus) // 20)
    apart = corpus[:held_out]
    watch = SelfRetrieval(model, apart if beside is None else [text for text, _ in apart])
    began = time.perf_counter()
    made = 0
    learned = _Part(corpus, held_out, len(corpus))
    for lesson in model.lessons(learned, apart, out, config.steps, progress):
        result = fit(
            model,
            lesson.texts,
            replace(config, **_settings(lesson, train or {})),
            out=out / lesson.name,
            eval_data=lesson.held_out if apart else None,
            callbacks=[watch],
            progress=progress,
        )
        made += result.steps
    result = replace(result, steps=made)
    card = _card(model, corpus, init, config, result, time.perf_counter() - began)
    with atomic_file(out / "model" / "README.md") as path:
        path.write_text(card, encoding="utf-8")
    return result


def _settings(lesson: Lesson, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Of the training of a lesson, in place of those of the run, of which these were `asked` for."""
    usual = {name: value for name, value in lesson.usual.items() if name not in asked}
    return {"steps": lesson.steps, **usual, **lesson.train}


class _Part(Sequence[Any]):
    """A run of a corpus's texts, as a sequence of its own."""

    def __init__(self, corpus: Corpus, start: int, stop: int) -> None:
        self._corpus, self._start, self._stop = corpus, start, stop

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._corpus[self._start + int(index)]


def _card(
    model: TextSystem, corpus: Corpus, init: str | None, config: TrainConfig, result: FitResult, seconds: float
) -> str:
    """README.md of the model's folder, in the form that the Hub shows."""
    held_out = result.evaluations[-1] if result.evaluations else {}
    losses = ", ".join(f"{name} {value:.3f}" for name, value in held_out.items() if name != "step")
    name, made = model.system_name(), corpus.about
    tags = dict.fromkeys(["hourglass", name, model.library, "feature-extraction"])
    rows = {"left out": f"{made['left_out']:,} texts"} if made.get("left_out") else {}
    more = "".join(f"\n| {name} | {value} |" for name, value in {**rows, **model.card_rows()}.items())
    return f"""---
library_name: {model.library}
tags: [{", ".join(tags)}]
---

# {name}, learned on {made["made_from"]["source"]}

| | |
|---|---|
| system | `{name}` of Hourglass: {(type(model).__doc__ or "").strip().splitlines()[0]} |
| starts from | {init or "scratch"} |
| texts | {made["documents"]:,}, in {len(corpus):,} pieces |
| steps | {result.steps:,} of {config.batch_size} pieces, learning rate {config.lr:g} ({config.schedule}) |{more}
| on held-out pieces | {losses or "none were held out"} |
| time | {_spent(seconds)} (of the last call) |
| vector | {model.card_vector()} |

```python
{model.card_use()}
```
"""


def _spent(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"
