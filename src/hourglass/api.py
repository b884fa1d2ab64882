"""The verbs as functions: what the command line and notebooks call.

import hourglass as hg
ws = hg.explore(df, text="body", by="label", out="reviews")
ws.diff("label")
ws.correlate()
ws.trend("month")
ws.find("polite refusals")
ws = hg.open("reviews")
hg.steer("reviews", "Dear customer,", feature="refusals").table
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import torch
from huggingface_hub import hf_hub_download

from hourglass import systems
from hourglass.adapters.causal import CausalModel, require_causal
from hourglass.adapters.dialogues import DialogueReader
from hourglass.adapters.saes import load_sae
from hourglass.bottlenecks.sparse import Crosscoder, SparseAutoencoder
from hourglass.bottlenecks.sparse.activations import ACTIVATIONS
from hourglass.bottlenecks.sparse.coder import SparseCoderConfig
from hourglass.bottlenecks.sparse.recipe import MOST_ROWS, recipe
from hourglass.data import open_texts
from hourglass.data.dialogues import Documents, open_dialogues
from hourglass.data.flows import Flow, cache_flow
from hourglass.data.judged import Qrels, read_qrels, read_queries
from hourglass.data.states import StateStream
from hourglass.errors import ConfigError, FolderError, InputError, nearest
from hourglass.metrics.ranking import MEASURES
from hourglass.nn.text_system import TextSystem
from hourglass.storage.atomic import read_json, replace_folder, write_json
from hourglass.storage.places import is_url
from hourglass.storage.rows import RowFile
from hourglass.systems.interpretable_embeddings import InterpretableEmbeddings, InterpretableEmbeddingsConfig
from hourglass.training import FitResult, TrainConfig
from hourglass.training import fit as fit_waist
from hourglass.training.checkpoint import is_finished
from hourglass.training.randomness import seeded
from hourglass.uses import coders
from hourglass.uses.adapt import adapt
from hourglass.uses.explore import Workspace, build, engines
from hourglass.uses.explore.workspace import is_workspace, writing
from hourglass.uses.learn import learn
from hourglass.uses.progress import Progress
from hourglass.uses.search.evaluate import Evaluation
from hourglass.uses.search.evaluate import evaluate as evaluate_pipelines
from hourglass.uses.search.index import SearchIndex
from hourglass.uses.search.stages import Stage
from hourglass.uses.steer import Edit, Steered, feature_number, generate
from hourglass.uses.steer.logits import logit_effect as effect_on_logits
from hourglass.uses.vectors import write_vectors
from hourglass.waist import Waist, WordWeigher

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "adapt",
    "encode",
    "evaluate",
    "explore",
    "explore_sae",
    "fit",
    "fit_sae",
    "index",
    "load",
    "logit_effect",
    "open",
    "open_index",
    "steer",
]


def explore(
    source: Any,
    *,
    out: str | Path,
    text: str | None = None,
    by: str | None = None,
    id: str | None = None,
    encoder: str | None = None,
    layer: int | None = None,
    site: str | None = None,
    role: Literal["none", "user", "assistant"] = "none",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    sae: str | Path | None = None,
    width: int | None = None,
    k: int = 32,
    activation: Literal["topk", "batchtopk"] = "topk",
    threshold: float = 0.0,
    limit: int | None = None,
    sample: int | None = None,
    engine: str = "local",
    seed: int = 0,
    force: bool = False,
    progress: bool = True,
) -> Workspace:
    """Learn the concepts of a pile of texts and write a workspace with a report into `out`.

    source    a path or URL (csv, tsv, jsonl, json, parquet, arrow, .lance; a folder of .txt or of such files), "docstrings:",
              a Hub data set id, "-", a pandas / polars / Arrow table, a list of texts
    text      column that holds the text; guessed where it is plain
    by        column whose groups the report compares
    id        column that names a document (default: "id" where there is one, else the row number)
    encoder   "minilm" (the default), a model folder or a Hub id; layer: None for the last, else its number; site: of the
              layer, as in `HuggingFaceReader` ("residual")
    sae       a trained sparse autoencoder or transcoder that is used as it is (whatever `load_sae` reads) instead of one
              that learns here; one of `fit_sae` knows its encoder, layer and site
    width, k  features in all (default: as many as the corpus can teach) and active ones a token
    threshold an activation counts only above this value
    limit     read only the first so many documents
    sample    read all, and take so many at random, in their order; they are held in memory while the source is read
    engine    "local", or "ray" for a cluster whose machines all see `out`: the same result, encoded and coded by its workers
    force     replace a finished workspace; the old one stays until the new one is done

    The same call after a crash goes on where it stopped. Raises InputError for bad input, in one line.
    """
    folder, workers = Path(out), engines.engine(engine)
    if is_url(str(out)):
        raise FolderError(
            f"{out}: a workspace is a folder of this machine or one that is mounted; what is in it can be brought there "
            f"afterwards: hourglass export DIR {str(out).rstrip('/')}/documents.parquet"
        )
    if k < 1 or (width is not None and width < k):
        raise ConfigError(f"width {width} and k {k}: expected 1 <= k <= width")
    texts = open_texts(source, text=text, id=id, require=[by] if by else [])
    if limit is not None and sample is not None:
        raise ConfigError("limit takes the first documents, sample random ones: give one of the two")
    if limit is not None:
        texts = texts.limited(limit)
    if sample is not None:
        texts = texts.sampled(sample, seed)
    ready = load_sae(sae) if sae is not None else None
    if isinstance(ready, Crosscoder):
        raise ConfigError(f"{sae}: a crosscoder reads several places at once; name an autoencoder or a transcoder")
    made_for = _reader_of(Path(sae)) if sae is not None else {}
    encoder = encoder or made_for.get("model", "minilm")
    layer = made_for.get("layer") if layer is None else layer
    site = site or made_for.get("site", "residual")
    settings = {
        "source": texts.name,
        "text": text,
        "id": id,
        "by": by,
        "encoder": encoder,
        "layer": layer,
        "site": site,
        "role": role,
        "dtype": dtype,
        "sae": str(sae) if sae is not None else None,
        "width": width,
        "k": k,
        "activation": activation,
        "threshold": threshold,
        "limit": limit,
        "sample": sample,
        "seed": seed,
    }

    def make_coder(tokens: int) -> InterpretableEmbeddings:
        features = width or _width(tokens)
        config = InterpretableEmbeddingsConfig(
            encoder=encoder,
            layer=layer,
            site=site,
            role=role,
            dtype=dtype,
            width=features,
            k=min(k, max(1, features // 8)),
            activation=activation,
            threshold=threshold,
            sae={"system": ready.system_name(), **ready.config.to_dict()} if ready is not None else None,
        )
        with seeded(torch.device("cpu"), seed):  # the weights it starts from are part of the run
            return InterpretableEmbeddings(config, ready)

    target = folder
    if force and folder.exists():
        if not is_workspace(folder):
            raise FolderError(f"{folder}: not a workspace, so --force will not replace it; choose another --out")
        target = folder.with_name(f".{folder.name}.new")
    if not is_workspace(target):
        make_coder(0)  # settings that do not fit are refused before anything is read or written
    # Who added to the old one meanwhile would add to what is about to go.
    with writing(folder) if target != folder else nullcontext():
        workspace = build.begin(target, texts, settings, InterpretableEmbeddings.from_pretrained)
        build.run(workspace, texts, make_coder, workers, seed, progress)
        if target != folder:
            replace_folder(target, folder)
    return open(folder)


def explore_sae(
    folder: str | Path,
    source: Any = None,
    *,
    text: str | None = None,
    model: str | None = None,
    layer: int | None = None,
    site: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Workspace:
    """What the features of a trained autoencoder stand for: the workspace of a source of texts, kept in `folder`/explored.

    folder    what `fit_sae` made, or an autoencoder of another library
    source, text, limit   as for `explore`. Without a source: the workspace that is there. The same source, named again, is
              not read again; another one takes its place
    model, layer, site    what the autoencoder reads, as for `explore`; one of `fit_sae` knows

    Raises InputError for bad input, in one line.
    """
    folder = Path(folder)
    place = folder / "explored"
    made_for = _reader_of(folder)
    if source is None:
        if is_workspace(place):
            return open(place)
        try:
            load_sae(folder)
        except FolderError as error:
            raise FolderError(f"{folder}: no workspace and no sparse autoencoder ({error})") from None
        raise InputError(
            f"{folder}: its features have not been looked at yet; name the texts to do it on: "
            f"hourglass features {folder} --source SOURCE"
        )
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder, where what is found is kept; or explore SOURCE --sae {folder}")
    if model is None and "model" not in made_for:
        raise InputError(f"{folder}: does not say what it reads: name the model and the layer (--model, --layer)")
    model = model or made_for["model"]
    layer = made_for.get("layer") if layer is None else layer
    site = site or made_for.get("site", "residual")
    if is_workspace(place):
        there = read_json(place / "workspace.json")
        asked = {"source": str(source), "text": text, "limit": limit, "seed": seed}
        asked |= {"encoder": model, "layer": layer, "site": site}
        if any(there["settings"][name] != value for name, value in asked.items()):
            shutil.rmtree(place)
        elif there["stage"] == "done":
            return open(place)
    return explore(
        source,
        out=place,
        text=text,
        encoder=model,
        layer=layer,
        site=site,
        role=made_for.get("role", "none"),
        sae=folder,
        limit=limit,
        seed=seed,
        progress=progress,
    )


def open(folder: str | Path) -> Workspace:
    """A finished workspace; FolderError where there is none."""
    return Workspace.open(folder, InterpretableEmbeddings.from_pretrained)


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
        plain = coders.open_readers(tasks, dtype=dtype, role=role, special=bool(special), max_norm=max_norm)
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
        config = configured(task, _width(tokens))
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


def load(folder: str | Path) -> Waist:
    """A trained model from its folder or Hub id, whatever its system."""
    config = (
        Path(folder) / "config.json" if Path(folder).is_dir() else Path(hf_hub_download(str(folder), "config.json"))
    )
    values = read_json(config)
    name = values.get("system") or values.get("hourglass", {}).get("system")
    return systems.get(str(name)).from_pretrained(str(folder))


def encode(
    model: str,
    source: Any,
    to: str,
    *,
    sparse: bool = False,
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
    source, text, id, limit as for `explore`

    Returns {"documents", "width", "windowed"}, the last the number of texts longer than the model, and with `sparse` "weights",
    the mean number of a text. Columns: `_id` and `vector`, and of a system with binary codes `code` (bits packed as NumPy does; null
    and a vector of zeros where no word of a text is known); with `sparse` `_id`, `tokens` and their `weights`, the heaviest first.
    The file is there whole or not at all, and one that exists is replaced only with `force`.

    Raises InputError for bad input, in one line.
    """
    return write_vectors(
        _weigher_of(model) if sparse else _encoder_of(model),
        source,
        to,
        sparse=sparse,
        text=text,
        id=id,
        limit=limit,
        force=force,
        progress=progress,
    )


def _text_system(folder: Path) -> Waist | None:
    """The model of a folder where it is a system that reads texts and no model of sentence-transformers."""
    path = folder / "config.json"
    name = read_json(path).get("system") if path.is_file() else None
    cls = systems.discover().get(str(name))
    return load(folder) if cls is not None and issubclass(cls, TextSystem) else None


def _weigher(folder: Path) -> WordWeigher | None:
    """The model of a folder where its system has weights of words of its own."""
    path = folder / "config.json"
    name = read_json(path).get("hourglass", {}).get("system") if path.is_file() else None
    cls = systems.discover().get(str(name))
    return cast(WordWeigher, load(folder)) if cls is not None and "weighs-words" in cls.tags else None


def index(
    source: Any,
    *,
    out: str | Path,
    encoder: Any = "minilm",
    sparse: str | None = None,
    code: str | None = None,
    vectors: str | None = None,
    similarity: Literal["cosine", "dot"] | None = None,
    dtype: Literal["float16", "float32"] = "float16",
    stem: str | None = "english",
    stop_words: str | None = "english",
    k1: float = 1.5,
    b: float = 0.75,
    text: str | None = None,
    id: str | None = None,
    limit: int | None = None,
    force: bool = False,
    progress: bool = True,
) -> SearchIndex:
    """Make a search index of a source of texts in the folder `out`; memory follows the batch.

    source, text, id, limit   as for `explore`; ids must differ (default: "id" or "_id" where there is one)
    encoder     "minilm", a folder of a trained model or of sentence-transformers, a Hub id, or a model, as for `encode`; None:
                an index of words alone
    sparse      also weights of words, by a model as for `encode` with `sparse`
    code        "sign": also a binary code of each vector
    vectors     column of the source that has the vectors already; the encoder is then of the queries alone, or None
    similarity  of vectors (default: what the encoder was made for); dtype: in which they are kept
    stem, stop_words   languages of the index of words (Snowball's, bm25s's), or None; k1, b: of BM25
    force       replace the index that is there; the old one stays until the new one is done

    The same call after a crash goes on from the last commit. Raises InputError for bad input, in one line.
    """
    return SearchIndex.create(
        source,
        out,
        encoder=encoder,
        sparse=sparse,
        code=code,
        vectors=vectors,
        similarity=similarity,
        dtype=dtype,
        stem=stem,
        stop_words=stop_words,
        k1=k1,
        b=b,
        text=text,
        id=id,
        limit=limit,
        force=force,
        weigher=_weigher_of,
        opened=_encoder_of,
        progress=progress,
    )


def open_index(folder: str | Path, *, encoder: Any = None) -> SearchIndex:
    """An index; FolderError where there is none.

    encoder  of queries, where the index does not know its own by name: a model, or for vectors that were given
    """
    return SearchIndex(folder, encoder=encoder, weigher=_weigher_of, opened=_encoder_of)


def evaluate(
    index: SearchIndex | str | Path,
    queries: Mapping[str, str] | str | Path,
    qrels: Qrels | str | Path,
    *,
    pipelines: Sequence[str | Stage] = (),
    measures: Sequence[str] = MEASURES,
    progress: bool = True,
) -> Evaluation:
    """How much of what is relevant pipelines find in an index, whether they differ by more than chance, and what they cost.

    index      one, or its folder
    queries    texts by name, or a file: .jsonl (_id, text), .parquet, or a name, a tab and a text a line
    qrels      graded relevance by query and document, or a file of TREC, of BEIR, or .parquet
    pipelines  the first is what the others are compared with (default: bm25, and with vectors dense, and both fused)
    measures   ndcg, mrr, recall, p or map, each at a depth

    Raises InputError for bad input, in one line.
    """
    searched = index if isinstance(index, SearchIndex) else open_index(index)
    pipelines = pipelines or ("bm25", *(("dense", "bm25 | dense >> rrf") if searched.answers_vectors else ()))
    stages = [pipeline if isinstance(pipeline, Stage) else searched.pipeline(pipeline) for pipeline in pipelines]
    names = [pipeline.name if isinstance(pipeline, Stage) else pipeline for pipeline in pipelines]
    return evaluate_pipelines(
        dict(zip(names, stages)),
        searched,
        queries if isinstance(queries, Mapping) else read_queries(queries),
        qrels if isinstance(qrels, Mapping) else read_qrels(qrels),
        measures=measures,
        progress=progress,
    )


def _encoder_of(model: str) -> Waist | str:
    return _text_system(Path(model)) or model


def _weigher_of(model: str) -> WordWeigher | str:
    return _weigher(Path(model)) or model


def steer(
    folder: str | Path,
    prompts: str | Sequence[str],
    *,
    feature: int | str | Sequence[int | str],
    alphas: Sequence[float] = (),
    clamp: float | None = None,
    remove: bool = False,
    model: str | None = None,
    layer: int | None = None,
    tokens: Literal["all", "generated"] = "all",
    chat: bool | None = None,
    max_tokens: int = 40,
    temperature: float = 0.0,
    seed: int = 0,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
) -> Steered:
    """Let a causal model go on from each prompt with a feature made stronger, set or removed, and without.

    folder      a workspace over a causal model, or a sparse autoencoder (ours, SAELens, sparsify, dictionary_learning)
    feature     one or several: by number or, in a workspace, by a part of the name
    alphas      strengths to add, in the units of the activations; default in a workspace: 1, 2 and 4 times what the
                feature reaches in the corpus (its 90th percentile)
    clamp       set the features to this value instead; remove: to 0
    model       a folder or a Hub id; layer: the block whose output the autoencoder reads. A workspace knows both, and so
                does an autoencoder of `fit_sae`
    tokens      edit "all" tokens, or only the "generated" ones
    chat        the prompts are turns of a user (default: as the states were read that were learned from)
    temperature 0 is greedy

    Raises InputError for bad input, in one line; a model that only reads (an encoder) cannot be steered.
    """
    folder = Path(folder)
    if (clamp is not None) + remove + bool(alphas) > 1:
        raise InputError("steer: give alphas, clamp or remove, one of the three")
    target = _causal(folder, model, layer)
    sae, labels = target.sae, target.labels
    asked = [feature] if isinstance(feature, (int, str)) else list(feature)
    numbers = [feature_number(one, sae.config.width, labels) for one in asked]
    if clamp is not None or remove:
        edits = [Edit(number, "clamp", clamp or 0.0) for number in numbers]
    else:
        edits = [Edit(number, "add", 1.0) for number in numbers]
        alphas = alphas or _strengths(0.0 if target.p90 is None else float(target.p90.loc[numbers].mean()))
    steered = generate(
        target.model,
        sae,
        target.layer,
        [prompts] if isinstance(prompts, str) else prompts,
        edits,
        alphas=alphas,
        tokens=tokens,
        chat=target.chat if chat is None else chat,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        dtype=dtype,
    )
    if labels is None:
        return steered
    return replace(steered, labels=tuple(labels.loc[numbers].astype(object).where(labels.notna(), None)))


def logit_effect(folder: str | Path, feature: int, *, top: int = 10) -> pd.DataFrame:
    """The tokens that a feature makes likelier and less likely by itself, in the head of the causal model that it is of.

    folder  as for `steer`. Raises InputError, in one line, where there is no such feature or model.
    """
    target = _causal(Path(folder), None, None)
    feature = feature_number(feature, target.sae.config.width)
    return effect_on_logits(CausalModel(target.model), target.sae, feature, top)


def _reader_of(folder: Path) -> dict[str, Any]:
    """What an autoencoder of `fit_sae` reads; empty for one that does not say."""
    files = [file for file in (folder / "reader.json", folder / "model" / "reader.json") if file.is_file()]
    return dict(read_json(files[0])) if files else {}


class _Causal(NamedTuple):
    """A sparse autoencoder of a causal model, and what is known of its features."""

    sae: SparseAutoencoder
    model: str
    layer: int
    chat: bool
    labels: pd.Series | None
    p90: pd.Series | None


def _causal(folder: Path, model: str | None, layer: int | None) -> _Causal:
    """What is in `folder`, a workspace or an autoencoder, where it is over a block's output of a causal model."""
    if is_workspace(folder):
        workspace = open(folder)
        settings, table = workspace.settings, workspace.features
        model, layer = model or settings["encoder"], settings["layer"] if layer is None else layer
        require_causal(str(model))
        _require_residual(folder, settings["site"])
        if layer is None:
            raise ConfigError(
                f"{folder}: explored on the last state, after the final norm, where there is no block to steer at; "
                "explore again with --layer N"
            )
        sae = _autoencoder(folder, workspace.sae)
        found = _Causal(sae, str(model), layer, settings["role"] != "none", table["label"], table["p90"])
        del workspace  # and the reader in it: the model is loaded again, whole
        InterpretableEmbeddings.forget_reader()
        return found
    made_for = _reader_of(folder)
    if "places" in made_for:
        _autoencoder(folder, load_sae(folder))
    model, layer = model or made_for.get("model"), made_for.get("layer") if layer is None else layer
    if model is None or layer is None:
        raise ConfigError(
            f"{folder}: does not say which block's output it reads: name the model and the layer (--model, --layer)"
        )
    require_causal(model)
    _require_residual(folder, made_for.get("site", "residual"))
    chats = "pack" in made_for and made_for.get("chat_template") is None
    return _Causal(_autoencoder(folder, load_sae(folder)), model, layer, chats, None, None)


def _autoencoder(folder: Path, coder: Any) -> SparseAutoencoder:
    if not isinstance(coder, SparseAutoencoder):
        raise ConfigError(
            f"{folder}: a {coder.system_name()}; only an autoencoder of a block's output can be steered by"
        )
    return coder


def _require_residual(folder: Path, site: str) -> None:
    if site != "residual":
        raise ConfigError(f"{folder}: reads the site {site!r}; only what reads a block's output can be steered by")


def _strengths(usual: float) -> list[float]:
    """Alphas to try for a feature whose activations usually reach so far."""
    if not usual > 0:
        raise ConfigError("how strong is not known here: give alphas (--alpha), in the units of the activations")
    return [float(f"{times * usual:.3g}") for times in (1, 2, 4)]


def _width(tokens: int) -> int:
    """As many features as the tokens can teach: about one for every 64, a power of two from 64 to 4,096."""
    return min(4096, max(64, 1 << (max(tokens, 1) // 64).bit_length() - 1 if tokens >= 64 else 64))
