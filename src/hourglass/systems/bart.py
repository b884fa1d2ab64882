"""BART: a document is corrupted, an encoder reads what is left, a decoder writes the document.

Lewis et al., *Denoising Sequence-to-Sequence Pre-training for Natural Language Generation, Translation, and
Comprehension*, 2019 (arXiv 1910.13461). In: texts. Out: an encoder-decoder that transformers opens as
BartForConditionalGeneration, and for each text a vector [d], the mean of the encoder's states.

1. noise g: sentences change places, spans of Poisson(3) words become one mask each (`bottlenecks/noising.py`);
2. the encoder reads g(x) in both directions, the decoder x shifted right by its start token;
3. loss: mean over tokens of -log p(x_t | x_<t, g(x)), always of the whole document;
4. noise is drawn anew whenever a document is seen;
5. in the last part of the training dropout is off (`dropout_until`).

The objectives that the paper compares with are settings: a language model, masked tokens (encoder alone), a masked
segment written by the decoder (MASS). Fine-tuning is in `uses/finetune/encoder_decoder.py`.

Differences from the paper:
- one document is one example, cut at `max_tokens`; the paper packs its documents into 512 tokens;
- the default tokens are bytes, where the paper takes GPT-2's byte pairs: name any tokenizer, or `byte_pairs` of a corpus;
- spans are of whole words, as in the authors' code, which also has 3.5 in place of 3 and a tenth of random tokens for the
  released model: `Noise(mask=0.3, mean=3.5, mask_random=0.1, permute=1.0)`;
- the objectives are those of one encoder-decoder; the paper gives some of them another network. Permuted and multitask
  language models, which need attention in two streams or masks of several kinds, are not here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from hourglass.adapters.huggingface_loading import loading_errors
from hourglass.bottlenecks.noising import (
    NOISES,
    SENTENCE_BREAKS,
    Noise,
    replace_spans,
    sentence_ends,
    sentence_ends_in_text,
)
from hourglass.errors import ConfigError, FolderError, SourceError, nearest
from hourglass.storage.atomic import read_json
from hourglass.training.randomness import number
from hourglass.waist import Batch, Losses, Waist, WaistConfig

OBJECTIVES = ("denoise", "language_model", "masked", "masked_seq2seq")


@dataclass(frozen=True, kw_only=True)
class BartConfig(WaistConfig):
    """Which network, and what it is asked to undo.

    init           folder or Hub id of a BART to go on from; None: from scratch, with the five sizes below
    tokenizer      folder or Hub id, "bytes": a token is a byte; of `init`, where that is given
    width, layers, ffn, heads, positions, dropout    layers of encoder and decoder each; positions: longest sequence
    noise          a `Noise`, its settings, or the name of one of `NOISES`
    sentences      what ends a sentence: the token "." ("full_stop"), or in the text "text" or "newline"
    objective      "denoise"; "language_model": nothing is read; "masked": the encoder restores masked tokens, no decoder;
                   "masked_seq2seq": the decoder writes a masked segment, and nothing else
    mask_share     of "masked" (the paper: 0.15) and "masked_seq2seq" (0.5)
    max_tokens     where texts are cut, with <s> and </s>
    dropout_until  step after which dropout is off (the paper: at nine tenths); None: never
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {"width": 32, "layers": 1, "ffn": 64, "heads": 2, "positions": 128, "max_tokens": 64},
        "base": {"width": 768, "layers": 6, "ffn": 3072, "heads": 12},
        "paper": {"width": 1024, "layers": 12, "ffn": 4096, "heads": 16},
    }

    init: str | None = None
    tokenizer: str = "bytes"
    width: int = 768
    layers: int = 6
    ffn: int = 3072
    heads: int = 12
    positions: int = 1024
    dropout: float = 0.1
    noise: Noise = NOISES["infill+shuffle"]
    sentences: Literal["full_stop", "text", "newline"] = "full_stop"
    objective: Literal["denoise", "language_model", "masked", "masked_seq2seq"] = "denoise"
    mask_share: float = 0.15
    max_tokens: int = 512
    dropout_until: int | None = None

    def __post_init__(self) -> None:
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
        for name, value, known in (
            ("objective", self.objective, OBJECTIVES),
            ("sentences", self.sentences, ("full_stop", *SENTENCE_BREAKS)),
        ):
            if value not in known:
                raise ConfigError(f"no {name} {value!r}{nearest(value, known)}")
        if not 0 < self.mask_share <= 1:
            raise ConfigError(f"mask_share {self.mask_share!r}: expected a share above 0 and up to 1")
        if self.max_tokens < 3:
            raise ConfigError(f"max_tokens {self.max_tokens}: expected at least 3: <s>, a token, </s>")
        if self.init is None and self.width % self.heads:
            raise ConfigError(f"width {self.width}: expected a multiple of heads {self.heads}")


class Bart(Waist):
    """Texts, denoised; the latent of a text is the mean of the encoder's states."""

    Config = BartConfig
    modality = "text"
    config: BartConfig
    steps_made: Tensor

    def __init__(self, config: BartConfig) -> None:
        super().__init__(config)
        self.tokenizer, self.network = _open(config)
        if self.tokenizer.mask_token_id is None:
            raise ConfigError(f"tokenizer {config.init or config.tokenizer!r} has no mask token: choose another")
        self.max_tokens = min(config.max_tokens, self.network.config.max_position_embeddings)
        special = set(self.tokenizer.all_special_ids)
        ordinary = (i for i in range(len(self.tokenizer)) if i not in special)
        self._ordinary = np.fromiter(ordinary, np.int64)
        self._full_stop = self.tokenizer.convert_tokens_to_ids(".")
        if config.noise.permute and config.sentences == "full_stop" and self._full_stop in {None, *special}:
            raise ConfigError("sentences 'full_stop': the tokenizer has no token '.'; choose 'text' or 'newline'")
        # Training is taken up where it stopped: also whether dropout is off by then.
        self.register_buffer("steps_made", torch.zeros((), dtype=torch.int64))

    # Texts to tensors -----------------------------------------------------------------------------

    def collate(self, examples: Sequence[Any]) -> Batch:
        """Noised and whole documents, padded; noise follows NumPy's global generator.

        read, read_mask      [n, S] what the encoder reads
        target, target_mask  [n, L] the whole document, and the tokens of it that are to be restored
        written              [n, L] what the decoder has before each of them
        whole_mask           [n, L] where `target` is no padding
        share                [n] 1 / the mean number of tokens to restore of an example: their mean over the batch is
                             the same however it is split
        """
        generator = np.random.default_rng(np.random.randint(2**63, dtype=np.int64))
        read, target, wanted = zip(*(self._example(*document, generator) for document in self._documents(examples)))
        whole = _padded(target, self._pad)
        wants = _padded(wanted, 0).bool()
        reads = _padded(read, self._pad)
        written = whole.roll(1, 1)
        written[:, 0] = self.network.config.decoder_start_token_id
        if self.config.objective == "masked_seq2seq":
            # What the encoder has is not shown to the decoder again.
            hidden = ~wants.roll(1, 1)
            hidden[:, 0] = False
            written = written.masked_fill(hidden, self.tokenizer.mask_token_id)
        return {
            "read": reads,
            "read_mask": _lengths_mask(read, reads.shape[1]),
            "target": whole,
            "target_mask": wants,
            "written": written,
            "whole_mask": _lengths_mask(target, whole.shape[1]),
            "share": torch.full((len(examples),), len(examples) / max(1, int(wants.sum()))),
        }

    def corrupt(self, texts: Sequence[str], seed: int = 0) -> list[tuple[str, str]]:
        """(noised, whole) for each text, as text: data for any model that reads and writes."""
        generator = np.random.default_rng(seed)
        pairs = [self._example(*document, generator)[:2] for document in self._documents(texts)]
        return [(self.tokenizer.decode(read[1:-1]), self.tokenizer.decode(whole[1:-1])) for read, whole in pairs]

    def _documents(self, texts: Sequence[Any]) -> Iterable[tuple[str, np.ndarray, np.ndarray]]:
        """Text, token ids and first and past-last characters [n, 2] of each, without special tokens."""
        if len(texts) == 0:
            raise SourceError("an empty batch: expected at least one text")
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise SourceError(f"example {i} is a {type(text).__name__}: expected a text (str)")
        tokens = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            return_offsets_mapping=True,
            truncation=True,
            max_length=self.max_tokens - 2,
        )
        for text, ids, spans in zip(texts, tokens["input_ids"], tokens["offset_mapping"]):
            yield text, np.array(ids, dtype=np.int64), np.array(spans, dtype=np.int64).reshape(-1, 2)

    def _example(
        self, text: str, ids: np.ndarray, spans: np.ndarray, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What is read, what is to be written, and which of it counts; with <s> and </s>."""
        mask = self.tokenizer.mask_token_id
        whole = self._between_specials(ids)
        wanted = np.ones(len(whole), bool)
        match self.config.objective:
            case "denoise":
                noise = self.config.noise
                ends = self._sentence_ends(text, ids, spans) if noise.permute and len(ids) else None
                starts = word_starts(text, spans) if noise.whole_words else None
                read = noise(ids, generator, mask_id=mask, random_ids=self._ordinary, starts=starts, ends=ends)
            case "language_model":
                read = ids[:0]
            case "masked":
                count = math.ceil(len(ids) * self.config.mask_share)
                read = replace_spans(ids, np.ones(count, np.int64), generator, mask_id=mask)
                wanted = np.concatenate([[False], read != ids, [False]])
            case "masked_seq2seq":
                size = math.ceil(len(ids) * self.config.mask_share)
                begin = int(generator.integers(len(ids) - size + 1))
                read = ids.copy()
                read[begin : begin + size] = mask
                wanted[:] = False
                wanted[begin + 1 : begin + 1 + size] = True
        longest = self.network.config.max_position_embeddings - 2  # inserted masks can make a document longer
        return self._between_specials(read[:longest]), whole, wanted

    def _between_specials(self, ids: np.ndarray) -> np.ndarray:
        return np.concatenate([[self.tokenizer.bos_token_id], ids, [self.tokenizer.eos_token_id]])

    def _sentence_ends(self, text: str, ids: np.ndarray, spans: np.ndarray) -> np.ndarray:
        if self.config.sentences == "full_stop":
            return sentence_ends(ids == self._full_stop)
        return sentence_ends_in_text(text, spans[:, 0], self.config.sentences)

    @property
    def _pad(self) -> int:
        return int(self.network.config.pad_token_id)

    # Learning ---------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> Losses:
        """{"nll"}: mean over the tokens to restore of -log p, in nats."""
        until = self.config.dropout_until
        self.network.train(self.training and (until is None or int(self.steps_made) < until))
        return {"nll": (self._nll(batch).sum(1) * batch["share"]).mean()}

    def after_step(self, step: int) -> None:
        self.steps_made.fill_(step)

    def _nll(self, batch: Batch) -> Tensor:
        """[n, L] -log p of each token to restore, 0 elsewhere."""
        if self.config.objective == "masked":
            states = self._read(batch["read"], batch["read_mask"])
            logits = self.network.lm_head(states) + self.network.final_logits_bias
        else:
            logits = self.network(
                input_ids=batch["read"],
                attention_mask=batch["read_mask"],
                decoder_input_ids=batch["written"],
                decoder_attention_mask=batch["whole_mask"],
                use_cache=False,
            ).logits
        targets = batch["target"].masked_fill(~batch["target_mask"], -100)
        return nn.functional.cross_entropy(logits.transpose(1, 2).float(), targets, reduction="none")

    # Reading ----------------------------------------------------------------------------------------

    def encode(self, batch: Batch) -> Tensor:
        """[n, d]: the mean of the encoder's last states over the whole text, <s> and </s> too."""
        mask = batch["whole_mask"]
        states = self._read(batch["target"], mask)
        weights = mask.to(states.dtype)[:, :, None]
        return (states * weights).sum(1) / weights.sum(1)

    def _read(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.network.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state

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
        """The likeliest `answers` continuations of beam search for each text, best first.

        A mask in a text is written as the tokenizer's mask token. no_repeat: no run of so many tokens twice, 0 allows it.
        """
        self.eval()
        if answers > beams:
            raise ConfigError(f"answers {answers}: expected at most as many as beams, {beams}")
        rows = [self._between_specials(ids) for _, ids, _ in self._documents(texts)]
        read = _padded(rows, self._pad).to(self.network.device)
        written = self.network.generate(
            input_ids=read,
            attention_mask=_lengths_mask(rows, read.shape[1]).to(read.device),
            num_beams=beams,
            num_return_sequences=answers,
            no_repeat_ngram_size=no_repeat,
            length_penalty=length_penalty,
            min_new_tokens=min_tokens,
            max_new_tokens=self.max_tokens - 1 if max_tokens is None else max_tokens,
            do_sample=False,
        )
        lines = self.tokenizer.batch_decode(written, skip_special_tokens=True)
        return [lines[i : i + answers] for i in range(0, len(lines), answers)]

    def fill(self, texts: Sequence[str], *, answers: int = 1, beams: int = 5) -> list[list[str]]:
        """Whole texts for texts with masks, a mask standing for any number of tokens; the likeliest `answers`, best first."""
        return self.generate(texts, answers=answers, beams=beams, no_repeat=0)

    def reconstruct(self, texts: Sequence[str], *, seed: int = 0, beams: int = 5) -> list[str]:
        """What the model makes of the texts when they are noised."""
        return [best for (best,) in self.fill([noised for noised, _ in self.corrupt(texts, seed)], beams=beams)]

    @torch.no_grad()
    def reconstruct_score(self, texts: Sequence[str], *, draws: int = 8, seed: int = 0) -> np.ndarray:
        """[n] mean over draws of the noise of -log p(text | noised text) per token, in nats: high for an odd text."""
        self.eval()
        scores = np.zeros(len(texts))
        for draw in range(draws):
            generator = np.random.get_state()
            np.random.seed(number(seed, draw))
            batch = {name: tensor.to(self.network.device) for name, tensor in self.collate(texts).items()}
            np.random.set_state(generator)
            scores += (self._nll(batch).sum(1) / batch["target_mask"].sum(1).clamp(min=1)).cpu().numpy()
        return scores / draws

    # The folder -------------------------------------------------------------------------------------

    def _save_pretrained(self, save_directory: Path) -> None:
        """A folder that transformers opens as a BART and sentence-transformers as the encoder's mean."""
        self.network.save_pretrained(save_directory)
        self.tokenizer.save_pretrained(save_directory)
        file = save_directory / "config.json"
        ours = {"system": self.system_name(), "hourglass": self.config.to_dict()}
        _write(file, {**json.loads(file.read_text(encoding="utf-8")), **ours})
        (save_directory / "1_Pooling").mkdir()
        _write(save_directory / "1_Pooling" / "config.json", _POOLING | {"word_embedding_dimension": self.width})
        _write(save_directory / "modules.json", _MODULES)
        _write(save_directory / "sentence_bert_config.json", _READS_ENCODER | {"max_seq_length": self.max_tokens})

    @property
    def width(self) -> int:
        """Size of a latent."""
        return int(self.network.config.d_model)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, config: Any = None, **hub: Any) -> Self:
        file = Path(model_id) / "config.json"
        values = read_json(file)
        if values.get("system") != cls.system_name():
            raise FolderError(f"{file}: holds the system {values.get('system')!r}, expected {cls.system_name()!r}")
        config = BartConfig.from_dict(values["hourglass"])
        model = cls(replace(config, init=model_id))
        model.config = config
        return model.eval()


def word_starts(text: str, spans: np.ndarray) -> np.ndarray:
    """[n] bool: tokens that begin with white space, come after some, or come first.

    spans  [n, 2] first and past-last character of each token in `text`
    """
    begins = spans[:, 0]
    starts = np.ones(len(spans), bool)
    starts[1:] = begins[1:] > spans[:-1, 1]
    fresh = np.diff(begins, prepend=-1) > 0  # of the bytes of one character only the first
    starts |= fresh & np.array([text[i : i + 1].isspace() for i in begins], bool)
    return starts


def byte_pairs(texts: Iterable[str] = (), size: int = 0) -> Any:
    """A tokenizer of byte pairs with BART's special tokens, <s> <pad> </s> <unk> first and <mask> last.

    size  of the vocabulary, learned from `texts`; without any a token is a byte
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    first = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=max(size - 1, len(first) + len(alphabet)),
        special_tokens=first,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokens.train_from_iterator(texts, trainer)
    tokens.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token=AddedToken("<mask>", lstrip=True, special=True),
        clean_up_tokenization_spaces=False,
    )


def _open(config: BartConfig) -> tuple[Any, Any]:
    """(tokenizer, network)"""
    from transformers import AutoTokenizer, BartForConditionalGeneration
    from transformers import BartConfig as Sizes

    if config.init is not None:
        with loading_errors(config.init, "BART"):
            network = BartForConditionalGeneration.from_pretrained(config.init)
            tokenizer = AutoTokenizer.from_pretrained(config.init, use_fast=True)
        if network.config.model_type != "bart":
            raise FolderError(f"{config.init}: holds a {network.config.model_type}, expected a bart")
        return tokenizer, network
    if config.tokenizer == "bytes":
        tokenizer = byte_pairs()
    else:
        with loading_errors(config.tokenizer, "tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(config.tokenizer, use_fast=True)
    if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
        raise ConfigError(f"tokenizer {config.tokenizer!r} has no <s> and </s> (bos and eos token): choose another")
    sizes = Sizes(
        vocab_size=len(tokenizer),
        d_model=config.width,
        encoder_layers=config.layers,
        decoder_layers=config.layers,
        encoder_ffn_dim=config.ffn,
        decoder_ffn_dim=config.ffn,
        encoder_attention_heads=config.heads,
        decoder_attention_heads=config.heads,
        max_position_embeddings=config.positions,
        dropout=config.dropout,
        attention_dropout=config.dropout,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
        forced_eos_token_id=None,
    )
    return tokenizer, BartForConditionalGeneration(sizes)


def _padded(rows: Sequence[np.ndarray], value: int) -> Tensor:
    return nn.utils.rnn.pad_sequence([torch.from_numpy(row.astype(np.int64)) for row in rows], True, value)


def _lengths_mask(rows: Sequence[np.ndarray], width: int) -> Tensor:
    return torch.arange(width) < torch.tensor([len(row) for row in rows])[:, None]


def _write(file: Path, values: Any) -> None:
    file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


_MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]
_POOLING = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
_READS_ENCODER = {
    "modality_config": {"text": {"method": "forward", "method_output_name": "encoder_last_hidden_state"}},
    "module_output_name": "token_embeddings",
}
"""Of an encoder-decoder sentence-transformers would take the decoder's states."""
