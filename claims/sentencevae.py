"""Whether a model that reads and writes sentences keeps less, writes faster and knows text as well as one of tokens.

    hourglass claim sentencevae                  # docstrings of the installed packages
    hourglass claim sentencevae --data DIR       # chapters of books

Everything below up to `measure` was written before anything was measured.

The paper's headline is three claims, which do not stand or fall together, and they are judged one by one:
    memory    bytes of keys and values per byte of a text of 512 tokens that has been read, at most a fifth of those of a model of
              tokens with as many layers as the sentence model's network; the small decoder's own are counted, for a sentence as long
              as the longest: of a text of a few sentences they would be the larger part. Nothing is learned for it
    speed     tokens a second at batch 1, the prompt's reading left out, 1.5 times as many or more; networks of six layers, one layer
              in encoder and decoder, sentences as long as those of the test texts are on average. Weights are random: what they are
              does not matter here. Both are bare loops with a cache in one process, by turns
    quality   bits a byte of the sentences of unseen passages after the first, which both are given. The sentence model pays for its
              ends of sentences and for the stop head's word that another follows, without which the text could not be written down.
              Both have learned from the same passages in as many steps: the token model has five layers, the sentence model three
              and one in encoder and decoder each; half of its steps are of stage 1

The paper says "better" of quality. What its code counts is something else (`legacy_attention`, `legacy_targets` of the system), so a
fourth claim shows what that does: `artefact`, that the formula as released calls a model that was trained as released better than
the token model. That would say nothing for the model; its figure by the right count is in the detail of the row beside it.

A unit is a twentieth of the test passages (of speed, a prompt; of memory, a text of test passages one after another). The detail of a seed's first row of quality has for every arm its
perplexity over the words' tokens, that of the released formula, its bits a byte, and the share of sentences that stage 1 restores
exactly; nothing is chosen by them.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from claims.base import Claim, Row
from claims.shared.docstrings import docstrings
from claims.shared.token_model import TokenModel, TokenModelConfig

from hourglass.adapters.tokenizers import train_tokenizer
from hourglass.data import open_texts
from hourglass.data.passages import Passage, SentenceCutter
from hourglass.data.sentences import ended
from hourglass.metrics.writing import Likelihood, mean_of_texts, together
from hourglass.systems.sentencevae import SentenceVAE, SentenceVAEConfig
from hourglass.training import TrainConfig, fit
from hourglass.uses.writing import kv_bytes_of_tokens, score_tokens, write_tokens

SEEDS = {"smoke": (0,), "laptop": (0, 1, 2), "full": (0, 1, 2, 3, 4)}
SEEDS_APART = True


@dataclass(frozen=True)
class Size:
    """texts: to learn from; passages: to test on; steps: of each arm; width; prompts and tokens written after each: of speed."""

    texts: int
    passages: int
    steps: int
    width: int
    prompts: int
    tokens: int


SIZES = {
    "smoke": Size(60, 20, 4, 32, 2, 24),
    "laptop": Size(10_000, 400, 1000, 128, 12, 512),
    "full": Size(60_000, 2000, 30_000, 256, 20, 512),
}
LAYERS, HEADS, VOCABULARY, MOST_TOKENS, MOST_SENTENCES, BATCH, RATE, GROUPS = 3, 4, 2000, 32, 8, 8, 1e-3, 20
DEEP = 6
"""Layers of the networks that are timed."""
FIFTH, FASTER = 1 / 5, 1.5
LONG, POSITIONS = 512, 1024
ARMS: dict[str, dict[str, Any]] = {
    "sentences": {},
    "sentences, no causal mask": {"legacy_attention": True},
    "sentences, as released": {"legacy_attention": True, "legacy_targets": True},
}
TOKENS = "tokens"


def _claim(statement: str, metric: str, baseline: str) -> Claim:
    return Claim(
        paper="sentencevae",
        statement=statement,
        data="docstrings of the installed packages, none twice; with --data chapters of books",
        split="texts to learn from and to test on, drawn by the seed, apart",
        metric=metric,
        baseline=baseline,
        direction="ours is higher",
        margin=0.0,
    )


CLAIMS = {
    "memory": _claim(
        "To go on from a text of 512 tokens, it keeps at most a fifth of the keys and values that a model of tokens does",
        "minus bytes of keys and values per byte of text",
        "a fifth of a token model's with as many layers as the network",
    ),
    "speed": _claim(
        "It writes 1.5 times as many tokens a second or more",
        "tokens a second, batch 1, prompt left out",
        "1.5 times a token model's with as many layers as the network, with its cache",
    ),
    "quality": _claim(
        "It says what comes next in fewer bits than a model of tokens that learned as long",
        "minus bits a byte of the sentences after the first",
        "a token model with as many layers in all",
    ),
    "artefact": _claim(
        "By the released formula a model trained as released looks better than the model of tokens",
        "minus log perplexity, by the released formula (ours) and by words (baseline)",
        "a token model with as many layers in all",
    ),
}


def measure(data: Path | None, seeds: Sequence[int], budget: str) -> list[Row]:
    """A row a claim, seed and unit."""
    rows = []
    for seed in seeds:
        split = _split(data, SIZES[budget], seed)
        rows += [*_quality(split, seed, SIZES[budget]), *_speed(split, seed, SIZES[budget])]
    return rows


def _split(data: Path | None, size: Size, seed: int) -> dict[str, Any]:
    """Passages as text and as sentences, to learn from and to test on."""
    known = list(dict.fromkeys(_texts(data, 3 * (size.texts + size.passages))))
    random.Random(seed).shuffle(known)
    tested = min(size.passages, len(known) // 4)
    test, learned = known[:tested], known[tested:][: size.texts]
    tokenizer = train_tokenizer(learned, VOCABULARY, "bpe")
    cutter = SentenceCutter(tokenizer, "clause", MOST_TOKENS - 1)
    passages = _passages(cutter, learned)
    asked = _passages(cutter, test)
    random.Random(seed).shuffle(asked)
    asked = asked[: size.passages]
    lengths = [len(ids) for _, passage in asked for ids in passage.sentences]
    return {
        "tokenizer": tokenizer,
        "learned": passages,
        "test": [text for text, _ in asked],
        "words": round(float(np.mean(lengths))),
    }


def _texts(data: Path | None, number: int) -> list[str]:
    if data is None:
        return docstrings(number)
    source = open_texts(str(data / "books" / "chapters.parquet"), text="text")
    chapters = [text for batch in source.batches() for text in batch.column(source.text_column).to_pylist()]
    # A paragraph is a text, so that there are as many as there are docstrings.
    paragraphs = [part for chapter in chapters for part in chapter.split("\n\n") if len(part.split()) >= 20]
    return paragraphs[:number]


def _passages(cutter: SentenceCutter, texts: Sequence[str]) -> list[tuple[str, Passage]]:
    """Up to `MOST_SENTENCES` sentences in a row, two at least, of every text."""
    found = []
    for cut in cutter.cut(texts):
        for start in range(0, len(cut), MOST_SENTENCES):
            part = cut[start : start + MOST_SENTENCES]
            if len(part) > 1:
                ends = start + MOST_SENTENCES >= len(cut)
                found.append(("".join(text for text, _ in part), Passage([ids for _, ids in part], ends)))
    return found


def _network(layers: int, width: int, positions: int) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "n_layer": layers,
        "n_embd": width,
        "n_head": HEADS,
        "n_positions": positions,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
    }


def _sentence_model(split: dict[str, Any], width: int, seed: int, layers: int = LAYERS, **arm: Any) -> SentenceVAE:
    torch.manual_seed(seed)
    config = SentenceVAEConfig(
        network=_network(layers, width, POSITIONS),
        max_tokens=MOST_TOKENS,
        max_sentences=MOST_SENTENCES,
        dropout=0.0,
        gamma=0.0,  # what is measured is the cross-entropy, for both
        **arm,
    )
    return SentenceVAE(config, split["tokenizer"])


def _token_model(split: dict[str, Any], layers: int, width: int, seed: int, positions: int = 256) -> TokenModel:
    torch.manual_seed(seed)
    config = TokenModelConfig(network=_network(layers, width, positions), max_tokens=MOST_SENTENCES * MOST_TOKENS)
    return TokenModel(config, split["tokenizer"])


def _train(steps: int, seed: int) -> TrainConfig:
    return TrainConfig(steps=steps, batch_size=BATCH, lr=RATE, weight_decay=0.01, seed=seed)


# Quality and memory -----------------------------------------------------------------------------------


def _quality(split: dict[str, Any], seed: int, size: Size) -> list[Row]:
    tested = _scored_by_sentences(split)
    tokens = _token_model(split, LAYERS + 2, size.width, seed)
    fit(tokens, [text for text, _ in split["learned"]], _train(size.steps, seed), progress=False)
    pairs = [("".join(parts[:1]), "".join(parts[1:])) for parts in tested]
    of_tokens = score_tokens(tokens.network, split["tokenizer"], pairs)
    told: dict[str, Any] = {TOKENS: _figures(of_tokens)}
    print(f"seed {seed}, {TOKENS}: {told[TOKENS]}", file=sys.stderr, flush=True)
    scores, released = {}, {}
    for arm, settings in ARMS.items():
        model, restored = _learned(split, seed, size, settings)
        scores[arm], released[arm] = model.score(split["test"]), model.score(split["test"], released=True)
        told[arm] = {
            **_figures(scores[arm]),
            "released_formula": mean_of_texts(released[arm]),
            "restored": restored,
        }
        print(f"seed {seed}, {arm}: {told[arm]}", file=sys.stderr, flush=True)
    rows = []
    as_released = list(ARMS)[-1]
    for unit, group in enumerate(np.array_split(np.arange(len(tested)), GROUPS)):
        if not len(group):
            continue
        ours, theirs = (together(found[i] for i in group) for found in (scores["sentences"], of_tokens))
        detail = told if unit == 0 else None
        rows.append(_row("quality", unit, seed, -ours.bits_per_byte, -theirs.bits_per_byte, detail))
        looks = mean_of_texts(released[as_released][i] for i in group)
        really = {"by_the_right_count": together(scores[as_released][i] for i in group).perplexity}
        rows.append(_row("artefact", unit, seed, -float(np.log(looks)), -float(np.log(theirs.perplexity)), really))
    return [*rows, *_memory(split, seed, size)]


def _scored_by_sentences(split: dict[str, Any]) -> list[list[str]]:
    """The sentences of each test passage; of those that are one when they are cut again, none is asked."""
    cutter = SentenceCutter(split["tokenizer"], "clause", MOST_TOKENS - 1)
    cut = [parts[:MOST_SENTENCES] for parts in cutter.parts(split["test"])]
    split["test"] = ["".join(parts) for parts in cut if len(parts) > 1]
    return [parts for parts in cut if len(parts) > 1]


def _learned(split: dict[str, Any], seed: int, size: Size, settings: dict[str, Any]) -> tuple[SentenceVAE, float]:
    """A model of both stages, and the share of the test sentences that stage 1 restored exactly."""
    model = _sentence_model(split, size.width, seed, **settings)
    passages = [passage for _, passage in split["learned"]]
    model.begin(1)
    fit(model, passages, _train(size.steps // 2, seed), progress=False)
    sentences = [part for parts in model.cutter.parts(split["test"][:50]) for part in parts]
    restored = model.reconstruct(sentences)
    model.begin(2)
    fit(model, passages, _train(size.steps - size.steps // 2, seed), progress=False)
    return model, float(np.mean([a == b for a, b in zip(sentences, restored)]))


def _figures(scores: Sequence[Likelihood]) -> dict[str, float]:
    whole = together(scores)
    return {"perplexity": whole.perplexity, "bits_per_byte": whole.bits_per_byte, "tokens": whole.tokens}


def _memory(split: dict[str, Any], seed: int, size: Size) -> list[Row]:
    model = _sentence_model(split, size.width, seed).eval()
    model.learned.fill_(2)  # its weights do not matter
    tokens = _token_model(split, LAYERS, size.width, seed, POSITIONS).eval()
    rows = []
    for unit, text in enumerate(_long_texts(split)[:GROUPS]):
        read = len(text.encode())
        ours, theirs = (
            kept / read for kept in (model.kv_bytes(text), kv_bytes_of_tokens(tokens.network, split["tokenizer"], text))
        )
        rows.append(_row("memory", unit, seed, -ours, -FIFTH * theirs, {"tokens": theirs, "ratio": ours / theirs}))
    return rows


def _long_texts(split: dict[str, Any]) -> list[str]:
    """Test passages one after another, in texts of `LONG` tokens or a little more; the rest, where there is no other."""
    found, text = [], ""
    for passage in split["test"]:
        text += ended(passage)
        if len(split["tokenizer"](text, add_special_tokens=False)["input_ids"]) >= LONG:
            found.append(text)
            text = ""
    return found or [text]


# Speed --------------------------------------------------------------------------------------------------


def _speed(split: dict[str, Any], seed: int, size: Size) -> list[Row]:
    model = _sentence_model(split, size.width, seed, layers=DEEP).eval()
    model.learned.fill_(2)
    tokens = _token_model(split, DEEP, size.width, seed, POSITIONS).eval()
    rows = []
    for unit, prompt in enumerate(split["test"][: size.prompts]):
        # By turns, each first once: the machine has other work.
        found = {}
        for side in ("ours", "theirs") if unit % 2 == 0 else ("theirs", "ours"):
            if side == "ours":
                found[side] = model.write(prompt, size.tokens, words=split["words"])
            else:
                found[side] = write_tokens(tokens.network, split["tokenizer"], prompt, size.tokens)
        ours, theirs = found["ours"].tokens_per_second, found["theirs"].tokens_per_second
        detail = {"tokens": theirs, "ratio": ours / theirs, "words": split["words"]}
        rows.append(_row("speed", unit, seed, ours, FASTER * theirs, detail))
    return rows


def _row(part: str, unit: int, seed: int, ours: float, baseline: float, detail: dict[str, Any] | None) -> Row:
    return Row(part=part, unit=str(unit), seed=seed, ours=ours, baseline=baseline, detail=detail)
