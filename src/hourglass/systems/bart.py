"""BART: a document is corrupted, an encoder reads what is left, a decoder writes the document.

Lewis et al., *Denoising Sequence-to-Sequence Pre-training for Natural Language Generation, Translation, and
Comprehension*, 2019 (arXiv 1910.13461). In: texts. Out: an encoder-decoder that transformers opens as
BartForConditionalGeneration, and for each text a vector [d], the mean of the encoder's states.

1. noise g: sentences change places, spans of Poisson(3) words become one mask each (`bottlenecks/noising.py`);
2. the encoder reads g(x) in both directions, the decoder x shifted right by its start token;
3. loss: mean over tokens of -log p(x_t | x_<t, g(x)), always of the whole document;
4. noise is drawn anew whenever a document is seen;
5. in the last part of the training dropout is off (`dropout_until`).

The objectives that the paper compares with are settings: a language model, masked tokens, masked tokens under attention of
several kinds (UniLM), tokens guessed one after another in a random order (XLNet; the encoder alone in these three), a masked
segment written by the decoder (MASS). Fine-tuning is in `bart_parts.py`.

Differences from the paper:
- a document is an example, and one longer than `max_tokens` is learned from in windows; the paper fills 512 tokens;
- from scratch the byte pairs are those of the corpus, where the paper takes GPT-2's;
- spans are of whole words, as in the authors' code, which also has 3.5 in place of 3 and a tenth of random tokens for the
  released model: `Noise(mask=0.3, mean=3.5, mask_random=0.1, permute=1.0)`;
- the objectives are those of one encoder-decoder; the paper gives some of them another network, and has two streams of
  attention in all that the encoder does alone here, to tell the likelihood of a text that is written: here only the permuted
  language model has them, and a query begins as the mask token, where XLNet learns a vector for it;
- random tokens are ordinary ones, and noise is drawn for a batch, by torch's generator; by document, epoch and index the
  functions of `noising` can be called directly;
- the head on tokens (`bart_parts`) shows the decoder the text unshifted, as the paper says; transformers' question answering shifts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from hourglass.bottlenecks.attention_masks import SIGHTS, Sight, sight_masks, two_streams
from hourglass.bottlenecks.noising import (
    NOISES,
    SENTENCE_BREAKS,
    Noise,
    replace_spans,
    sentence_ends,
    sentence_ends_in_text,
)
from hourglass.errors import ConfigError, nearest
from hourglass.nn.attention import as_scores
from hourglass.nn.cross_entropy import linear_cross_entropy
from hourglass.nn.text_model import TextConfig, TextModel
from hourglass.waist import Batch, Losses

Objective = Literal["denoise", "language_model", "masked", "multitask", "permuted", "masked_seq2seq"]
SHARES: Mapping[str, float] = {"masked": 0.15, "multitask": 0.15, "permuted": 1 / 6, "masked_seq2seq": 0.5}
"""Of the tokens, how many an objective hides; the paper's."""
SIGHT_SHARES: Mapping[Sight, float] = {"left_to_right": 1 / 6, "right_to_left": 1 / 6, "all": 1 / 3, "prefix": 1 / 3}
"""How often a text of "multitask" is read so; the paper's."""
Sentences = Literal["full_stop", "text", "newline"]
_TEXTS_AT_ONCE = 32


def _bart(layers: int, width: int, heads: int, positions: int = 1024) -> dict[str, Any]:
    """Settings of a BART with as many layers in the encoder as in the decoder."""
    of_each = {"layers": layers, "attention_heads": heads, "ffn_dim": 4 * width}
    return {
        "model_type": "bart",
        "d_model": width,
        "max_position_embeddings": positions,
        "dropout": 0.1,
        "attention_dropout": 0.1,
        **{f"{part}_{name}": value for part in ("encoder", "decoder") for name, value in of_each.items()},
    }


@dataclass(frozen=True, kw_only=True)
class BartConfig(TextConfig):
    """Network, and what it is asked to undo.

    noise          a `Noise`, its settings, or the name of one of `NOISES`
    sentences      what ends a sentence: the token "." ("full_stop"), or in the text "text" (. ! ?) or "newline"
    objective      "denoise"; "language_model": nothing is read; "masked": the encoder restores masked tokens, no decoder;
                   "multitask": the same, and what a token sees is drawn for each text; "permuted": the encoder guesses tokens
                   one after another in a random order; "masked_seq2seq": the decoder writes a masked segment, and nothing else
    mask_share     of the last four; None: the paper's (`SHARES`)
    dropout_until  step after which dropout is off (the paper: at nine tenths); None: never
    """

    network: dict[str, Any] = field(default_factory=lambda: _bart(6, 768, 12))
    max_tokens: int = 512
    noise: Noise = NOISES["infill+shuffle"]
    sentences: Sentences = "full_stop"
    objective: Objective = "denoise"
    mask_share: float | None = None
    dropout_until: int | None = None

    presets = {  # noqa: RUF012  (a ClassVar of the base)
        "tiny": {"network": _bart(1, 32, 2, 128), "max_tokens": 64},
        "base": {"network": _bart(3, 256, 4), "max_tokens": 128},
        "paper": {"network": _bart(12, 1024, 16)},
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        noise: Any = self.noise
        if isinstance(noise, str):
            if noise not in NOISES:
                raise ConfigError(f"no noise {noise!r}{nearest(noise, NOISES)}")
            noise = NOISES[noise]
        if isinstance(noise, Mapping):
            try:
                noise = Noise(**noise)
            except TypeError as error:
                raise ConfigError(f"noise: {error}") from None
        object.__setattr__(self, "noise", noise)
        for name, known in (("objective", get_args(Objective)), ("sentences", get_args(Sentences))):
            value = getattr(self, name)
            if value not in known:
                raise ConfigError(f"no {name} {value!r}{nearest(value, known)}")
        if self.mask_share is not None and not 0 < self.mask_share <= 1:
            raise ConfigError(f"mask_share {self.mask_share!r}: expected a share above 0 and up to 1")


class Bart(TextModel):
    """Texts, denoised; the latent of a text is the mean of the encoder's states."""

    Config = BartConfig
    head = "seq2seq"
    vocabulary = "bpe"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {"steps": 200, "batch_size": 16, "lr": 1e-3},
        "base": {"steps": 4000, "batch_size": 32, "lr": 5e-4, "schedule": "linear", "weight_decay": 0.01, "clip": 0.1},
        "paper": {
            "steps": 500_000,
            "batch_size": 8000,
            "lr": 4e-4,
            "schedule": "linear",
            "warmup": 0.02,
            "weight_decay": 0.01,
            "clip": 0.1,
        },
        "init": {"steps": 1000, "batch_size": 32, "lr": 3e-5, "schedule": "linear", "weight_decay": 0.01, "clip": 0.1},
    }
    config: BartConfig
    steps_made: Tensor

    def __init__(self, config: BartConfig, tokenizer: Any = None, network: Any = None) -> None:
        super().__init__(config, tokenizer, network)
        if self.network.config.model_type != "bart":
            raise ConfigError(f"network {self.network.config.model_type!r}: expected a bart")
        if network is None:
            for settings in (self.network.config, self.network.generation_config):
                settings.decoder_start_token_id = settings.forced_eos_token_id = self.tokenizer.eos_token_id
        self._mask = self.require_mask()
        special = set(self.tokenizer.all_special_ids)
        self._ordinary = np.array([i for i in range(len(self.tokenizer)) if i not in special])
        self._full_stop = self.tokenizer.convert_tokens_to_ids(".")
        if config.noise.permute and config.sentences == "full_stop" and self._full_stop in {None, *special}:
            raise ConfigError("sentences 'full_stop': the tokenizer has no token '.'; choose 'text' or 'newline'")
        # Training is taken up where it stopped: also whether dropout is off by then.
        self.register_buffer("steps_made", torch.zeros((), dtype=torch.int64))

    # Texts to tensors -----------------------------------------------------------------------------

    def collate(self, examples: Sequence[Any]) -> Batch:
        """Noised and whole documents, padded; the noise follows torch's generator.

        read, read_mask  [n, S] what the encoder reads
        ids, mask        [n, L] the whole document
        wanted           [n, L] the tokens of it that are to be restored
        written          [n, L] what the decoder has before each of them
        of               [n] mean number of tokens to restore of an example, over the whole batch
        sees             [n, S, S] of "multitask" and "permuted": which of what is read sees which
        places           [n, S] of "permuted": where in the document each stands; after the document comes a query for each
                         token that is to be guessed
        """
        seed = int(torch.randint(2**63 - 1, ()))
        return self._batch(examples, np.random.default_rng(seed))

    def _batch(self, texts: Sequence[Any], generator: np.random.Generator) -> dict[str, Tensor]:
        tokens = self.tokens(texts)
        rows = []
        wanted = torch.zeros_like(tokens.mask)
        for i, text in enumerate(texts):
            inner = slice(len(self._frame[0]), int(tokens.mask[i].sum()) - len(self._frame[1]))
            ids, words, begins = (part[i, inner].numpy() for part in (tokens.ids, tokens.words, tokens.begins))
            noised, wants = self._noised(text, ids, words, begins, generator)
            wanted[i, inner] = torch.from_numpy(wants)
            rows.append(self._framed(noised))
        if self.config.objective in ("denoise", "language_model"):
            wanted = tokens.mask
        written = tokens.ids.roll(1, 1)
        written[:, 0] = self.network.config.decoder_start_token_id
        if self.config.objective == "masked_seq2seq":
            # What the encoder has is not shown to the decoder again.
            hidden = ~wanted.roll(1, 1)
            hidden[:, 0] = False
            written = written.masked_fill(hidden, self._mask)
        read = nn.utils.rnn.pad_sequence(rows, True, self.tokenizer.pad_token_id)
        read_mask = torch.arange(read.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
        more = {}
        if self.config.objective == "multitask":
            sights = generator.choice(len(SIGHTS), len(texts), p=[SIGHT_SHARES[sight] for sight in SIGHTS])
            more = {"sees": sight_masks(read_mask, torch.from_numpy(sights))}
        elif self.config.objective == "permuted":
            turns = torch.zeros_like(read)
            for row, wants in zip(turns, wanted):
                row[wants] = torch.from_numpy(generator.permutation(int(wants.sum()))) + 1
            places, sees = two_streams(turns, tokens.mask)
            asked = torch.arange(sees.shape[1] - read.shape[1]) < wanted.sum(1, keepdim=True)
            read = torch.cat([read, torch.where(asked, self._mask, self.tokenizer.pad_token_id)], 1)
            read_mask, more = torch.cat([tokens.mask, asked], 1), {"sees": sees, "places": places}
        return {
            "read": read,
            "read_mask": read_mask,
            "ids": tokens.ids,
            "mask": tokens.mask,
            "wanted": wanted,
            "written": written,
            "of": torch.full((len(texts),), max(1, int(wanted.sum())) / len(texts)),
            **more,
        }

    def _noised(
        self, text: str, ids: np.ndarray, words: np.ndarray, begins: np.ndarray, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """What is read of a document, and which of its tokens are to be restored; without special tokens."""
        noise, objective = self.config.noise, self.config.objective
        share = self.config.mask_share or SHARES.get(objective, 0.0)
        every = np.ones(len(ids), bool)
        match objective:
            case "language_model":
                return ids[:0], every
            case "permuted":
                wants = np.zeros(len(ids), bool)
                wants[generator.permutation(len(ids))[: math.ceil(len(ids) * share)]] = True
                return ids, wants
            case "masked" | "multitask":
                one_each = np.ones(math.ceil(len(ids) * share), np.int64)
                read = replace_spans(ids, one_each, generator, mask_id=self._mask)
                return read, read != ids
            case "masked_seq2seq":
                size = math.ceil(len(ids) * share)
                begin = int(generator.integers(len(ids) - size + 1))
                hidden = np.arange(len(ids)) - begin
                inside = (hidden >= 0) & (hidden < size)
                return np.where(inside, self._mask, ids), inside
        read = noise(
            ids,
            generator,
            mask_id=self._mask,
            random_ids=self._ordinary,
            starts=np.diff(words, prepend=-1) != 0 if noise.whole_words else None,
            ends=self._sentence_ends(text, ids, begins) if noise.permute and len(ids) else None,
        )
        # Inserted masks can make a document longer than the network's positions.
        longest = self.network.config.max_position_embeddings - sum(map(len, self._frame))
        return read[:longest], every

    def _sentence_ends(self, text: str, ids: np.ndarray, begins: np.ndarray) -> np.ndarray:
        if self.config.sentences in SENTENCE_BREAKS:
            return sentence_ends_in_text(text, begins, self.config.sentences)
        return sentence_ends(ids == self._full_stop)

    def _framed(self, ids: np.ndarray) -> Tensor:
        before, after = self._frame
        return torch.tensor([*before, *ids.tolist(), *after])

    def corrupt(self, texts: Sequence[str], seed: int = 0) -> list[tuple[str, str]]:
        """(noised, whole) for each text, as text: data for any model that reads and writes. Nothing is noised by "permuted"."""
        if self.config.objective == "permuted":
            raise ConfigError("objective 'permuted': hides tokens by attention, so that there is no noised text")
        batch = self._batch(texts, np.random.default_rng(seed))
        before, after = map(len, self._frame)

        def lines(ids: str, mask: str) -> list[str]:
            return [
                self.tokenizer.decode(row[before : int(length) - after])
                for row, length in zip(batch[ids], batch[mask].sum(1))
            ]

        return list(zip(lines("read", "read_mask"), lines("ids", "mask")))

    # Learning ---------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> Losses:
        """{"nll"}: mean over the tokens to restore of -log p, in nats."""
        until = self.config.dropout_until
        self.network.train(self.training and (until is None or int(self.steps_made) < until))
        wanted = batch["wanted"]
        total = self._nll(self._guesses(batch)[wanted], batch["ids"][wanted])
        return {"nll": total / (batch["of"][0] * len(wanted))}

    def after_step(self, step: int) -> None:
        self.steps_made.fill_(step)

    def _guesses(self, batch: Batch) -> Tensor:
        """[n, L, d] the states from which the tokens of the document are predicted."""
        match self.config.objective:
            case "masked":
                return self.states(batch["read"], batch["read_mask"])
            case "multitask":
                return self._seen(batch)
            case "permuted":
                queries = self._placed(batch)[:, batch["ids"].shape[1] :]
                asked = batch["read_mask"][:, batch["ids"].shape[1] :]
                found = queries.new_zeros(*batch["ids"].shape, self.width)
                found[batch["wanted"]] = queries[asked]  # both in the order of the text
                return found
        states: Tensor = self.network.model(
            input_ids=batch["read"],
            attention_mask=batch["read_mask"],
            decoder_input_ids=batch["written"],
            decoder_attention_mask=batch["mask"],
            use_cache=False,
        ).last_hidden_state
        return states

    def _placed(self, batch: Batch) -> Tensor:
        """[n, S, d] states of the encoder, which by itself knows of no places but one after another."""
        encoder = self.network.model.encoder
        positions = encoder.embed_positions
        places = nn.functional.embedding(batch["places"] + positions.offset, positions.weight)
        positions.forward = lambda *_, **__: places
        try:
            return self._seen(batch)
        finally:
            del positions.forward

    def _seen(self, batch: Batch) -> Tensor:
        """[n, S, d] states of the encoder, of tokens that see what the batch says."""
        sees = as_scores(batch["sees"], self.network.dtype)
        states: Tensor = self.network.model.encoder(batch["read"], attention_mask=sees).last_hidden_state
        return states

    def _nll(self, states: Tensor, ids: Tensor) -> Tensor:
        return linear_cross_entropy(states, self.network.lm_head.weight, self.network.final_logits_bias[0], ids)

    # Writing ----------------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(
        self,
        texts: Sequence[str],
        *,
        answers: int = 1,
        beams: int = 5,
        no_repeat: int = 3,
        length_penalty: float = 1.0,
        min_tokens: int = 0,
        max_tokens: int | None = None,
    ) -> list[list[str]]:
        """The likeliest `answers` texts of beam search for each text, best first.

        A mask in a text is written as the tokenizer's mask token. no_repeat: no run of so many tokens twice, 0 allows it.
        """
        if answers > beams:
            raise ConfigError(f"answers {answers}: expected at most as many as beams, {beams}")
        self.eval()
        device = self.network.device
        lines: list[str] = []
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            tokens = self.tokens(texts[start : start + _TEXTS_AT_ONCE])
            written = self.network.generate(
                input_ids=tokens.ids.to(device),
                attention_mask=tokens.mask.long().to(device),
                num_beams=beams,
                num_return_sequences=answers,
                no_repeat_ngram_size=no_repeat,
                length_penalty=length_penalty,
                min_new_tokens=min_tokens,
                max_new_tokens=max_tokens or self.config.max_tokens - 1,
                do_sample=False,
            )
            lines += self.tokenizer.batch_decode(written, skip_special_tokens=True)
        return [lines[i : i + answers] for i in range(0, len(lines), answers)]

    def fill(self, texts: Sequence[str], *, answers: int = 1, beams: int = 5) -> list[list[str]]:
        """Whole texts for texts with masks, a mask standing for any number of tokens; the likeliest `answers`, best first."""
        return self.generate(texts, answers=answers, beams=beams, no_repeat=0)

    def reconstruct(self, texts: Sequence[str], *, seed: int = 0, beams: int = 5) -> list[str]:
        """What the model makes of the texts when they are noised."""
        self.eval()
        return [best for (best,) in self.fill([noised for noised, _ in self.corrupt(texts, seed)], beams=beams)]

    @torch.no_grad()
    def reconstruct_score(self, texts: Sequence[str], *, draws: int = 8, seed: int = 0) -> np.ndarray:
        """[n] mean over draws of the noise of -log p(text | noised text) per token, in nats: high for an odd text."""
        self.eval()
        scores = np.zeros(len(texts))
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            for draw in range(draws):
                generator = np.random.default_rng((seed, draw, start))
                drawn = self._batch(texts[start : start + _TEXTS_AT_ONCE], generator)
                batch = {name: tensor.to(self.network.device) for name, tensor in drawn.items()}
                rows = zip(self._guesses(batch), batch["ids"], batch["wanted"])
                for i, (states, ids, wanted) in enumerate(rows, start):
                    scores[i] += float(self._nll(states[wanted], ids[wanted])) / max(1, int(wanted.sum()))
        return scores / draws
