"""Features at work in the model that they are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from hourglass.adapters.causal import CausalModel, require_causal
from hourglass.adapters.saes import load_sae
from hourglass.api.exploring import open, reader_of
from hourglass.bottlenecks.sparse import SparseAutoencoder
from hourglass.errors import ConfigError, InputError
from hourglass.systems.interpretable_embeddings import InterpretableEmbeddings
from hourglass.uses.explore.workspace import is_workspace
from hourglass.uses.steer import Edit, Steered, feature_number, generate
from hourglass.uses.steer.logits import logit_effect as effect_on_logits

if TYPE_CHECKING:
    import pandas as pd


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
    made_for = reader_of(folder)
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
