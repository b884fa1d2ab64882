"""Whether a smoothed latent space is easier to draw texts from than one that only copies: COSMOS.

    hourglass claim cosmos                 # sentences of the docstrings of the installed packages
    hourglass claim cosmos --data DIR      # questions to a bank

Everything below up to `measure` was written before anything was measured at the size of a laptop, on either kind of text. Of
docstrings no autoencoder copied well enough to compare them (docs/papers/cosmos.md); questions to a bank are more alike. Their
steps are as many as three seeds take in some two and a half hours of a core; with another seed, after 1,500 of them, tokens alone
brought back 79 % of the tokens of texts left out of those to learn from, and the full ladder 64 %.

Texts of up to 32 tokens among the 2,000 commonest become four latents of 128 numbers (eight tokens to a latent). Four
autoencoders, the paper's ladder, learn from the same frozen features, with the same steps and batches (a seed draws both, and the
weights that all begin with):
    ce           cross-entropy of the tokens alone
    features     + squared error to the frozen encoder's features
    activations  + features masked or noised before they are compressed, half of a batch each
    full         + 40 % of the latents' numbers put to 0
    noise        latents of held-out sentences, normalised, with normal noise of size 0.5, 0.75 and 1: share of the tokens that
                 are written right, a mean over the three
    copies       the same without noise: the arms are to copy alike
Then a small diffusion learns in the spaces of "ce" and "full", with equal steps, and 500 texts are drawn in 100 steps:
    fluency      -log2 p of a word, by a 4-gram model (Witten-Bell) of the sentences learned from, lower is better: with the sign
                 turned, so that more is better in all parts
    diversity    product of the shares of different 2-, 3- and 4-grams among 50 texts
    mauve        of MiniLM vectors against held-out sentences; where the extra `generation` is installed
"whole" (--data alone, at this size) is the full ladder with as many latents as tokens, and an equal diffusion in its space: eight
tokens in one latent are to copy, and to be drawn, about as well as one in each.
Beside them, with about as many parameters and as much arithmetic: an autoregressive transformer and masked diffusion of the same
tokens. A unit is a tenth of the sentences, or of the drawn texts; of mauve, a seed. The claim falls where "ce" is as good as "full"
in noise and fluency while both copy alike.

Differences from the paper: MiniLM for BERT, thousandths of its steps; all else is far smaller too. Places are scaled by 0.3 in all
arms (see the system's docstring). Perplexity is of an n-gram model, as GPT-2 is out of reach.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from claims.base import Claim, Row
from claims.shared.labelled import requests
from claims.shared.sentences import held_out, of_common_tokens, sentences
from claims.shared.token_models import Autoregressive, MaskedDiffusion, TokenConfig

from hourglass.metrics.generation import WittenBell, diversity, mauve, memorisation
from hourglass.systems.cosmos import Cosmos, CosmosConfig
from hourglass.systems.cosmos_parts import FrozenEncoder, Latent, Read
from hourglass.training import TrainConfig, fit
from hourglass.uses.generate import decoder_robustness
from hourglass.uses.probe.encoders import dense_vectors

SEEDS = {"smoke": (0,), "laptop": (0, 1, 2), "full": (0, 1, 2, 3, 4)}
SEEDS_APART = True
SIGMAS = (0.5, 0.75, 1.0)
LATENTS, WIDTH, TOKENS, WORDS, GROUPS = 4, 128, 32, 2000, 10
ARMS: dict[str, dict[str, Any]] = {
    "ce": {"feature_weight": 0.0, "masked_share": 0.0, "noised_share": 0.0, "latent_mask": 0.0},
    "features": {"masked_share": 0.0, "noised_share": 0.0, "latent_mask": 0.0},
    "activations": {"latent_mask": 0.0},
    "full": {},
}
LADDER = list(ARMS)
WHOLE: dict[str, dict[str, Any]] = {"whole": {"latents": TOKENS}}


@dataclass(frozen=True)
class Size:
    """read: sentences to choose from; steps: of autoencoder, diffusion and each of the other two models; drawn: texts;
    diffused: arms with a diffusion."""

    read: int
    learned: int
    measured: int
    steps: tuple[int, int, int]
    drawn: int
    solver_steps: int
    diffused: tuple[str, ...] = ("ce", "full")


_SMOKE = Size(400, 60, 20, (2, 2, 2), 20, 2, ("ce", "full", "whole"))
DOCSTRINGS = {
    "smoke": _SMOKE,
    "laptop": Size(40_000, 8000, 500, (1500, 1000, 400), 500, 100),
    "full": Size(200_000, 100_000, 1000, (30_000, 30_000, 10_000), 1000, 200, (*ARMS, "whole")),
}
BANK = {
    "smoke": _SMOKE,
    "laptop": Size(14_000, 12_000, 500, (2500, 1200, 500), 500, 100, ("ce", "full", "whole")),
    "full": Size(14_000, 12_000, 1000, (12_000, 24_000, 6000), 1000, 200, (*ARMS, "whole")),
}


def _claim(statement: str, metric: str, baseline: str, margin: float = 0.0) -> Claim:
    return Claim(
        paper="cosmos",
        statement=statement,
        data="sentences of the docstrings of installed packages, or questions to a bank (banking77), of up to 32 tokens among the 2,000 commonest",
        split="held-out sentences by the hash of the text; nothing is chosen on them",
        metric=metric,
        baseline=baseline,
        direction="ours is higher",
        margin=margin,
    )


_NOISE = "share of tokens written right from latents with noise of size 0.5, 0.75 and 1"
_FLUENCY = "log2 p of a word by a 4-gram model of the sentences learned from"
_MAUVE = "MAUVE of MiniLM vectors against held-out sentences"
CLAIMS = {
    "noise_full_over_ce": _claim("Noise in the latents of the full ladder leaves more of a text", _NOISE, "ce", 0.05),
    "noise_features_over_ce": _claim("Features to restore make latents bear more noise", _NOISE, "ce"),
    "noise_activations_over_features": _claim("So do spoilt activations", _NOISE, "features"),
    "noise_full_over_activations": _claim("So do masked latents", _NOISE, "activations"),
    "copies_alike": _claim(
        "The full ladder copies as well as tokens alone", "share of tokens that come back without noise", "ce", -0.02
    ),
    "fluency_full_over_ce": _claim("A diffusion in the smoothed space writes likelier words", _FLUENCY, "ce"),
    "diversity_full_over_ce": _claim(
        "and writes no less varied texts", "product of the shares of different 2-, 3- and 4-grams", "ce", -0.05
    ),
    "mauve_full_over_ce": _claim("and texts that are more like real ones", _MAUVE, "ce"),
    "fluency_over_masked_diffusion": _claim("COSMOS writes likelier words", _FLUENCY, "masked diffusion of tokens"),
    "fluency_over_autoregressive": _claim("COSMOS writes likelier words", _FLUENCY, "an autoregressive transformer"),
    "mauve_over_masked_diffusion": _claim("COSMOS is more like real texts", _MAUVE, "masked diffusion of tokens"),
    "mauve_over_autoregressive": _claim("COSMOS is more like real texts", _MAUVE, "an autoregressive transformer"),
    "copies_eighth_as_whole": _claim(
        "An eighth of the latents copies as well as a latent for each token",
        "share of tokens that come back without noise",
        "the full ladder with 32 latents",
        -0.02,
    ),
    "fluency_eighth_as_whole": _claim(
        "What is drawn in an eighth of the latents has words as likely",
        _FLUENCY,
        "the full ladder with 32 latents",
        -0.25,
    ),
    "mauve_eighth_as_whole": _claim("and is as like real texts", _MAUVE, "the full ladder with 32 latents", -0.1),
}


def measure(data: Path | None, seeds: Sequence[int], budget: str) -> list[Row]:
    size = (BANK if data else DOCSTRINGS)[budget]
    encoder = FrozenEncoder("minilm")  # that of all arms, read once
    learned, apart = _split(data, size, encoder)
    read = _model("full", encoder, 0).read(learned)
    judged = _Judged(learned, apart)
    rows = []
    for seed in seeds:
        arms = {name: _autoencoder(name, encoder, read, size, seed) for name in dict.fromkeys((*ARMS, *size.diffused))}
        noise = {name: [_kept(model, group) for group in np.array_split(apart, GROUPS)] for name, model in arms.items()}
        pairs = {"noise_full_over_ce": ("full", "ce")}
        pairs |= {f"noise_{b}_over_{a}": (b, a) for a, b in pairwise(LADDER)}
        for part, (ours, baseline) in pairs.items():
            rows += _rows(part, seed, *([spoilt for spoilt, _ in noise[name]] for name in (ours, baseline)))
        copies = {name: [unspoilt for _, unspoilt in groups] for name, groups in noise.items()}
        rows += _rows("copies_alike", seed, copies["full"], copies["ce"])
        if "whole" in copies:
            rows += _rows("copies_eighth_as_whole", seed, copies["full"], copies["whole"])
        written = {name: _drawn(arms[name], read, size, seed) for name in size.diffused}
        written |= _by_tokens(arms["full"], learned, size, seed)
        found = {name: judged(texts) for name, texts in written.items()}
        for part, (ours, baseline) in {
            "full_over_ce": ("full", "ce"),
            "over_masked_diffusion": ("full", "masked diffusion"),
            "over_autoregressive": ("full", "autoregressive"),
            "eighth_as_whole": ("full", "whole"),
        }.items():
            for metric in ("fluency", "diversity", "mauve"):
                if f"{metric}_{part}" in CLAIMS and metric in found[ours] and baseline in found:
                    rows += _rows(f"{metric}_{part}", seed, found[ours][metric], found[baseline][metric], found)
    return rows


def _rows(
    part: str, seed: int, ours: Sequence[float], baseline: Sequence[float], found: dict[str, Any] | None = None
) -> list[Row]:
    """A row for each unit; what all models gave together is kept beside the first. A single number is of the seed."""
    single = len(ours) == 1
    detail = None if found is None else {name: values["all"] for name, values in found.items()}
    return [
        Row(
            part=part,
            unit=f"seed {seed}" if single else str(unit),
            seed=seed,
            ours=float(a),
            baseline=float(b),
            detail=None if unit else detail,
        )
        for unit, (a, b) in enumerate(zip(ours, baseline))
    ]


def _split(data: Path | None, size: Size, encoder: FrozenEncoder) -> tuple[list[str], list[str]]:
    if data is None:
        texts = sentences(size.read)
    else:
        texts = requests(data, None)["text"].drop_duplicates().tolist()[: size.read]
    rows = encoder.rows(texts)
    texts = of_common_tokens(texts, rows, WORDS, TOKENS, encoder.tokenizer.all_special_ids)
    learned = [text for text in texts if not held_out(text)]
    return learned[: size.learned], [text for text in texts if held_out(text)][: size.measured]


def _model(arm: str, encoder: FrozenEncoder, seed: int) -> Cosmos:
    torch.manual_seed(seed)
    shape = {"max_tokens": TOKENS, "latents": LATENTS, "width": WIDTH, "layers": 2, "heads": 4, "words": WORDS}
    denoiser = {"denoiser_layers": 4, "denoiser_heads": 4, "denoiser_width": 192}
    return Cosmos(CosmosConfig(**{**shape, **denoiser, **(ARMS | WHOLE)[arm]}), encoder)


def _train(steps: int, batch: int, seed: int, **more: Any) -> TrainConfig:
    shared = {"betas": (0.9, 0.98), "weight_decay": 1e-5, "min_lr": 0.1, "lr": 1e-3, "precision": "auto"}
    return TrainConfig(steps=steps, batch_size=batch, seed=seed, **{**shared, **more})


def _autoencoder(arm: str, encoder: FrozenEncoder, read: list[Read], size: Size, seed: int) -> Cosmos:
    model = _model(arm, encoder, seed)
    fit(model, read, _train(size.steps[0], 32, seed, clip=10.0), progress=False)
    return model


def _kept(model: Cosmos, texts: Sequence[str]) -> tuple[float, float]:
    """Tokens written right with noise, and without."""
    found = decoder_robustness(model, list(map(str, texts)), (0, *SIGMAS))
    return float(np.mean([found[sigma]["accuracy"] for sigma in SIGMAS])), found[0]["accuracy"]


def _drawn(model: Cosmos, read: list[Read], size: Size, seed: int) -> list[str]:
    model.eval()
    with torch.no_grad():
        parts = [model.encode(model.collate(read[i : i + 64])) for i in range(0, len(read), 64)]
    examples = [Latent(row) for row in torch.cat(parts).half().numpy()]
    model.begin("diffusion")
    fit(model, examples, _train(size.steps[1], 64, seed, schedule="constant", ema=0.99), progress=False)
    return model.generate(size.drawn, steps=size.solver_steps, seed=seed)


def _by_tokens(model: Cosmos, learned: Sequence[str], size: Size, seed: int) -> dict[str, list[str]]:
    """What the two other models write, in the tokens that the autoencoder can write."""
    network = model.autoencoder
    places = [network.place[torch.tensor(row)].tolist() for row in model.encoder.rows(learned)]
    pad = int(network.place[model.encoder.tokenizer.pad_token_id])
    config = TokenConfig(vocabulary=WORDS, tokens=TOKENS, pad=pad, width=192, heads=4, layers=6)
    written = {}
    for name, kind in (("autoregressive", Autoregressive), ("masked diffusion", MaskedDiffusion)):
        torch.manual_seed(seed)
        other = kind(config)
        fit(other, places, _train(size.steps[2], 32, seed), progress=False)
        rows = other.generate(size.drawn, seed)
        written[name] = [model.encoder.text(network.written[torch.tensor(row)].tolist()) for row in rows]
    return written


class _Judged:
    """Texts to {"fluency", "diversity" [GROUPS], "mauve" [1] where it can be had, "all": of all texts}."""

    def __init__(self, learned: list[str], apart: list[str]) -> None:
        self._learned, self._ngrams = learned, WittenBell(learned)
        self._real = apart
        self._has_mauve = importlib.util.find_spec("mauve") is not None

    def __call__(self, texts: list[str]) -> dict[str, Any]:
        logs = -np.log2(self._ngrams.perplexities(texts))
        groups = np.array_split(np.arange(len(texts)), GROUPS)
        found: dict[str, Any] = {
            "fluency": [float(logs[group].mean()) for group in groups],
            "diversity": [diversity([texts[i] for i in group]) for group in groups],
            "all": {
                "bits_per_word": float(-logs.mean()),
                "diversity": diversity(texts),
                "memorisation": memorisation(texts, self._learned),
                "first": texts[:3],
            },
        }
        if self._has_mauve:
            value = mauve(_vectors(texts), _vectors(self._real)).value
            found["mauve"], found["all"]["mauve"] = [value], value
        return found


def _vectors(texts: Sequence[str]) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    from hourglass.adapters.huggingface_loading import resolve

    model = SentenceTransformer(resolve("minilm"), device="cpu")
    return dense_vectors(lambda given: model.encode(list(given), show_progress_bar=False), texts)
