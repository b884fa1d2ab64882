"""Explorations: a workspace of a pile of texts, and the autoencoder of one."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch

from hourglass.adapters.saes import load_sae
from hourglass.api.models import width_for
from hourglass.bottlenecks.sparse import Crosscoder
from hourglass.data import open_texts
from hourglass.errors import ConfigError, FolderError, InputError
from hourglass.storage.atomic import read_json, replace_folder
from hourglass.storage.places import is_url
from hourglass.systems.interpretable_embeddings import InterpretableEmbeddings, InterpretableEmbeddingsConfig
from hourglass.training.randomness import seeded
from hourglass.uses import engines
from hourglass.uses.explore import Workspace, build
from hourglass.uses.explore.workspace import is_workspace, writing


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
    encoder   "minilm" (the default), a model folder or a Hub id; of a folder with a system of ours its latents; layer: None for the last, else its number; site: of the
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
    made_for = reader_of(Path(sae)) if sae is not None else {}
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
        features = width or width_for(tokens)
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
    made_for = reader_of(folder)
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


def reader_of(folder: Path) -> dict[str, Any]:
    """What an autoencoder of `fit_sae` reads; empty for one that does not say."""
    files = [file for file in (folder / "reader.json", folder / "model" / "reader.json") if file.is_file()]
    return dict(read_json(files[0])) if files else {}
