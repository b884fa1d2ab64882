"""Writing: new texts, texts from a source, the way between two texts; by any system that has a method of the name."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from hourglass.api import folders
from hourglass.data import open_texts
from hourglass.errors import ConfigError, InputError, nearest
from hourglass.metrics.generation import bleu
from hourglass.metrics.rouge import rouge
from hourglass.waist import Waist

_FROM = ("sources", "prompts", "texts")
"""What a system may call the texts that it writes from."""


@dataclass(frozen=True)
class Written:
    """Texts that a model wrote.

    rows     [{"source", "text"}], the source None where it wrote from nothing; with wanted texts also "wanted", a list
    asked    the settings that were given; seconds: that it took, loading left out
    measured  with wanted texts: {"written", "source"} (what was written, and the sources as they are) {"bleu", "rouge1", "rouge2", "rougeL"},
             each from 0 to 1
    """

    system: str
    rows: list[dict[str, Any]]
    asked: dict[str, Any]
    seconds: float
    measured: dict[str, dict[str, float]] | None = None

    @property
    def texts(self) -> list[str]:
        return [str(row["text"]) for row in self.rows]

    def to_dict(self) -> dict[str, Any]:
        told = {"system": self.system, "asked": self.asked, "seconds": self.seconds, "rows": self.rows}
        return told if self.measured is None else {**told, "measured": self.measured}


def generate(
    model: Waist | str | Path,
    sources: Sequence[str] | None = None,
    *,
    source: Any = None,
    text: str | None = None,
    limit: int | None = None,
    **settings: Any,
) -> Written:
    """Texts that a model with a method `generate` writes.

    model     one, its folder or Hub id
    sources   texts to write from, prompts of a model that goes on from them; or `source`, as for `explore`, with its column
              `text` and its `limit`
    settings  of the model's `generate`; n, steps, guidance, solver, seed, max_sentences or what else it has

    Raises InputError for a model that writes nothing, for settings that it has not, and for an empty source.
    """
    asked = _opened(model)
    if source is not None:
        sources = [*(sources or []), *_read(source, text, limit)]
    write = _method(asked, "generate", "writes nothing")
    arguments = _arguments(asked, write, settings)
    taken = _taken(asked)
    if sources is not None:
        if taken is None:
            raise ConfigError(f"{asked.system_name()}: writes from nothing; leave sources and prompts out")
        arguments[taken] = _some(sources)
    elif taken is not None and inspect.signature(write).parameters[taken].default is inspect.Parameter.empty:
        raise InputError(
            f"{asked.system_name()}: writes from a text; give one (--prompt), or a source of them (--source)"
        )
    began = time.perf_counter()
    written = write(**arguments)
    seconds = time.perf_counter() - began
    return Written(asked.system_name(), _rows(written, sources), settings, seconds)


def stream(model: Waist | str | Path, prompt: str, **settings: Any) -> Iterator[str] | None:
    """Parts of the text with which a model goes on from a prompt, as they are written; None for one that cannot (`can_stream`).

    Raises InputError as `generate`.
    """
    asked = _opened(model)
    if not callable(getattr(asked, "stream", None)):
        return None
    write = _method(asked, "stream", "")
    return cast(Iterator[str], write(*_some([prompt]), **_arguments(asked, write, settings)))


def rewrite(
    model: Waist | str | Path,
    source: Any,
    *,
    text: str | None = None,
    limit: int | None = None,
    wanted: str | None = None,
    **settings: Any,
) -> Written:
    """A text written from each text of a source, by a model that learned to write from one. Otherwise as `generate`.

    wanted  column of the texts that are wanted, or of lists of them of which any will do: what is written is measured against
            them, and so are the sources as they are. Needs the extra `generation`.
    """
    asked = _opened(model)
    taken = _taken(asked)
    if taken is None or (taken == "sources" and getattr(asked.config, "source", None) is None):
        raise ConfigError(
            f"{asked.system_name()}: this model writes from nothing; train one that has sources (of cosmos: fit with "
            "--set source=COLUMN), or use generate"
        )
    if wanted is None:
        return generate(asked, source=source, text=text, limit=limit, **settings)
    texts, several = _read_wanted(source, text, limit, wanted)
    as_they_are = _measured(several, _some(texts))  # first: where the measure is missing, nothing is written in vain
    written = generate(asked, texts, **settings)
    each = len(written.rows) // len(texts)
    rows = [{**row, "wanted": several[i // each]} for i, row in enumerate(written.rows)]
    measured = {"written": _measured([row["wanted"] for row in rows], written.texts), "source": as_they_are}
    return replace(written, rows=rows, measured=measured)


def interpolate(model: Waist | str | Path, first: str, last: str, n: int = 7, **settings: Any) -> list[str]:
    """`n` texts on the way from one to another, both ends included, by a model with a method `interpolate`."""
    asked = _opened(model)
    between = _method(asked, "interpolate", "has no way between two texts")
    for name, end in (("first", first), ("last", last)):
        if not end.strip():
            raise InputError(f"the {name} text is empty: expected two texts to go between")
    return list(between(first, last, n, **_arguments(asked, between, settings)))


def _opened(model: Waist | str | Path) -> Waist:
    return model if isinstance(model, Waist) else folders.load(model)


def _method(model: Waist, name: str, otherwise: str) -> Callable[..., Any]:
    method = getattr(model, name, None)
    if not callable(method):
        raise ConfigError(f"{model.system_name()}: {otherwise}; open a model of a system that has `{name}`, as cosmos")
    return cast(Callable[..., Any], method)


def _arguments(model: Waist, method: Callable[..., Any], settings: dict[str, Any]) -> dict[str, Any]:
    known = [name for name in inspect.signature(method).parameters if name not in (*_FROM, "prompt")]
    for name in settings:
        if name not in known:
            raise ConfigError(
                f"{model.system_name()} has no setting {name!r} of {method.__name__}{nearest(name, known)}"
            )
    return dict(settings)


def _taken(model: Waist) -> str | None:
    """By which name `generate` takes the texts that it writes from; None: it takes none."""
    method = getattr(model, "generate", None)
    names = inspect.signature(method).parameters if callable(method) else ()
    return next((name for name in _FROM if name in names), None)


def _some(texts: Sequence[str]) -> list[str]:
    if not len(texts):
        raise InputError("no text to write from: expected one or more")
    for i, text in enumerate(texts):
        if not text.strip():
            raise InputError(f"text {i} to write from is empty: expected some words")
    return list(texts)


def _read(source: Any, text: str | None, limit: int | None) -> list[str]:
    texts = open_texts(source, text=text)
    texts = texts if limit is None else texts.limited(limit)
    return [found for batch in texts.batches() for found in batch.column(texts.text_column).to_pylist()]


def _read_wanted(source: Any, text: str | None, limit: int | None, wanted: str) -> tuple[list[str], list[list[str]]]:
    """Texts, and of each those that are wanted of it."""
    opened = open_texts(source, text=text, require=[wanted])
    opened = opened if limit is None else opened.limited(limit)
    texts: list[str] = []
    several: list[list[str]] = []
    for batch in opened.batches():
        texts += batch.column(opened.text_column).to_pylist()
        for row, found in zip(batch.column("_row").to_pylist(), batch.column(wanted).to_pylist()):
            own = _listed(found)
            if not own or not all(isinstance(one, str) and one.strip() for one in own):
                raise InputError(f"{opened.name}, row {row}, column {wanted!r}: expected a text, or a list of texts")
            several.append(own)
    return texts, several


def _listed(found: Any) -> list[Any]:
    """The texts of a cell: sources give a list as JSON."""
    if isinstance(found, str) and found.startswith("["):
        with suppress(ValueError):
            return list(json.loads(found))
    return [found]


def _measured(wanted: list[list[str]], texts: list[str]) -> dict[str, float]:
    return {"bleu": bleu(wanted, texts), **{name: found.value for name, found in rouge(wanted, texts).items()}}


def _rows(written: Sequence[Any], sources: Sequence[str] | None) -> list[dict[str, str | None]]:
    """Of texts, several for each source one after another, or of a list of them for each source."""
    answers = [list(found) if isinstance(found, list | tuple) else [found] for found in written]
    if sources is None:
        return [{"source": None, "text": text} for several in answers for text in several]
    each = max(1, len(answers) // len(sources))
    return [{"source": sources[i // each], "text": text} for i, several in enumerate(answers) for text in several]
