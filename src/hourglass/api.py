"""The verbs as functions: what the command line and notebooks call.

import hourglass as hg
ws = hg.explore(df, text="body", by="label", out="reviews")
ws.diff("label")
ws.find("polite refusals")
ws = hg.open("reviews")
hg.steer("reviews", "Dear customer,", feature="refusals").table
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import hf_hub_download

from hourglass import systems
from hourglass.adapters.causal import require_causal
from hourglass.adapters.saes import load_sae
from hourglass.data import open_texts
from hourglass.errors import ConfigError, FolderError, InputError
from hourglass.storage.atomic import read_json, replace_folder
from hourglass.systems.interpretable_embeddings import InterpretableEmbeddings, InterpretableEmbeddingsConfig
from hourglass.training import FitResult, TrainConfig
from hourglass.training import fit as fit_waist
from hourglass.training.randomness import seeded
from hourglass.uses.explore import Workspace, build
from hourglass.uses.explore.workspace import is_workspace
from hourglass.uses.steer import Edit, Steered, feature_number, generate
from hourglass.waist import Waist

__all__ = ["explore", "fit", "load", "open", "steer"]


def explore(
    source: Any,
    *,
    out: str | Path,
    text: str | None = None,
    by: str | None = None,
    id: str | None = None,
    encoder: str = "minilm",
    layer: int | None = None,
    role: Literal["none", "user", "assistant"] = "none",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
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
    encoder   "minilm", a model folder or a Hub id; layer: None for the last, else its number
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
    settings = {
        "source": texts.name,
        "text": text,
        "id": id,
        "by": by,
        "encoder": encoder,
        "layer": layer,
        "role": role,
        "dtype": dtype,
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
            role=role,
            dtype=dtype,
            width=features,
            k=min(k, max(1, features // 8)),
            activation=activation,
            threshold=threshold,
        )
        with seeded(torch.device("cpu"), seed):  # the weights it starts from are part of the run
            return InterpretableEmbeddings(config)

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
    model       a folder or a Hub id; layer: the block whose output the autoencoder reads. A workspace knows both
    tokens      edit "all" tokens, or only the "generated" ones
    chat        the prompts are turns of a user (default: as the workspace was read)
    temperature 0 is greedy

    Raises InputError for bad input, in one line; a model that only reads (an encoder) cannot be steered.
    """
    folder = Path(folder)
    if (clamp is not None) + remove + bool(alphas) > 1:
        raise InputError("steer: give alphas, clamp or remove, one of the three")
    labels = p90 = None
    if is_workspace(folder):
        workspace = open(folder)
        settings, table = workspace.settings, workspace.features
        model, layer = model or settings["encoder"], settings["layer"] if layer is None else layer
        chat = settings["role"] != "none" if chat is None else chat
        labels, p90 = table["label"], table["p90"]
        require_causal(model)
        if layer is None:
            raise ConfigError(
                f"{folder}: explored on the last state, after the final norm, where there is no block to steer at; "
                "explore again with --layer N"
            )
        sae = workspace.sae
        del workspace  # and the reader in it: the model is loaded again, whole
    else:
        if model is None or layer is None:
            raise ConfigError(
                f"{folder}: not a workspace, so name the model and the layer that the autoencoder reads (--model, --layer)"
            )
        require_causal(model)
        sae = load_sae(folder)
    asked = [feature] if isinstance(feature, (int, str)) else list(feature)
    numbers = [feature_number(one, sae.config.width, labels) for one in asked]
    if clamp is not None or remove:
        edits = [Edit(number, "clamp", clamp or 0.0) for number in numbers]
    else:
        edits = [Edit(number, "add", 1.0) for number in numbers]
        alphas = alphas or _strengths(0.0 if p90 is None else float(p90.loc[numbers].mean()))
    steered = generate(
        model,
        sae,
        layer,
        [prompts] if isinstance(prompts, str) else prompts,
        edits,
        alphas=alphas,
        tokens=tokens,
        chat=bool(chat),
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        dtype=dtype,
    )
    if labels is None:
        return steered
    return dataclasses.replace(steered, labels=tuple(labels.loc[numbers].astype(object).where(labels.notna(), None)))


def _strengths(usual: float) -> list[float]:
    """Alphas to try for a feature whose activations usually reach so far."""
    if not usual > 0:
        raise ConfigError("how strong is not known here: give alphas (--alpha), in the units of the activations")
    return [float(f"{times * usual:.3g}") for times in (1, 2, 4)]


def _width(tokens: int) -> int:
    """As many features as the tokens can teach: about one for every 64, a power of two from 64 to 4,096."""
    return min(4096, max(64, 1 << (max(tokens, 1) // 64).bit_length() - 1 if tokens >= 64 else 64))
