"""What the search page reads of an index: what pipelines find, one document's text, what is on disk.

The documents stay on disk; a search reads those that it shows. The index is read as it was when it was opened, whoever writes to
it meanwhile, until `open_newest`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import Any, TypeVar

import numpy as np

from hourglass import api
from hourglass.errors import ConfigError, HourglassError
from hourglass.systems import bert_ir
from hourglass.uses.explore.overview import snippet
from hourglass.uses.search.evaluate import bytes_on_disk
from hourglass.uses.search.explain import Explanation
from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.pipelines import around, default, stages
from hourglass.uses.search.results import Hit, Results
from hourglass.uses.search.spec import Make, parse
from hourglass.uses.search.stages import First, Stage

SEVERAL = 3
"""Pipelines side by side at most."""
TITLES = ("title", "headline", "subject", "name")
"""Columns that say what a document is called, the first that there is."""
Key = TypeVar("Key")
Value = TypeVar("Value")
_KEPT = 24
_AGAIN = 2.0
"""A pipeline that needed no more seconds when it was first used runs once more, so that its time is that of the search alone."""


@dataclass(frozen=True)
class Column:
    """What one pipeline found, or why it could not.

    loading  its time has the loading of models and files in it
    """

    spec: str
    results: Results | None = None
    trouble: HourglassError | None = None
    loading: bool = False

    @property
    def ms(self) -> float:
        return sum(self.results.costs.values()) if self.results else 0.0


class Library:
    """An index as the pages read it; safe to use from several threads.

    pipelines  those that the search page begins with, by default that of the index. A page opens no model but the index's own and
               those that are named here: what is typed there must not lead to other files of this machine, or to another
    """

    def __init__(self, folder: str | Path, pipelines: Sequence[str] = ()) -> None:
        self._lock = Lock()
        self.open_newest(folder)
        known = (self.index.manifest[part] for part in ("encoder", "sparse"))
        self._models = {str(made["id"]) for made in known if made is not None}
        if len(pipelines) > SEVERAL:
            raise ConfigError(f"{len(pipelines)} pipelines; expected {SEVERAL} or fewer to look at side by side")
        for spec in pipelines:
            self._meet(spec, self._models.add)
        self.pipelines = list(pipelines) or [default(self.index)]

    def open_newest(self, folder: str | Path | None = None) -> None:
        """Read the index as it is now."""
        with self._lock:
            self.index: SearchIndex = api.open_index(self.index.folder if folder is None else folder)
            self._views: OrderedDict[str, SearchIndex] = OrderedDict()
            self._stages: OrderedDict[tuple[str, str], Stage] = OrderedDict()

    def __len__(self) -> int:
        return len(self.index)

    @property
    def changed(self) -> bool:
        """Whether somebody has written to it since it was opened."""
        try:
            return int(self.index.table.latest_version) != self.index.version
        except (OSError, ValueError):
            return True

    # Pipelines ----------------------------------------------------------------------------------------

    @property
    def menu(self) -> list[str]:
        """Pipelines that this index has the parts for, and that open no model that a page may not; the shorter first."""
        known = {*self.pipelines, default(self.index), "bm25", *bert_ir.pipelines(self.index)}
        return sorted(filter(self._may, known), key=lambda spec: (len(spec), spec))

    def _may(self, spec: str) -> bool:
        try:
            self._meet(spec, self._require)
        except ConfigError:
            return False
        return True

    def _require(self, model: str) -> None:
        if model not in self._models:
            raise ConfigError(
                f"the studio opens no model {model!r}: it was not named when the studio was started; use --pipeline there"
            )

    def _meet(self, spec: str, meet: Callable[[str], Any]) -> None:
        """Tell of the models that a pipeline would open; PipelineError for one that cannot be read."""

        def stub(make: Make, *given: Any, **named: Any) -> Stage:
            _meet(make, meet, given, named)
            return First(1)

        stubs = {name: partial(stub, make) for name, make in stages(self.index).items()}
        parse(spec, stubs, dict.fromkeys(around(self.index), lambda inner, *settings, **named: inner))

    def _view(self, where: str) -> SearchIndex:
        """The documents for which `where` holds; all, where it says nothing."""
        return _kept(self._views, where, lambda: self.index.where(where)) if where else self.index

    def _stage(self, where: str, spec: str) -> Stage:
        def made(make: Make, *given: Any, **named: Any) -> Stage:
            _meet(make, self._require, given, named)
            return make(*given, **named)

        view = self._view(where)
        make = {name: partial(made, make) for name, make in stages(view).items()}
        return _kept(self._stages, (where, spec), lambda: parse(spec, make, around(view)))

    # Searching ----------------------------------------------------------------------------------------

    def search(self, query: str, pipelines: Sequence[str], where: str, top: int) -> list[Column]:
        """What each pipeline finds; one search at a time, since the models are one.

        Raises ConfigError for an empty query or a condition that is none; what is wrong with one pipeline is in its column.
        """
        if not query.strip():
            raise ConfigError("the query is empty; say in words what to search for")
        with self._lock:
            self._view(where)  # one mistake in it is no mistake of each pipeline
            return [self._column(query, spec, where, top) for spec in pipelines]

    def _column(self, query: str, spec: str, where: str, top: int) -> Column:
        new = (where, spec) not in self._stages
        try:
            start = perf_counter()
            results = self._timed(query, spec, where, top)
            if new and perf_counter() - start < _AGAIN:
                new, results = False, self._timed(query, spec, where, top)
        except HourglassError as error:
            return Column(spec, trouble=error)
        return Column(spec, results, loading=new)

    def _timed(self, query: str, spec: str, where: str, top: int) -> Results:
        stage = self._stage(where, spec)
        self.index.forget_queries()  # every pipeline pays for its own
        return self._view(where).search(query, pipeline=stage, top=top)

    def explain(self, results: Results, place: int) -> Explanation:
        """With the sentences that are nearest to the query, which a model reads."""
        with self._lock:
            return results.explain(place)

    # Documents ----------------------------------------------------------------------------------------

    def titled(self, hit: Hit) -> tuple[str, dict[str, str]]:
        """(what a document is called, its other columns that hold something, as text)."""
        named = {name.lower(): name for name in reversed(self.index.columns)}
        title = next((named[name] for name in TITLES if name in named and hit.fields[named[name]]), None)
        others = {
            name: snippet(str(value), 80)
            for name, value in hit.fields.items()
            if name != title and value not in (None, "") and str(value) != hit.id
        }
        return snippet(str(hit.fields[title]), 120) if title else hit.id, others

    def first(self, number: int) -> list[tuple[str, str]]:
        """(id, beginning) of the first documents."""
        table = self.index.take(np.arange(min(number, len(self))), ["_id", "text"])
        return [(row["_id"], snippet(row["text"])) for row in table.to_pylist()]

    def sizes(self) -> dict[str, int]:
        """Bytes on disk, by what they are for."""
        return bytes_on_disk(self.index)


def _kept(among: OrderedDict[Key, Value], key: Key, make: Callable[[], Value]) -> Value:
    """What is kept under a key, made where it is not; those that were used longest ago are dropped."""
    if key not in among:
        among[key] = make()
    among.move_to_end(key)
    while len(among) > _KEPT:
        among.popitem(last=False)
    return among[key]


def _meet(make: Make, meet: Callable[[str], Any], given: Sequence[Any], named: dict[str, Any]) -> None:
    """Tell of the model that a stage opens, where it opens one."""
    settings = signature(make)
    if "model" in settings.parameters:
        bound = settings.bind(*given, **named)
        bound.apply_defaults()
        if bound.arguments["model"] is not None:
            meet(str(bound.arguments["model"]))
