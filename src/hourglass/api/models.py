"""Models: trained, opened, and put to texts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from hourglass import systems
from hourglass.adapters.dialogues import DialogueReader
from hourglass.api.folders import encoder_of, weigher_of
from hourglass.bottlenecks.sparse.activations import ACTIVATIONS
from hourglass.bottlenecks.sparse.coder import SparseCoderConfig
from hourglass.bottlenecks.sparse.recipe import MOST_ROWS, recipe
from hourglass.data import open_texts
from hourglass.data.dialogues import Documents, open_dialogues
from hourglass.data.flows import Flow, cache_flow
from hourglass.data.states import StateStream
from hourglass.errors import ConfigError, FolderError, InputError, nearest
from hourglass.nn.text_system import TextSystem
from hourglass.storage.atomic import read_json, write_json
from hourglass.storage.rows import RowFile
from hourglass.systems.readers import open_reader
from hourglass.training import FitResult, TrainConfig
from hourglass.training import fit as fit_waist
from hourglass.training.checkpoint import is_finished
from hourglass.training.randomness import seeded
from hourglass.uses import coders
from hourglass.uses.learn import learn
from hourglass.uses.progress import Progress
from hourglass.uses.vectors import write_vectors
from hourglass.waist import Waist


def fit(
    system: str | Waist,
    data: Any,
    *,
    out: str | Path | None = None,
    preset: str = "base",
    train: TrainConfig | Mapping[str, Any] | None = None,
    init: str | None = None,
    text: str | None = None,
    limit: int | None = None,
    vocabulary: int = 8000,
    progress: bool = True,
    **settings: Any,
) -> FitResult:
    """Train a system, by name with settings of its config, or one that is already built. The result holds the model.

    data    raw examples of the system's modality, in a sequence; for a system that learns on texts also any source of
            them, as for `explore`, with its column `text` and its `limit`
    train   the training's settings; of a system on texts those that differ from its recipe
    init    a system on texts goes on from "minilm", a folder or a Hub id; from scratch (`preset`) its tokenizer, of at most
            `vocabulary` tokens, is made of the corpus. With either, `out` is needed

    Raises InputError for bad input, in one line.
    """
    if isinstance(system, str) and issubclass(cls := systems.get(system), TextSystem):
        if out is None:
            raise InputError(f"fit {system}: name a folder for the run (out)")
        given = train.to_dict() if isinstance(train, TrainConfig) else train
        return learn(
            cls,
            data,
            Path(out),
            init=init,
            preset=preset,
            text=text,
            limit=limit,
            vocabulary=vocabulary,
            train=given,
            settings=settings,
            progress=progress,
        )
    if not isinstance(system, Waist):
        cls = systems.get(system)
        system = cls(cls.Config.preset(preset, **settings))
    elif settings:
        raise InputError(f"settings {sorted(settings)} do not apply to a system that is already built")
    config = train if isinstance(train, TrainConfig) else TrainConfig(**(train or {}))
    return fit_waist(system, data, config, out=Path(out) if out else None, progress=progress)


def text_system(name: str) -> type[TextSystem]:
    """The system called `name`, where it learns on texts; InputError, with those there are, where not."""
    found = {known: cls for known, cls in systems.discover().items() if issubclass(cls, TextSystem)}
    if name not in found:
        raise InputError(f"no system {name!r} to fit{nearest(name, ('sae', *found))}")
    return found[name]


def fit_sae(
    source: Any,
    *,
    out: str | Path,
    model: str | Sequence[str] = "minilm",
    layer: int | Sequence[int | None] | None = None,
    site: str | Sequence[str] = "residual",
    target: str | None = None,
    skip: bool = False,
    cross: bool = False,
    activation: str = "topk",
    width: int | Sequence[int] | None = None,
    k: int | Sequence[int] | None = None,
    target_l0: float | None = None,
    text: str | None = None,
    role: Literal["none", "user", "assistant"] = "none",
    special: bool | None = None,
    max_norm: float | None = None,
    dialogues: bool = False,
    pack: Literal["none", "blocks", "masked"] = "none",
    block: int = 2048,
    template: str | None = None,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    limit: int | None = None,
    steps: int | None = None,
    stream: bool = False,
    seed: int = 0,
    progress: bool = True,
    **settings: Any,
) -> dict[str, Any]:
    """Train sparse autoencoders on what a model makes of a source of texts; returns the measures that are kept with them.

    source    as for `explore`; text: its column
    model, layer, site, role, special, max_norm, dtype    the states, as in `HuggingFaceReader`; with several layers or
              sites an autoencoder for each, all from one pass over the texts
    dialogues the source holds dialogues (as `open_dialogues` takes them; text: their column), which the model reads as a chat
              model does, special and template tokens included unless `special` is false; pack, block: as in `Flow`;
              template: Jinja in place of the tokenizer's own. Autoencoders of one layer and site only
    target    a site of the same layer: a transcoder that makes it of what it reads ("mlp" of "mlp_in"); skip: with an
              affine function of the input beside the code
    cross     one crosscoder for all layers, sites and models (these with one tokenizer) together
    activation, width, k, target_l0, settings    the autoencoder, as in `SparseAutoencoderConfig` (`TranscoderConfig`,
              `CrosscoderConfig`); defaults: as many latents as the tokens can teach, and k 32 for the kinds that have one;
              with several widths or k an autoencoder for each
    steps     of training (default: what `recipe` says)
    stream    keep no states on disk: the model reads along while one autoencoder learns, from a buffer of 131,072 tokens;
              to go on after a crash, it reads again up to there

    Leaves `out`/model: the autoencoder, and reader.json: what it reads and how well. Of several, each has such a folder
    under `out`, as "layer-3-residual", and the measures are by that name. The same call after a crash goes on where it
    stopped. Raises InputError for bad input, in one line.
    """
    folder = Path(out)
    places = _listed(model), _listed(layer), _listed(site)
    tasks = coders.plan(*places, target=target, skip=skip, cross=cross, widths=_listed(width), ks=_listed(k))
    unfinished = [task for task in tasks if not _finished(folder / task.name, folder / "states")]
    if not unfinished:
        raise FolderError(f"{folder}: holds a finished autoencoder; choose another --out")
    readers: Mapping[str, coders.Reader]
    if dialogues:
        if role != "none" or max_norm is not None or stream:
            raise ConfigError("role, max_norm and stream are for plain texts: leave them out, or leave dialogues out")
        place = coders.only_place(tasks)
        chats = DialogueReader(place.model, layer=place.layer, site=place.site, dtype=dtype, template=template)
        chats.template.require()
        flow = Flow(pack=pack, block=block, special=special is not False)
        documents = source if isinstance(source, Documents) else open_dialogues(source, column=text, limit=limit)
        readers, name, reading = {place.model: chats}, documents.name, flow.describe()
    else:
        if pack != "none" or template is not None:
            raise ConfigError("pack and template are for dialogues: add dialogues (--dialogues)")
        texts = open_texts(source, text=text)
        texts = texts if limit is None else texts.limited(limit)
        plain = coders.open_readers(
            tasks, open_reader, dtype=dtype, role=role, special=bool(special), max_norm=max_norm
        )
        readers, name, reading = plain, texts.name, {}
    if activation not in ACTIVATIONS:
        raise ConfigError(f"no activation {activation!r}{nearest(activation, ACTIVATIONS)}")

    def configured(task: coders.Task, features: int) -> SparseCoderConfig:
        few = task.k
        if few is None and "k" in ACTIVATIONS[activation].settings:
            few = 32 if task.width is None else min(32, task.width)
        chosen = {"k": few, "activation": activation, "target_l0": target_l0, **settings}
        return coders.configure(task, readers, task.width or max(few or 1, features), chosen)

    for task in tasks:  # settings that do not fit are refused before anything is read
        configured(task, 4096)
    if stream and len(tasks) > 1:
        raise ConfigError("stream: one autoencoder at a time; leave it out for several")
    with Progress(progress) as bar:

        def advance(read_by: str) -> Callable[[int], None]:
            return partial(bar.advance, bar.start("Reading states", limit, "dialogues" if dialogues else "texts"))

        states: StateStream | Mapping[coders.Place, RowFile]
        at = folder / "states"
        if dialogues:
            states = {place: cache_flow(chats, documents, flow, at, advance=advance(place.model))}
        elif stream:
            states = coders.stream(tasks[0], plain, texts, at, seed)
        else:
            states = coders.cache(tasks, plain, texts, at, advance)
    for task in unfinished:
        rows = states if isinstance(states, StateStream) else coders.rows_of(task, states)
        tokens = MOST_ROWS if isinstance(rows, StateStream) else len(rows)
        config = configured(task, width_for(tokens))
        train = recipe(config, tokens, seed=seed)
        with seeded(torch.device("cpu"), seed):
            coder = coders.build(config)
        learned, held_out = coders.hold_out(config, rows)
        out_of = folder / task.name
        result = fit_waist(coder, learned, replace(train, steps=steps or train.steps), out=out_of, progress=progress)
        if held_out is not None:
            coder.calibrate(coder.collate(held_out)["x"])
            coder.save_pretrained(out_of / "model")
        measures = {
            **coders.describe(task, readers),
            **reading,
            "source": name,
            "tokens": result.steps * train.batch_size if stream else tokens,
            "steps": result.steps,
            "activation": activation,
            **coders.measure(coder, coders.sample(states, task)),
        }
        write_json(_reader_file(out_of), measures)
    shutil.rmtree(folder / "states")
    found = {task.name: dict(read_json(_reader_file(folder / task.name))) for task in tasks}
    return found if len(tasks) > 1 else found[""]


def encode(
    model: str,
    source: Any,
    to: str,
    *,
    sparse: bool = False,
    dtype: Literal["auto", "float32", "bfloat16"] = "float32",
    text: str | None = None,
    id: str | None = None,
    limit: int | None = None,
    force: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Write the ids and vectors of a source's texts to a .parquet file, a path or URL; memory follows the batch.

    model                   "minilm", the folder of a trained model or of sentence-transformers, or a Hub id
    sparse                  weights of words in place of vectors; the model is a dupmae, a text2token, a retriever with a lexical
                            part, or one of `SparseEncoder`
    dtype                   that a model of sentence-transformers computes in; "auto" takes bfloat16 where the hardware has it, for
                            which a text takes a third of the time and the cosine to float32 is 0.9999
    source, text, id, limit as for `explore`

    Returns {"documents", "width", "windowed"}, the last the number of texts longer than the model, and with `sparse` "weights",
    the mean number of a text. Columns: `_id` and `vector`, and of a system with binary codes `code` (bits packed as NumPy does; null
    and a vector of zeros where no word of a text is known); with `sparse` `_id`, `tokens` and their `weights`, the heaviest first.
    The file is there whole or not at all, and one that exists is replaced only with `force`.

    Raises InputError for bad input, in one line.
    """
    return write_vectors(
        weigher_of(model) if sparse else encoder_of(model),
        source,
        to,
        sparse=sparse,
        dtype=dtype,
        text=text,
        id=id,
        limit=limit,
        force=force,
        progress=progress,
    )


def _listed(one_or_several: Any) -> list[Any]:
    return (
        [one_or_several] if one_or_several is None or isinstance(one_or_several, (str, int)) else list(one_or_several)
    )


def _reader_file(folder: Path) -> Path:
    """Where a trained autoencoder says what it reads."""
    return folder / "model" / "reader.json"


def _finished(folder: Path, states: Path) -> bool:
    """Whether the autoencoder of a folder is trained and, while its states are there, measured too."""
    return is_finished(folder) and (_reader_file(folder).is_file() or not states.exists())


def width_for(tokens: int) -> int:
    """As many features as the tokens can teach: about one for every 64, a power of two from 64 to 4,096."""
    return min(4096, max(64, 1 << (max(tokens, 1) // 64).bit_length() - 1 if tokens >= 64 else 64))
