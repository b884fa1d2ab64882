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
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from huggingface_hub import hf_hub_download

from hourglass import systems
from hourglass.adapters.causal import CausalModel, require_causal
from hourglass.adapters.huggingface import HuggingFaceReader
from hourglass.adapters.saes import load_sae
from hourglass.bottlenecks.sparse import SparseAutoencoder, SparseAutoencoderConfig
from hourglass.bottlenecks.sparse.activations import ACTIVATIONS
from hourglass.bottlenecks.sparse.recipe import recipe
from hourglass.data import open_texts
from hourglass.data.states import cache_states
from hourglass.errors import ConfigError, FolderError, InputError, nearest
from hourglass.metrics.autoencoders import measure_sae
from hourglass.storage.atomic import read_json, replace_folder, write_json
from hourglass.systems.interpretable_embeddings import InterpretableEmbeddings, InterpretableEmbeddingsConfig
from hourglass.training import FitResult, TrainConfig
from hourglass.training import fit as fit_waist
from hourglass.training.checkpoint import is_finished
from hourglass.training.randomness import seeded
from hourglass.uses.explore import Workspace, build
from hourglass.uses.explore.progress import Progress
from hourglass.uses.explore.workspace import is_workspace
from hourglass.uses.steer import Edit, Steered, feature_number, generate
from hourglass.uses.steer.logits import logit_effect as effect_on_logits
from hourglass.waist import Waist

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["explore", "fit", "fit_sae", "load", "logit_effect", "open", "steer"]

MEASURED_ROWS = 32_768
"""Rows, spread over all, on which a trained autoencoder is measured."""


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
    seed: int = 0,
    force: bool = False,
    progress: bool = True,
) -> Workspace:
    """Learn the concepts of a pile of texts and write a workspace with a report into `out`.

    source    a file (csv, tsv, jsonl, json, parquet, arrow), a folder of .txt, "docstrings:", a Hub data set id, "-", a
              pandas / polars / Arrow table, a list of texts
    text      column that holds the text; guessed where it is plain
    by        column whose groups the report compares
    id        column that names a document (default: "id" where there is one, else the row number)
    encoder   "minilm" (the default), a model folder or a Hub id; layer: None for the last, else its number; site: of the
              layer, as in `HuggingFaceReader` ("residual")
    sae       a trained sparse autoencoder that is used as it is (whatever `load_sae` reads) instead of one that learns
              here; one of `fit_sae` knows its encoder, layer and site
    width, k  features in all (default: as many as the corpus can teach) and active ones a token
    threshold an activation counts only above this value
    limit     read at most so many documents
    force     replace a finished workspace; the old one stays until the new one is done

    The same call after a crash goes on where it stopped. Raises InputError for bad input, in one line.
    """
    folder = Path(out)
    if k < 1 or (width is not None and width < k):
        raise ConfigError(f"width {width} and k {k}: expected 1 <= k <= width")
    texts = open_texts(source, text=text, id=id, require=[by] if by else [])
    if limit is not None:
        texts = texts.limited(limit)
    ready = load_sae(sae) if sae is not None else None
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
            sae=ready.config.to_dict() if ready is not None else None,
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
    workspace = build.begin(target, texts, settings, InterpretableEmbeddings.from_pretrained)
    build.run(workspace, texts, make_coder, seed, progress)
    if target != folder:
        replace_folder(target, folder)
    return open(folder)


def open(folder: str | Path) -> Workspace:
    """A finished workspace; FolderError where there is none."""
    return Workspace.open(folder, InterpretableEmbeddings.from_pretrained)


def fit(
    system: str | Waist,
    data: Any,
    *,
    out: str | Path | None = None,
    preset: str = "base",
    train: TrainConfig | None = None,
    **settings: Any,
) -> FitResult:
    """Train a system, by name with settings of its config, or one that is already built.

    `data` is any sequence of raw examples of the system's modality. The result holds the trained model.
    """
    if not isinstance(system, Waist):
        cls = systems.get(system)
        system = cls(cls.Config.preset(preset, **settings))
    elif settings:
        raise InputError(f"settings {sorted(settings)} do not apply to a system that is already built")
    return fit_waist(system, data, train or TrainConfig(), out=Path(out) if out else None)


def fit_sae(
    source: Any,
    *,
    out: str | Path,
    model: str = "minilm",
    layer: int | None = None,
    site: str = "residual",
    activation: str = "topk",
    width: int | None = None,
    k: int | None = None,
    target_l0: float | None = None,
    text: str | None = None,
    role: Literal["none", "user", "assistant"] = "none",
    special: bool = False,
    max_norm: float | None = None,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    limit: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    progress: bool = True,
    **settings: Any,
) -> dict[str, Any]:
    """Train a sparse autoencoder on what a model makes of a source of texts; returns the measures that are kept with it.

    source    as for `explore`; text: its column
    model, layer, site, role, special, max_norm, dtype    the states, as in `HuggingFaceReader`
    activation, width, k, target_l0, settings    the autoencoder, as in `SparseAutoencoderConfig`; defaults: as many latents as the
              tokens can teach, and k 32 for the kinds that have one
    steps     of training (default: what `recipe` says)

    Leaves `out`/model: the autoencoder, and reader.json: what it reads and how well. The same call after a crash goes on
    where it stopped. Raises InputError for bad input, in one line.
    """
    folder = Path(out)
    if is_finished(folder):
        raise FolderError(f"{folder}: holds a finished autoencoder; choose another --out")
    texts = open_texts(source, text=text)
    if limit is not None:
        texts = texts.limited(limit)
    reader = HuggingFaceReader(
        model, layer=layer, site=site, dtype=dtype, role=role, special=special, max_norm=max_norm
    )
    if activation not in ACTIVATIONS:
        raise ConfigError(f"no activation {activation!r}{nearest(activation, ACTIVATIONS)}")
    if k is None and "k" in ACTIVATIONS[activation].settings:
        k = 32 if width is None else min(32, width)

    def configured(features: int) -> SparseAutoencoderConfig:
        chosen = {"width": features, "k": k, "activation": activation, "target_l0": target_l0}
        return SparseAutoencoderConfig.from_dict({"d_in": reader.width, **chosen, **settings})

    configured(width or max(k or 1, 4096))  # settings that do not fit are refused before anything is read
    with Progress(progress) as bar:
        task = bar.start("Reading states", limit, "texts")
        rows = cache_states(reader, texts, folder / "states", partial(bar.advance, task)).rows
    config = configured(width or max(k or 1, _width(len(rows))))
    train = recipe(config, len(rows), seed=seed)
    with seeded(torch.device("cpu"), seed):
        sae = SparseAutoencoder(config)
    result = fit_waist(sae, rows, replace(train, steps=steps or train.steps), out=folder, progress=progress)
    measures = {
        **reader.describe(),
        "source": texts.name,
        "tokens": len(rows),
        "steps": result.steps,
        "activation": activation,
        **measure_sae(sae, rows[:: max(1, len(rows) // MEASURED_ROWS)]),
    }
    write_json(folder / "model" / "reader.json", measures)
    shutil.rmtree(folder / "states")
    return measures


def load(folder: str | Path) -> Waist:
    """A trained model from its folder or Hub id, whatever its system."""
    config = (
        Path(folder) / "config.json" if Path(folder).is_dir() else Path(hf_hub_download(str(folder), "config.json"))
    )
    return systems.get(str(read_json(config).get("system"))).from_pretrained(str(folder))


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
    chat        the prompts are turns of a user (default: as the workspace was read)
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
        found = _Causal(workspace.sae, str(model), layer, settings["role"] != "none", table["label"], table["p90"])
        del workspace  # and the reader in it: the model is loaded again, whole
        InterpretableEmbeddings.forget_reader()
        return found
    made_for = _reader_of(folder)
    model, layer = model or made_for.get("model"), made_for.get("layer") if layer is None else layer
    if model is None or layer is None:
        raise ConfigError(
            f"{folder}: does not say which block's output it reads: name the model and the layer (--model, --layer)"
        )
    require_causal(model)
    _require_residual(folder, made_for.get("site", "residual"))
    return _Causal(load_sae(folder), model, layer, False, None, None)


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
