"""Sparse coders of what a model makes of texts: which there are to be, their states from one pass, each trained and measured.

tasks = plan(["gpt2"], [4, 8], ["residual"])                     # two autoencoders
tasks = plan(["gpt2"], [8], ["mlp_in"], target="mlp", skip=True) # a transcoder of the feed-forward part of block 8
tasks = plan(["gpt2"], [4, 6, 8], ["residual"], cross=True)      # a crosscoder
tasks = plan(["base", "chat"], [8], ["residual"], cross=True)    # a crosscoder of two models: what one has and the other not
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import Subset

from hourglass.bottlenecks.sparse import (
    Crosscoder,
    CrosscoderConfig,
    SparseAutoencoder,
    SparseAutoencoderConfig,
    Transcoder,
    TranscoderConfig,
)
from hourglass.bottlenecks.sparse.coder import SparseCoder, SparseCoderConfig
from hourglass.data.states import SitesReader, StateStream, cache_sites, cache_states
from hourglass.errors import ConfigError
from hourglass.metrics.autoencoders import measure_sae, measure_transcoder
from hourglass.storage.rows import DiskArray, RowFile, SideBySide

MEASURED_ROWS = 32_768
"""Rows, spread over all, on which a trained coder is measured."""

CALIBRATION_ROWS = 16_384
"""Rows, a twentieth of all at most, that are held out to bring thresholds to their target on."""

STREAMED_ROWS = 2**17
"""Rows from which those of a stream are drawn."""

_NORM_BINS = 10


class Reader(Protocol):
    """What is asked of a model's reader: how wide states are, and what it takes to have the same again."""

    def width_at(self, layer: int | None, site: str) -> int: ...

    def describe(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Place:
    """Where states are taken: a model, and layer and site as in `HuggingFaceReader`."""

    model: str
    layer: int | None
    site: str

    @property
    def name(self) -> str:
        """For a folder: "layer-3-head-2"."""
        layer = "last" if self.layer is None else f"layer-{self.layer}"
        return f"{layer}-{self.site.replace(':', '-')}"


@dataclass(frozen=True)
class Task:
    """One coder: the places that it reads, and the one that it reconstructs instead, if so. More than one: a crosscoder.

    name      of its folder; "" where it is the only one
    skip      of a transcoder, a skip connection
    width, k  of its code; None: the default
    """

    name: str
    reads: tuple[Place, ...]
    target: Place | None = None
    skip: bool = False
    width: int | None = None
    k: int | None = None

    @property
    def places(self) -> tuple[Place, ...]:
        return self.reads if self.target is None else (*self.reads, self.target)


def plan(
    models: Sequence[str],
    layers: Sequence[int | None],
    sites: Sequence[str],
    *,
    target: str | None = None,
    skip: bool = False,
    cross: bool = False,
    widths: Sequence[int | None] = (None,),
    ks: Sequence[int | None] = (None,),
) -> list[Task]:
    """A coder for each layer and site, or with `cross` one for all together; of each, one for every width and k.

    target  a site of the same layer: transcoders that make it of what they read

    Raises ConfigError for what does not go together.
    """
    tasks = []
    for task in _plan(models, layers, sites, target, skip, cross):
        for width in widths:
            for k in ks:
                sizes = [f"width-{width}"] * (len(widths) > 1) + [f"k-{k}"] * (len(ks) > 1)
                name = "-".join([task.name] * bool(task.name) + sizes)
                tasks.append(replace(task, name=name, width=width, k=k))
    if len({task.name for task in tasks}) < len(tasks):
        raise ConfigError(f"the same twice: {', '.join(task.name for task in tasks)}")
    return tasks


def _plan(
    models: Sequence[str],
    layers: Sequence[int | None],
    sites: Sequence[str],
    target: str | None,
    skip: bool,
    cross: bool,
) -> list[Task]:
    places = [Place(model, layer, site) for model in models for layer in layers for site in sites]
    if len(set(places)) < len(places):
        raise ConfigError(f"the same place twice: {', '.join(place.name for place in places)}")
    if skip and target is None:
        raise ConfigError("skip belongs to a transcoder: name the site that it is to give (target)")
    if cross:
        if target is not None:
            raise ConfigError("cross and target: a crosscoder reconstructs what it reads; leave one of them out")
        if len(places) < 2:
            raise ConfigError("cross: expected two places or more: several layers, sites or models")
        return [Task("", tuple(places))]
    if len(models) > 1:
        raise ConfigError("several models: only a crosscoder reads them together (cross)")
    if target is None:
        tasks = [Task(place.name, (place,)) for place in places]
    else:
        if target in sites:
            raise ConfigError(f"target {target!r} is what is read, too; leave it out for an autoencoder")
        to = [Place(place.model, place.layer, target) for place in places]
        tasks = [Task(f"{p.name}-to-{target.replace(':', '-')}", (p,), t, skip) for p, t in zip(places, to)]
    return tasks if len(tasks) > 1 else [Task("", tasks[0].reads, tasks[0].target, skip)]


def open_readers(
    tasks: Sequence[Task], open_reader: Callable[..., SitesReader], **settings: Any
) -> dict[str, SitesReader]:
    """A reader for each model, as deep as its places need; ConfigError where one of these does not exist.

    open_reader  makes one of a model's name, a layer, a site and the settings
    """
    places = _places(tasks)
    readers: dict[str, SitesReader] = {}
    for model in dict.fromkeys(place.model for place in places):
        own = [place for place in places if place.model == model]
        if len(own) == 1:
            readers[model] = open_reader(model, layer=own[0].layer, site=own[0].site, **settings)
            continue
        readers[model] = open_reader(model, layer=_deepest([place.layer for place in own]), **settings)
        for place in own:
            readers[model].width_at(place.layer, place.site)
    return readers


def cache(
    tasks: Sequence[Task],
    readers: Mapping[str, SitesReader],
    texts: Any,
    folder: Path,
    advance: Callable[[str], Callable[[int], None]],
) -> dict[Place, RowFile]:
    """The states at all places of the tasks, kept in `folder`; one pass for each model. Goes on after a kill.

    advance  from the name of a model to a function that is told how many texts were read
    """
    places = _places(tasks)
    if len(places) == 1:
        return {places[0]: cache_states(readers[places[0].model], texts, folder, advance(places[0].model))}
    aligned = any(len(task.places) > 1 for task in tasks)
    found: dict[Place, RowFile] = {}
    for number, (model, reader) in enumerate(readers.items()):
        own = {(place.layer, place.site): place for place in places if place.model == model}
        root = folder if len(readers) == 1 else folder / f"model-{number + 1}"
        folders = {at: root / place.name for at, place in own.items()}
        rows = cache_sites(reader, texts, folders, advance(model), aligned=aligned)
        found |= {own[at]: file for at, file in rows.items()}
    if len(readers) > 1:
        _require_same_tokens(found)
    return found


def configure(task: Task, readers: Mapping[str, Reader], width: int, settings: Mapping[str, Any]) -> SparseCoderConfig:
    """The config of a task's coder; ConfigError for settings that do not fit it."""
    widths = [readers[place.model].width_at(place.layer, place.site) for place in task.places]
    if task.target is not None:
        own = {"d_in": widths[0], "d_out": widths[1], "skip": task.skip}
        return TranscoderConfig.from_dict({**own, "width": width, **settings})
    if len(widths) > 1:
        return CrosscoderConfig.from_dict({"d_in": sum(widths), "parts": widths, "width": width, **settings})
    return SparseAutoencoderConfig.from_dict({"d_in": widths[0], "width": width, **settings})


def build(config: SparseCoderConfig) -> SparseCoder:
    """A new coder of that config."""
    if isinstance(config, TranscoderConfig):
        return Transcoder(config)
    return Crosscoder(config) if isinstance(config, CrosscoderConfig) else SparseAutoencoder(config)  # type: ignore[arg-type]


def rows_of(task: Task, states: Mapping[Place, RowFile]) -> DiskArray | SideBySide:
    """What the task's coder learns from."""
    rows = [states[place].rows for place in task.places]
    return rows[0] if len(rows) == 1 else SideBySide(rows)


def hold_out(config: SparseCoderConfig, rows: Any) -> tuple[Any, Any]:
    """(what a coder learns from, the last rows on which it is calibrated): all and None where it has no target, or of a stream."""
    if config.target_l0 is None or isinstance(rows, StateStream):
        return rows, None
    kept = max(1, min(CALIBRATION_ROWS, len(rows) // 20))
    return Subset(rows, range(len(rows) - kept)), rows[len(rows) - kept :]


def stream(task: Task, readers: Mapping[str, SitesReader], texts: Any, folder: Path, seed: int) -> StateStream:
    """What the task's coder learns from, never kept: read again where a run goes on. ConfigError for several models."""
    if len(readers) > 1:
        raise ConfigError("stream: one model at a time; leave it out to keep the states of several")
    places = [(place.layer, place.site) for place in task.places]
    return StateStream(readers[task.reads[0].model], texts, places, folder, capacity=STREAMED_ROWS, seed=seed)


def sample(rows: Mapping[Place, RowFile] | StateStream, task: Task) -> list[Any]:
    """Rows to measure on, for each place of the task: spread over all that are kept, or the first of a stream."""
    if isinstance(rows, StateStream):
        first = torch.stack(list(islice(rows, MEASURED_ROWS)))
        return list(first.split(rows.widths, dim=1))
    kept = [rows[place].rows for place in task.places]
    return [each[:: max(1, len(each) // MEASURED_ROWS)] for each in kept]


def measure(coder: SparseCoder, rows: Sequence[Any]) -> dict[str, Any]:
    """What there is to say of a trained coder on rows of each of its places, for JSON: see `metrics.autoencoders`; of a
    crosscoder also

    relative_norms  {"edges", "counts"}: for each place, the latents by its share of their decoder norms
    """
    if isinstance(coder, Transcoder):
        return measure_transcoder(coder, *rows)
    if isinstance(coder, Crosscoder):
        edges = np.linspace(0, 1, _NORM_BINS + 1)
        counts = [
            np.histogram(norms.numpy(), bins=edges)[0].tolist() for norms in coder.relative_norms.clamp(0, 1).cpu().T
        ]
        return {
            **measure_sae(coder, np.concatenate(rows, axis=1), coder.config.parts),
            "relative_norms": {"edges": [round(edge, 3) for edge in edges.tolist()], "counts": counts},
        }
    return measure_sae(coder, rows[0])


def describe(task: Task, readers: Mapping[str, Reader]) -> dict[str, Any]:
    """What the task's coder reads, for reader.json: as the reader says, "target" and "skip", or "places" in their order."""
    first = task.reads[0]
    reads = {**readers[first.model].describe(), "layer": first.layer, "site": first.site}
    if task.target is not None:
        return {**reads, "target": task.target.site, "skip": task.skip}
    if len(task.reads) == 1:
        return reads
    places = [
        {"model": p.model, "revision": readers[p.model].describe()["revision"], "layer": p.layer, "site": p.site}
        for p in task.reads
    ]
    shared = {name: value for name, value in reads.items() if name not in places[0]}
    return {**shared, "places": places}


def only_place(tasks: Sequence[Task]) -> Place:
    """The one place of all tasks; ConfigError where there are several."""
    places = _places(tasks)
    if len(places) > 1:
        raise ConfigError(f"dialogues: one layer and site at a time, not {', '.join(place.name for place in places)}")
    return places[0]


def _places(tasks: Iterable[Task]) -> list[Place]:
    return list(dict.fromkeys(place for task in tasks for place in task.places))


def _deepest(layers: Sequence[int | None]) -> int | None:
    """The layer at which a reader comes to all; None, the whole model, where that takes to know how many there are."""
    known = [layer for layer in layers if layer is not None]
    if len(known) < len(layers) or min(known) < 0 <= max(known):
        return None
    return max(known)


def _require_same_tokens(states: Mapping[Place, RowFile]) -> None:
    """Row i of all is of the same token."""
    (first, here), *others = states.items()
    for place, there in others:
        if not (
            len(here) == len(there)
            and np.array_equal(here.documents, there.documents)
            and np.array_equal(here.spans, there.spans)
        ):
            raise ConfigError(
                f"{first.model} and {place.model} cut the texts into other tokens; "
                "a crosscoder takes models with one tokenizer, and no max_norm"
            )
